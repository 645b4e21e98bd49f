/* file.c: reading, mapping and durable writing of files; see file.h.
 *
 * Reading is by three roads: file_map for tensors, file_read_all for small texts, and file_hash,
 * which reads through a buffer, so that a bad sector is an error here and not a signal in whoever
 * touches the map later. Writing goes through the system calls in the first section, each of which
 * asks the fault hook before it acts. */
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
/* For the size of the hash state, which lives in struct file_writer. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

/* ---- System calls with faults ---------------------------------------------------------------- */

/* The state of the test hook: the kind of fault, and how many calls are left until it strikes. */
static struct {
    enum file_fault kind;
    int64_t left;
} file_fault;

void file_fault_after(enum file_fault fault, int64_t count)
{
    file_fault.kind = fault;
    file_fault.left = count;
}

bool file_fault_pending(void)
{
    return file_fault.kind != FILE_FAULT_NONE && file_fault.left > 0;
}

/* Counts one call and says which fault it suffers. */
static enum file_fault fault_of_this_call(void)
{
    if (file_fault.kind == FILE_FAULT_NONE) return FILE_FAULT_NONE;
    if (file_fault.left > 0 && --file_fault.left > 0) return FILE_FAULT_NONE;
    enum file_fault kind = file_fault.kind;
    if (kind != FILE_FAULT_KILL) file_fault.kind = FILE_FAULT_NONE;
    return kind;
}

/* Whether a call other than a write fails, with errno set. */
static bool call_fails(void)
{
    switch (fault_of_this_call()) {
    case FILE_FAULT_NO_SPACE:
        errno = ENOSPC;
        return true;
    case FILE_FAULT_IO:
    case FILE_FAULT_KILL:
        errno = EIO;
        return true;
    case FILE_FAULT_INTERRUPT:
        errno = EINTR;
        return true;
    case FILE_FAULT_NONE:
    case FILE_FAULT_SHORT_WRITE:
    case FILE_FAULT_FLIP:
        break;
    }
    return false;
}

