/* io_files.h: what the tests of nn/io share: a folder of their own, small files in it, and a check
 * that a call failed with a sentence that says the right things. */
#ifndef TEST_IO_FILES_H
#define TEST_IO_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/file.h"

/* The folder of the running test: made by the group's setup, removed by its teardown. In memory
 * where that is possible, because the fault tests flush tens of thousands of files and prove
 * nothing about the disk; otherwise in the working folder. */
static char io_folder[64];

static inline int io_folder_make(void **state)
{
    (void)state;
    snprintf(io_folder, sizeof io_folder, "/dev/shm/io_test_XXXXXX");
    if (mkdtemp(io_folder) != NULL) return 0;
    snprintf(io_folder, sizeof io_folder, "io_test_XXXXXX");
    return mkdtemp(io_folder) != NULL ? 0 : -1;
}

static inline int io_folder_remove(void **state)
{
    (void)state;
    file_fault_after(FILE_FAULT_NONE, 0);
    struct error err = {0};
    return file_remove_tree(io_folder, &err) == PLX_OK ? 0 : -1;
}

/* "FOLDER/NAME", in one of a few buffers that take turns. */
static inline const char *io_path(const char *name)
{
    static char paths[8][512];
    static int turn;
    turn = (turn + 1) % 8;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", io_folder, name);
    return paths[turn];
}

/* The same in a folder of that folder, whose path io_path may hold. */
static inline const char *io_inside(const char *folder, const char *name)
{
    static char paths[4][600];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

static inline void io_write(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void io_write_text(const char *path, const char *text)
{
    io_write(path, text, strlen(text));
}

static inline void assert_ok(plx_status status, const struct error *err)
{
    if (status != PLX_OK) print_error("%s: %s\n", plx_status_name(status), err->text);
    assert_int_equal(status, PLX_OK);
}

/* A path of the name at which there is nothing. */
static inline const char *io_absent(const char *name)
{
    struct error err = {0};
    const char *path = io_path(name);
    assert_ok(file_remove_tree(path, &err), &err);
    return path;
}

/* The call failed with this status, and its sentence holds the fragment. Clears err. */
static inline void assert_refused(plx_status status, plx_status expected, const char *fragment,
                                  struct error *err)
{
    if (status != expected || strstr(err->text, fragment) == NULL)
        print_error("expected %s with \"%s\", found %s with \"%s\"\n", plx_status_name(expected),
                    fragment, plx_status_name(status), err->text);
    assert_int_equal(status, expected);
    assert_int_equal(err->status, expected);
    assert_non_null(strstr(err->text, fragment));
    error_clear(err);
}

#endif
