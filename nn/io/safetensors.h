/* safetensors.h: reading and writing model.safetensors.
 *
 * The reader maps the file and refuses every malformed one with a sentence; the rules are numbered
 * in safetensors.c and each has its named test. Data is little-endian and may be unaligned. */
#ifndef NN_SAFETENSORS_H
#define NN_SAFETENSORS_H

#include "core/error.h"

enum { SAFETENSORS_MAX_RANK = 8 };

struct safetensors_entry {
    const char *name;
    const char *dtype; /* as written in the file: "F32", "BF16", "I64", ... */
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
    const unsigned char *data; /* in the mapped file */
    size_t bytes;
};

struct safetensors;

plx_status safetensors_open(const char *path, struct safetensors **file, struct error *err);
/* The same on memory that the caller keeps; name is for messages. The fuzz target calls this. */
plx_status safetensors_parse(const void *memory, size_t size, const char *name,
                             struct safetensors **file, struct error *err);
void safetensors_close(struct safetensors *file);
int safetensors_count(const struct safetensors *file);
const struct safetensors_entry *safetensors_at(const struct safetensors *file, int index);
/* NULL where absent. */
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name);
/* Value of a __metadata__ key, or NULL. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);
/* Copies an entry into a dense tensor of the same shape, converting F32, BF16, F16, F64 to
 * f32/bf16/f64, and I32, I64 to i32 with a range check. file_name is for messages. */
plx_status safetensors_read(const struct safetensors_entry *entry, const char *file_name,
                            const struct plx_tensor *tensor, struct error *err);

/* Whether safetensors_read could: the shapes are equal and the types convertible. */
plx_status safetensors_check(const struct safetensors_entry *entry, const char *file_name,
                             const struct plx_tensor *tensor, struct error *err);

/* The name of a dtype in files: "F32" and so on; NULL for a value that is not a dtype. */
const char *safetensors_dtype(plx_dtype dtype);

struct safetensors_write {
    const char *name;
    struct plx_tensor tensor; /* dense, f32, bf16, f64 or i32 */
};
/* Writes to path directly (callers write into a temporary folder or use file_replace), header
 * padded to 8, and fsyncs. metadata: count pairs of key and value, may be NULL. */
plx_status safetensors_save(const char *path, const struct safetensors_write *entries, int count,
                            const char *const (*metadata)[2], int metadata_count,
                            struct error *err);

#endif
