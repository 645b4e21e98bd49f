/* convert_merge.c: a weight with its adapter taken into it, in pieces of whole rows.
 *
 * A and B are small and are read whole; rows of W pass through f32, whatever they are stored in, on
 * their way to the type of the target. */
#include <stdlib.h>

#include "convert/convert_parts.h"
#include "io/file.h"

enum { PIECE_BYTES = 1 << 24 };

struct merging {
    float *down, *up;    /* [rank,columns], [rows,rank] */
    float *values;       /* a piece of W */
    unsigned char *made; /* the same in the target's type */
};

static void merging_free(struct merging *merging)
{
    free(merging->down);
    free(merging->up);
    free(merging->values);
    free(merging->made);
}

static plx_status read_floats(const struct weights_row *row, float **values, struct error *err)
{
    const struct safetensors_entry *entry = row->entry;
    const int64_t count = entry->shape[0] * entry->shape[1];
    *values = malloc((size_t)count * sizeof **values);
    REQUIRE(err, *values != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory for %.200s", row->path,
            entry->name);
    return safetensors_convert(entry, row->path, 0, count, "F32", *values, err);
}

/* Rows first .. first + count - 1. */
static plx_status merge_rows(const struct convert_tensor *tensor, struct merging *merging,
                             int64_t first, int64_t count, convert_sink *sink, void *user,
                             struct error *err)
{
    const struct weights_row *source = tensor->source;
    const int64_t columns = tensor->spec.shape[1];
    const size_t width = safetensors_float_bytes(tensor->spec.dtype);
    const struct safetensors_entry merged = {
        .name = tensor->spec.name, .dtype = "F32", .data = (const unsigned char *)merging->values};
    TRY(safetensors_convert(source->entry, source->path, first * columns, count * columns, "F32",
                            merging->values, err));
    lora_merge(&tensor->lora, merging->up, merging->down, first, count, columns, merging->values);
    TRY(safetensors_convert(&merged, "merged values", 0, count * columns, tensor->spec.dtype,
                            merging->made, err));
    return sink(user, merging->made, (size_t)(count * columns) * width, err);
}

static plx_status merge_all(const struct convert_tensor *tensor, struct merging *merging,
                            convert_sink *sink, void *user, struct error *err)
{
    const int64_t rows = tensor->spec.shape[0], columns = tensor->spec.shape[1];
    const int64_t piece = 1 + PIECE_BYTES / (columns * (int64_t)sizeof(double));
    merging->values = malloc((size_t)(piece * columns) * sizeof *merging->values);
    merging->made = malloc((size_t)(piece * columns) * sizeof(double));
    REQUIRE(err, merging->values != NULL && merging->made != NULL, PLX_OUT_OF_MEMORY,
            "%s: out of memory for a piece", tensor->spec.name);
    TRY(read_floats(tensor->down, &merging->down, err));
    TRY(read_floats(tensor->up, &merging->up, err));
    for (int64_t first = 0; first < rows; first += piece) {
        int64_t count = rows - first < piece ? rows - first : piece;
        TRY(merge_rows(tensor, merging, first, count, sink, user, err));
    }
    file_map_forget(tensor->source->entry->data, tensor->source->entry->bytes);
    return PLX_OK;
}

plx_status convert_stream_merged(const struct convert_tensor *tensor, convert_sink *sink,
                                 void *user, struct error *err)
{
    struct merging merging = {0};
    plx_status status = merge_all(tensor, &merging, sink, user, err);
    merging_free(&merging);
    return status;
}
