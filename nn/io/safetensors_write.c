/* safetensors_write.c: writing tensors as a safetensors file.
 *
 * The header is strict where readers are lax: it begins with '{', and only spaces follow it, so
 * that the data begins at a multiple of 8. Tensors are laid out by falling element size, each kind
 * in the order given, so that every one is aligned to its elements whatever the counts are. */
#include "io/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/transfer.h"
#include "data/utf8.h"
#include "io/fields.h"
#include "io/file.h"

#define HEADER_LIMIT 100000000u

const char *safetensors_dtype(plx_dtype dtype)
{
    switch (dtype) {
    case PLX_F32:
        return "F32";
    case PLX_BF16:
        return "BF16";
    case PLX_F64:
        return "F64";
    case PLX_I32:
        return "I32";
    case PLX_F16:
        return "F16";
    case PLX_F8E4M3:
        return "F8_E4M3";
    }
    return NULL;
}

static size_t tensor_bytes(const struct plx_tensor *tensor)
{
    return (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
}

static bool is_dense(const struct plx_tensor *tensor)
{
    int64_t step = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->stride[i] != step) return false;
        step *= tensor->shape[i];
    }
    return true;
}

static plx_status check_entry(const char *path, const struct safetensors_write *entry,
                              const struct device *device, struct error *err)
{
    const struct plx_tensor *tensor = &entry->tensor;
    REQUIRE(err, strcmp(entry->name, "__metadata__") != 0, PLX_INVALID_ARGUMENT,
            "%s: a tensor cannot be named __metadata__", path);
    REQUIRE(err, safetensors_dtype(tensor->dtype) != NULL, PLX_INVALID_ARGUMENT,
            "%s: tensor %.200s has the dtype %d, which cannot be written", path, entry->name,
            (int)tensor->dtype);
    REQUIRE(err, tensor->rank >= 1 && tensor->rank <= PLX_MAX_RANK, PLX_INVALID_ARGUMENT,
            "%s: tensor %.200s has %d dimensions, not 1 to %d", path, entry->name, tensor->rank,
            PLX_MAX_RANK);
    bool here = tensor->device == device->kind || tensor->device == PLX_CPU;
    REQUIRE(err, here && is_dense(tensor), PLX_INVALID_ARGUMENT,
            "%s: tensor %.200s is not a dense tensor in the memory of %s", path, entry->name,
            device->name);
    REQUIRE(err, tensor->data != NULL || tensor_bytes(tensor) == 0, PLX_INVALID_ARGUMENT,
            "%s: tensor %.200s has no data", path, entry->name);
    return PLX_OK;
}

/* ---- Tensor by tensor ------------------------------------------------------------------------ */

size_t safetensors_spec_bytes(const struct safetensors_spec *spec)
{
    size_t count = 1;
    for (int i = 0; i < spec->rank; i++) count *= (size_t)spec->shape[i];
    return count * safetensors_dtype_bits(spec->dtype) / 8;
}

/* {"dtype":..., "shape":[...], "data_offsets":[begin, end]}; NULL when out of memory. */
static json_t *describe(const struct safetensors_spec *spec, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < spec->rank; i++) {
        if (json_array_append_new(shape, json_integer(spec->shape[i])) == 0) continue;
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", spec->dtype, "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + safetensors_spec_bytes(spec)));
}

/* Members of the header, and the bytes of data that they promise. */
static plx_status add_specs(const char *path, const struct safetensors_spec *specs, int count,
                            json_t *header, size_t *data_bytes, struct error *err)
{
    *data_bytes = 0;
    for (int i = 0; i < count; i++) {
        REQUIRE(err, json_object_get(header, specs[i].name) == NULL, PLX_INVALID_ARGUMENT,
                "%s: two tensors are named %.200s", path, specs[i].name);
        REQUIRE(err, utf8_is_text(specs[i].name), PLX_INVALID_ARGUMENT,
                "%s: the name of tensor %.200s is not UTF-8", path, specs[i].name);
        json_t *description = describe(&specs[i], *data_bytes);
        REQUIRE(err, json_object_set_new(header, specs[i].name, description) == 0,
                PLX_OUT_OF_MEMORY, "%s: cannot format the header", path);
        *data_bytes += safetensors_spec_bytes(&specs[i]);
    }
    return PLX_OK;
}

