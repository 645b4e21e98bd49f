/* safetensors.h: reading and writing model.safetensors.
 *
 * The reader maps the file and refuses every malformed one with a sentence; the rules are numbered
 * in safetensors.c and each has its named test. Data is little-endian and may be unaligned. */
#ifndef NN_SAFETENSORS_H
#define NN_SAFETENSORS_H

#include "core/device.h"
#include "io/file.h"

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

/* Elements first .. first + count - 1 of an entry in another type of floating-point numbers: "F32",
 * "BF16", "F16" or "F64". */
plx_status safetensors_convert(const struct safetensors_entry *entry, const char *file_name,
                               int64_t first, int64_t count, const char *dtype, void *out,
                               struct error *err);
/* Bytes of a number of such a type; 0 for every other dtype. */
size_t safetensors_float_bytes(const char *dtype);
/* Bits of a number of any dtype that files have; 0 for other names. */
unsigned safetensors_dtype_bits(const char *dtype);

/* safetensors_read of floating-point numbers into a tensor in a device's memory. */
plx_status safetensors_load(const struct safetensors_entry *entry, const char *file_name,
                            const struct plx_tensor *tensor, const struct device *device,
                            plx_stream stream, struct error *err);

/* Whether safetensors_read could: the shapes are equal and the types convertible. */
plx_status safetensors_check(const struct safetensors_entry *entry, const char *file_name,
                             const struct plx_tensor *tensor, struct error *err);

/* The name of a dtype in files: "F32" and so on; NULL for a value that is not a dtype. */
const char *safetensors_dtype(plx_dtype dtype);

/* A file written tensor by tensor, for data that is not in memory all at once: first the header,
 * then the data of each tensor in the order of the specs, in any pieces. Wide elements should come
 * first, so that every tensor is aligned to its elements. After a failure only
 * safetensors_writer_abandon is left to call. */
struct safetensors_spec {
    const char *name, *dtype; /* dtype as written in files */
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
};
struct safetensors_writer {
    struct file_writer file;
    size_t promised; /* bytes of the file by its header */
};
plx_status safetensors_writer_open(struct safetensors_writer *writer, const char *path,
                                   const struct safetensors_spec *specs, int count,
                                   const char *const (*metadata)[2], int metadata_count,
                                   struct error *err);
plx_status safetensors_writer_data(struct safetensors_writer *writer, const void *data,
                                   size_t bytes, struct error *err);
/* Fsyncs; refuses where less or more than the header promised was written. */
plx_status safetensors_writer_close(struct safetensors_writer *writer, struct error *err);
void safetensors_writer_abandon(struct safetensors_writer *writer);
/* Bytes of a tensor; its dtype must be one that files have. */
size_t safetensors_spec_bytes(const struct safetensors_spec *spec);

struct safetensors_write {
    const char *name;
    struct plx_tensor tensor; /* dense, f32, bf16, f64 or i32 */
};
/* Writes to path directly (callers write into a temporary folder or use file_replace), header
 * padded to 8, and fsyncs. metadata: count pairs of key and value, may be NULL. */
plx_status safetensors_save(const char *path, const struct safetensors_write *entries, int count,
                            const char *const (*metadata)[2], int metadata_count,
                            struct error *err);
/* The same with tensors in a device's memory or the host's, all of them converted where dtype is
 * not NULL. */
plx_status safetensors_save_from(const char *path, const struct safetensors_write *entries,
                                 int count, const plx_dtype *dtype, const struct device *device,
                                 plx_stream stream, const char *const (*metadata)[2],
                                 int metadata_count, struct error *err);

#endif
