/* file.h: the only door to the file system for everything that must survive a crash, a full disk or
 * a hostile file.
 *
 * Tests inject faults here: file_fault_after(kind, n) makes the n-th write-side system call from
 * now (open for writing, write, fsync, close, rename, mkdir, unlink, rmdir) fail as the kind says.
 */
#ifndef NN_FILE_H
#define NN_FILE_H

#include "core/error.h"

/* A whole file mapped read-only. data is NULL and size 0 for an empty file. */
struct file_map {
    const unsigned char *data;
    size_t size;
};
plx_status file_map(const char *path, struct file_map *map, struct error *err);
void file_unmap(struct file_map *map);
/* Lets go of the memory of a part of a map that has been read: it is read from the file again
 * when it is needed again. */
void file_map_forget(const void *data, size_t bytes);
/* A whole file of at most limit bytes into malloc'd memory, with a NUL behind it. */
plx_status file_read_all(const char *path, size_t limit, char **text, size_t *size,
                         struct error *err);

bool file_exists(const char *path);
bool file_is_folder(const char *path);
plx_status file_make_folder(const char *path, struct error *err); /* and its parents, durably */
/* A file, or a folder with all it holds; symbolic links are removed, not followed. Absent is
 * success. */
plx_status file_remove_tree(const char *path, struct error *err);

/* A file being written. Short and interrupted writes are continued; every failure is reported with
 * path and reason; close fsyncs. After a failure of any call, file_writer_abandon is the only one
 * left to make. */
struct file_writer {
    int descriptor;
    char path[4096];
    uint64_t hash_state[80]; /* running XXH64 */
    size_t bytes;
};
plx_status file_writer_open(struct file_writer *writer, const char *path, struct error *err);
plx_status file_write(struct file_writer *writer, const void *data, size_t bytes,
                      struct error *err);
/* fsync and close; *hash (may be NULL) is the XXH64 of what was written. */
plx_status file_writer_close(struct file_writer *writer, uint64_t *hash, struct error *err);
/* Close and unlink; nothing where the writer is closed. */
void file_writer_abandon(struct file_writer *writer);
/* Writes a small file beside path, fsyncs, renames over path, fsyncs the folder. */
plx_status file_replace(const char *path, const void *data, size_t bytes, struct error *err);
plx_status file_rename(const char *from, const char *to,
                       struct error *err); /* and fsync the folder of to */
plx_status file_sync_folder(const char *path, struct error *err);
plx_status file_hash(const char *path, uint64_t *hash, size_t *bytes, struct error *err);

enum file_fault {
    FILE_FAULT_NONE,
    FILE_FAULT_NO_SPACE,    /* the call fails with ENOSPC */
    FILE_FAULT_SHORT_WRITE, /* a write takes only half of the bytes and says so; other calls succeed
                             */
    FILE_FAULT_IO,          /* the call fails with EIO */
    FILE_FAULT_INTERRUPT,   /* the call is interrupted by a signal once (EINTR) */
    FILE_FAULT_FLIP,        /* a write changes a bit and says nothing; other calls succeed */
    FILE_FAULT_KILL /* a write stops half-way, and neither it nor any later call reaches the disk,
                       which is left as if the process had been killed there; until the next
                       file_fault_after */
};
/* Test hook: the count-th write-side system call from now fails so (count from 1). Returns to
 * normal after. */
void file_fault_after(enum file_fault fault, int64_t count);
/* Whether the fault has not struck yet. */
bool file_fault_pending(void);

#endif