static plx_status add_metadata(const char *path, json_t *header, const char *const (*metadata)[2],
                               int count, struct error *err)
{
    if (count == 0) return PLX_OK;
    for (int i = 0; i < count; i++)
        REQUIRE(err, utf8_is_text(metadata[i][0]) && utf8_is_text(metadata[i][1]),
                PLX_INVALID_ARGUMENT, "%s: the metadata is not UTF-8", path);
    json_t *object = json_object();
    bool good = json_object_set_new(header, "__metadata__", object) == 0;
    for (int i = 0; good && i < count; i++)
        good = json_object_set_new(object, metadata[i][0], json_string(metadata[i][1])) == 0;
    REQUIRE(err, good, PLX_OUT_OF_MEMORY, "%s: cannot format the metadata", path);
    return PLX_OK;
}

/* The length field and the padded JSON text, malloc'd. */
static plx_status format_header(const char *path, const json_t *header, char **bytes, size_t *size,
                                struct error *err)
{
    char *text = fields_print(header, JSON_COMPACT);
    REQUIRE(err, text != NULL, PLX_OUT_OF_MEMORY, "%s: cannot format the header", path);
    size_t length = strlen(text);
    uint64_t padded = (length + 7) / 8 * 8;
    *size = 8 + (size_t)padded;
    *bytes = malloc(*size);
    if (*bytes != NULL) {
        memcpy(*bytes, &padded, 8);
        memcpy(*bytes + 8, text, length);
        memset(*bytes + 8 + length, ' ', (size_t)padded - length);
    }
    free(text);
    REQUIRE(err, *bytes != NULL, PLX_OUT_OF_MEMORY, "%s: cannot format the header", path);
    REQUIRE(err, padded <= HEADER_LIMIT, PLX_INVALID_ARGUMENT,
            "%s: the header would have %" PRIu64 " bytes, more than the %u allowed", path, padded,
            HEADER_LIMIT);
    return PLX_OK;
}