static int call_open(const char *path, int flags)
{
    int descriptor;
    do descriptor = call_fails() ? -1 : open(path, flags | O_CLOEXEC, 0666);
    while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

/* The first half, and one byte more with a wrong bit; the rest is left for the next call. */
static ssize_t write_flipped(int descriptor, const unsigned char *data, size_t bytes)
{
    const size_t middle = bytes / 2;
    const unsigned char wrong = data[middle] ^ 1;
    ssize_t written = write(descriptor, data, middle);
    if (written == (ssize_t)middle) written += write(descriptor, &wrong, 1);
    return written;
}

static ssize_t call_write(int descriptor, const void *data, size_t bytes)
{
    bool killed = file_fault.kind == FILE_FAULT_KILL && file_fault.left <= 0;
    enum file_fault fault = fault_of_this_call();
    switch (fault) {
    case FILE_FAULT_NO_SPACE:
        errno = ENOSPC;
        return -1;
    case FILE_FAULT_IO:
        errno = EIO;
        return -1;
    case FILE_FAULT_INTERRUPT:
        errno = EINTR;
        return -1;
    case FILE_FAULT_SHORT_WRITE:
        return write(descriptor, data, bytes - bytes / 2);
    case FILE_FAULT_FLIP:
        return write_flipped(descriptor, data, bytes);
    case FILE_FAULT_KILL:
        if (!killed && write(descriptor, data, bytes / 2) < 0) return -1;
        errno = EIO;
        return -1;
    case FILE_FAULT_NONE:
        break;
    }
    return write(descriptor, data, bytes);
}

static int call_fsync(int descriptor)
{
    int result;
    do result = call_fails() ? -1 : fsync(descriptor);
    while (result != 0 && errno == EINTR);
    return result;
}

/* An interrupted close has closed; a failing one has too, so the descriptor is never used again. */
static int call_close(int descriptor)
{
    bool failed = call_fails();
    int reason = errno;
    int result = close(descriptor);
    if (failed) errno = reason;
    if (failed || result != 0) return errno == EINTR ? 0 : -1;
    return 0;
}

static int call_rename(const char *from, const char *to)
{
    int result;
    do result = call_fails() ? -1 : rename(from, to);
    while (result != 0 && errno == EINTR);
    return result;
}

static int call_mkdir(const char *path)
{
    int result;
    do result = call_fails() ? -1 : mkdir(path, 0777);
    while (result != 0 && errno == EINTR);
    return result;
}

static int call_unlink(int folder, const char *name, int flags)
{
    int result;
    do result = call_fails() ? -1 : unlinkat(folder, name, flags);
    while (result != 0 && errno == EINTR);
    return result;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* Opens for reading. Non-blocking, so that a pipe without a writer cannot hang the open. */
static plx_status open_to_read(const char *path, int *descriptor, struct stat *info,
                               struct error *err)
{
    do *descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (*descriptor < 0 && errno == EINTR);
    REQUIRE(err, *descriptor >= 0, PLX_IO_ERROR, "%s: cannot open: %s", path, strerror(errno));
    const char *problem = NULL;
    if (fstat(*descriptor, info) != 0)
        problem = strerror(errno);
    else if (S_ISDIR(info->st_mode))
        problem = "is a folder, not a file";
    else if (!S_ISREG(info->st_mode))
        problem = "is a device, pipe or socket, not a file";
    if (problem == NULL) return PLX_OK;
    close(*descriptor);
    return error_set(err, PLX_IO_ERROR, "%s: %s", path, problem);
}

plx_status file_map(const char *path, struct file_map *map, struct error *err)
{
    *map = (struct file_map){0};
    int descriptor;
    struct stat info;
    TRY(open_to_read(path, &descriptor, &info, err));
    void *data = NULL;
    size_t size = (size_t)info.st_size;
    if (size > 0) data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    int reason = errno;
    close(descriptor);
    REQUIRE(err, data != MAP_FAILED, PLX_IO_ERROR, "%s: cannot map %zu bytes: %s", path, size,
            strerror(reason));
    *map = (struct file_map){data, size};
    return PLX_OK;
}

void file_unmap(struct file_map *map)
{
    if (map->data != NULL) munmap((void *)map->data, map->size);
    *map = (struct file_map){0};
}

void file_map_forget(const void *data, size_t bytes)
{
    /* Only pages that lie wholly inside: the others may be in use by a neighbour. */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/* Fills the buffer unless the file ends first; *got says how much. */
static plx_status read_fully(int descriptor, const char *path, void *buffer, size_t bytes,
                             size_t *got, struct error *err)
{
    *got = 0;
    while (*got < bytes) {
        ssize_t count = read(descriptor, (char *)buffer + *got, bytes - *got);
        if (count < 0 && errno == EINTR) continue;
        REQUIRE(err, count >= 0, PLX_IO_ERROR, "%s: cannot read: %s", path, strerror(errno));
        if (count == 0) break;
        *got += (size_t)count;
    }
    return PLX_OK;
}

plx_status file_read_all(const char *path, size_t limit, char **text, size_t *size,
                         struct error *err)
{
    *text = NULL;
    *size = 0;
    int descriptor;
    struct stat info;
    TRY(open_to_read(path, &descriptor, &info, err));
    size_t bytes = (size_t)info.st_size;
    char *buffer = NULL;
    plx_status status = PLX_OK;
    if (bytes > limit)
        status = error_set(err, PLX_BAD_DATA, "%s: has %zu bytes, more than the %zu allowed", path,
                           bytes, limit);
    else if ((buffer = malloc(bytes + 1)) == NULL)
        status = error_set(err, PLX_OUT_OF_MEMORY, "%s: cannot allocate %zu bytes", path, bytes);
    else
        status = read_fully(descriptor, path, buffer, bytes, size, err);
    close(descriptor);
    if (status != PLX_OK) {
        free(buffer);
        *size = 0;
        return status;
    }
    buffer[*size] = '\0';
    *text = buffer;
    return PLX_OK;
}

plx_status file_hash(const char *path, uint64_t *hash, size_t *bytes, struct error *err)
{
    int descriptor;
    struct stat info;
    TRY(open_to_read(path, &descriptor, &info, err));
    XXH64_state_t state;
    XXH64_reset(&state, 0);
    unsigned char buffer[1 << 16];
    size_t got = 0;
    *bytes = 0;
    plx_status status;
    do {
        status = read_fully(descriptor, path, buffer, sizeof buffer, &got, err);
        XXH64_update(&state, buffer, got);
        *bytes += got;
    } while (status == PLX_OK && got == sizeof buffer);
    close(descriptor);
    *hash = XXH64_digest(&state);
    return status;
}

bool file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* ---- Writing --------------------------------------------------------------------------------- */

_Static_assert(sizeof(XXH64_state_t) <= sizeof(((struct file_writer *)0)->hash_state),
               "file_writer holds the hash state");

plx_status file_writer_open(struct file_writer *writer, const char *path, struct error *err)
{
    writer->descriptor = -1;
    writer->path[0] = '\0';
    writer->bytes = 0;
    XXH64_reset((XXH64_state_t *)(void *)writer->hash_state, 0);
    REQUIRE(err, strlen(path) < sizeof writer->path, PLX_INVALID_ARGUMENT,
            "%.80s...: the path has %zu bytes, more than %zu", path, strlen(path),
            sizeof writer->path - 1);
    writer->descriptor = call_open(path, O_WRONLY | O_CREAT | O_TRUNC);
    REQUIRE(err, writer->descriptor >= 0, PLX_IO_ERROR, "%s: cannot open for writing: %s", path,
            strerror(errno));
    memcpy(writer->path, path, strlen(path) + 1);
    return PLX_OK;
}

plx_status file_write(struct file_writer *writer, const void *data, size_t bytes, struct error *err)
{
    /* Linux writes at most 0x7ffff000 bytes a call; smaller pieces also keep interruptions cheap.
     */
    const size_t piece = (size_t)1 << 28;
    const unsigned char *next = data;
    size_t left = bytes;
    while (left > 0) {
        ssize_t written = call_write(writer->descriptor, next, left < piece ? left : piece);
        if (written < 0 && errno == EINTR) continue;
        REQUIRE(err, written >= 0, PLX_IO_ERROR, "%s: cannot write: %s", writer->path,
                strerror(errno));
        REQUIRE(err, written > 0, PLX_IO_ERROR, "%s: cannot write: the system took no byte of %zu",
                writer->path, left);
        next += written;
        left -= (size_t)written;
    }
    if (bytes > 0) XXH64_update((XXH64_state_t *)(void *)writer->hash_state, data, bytes);
    writer->bytes += bytes;
    return PLX_OK;
}

plx_status file_writer_close(struct file_writer *writer, uint64_t *hash, struct error *err)
{
    int synced = call_fsync(writer->descriptor);
    int reason = errno;
    int closed = call_close(writer->descriptor);
    if (synced == 0) reason = errno;
    writer->descriptor = -1;
    REQUIRE(err, synced == 0 && closed == 0, PLX_IO_ERROR, "%s: cannot flush to disk: %s",
            writer->path, strerror(reason));
    writer->path[0] = '\0';
    if (hash != NULL) *hash = XXH64_digest((XXH64_state_t *)(void *)writer->hash_state);
    return PLX_OK;
}

void file_writer_abandon(struct file_writer *writer)
{
    if (writer->descriptor >= 0) call_close(writer->descriptor);
    if (writer->path[0] != '\0') call_unlink(AT_FDCWD, writer->path, 0);
    writer->descriptor = -1;
    writer->path[0] = '\0';
}

plx_status file_sync_folder(const char *path, struct error *err)
{
    int descriptor = call_open(path, O_RDONLY | O_DIRECTORY);
    REQUIRE(err, descriptor >= 0, PLX_IO_ERROR, "%s: cannot open to flush: %s", path,
            strerror(errno));
    int result = call_fsync(descriptor);
    int reason = errno;
    close(descriptor);
    REQUIRE(err, result == 0, PLX_IO_ERROR, "%s: cannot flush to disk: %s", path, strerror(reason));
    return PLX_OK;
}

/* fsync of the folder that holds path. */
static plx_status sync_parent(const char *path, struct error *err)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    while (length > 0 && path[length - 1] != '/') length--;
    while (length > 1 && path[length - 1] == '/') length--;
    char *parent = length > 0 ? strndup(path, length) : strdup(".");
    REQUIRE(err, parent != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    plx_status status = file_sync_folder(parent, err);
    free(parent);
    return status;
}

plx_status file_rename(const char *from, const char *to, struct error *err)
{
    REQUIRE(err, call_rename(from, to) == 0, PLX_IO_ERROR, "%s: cannot rename to %s: %s", from, to,
            strerror(errno));
    return sync_parent(to, err);
}

plx_status file_replace(const char *path, const void *data, size_t bytes, struct error *err)
{
    struct file_writer writer;
    char beside[sizeof writer.path];
    int length = snprintf(beside, sizeof beside, "%s.partial", path);
    REQUIRE(err, length < (int)sizeof beside, PLX_INVALID_ARGUMENT,
            "%.80s...: the path has %zu bytes, too many", path, strlen(path));
    plx_status status = file_writer_open(&writer, beside, err);
    if (status == PLX_OK) status = file_write(&writer, data, bytes, err);
    if (status == PLX_OK) status = file_writer_close(&writer, NULL, err);
    if (status != PLX_OK) {
        file_writer_abandon(&writer);
        return status;
    }
    return file_rename(beside, path, err);
}

/* ---- Folders --------------------------------------------------------------------------------- */

/* One level: the folder exists afterwards, and its name is durable. */
static plx_status make_one_folder(const char *path, struct error *err)
{
    if (file_is_folder(path)) return PLX_OK;
    if (call_mkdir(path) != 0) {
        int reason = errno;
        if (reason == EEXIST && file_is_folder(path)) return PLX_OK;
        return error_set(err, PLX_IO_ERROR, "%s: cannot make the folder: %s", path,
                         reason == EEXIST ? "a file of that name exists" : strerror(reason));
    }
    return sync_parent(path, err);
}

plx_status file_make_folder(const char *path, struct error *err)
{
    char *prefix = strdup(path);
    REQUIRE(err, prefix != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    plx_status status = PLX_OK;
    for (size_t i = 1; status == PLX_OK && i < strlen(path); i++) {
        if (path[i] != '/' || path[i - 1] == '/') continue;
        prefix[i] = '\0';
        status = make_one_folder(prefix, err);
        prefix[i] = '/';
    }
    if (status == PLX_OK) status = make_one_folder(path, err);
    free(prefix);
    return status;
}

static plx_status remove_entry(int folder, const char *name, const char *path, struct error *err);

/* Removes what is in an open folder; takes over the descriptor. */
static plx_status remove_content(int descriptor, const char *path, struct error *err)
{
    DIR *listing = fdopendir(descriptor);
    if (listing == NULL) {
        close(descriptor);
        return error_set(err, PLX_IO_ERROR, "%s: cannot list: %s", path, strerror(errno));
    }
    plx_status status = PLX_OK;
    struct dirent *entry;
    while (status == PLX_OK && (entry = readdir(listing)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = remove_entry(dirfd(listing), entry->d_name, path, err);
    closedir(listing);
    return status;
}

/* Removes one name of a folder, whatever it is; path is the tree's root, for messages. */
static plx_status remove_entry(int folder, const char *name, const char *path, struct error *err)
{
    int descriptor = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor >= 0)
        TRY(remove_content(descriptor, path, err));
    else if (errno == ENOENT)
        return PLX_OK;
    else
        REQUIRE(err, errno == ENOTDIR || errno == ELOOP, PLX_IO_ERROR,
                "%s: cannot remove %s in it: %s", path, name, strerror(errno));
    int removed = call_unlink(folder, name, descriptor >= 0 ? AT_REMOVEDIR : 0);
    REQUIRE(err, removed == 0 || errno == ENOENT, PLX_IO_ERROR, "%s: cannot remove %s: %s", path,
            name, strerror(errno));
    return PLX_OK;
}

plx_status file_remove_tree(const char *path, struct error *err)
{
    return remove_entry(AT_FDCWD, path, path, err);
}
