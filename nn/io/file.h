/* file.h: the only door to the file system for everything that must survive a crash, a full disk or a hostile file.
 *
 * Tests inject faults here: file_fault_after(n) makes the n-th write-side call fail as if the disk were full, or write
 * short. */
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
/* A whole file of at most limit bytes into malloc'd memory, with a NUL behind it. */
plx_status file_read_all(const char *path, size_t limit, char **text, size_t *size, struct error *err);

bool file_exists(const char *path);
bool file_is_folder(const char *path);
plx_status file_make_folder(const char *path, struct error *err);   /* and its parents */
plx_status file_remove_tree(const char *path, struct error *err);

/* A file being written. Every failure (short write, no space) is reported with path and reason; close fsyncs. */
struct file_writer {
    int descriptor;
    char path[4096];
    uint64_t hash_state[80];     /* running XXH64 */
    size_t bytes;
};
plx_status file_writer_open(struct file_writer *writer, const char *path, struct error *err);
plx_status file_write(struct file_writer *writer, const void *data, size_t bytes, struct error *err);
/* fsync and close; *hash (may be NULL) is the XXH64 of what was written. */
plx_status file_writer_close(struct file_writer *writer, uint64_t *hash, struct error *err);
void file_writer_abandon(struct file_writer *writer);  /* close and unlink */
/* Writes a small file beside path, fsyncs, renames over path, fsyncs the folder. */
plx_status file_replace(const char *path, const void *data, size_t bytes, struct error *err);
plx_status file_rename(const char *from, const char *to, struct error *err);  /* and fsync the folder of to */
plx_status file_sync_folder(const char *path, struct error *err);
plx_status file_hash(const char *path, uint64_t *hash, size_t *bytes, struct error *err);

enum file_fault { FILE_FAULT_NONE, FILE_FAULT_NO_SPACE, FILE_FAULT_SHORT_WRITE, FILE_FAULT_IO };
/* Test hook: the count-th write-side system call from now fails so (count from 1). Returns to normal after. */
void file_fault_after(enum file_fault fault, int64_t count);

#endif
