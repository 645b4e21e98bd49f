/* scarce.c: see scarce.h. The linker sends malloc to __wrap_malloc and __real_malloc to malloc. */
#include "scarce.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *block, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *block);
char *__real_realpath(const char *path, char *resolved);
DIR *__real_opendir(const char *path);
DIR *__real_fdopendir(int descriptor);
int __real_scandir(const char *path, struct dirent ***entries, int (*filter)(const struct dirent *),
                   int (*compare)(const struct dirent **, const struct dirent **));

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *block, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_free(void *block);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);
int __wrap_asprintf(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *__wrap_realpath(const char *path, char *resolved);
DIR *__wrap_opendir(const char *path);
DIR *__wrap_fdopendir(int descriptor);
int __wrap_scandir(const char *path, struct dirent ***entries, int (*filter)(const struct dirent *),
                   int (*compare)(const struct dirent **, const struct dirent **));

static struct {
    int64_t left; /* allocations until the one that fails; 0: none will */
    int64_t live;
    bool lasting, struck;
} scarce;

void scarce_after(int64_t count, bool lasting)
{
    scarce.left = count;
    scarce.lasting = lasting;
    scarce.struck = false;
}

bool scarce_struck(void)
{
    return scarce.struck;
}

int64_t scarce_live(void)
{
    return scarce.live;
}

/* Whether the allocation at hand is one that fails. */
static bool refused(void)
{
    bool fails = scarce.struck && scarce.lasting;
    if (scarce.left > 0 && --scarce.left == 0) fails = scarce.struck = true;
    if (fails) errno = ENOMEM;
    return fails;
}

static void *counted(void *block)
{
    if (block != NULL) scarce.live++;
    return block;
}

void *__wrap_malloc(size_t bytes)
{
    return refused() ? NULL : counted(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return refused() ? NULL : counted(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *block, size_t bytes)
{
    if (refused()) return NULL;
    void *grown = __real_realloc(block, bytes);
    return block == NULL ? counted(grown) : grown;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return refused() ? NULL : counted(__real_aligned_alloc(alignment, bytes));
}

void __wrap_free(void *block)
{
    if (block != NULL) scarce.live--;
    __real_free(block);
}

char *__wrap_strndup(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    char *copy = __wrap_malloc(length + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *__wrap_strdup(const char *text)
{
    return __wrap_strndup(text, strlen(text));
}

int __wrap_asprintf(char **text, const char *format, ...)
{
    *text = NULL;
    if (refused()) return -1;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(text, format, arguments);
    va_end(arguments);
    if (length >= 0) counted(*text);
    return length;
}

char *__wrap_realpath(const char *path, char *resolved)
{
    if (resolved != NULL) return __real_realpath(path, resolved);
    return refused() ? NULL : counted(__real_realpath(path, NULL));
}

DIR *__wrap_opendir(const char *path)
{
    return refused() ? NULL : __real_opendir(path);
}

DIR *__wrap_fdopendir(int descriptor)
{
    return refused() ? NULL : __real_fdopendir(descriptor);
}

int __wrap_scandir(const char *path, struct dirent ***entries, int (*filter)(const struct dirent *),
                   int (*compare)(const struct dirent **, const struct dirent **))
{
    if (refused()) return -1;
    int count = __real_scandir(path, entries, filter, compare);
    if (count >= 0) scarce.live += count + 1;
    return count;
}
