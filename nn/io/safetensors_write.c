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
                              struct error *err)
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
    REQUIRE(err, tensor->device == PLX_CPU && is_dense(tensor), PLX_INVALID_ARGUMENT,
            "%s: tensor %.200s is not a dense tensor in main memory", path, entry->name);
    REQUIRE(err, tensor->data != NULL || tensor_bytes(tensor) == 0, PLX_INVALID_ARGUMENT,
            "%s: tensor %.200s has no data", path, entry->name);
    return PLX_OK;
}

/* {"dtype":..., "shape":[...], "data_offsets":[begin, end]}; NULL when out of memory. */
static json_t *describe(const struct plx_tensor *tensor, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++)
        if (json_array_append_new(shape, json_integer(tensor->shape[i])) != 0) break;
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", safetensors_dtype(tensor->dtype), "shape",
                     shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + tensor_bytes(tensor)));
}

struct save {
    const char *path;
    const struct safetensors_write *entries;
    int count;
    struct error *err;
};

/* Calls visit for every entry in the order of the file: wide elements first. */
static plx_status in_file_order(const struct save *save, void *user,
                                plx_status (*visit)(const struct save *save, void *user,
                                                    const struct safetensors_write *entry))
{
    for (size_t width = 8; width > 0; width /= 2)
        for (int i = 0; i < save->count; i++)
            if (plx_dtype_size(save->entries[i].tensor.dtype) == width)
                TRY(visit(save, user, &save->entries[i]));
    return PLX_OK;
}

struct layout {
    json_t *header;
    size_t end;
};

static plx_status add_to_header(const struct save *save, void *user,
                                const struct safetensors_write *entry)
{
    struct layout *layout = user;
    REQUIRE(save->err, json_object_get(layout->header, entry->name) == NULL, PLX_INVALID_ARGUMENT,
            "%s: two tensors are named %.200s", save->path, entry->name);
    json_t *description = describe(&entry->tensor, layout->end);
    REQUIRE(save->err, description != NULL, PLX_OUT_OF_MEMORY, "%s: cannot format the header",
            save->path);
    REQUIRE(save->err, json_object_set_new(layout->header, entry->name, description) == 0,
            PLX_INVALID_ARGUMENT, "%s: the name of tensor %.200s is not UTF-8", save->path,
            entry->name);
    layout->end += tensor_bytes(&entry->tensor);
    return PLX_OK;
}

static plx_status write_data(const struct save *save, void *user,
                             const struct safetensors_write *entry)
{
    return file_write(user, entry->tensor.data, tensor_bytes(&entry->tensor), save->err);
}

static plx_status add_metadata(const struct save *save, json_t *header,
                               const char *const (*metadata)[2], int count)
{
    if (count == 0) return PLX_OK;
    json_t *object = json_object();
    bool good = json_object_set_new(header, "__metadata__", object) == 0;
    for (int i = 0; good && i < count; i++)
        good = json_object_set_new(object, metadata[i][0], json_string(metadata[i][1])) == 0;
    REQUIRE(save->err, good, PLX_INVALID_ARGUMENT, "%s: the metadata is not UTF-8", save->path);
    return PLX_OK;
}

/* The length field and the padded JSON text, malloc'd. */
static plx_status format_header(const struct save *save, const json_t *header, char **bytes,
                                size_t *size)
{
    char *text = json_dumps(header, JSON_COMPACT);
    REQUIRE(save->err, text != NULL, PLX_OUT_OF_MEMORY, "%s: cannot format the header", save->path);
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
    REQUIRE(save->err, *bytes != NULL, PLX_OUT_OF_MEMORY, "%s: cannot format the header",
            save->path);
    REQUIRE(save->err, padded <= HEADER_LIMIT, PLX_INVALID_ARGUMENT,
            "%s: the header would have %" PRIu64 " bytes, more than the %u allowed", save->path,
            padded, HEADER_LIMIT);
    return PLX_OK;
}

static plx_status write_file(const struct save *save, const char *header, size_t header_size)
{
    struct file_writer writer;
    plx_status status = file_writer_open(&writer, save->path, save->err);
    if (status == PLX_OK) status = file_write(&writer, header, header_size, save->err);
    if (status == PLX_OK) status = in_file_order(save, &writer, write_data);
    if (status == PLX_OK) status = file_writer_close(&writer, NULL, save->err);
    if (status != PLX_OK) file_writer_abandon(&writer);
    return status;
}

plx_status safetensors_save(const char *path, const struct safetensors_write *entries, int count,
                            const char *const (*metadata)[2], int metadata_count, struct error *err)
{
    struct save save = {path, entries, count, err};
    for (int i = 0; i < count; i++) TRY(check_entry(path, &entries[i], err));
    struct layout layout = {.header = json_object()};
    REQUIRE(err, layout.header != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    char *header = NULL;
    size_t header_size = 0;
    plx_status status = add_metadata(&save, layout.header, metadata, metadata_count);
    if (status == PLX_OK) status = in_file_order(&save, &layout, add_to_header);
    if (status == PLX_OK) status = format_header(&save, layout.header, &header, &header_size);
    if (status == PLX_OK) status = write_file(&save, header, header_size);
    free(header);
    json_decref(layout.header);
    return status;
}