plx_status safetensors_writer_open(struct safetensors_writer *writer, const char *path,
                                   const struct safetensors_spec *specs, int count,
                                   const char *const (*metadata)[2], int metadata_count,
                                   struct error *err)
{
    *writer = (struct safetensors_writer){.file = {.descriptor = -1}};
    json_t *header = json_object();
    REQUIRE(err, header != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    char *bytes = NULL;
    size_t size = 0, data_bytes = 0;
    plx_status status = add_metadata(path, header, metadata, metadata_count, err);
    if (status == PLX_OK) status = add_specs(path, specs, count, header, &data_bytes, err);
    if (status == PLX_OK) status = format_header(path, header, &bytes, &size, err);
    if (status == PLX_OK) status = file_writer_open(&writer->file, path, err);
    if (status == PLX_OK) status = file_write(&writer->file, bytes, size, err);
    writer->promised = size + data_bytes;
    free(bytes);
    json_decref(header);
    return status;
}

plx_status safetensors_writer_data(struct safetensors_writer *writer, const void *data,
                                   size_t bytes, struct error *err)
{
    return file_write(&writer->file, data, bytes, err);
}

plx_status safetensors_writer_close(struct safetensors_writer *writer, struct error *err)
{
    REQUIRE(err, writer->file.bytes == writer->promised, PLX_INTERNAL,
            "%s: %zu bytes were written, but its header promises %zu", writer->file.path,
            writer->file.bytes, writer->promised);
    return file_writer_close(&writer->file, NULL, err);
}

void safetensors_writer_abandon(struct safetensors_writer *writer)
{
    file_writer_abandon(&writer->file);
}

/* ---- Tensors in memory ----------------------------------------------------------------------- */

/* Tensors being saved. */
struct saving {
    struct safetensors_writer writer;
    const struct device *device; /* where they lie */
    plx_stream stream;
    const plx_dtype *dtype; /* of all of them in the file; NULL: their own */
    plx_context *context;   /* which converts */
    const struct safetensors_write *entry;
};

static plx_dtype saved_dtype(const struct saving *saving, const struct safetensors_write *entry)
{
    return saving->dtype != NULL ? *saving->dtype : entry->tensor.dtype;
}

/* The entries in the order of the file, wide elements first; specs has room for all. */
static void order_entries(const struct saving *saving, const struct safetensors_write *entries,
                          int count, const struct safetensors_write **order,
                          struct safetensors_spec *specs)
{
    int placed = 0;
    for (size_t width = 8; width > 0; width /= 2)
        for (int i = 0; i < count; i++) {
            const struct plx_tensor *tensor = &entries[i].tensor;
            const plx_dtype dtype = saved_dtype(saving, &entries[i]);
            if (plx_dtype_size(dtype) != width) continue;
            order[placed] = &entries[i];
            specs[placed] = (struct safetensors_spec){
                entries[i].name, safetensors_dtype(dtype), tensor->rank, {0}};
            memcpy(specs[placed++].shape, tensor->shape,
                   (size_t)tensor->rank * sizeof *tensor->shape);
        }
}

static plx_status save_converted(struct saving *saving, void *elements, int64_t count,
                                 plx_dtype dtype, struct error *err)
{
    const size_t bytes = (size_t)count * plx_dtype_size(dtype);
    void *converted = malloc(bytes + 1);
    REQUIRE(err, converted != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory",
            saving->writer.file.path);
    struct plx_tensor from = plx_tensor_dense(elements, saving->entry->tensor.dtype, 1, &count),
                      to = plx_tensor_dense(converted, dtype, 1, &count);
    plx_status status = plx_convert(saving->context, &from, &to);
    if (status != PLX_OK)
        error_set(err, status, "%s: cannot convert to %s: %s", saving->entry->name,
                  plx_dtype_name(dtype), plx_error(saving->context));
    if (status == PLX_OK) status = safetensors_writer_data(&saving->writer, converted, bytes, err);
    free(converted);
    return status;
}

static plx_status save_piece(void *user, void *elements, int64_t first, int64_t count,
                             struct error *err)
{
    struct saving *saving = user;
    const plx_dtype own = saving->entry->tensor.dtype, dtype = saved_dtype(saving, saving->entry);
    (void)first; /* pieces come in the order of the file */
    if (dtype != own) return save_converted(saving, elements, count, dtype, err);
    return safetensors_writer_data(&saving->writer, elements, (size_t)count * plx_dtype_size(own),
                                   err);
}

static plx_status save_ordered(struct saving *saving, const char *path,
                               const struct safetensors_write *const *order,
                               const struct safetensors_spec *specs, int count,
                               const char *const (*metadata)[2], int metadata_count,
                               struct error *err)
{
    plx_status status =
        safetensors_writer_open(&saving->writer, path, specs, count, metadata, metadata_count, err);
    for (int i = 0; status == PLX_OK && i < count; i++) {
        const struct plx_tensor *tensor = &order[i]->tensor;
        const bool there = tensor->device == saving->device->kind;
        saving->entry = order[i];
        status = transfer_read(there ? saving->device : &device_cpu, there ? saving->stream : NULL,
                               tensor, save_piece, saving, err);
    }
    if (status == PLX_OK) status = safetensors_writer_close(&saving->writer, err);
    if (status != PLX_OK) safetensors_writer_abandon(&saving->writer);
    return status;
}

plx_status safetensors_save_from(const char *path, const struct safetensors_write *entries,
                                 int count, const plx_dtype *dtype, const struct device *device,
                                 plx_stream stream, const char *const (*metadata)[2],
                                 int metadata_count, struct error *err)
{
    for (int i = 0; i < count; i++) TRY(check_entry(path, &entries[i], device, err));
    struct saving saving = {.device = device, .stream = stream, .dtype = dtype};
    if (plx_context_create(NULL, &saving.context) != PLX_OK)
        return error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    const struct safetensors_write **order = calloc((size_t)count + 1, sizeof *order);
    struct safetensors_spec *specs = calloc((size_t)count + 1, sizeof *specs);
    plx_status status = PLX_OK;
    if (order == NULL || specs == NULL)
        status = error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    if (status == PLX_OK) {
        order_entries(&saving, entries, count, order, specs);
        status = save_ordered(&saving, path, order, specs, count, metadata, metadata_count, err);
    }
    free(order);
    free(specs);
    plx_context_destroy(saving.context);
    return status;
}

plx_status safetensors_save(const char *path, const struct safetensors_write *entries, int count,
                            const char *const (*metadata)[2], int metadata_count, struct error *err)
{
    return safetensors_save_from(path, entries, count, NULL, &device_cpu, NULL, metadata,
                                 metadata_count, err);
}
