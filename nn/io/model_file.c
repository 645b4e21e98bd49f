/* model_file.c: a model folder as a whole: finding it, loading its values, writing it.
 *
 * Loading looks at every tensor before it changes any value: a folder that does not fit leaves the
 * model as it was. */
#include "io/model_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint.h"
#include "io/file.h"
#include "io/weights.h"

enum { PATH_SIZE = 4096 };

static plx_status join(const char *folder, const char *name, char *path, size_t size,
                       struct error *err)
{
    int length = snprintf(path, size, "%s/%s", folder, name);
    REQUIRE(err, length >= 0 && (size_t)length < size, PLX_INVALID_ARGUMENT,
            "%.200s...: the path is too long", folder);
    return PLX_OK;
}

/* ---- Finding --------------------------------------------------------------------------------- */

plx_status model_folder_find(const char *folder, char *path, size_t size, struct error *err)
{
    return model_folder_find_noting(folder, path, size, NULL, NULL, err);
}

plx_status model_folder_find_noting(const char *folder, char *path, size_t size,
                                    void (*note)(void *user, const char *sentence), void *user,
                                    struct error *err)
{
    char name[PATH_SIZE];
    REQUIRE(err, file_exists(folder), PLX_IO_ERROR, "%s: does not exist", folder);
    REQUIRE(err, file_is_folder(folder), PLX_IO_ERROR, "%s: is a file, not a model folder", folder);
    TRY(join(folder, "config.json", name, sizeof name, err));
    if (file_exists(name)) {
        /* A checkpoint says what its files should hold, so damage is noticed. */
        TRY(join(folder, "manifest.json", name, sizeof name, err));
        if (file_exists(name)) TRY(checkpoint_verify(folder, err));
        int length = snprintf(path, size, "%s", folder);
        REQUIRE(err, length >= 0 && (size_t)length < size, PLX_INVALID_ARGUMENT,
                "%.200s...: the path is too long", folder);
        return PLX_OK;
    }
    bool found = false;
    TRY(checkpoint_latest(folder, path, size, &found, note, user, err));
    REQUIRE(err, found, PLX_IO_ERROR,
            "%s: is neither a model folder (it holds no config.json) nor a run with checkpoints",
            folder);
    return PLX_OK;
}

plx_status model_folder_config(const char *folder, struct model_config *config, struct error *err)
{
    char path[PATH_SIZE];
    TRY(join(folder, "config.json", path, sizeof path, err));
    return model_config_load(path, config, err);
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* A tied model's head is its embedding; a file that stores it again must store the same. */
static plx_status check_redundant_head(struct param_list *params, const struct weights *weights,
                                       const struct weights_row *head, struct error *err)
{
    const struct weights_row *embedding = NULL;
    for (int i = 0; embedding == NULL && i < params->count; i++)
        if (params->items[i].group == PARAM_EMBEDDING)
            embedding = weights_find(weights, params->items[i].name);
    REQUIRE(err, embedding != NULL, PLX_BAD_DATA, "%s: holds lm_head.weight but no embedding",
            head->path);
    const struct safetensors_entry *a = head->entry, *b = embedding->entry;
    bool same = strcmp(a->dtype, b->dtype) == 0 && a->rank == b->rank && a->bytes == b->bytes &&
                memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0 &&
                memcmp(a->data, b->data, a->bytes) == 0;
    REQUIRE(err, same, PLX_BAD_DATA,
            "%s: lm_head.weight differs from %s, but the model's embeddings are tied", head->path,
            b->name);
    return PLX_OK;
}

/* Old checkpoints of Llama store the frequencies of rope, which follow from config.json. */
static bool is_rope_buffer(const char *name)
{
    static const char end[] = ".rotary_emb.inv_freq";
    size_t length = strlen(name), tail = sizeof end - 1;
    return length > tail && strcmp(name + length - tail, end) == 0;
}

plx_status model_check_weights(struct param_list *params, const struct weights *weights,
                               bool adapters, struct error *err)
{
    for (int i = 0; i < params->count; i++) {
        const struct param *param = &params->items[i];
        if (param->adapts && !adapters) continue;
        const struct weights_row *row = weights_find(weights, param->name);
        REQUIRE(err, row != NULL, PLX_BAD_DATA, "%s: tensor %s, which the model needs, is missing",
                weights_path(weights), param->name);
        TRY(safetensors_check(row->entry, row->path, &param->value, err));
    }
    for (int i = 0; i < weights_count(weights); i++) {
        const struct weights_row *row = weights_at(weights, i);
        const char *name = row->entry->name;
        const struct param *param = param_find(params, name);
        if ((param != NULL && (adapters || !param->adapts)) || is_rope_buffer(name)) continue;
        REQUIRE(err, strcmp(name, "lm_head.weight") == 0, PLX_BAD_DATA,
                "%s: tensor %.200s is no part of the model that config.json describes", row->path,
                name);
        TRY(check_redundant_head(params, weights, row, err));
    }
    return PLX_OK;
}

/* Rows of a matrix packed in host memory, on their way to the device. */
static plx_status upload_packed(const struct backend *be, const struct packed *packed,
                                int64_t first, const struct packed *some, struct error *err)
{
    const size_t bytes = packed_data_bytes(some), row = bytes / (size_t)some->rows;
    TRY(be->device->upload((char *)packed->data + (size_t)first * row, some->data, bytes,
                           be->stream, err));
    if (packed_scale_bytes(some) == 0) return PLX_OK;
    return be->device->upload(packed->scale + first, some->scale, packed_scale_bytes(some),
                              be->stream, err);
}

/* Reads a matrix into its packing, some rows at a time. */
static plx_status read_packed(const struct backend *be, const struct weights_row *row,
                              const struct packed *packed, struct error *err)
{
    const int64_t K = packed->columns, piece = 1 + (1 << 20) / K;
    struct packed some = {.kind = packed->kind, .rows = piece, .columns = K};
    float *values = malloc((size_t)(piece * K) * sizeof *values);
    some.data = malloc(packed_data_bytes(&some));
    some.scale = malloc(packed_scale_bytes(&some) + 1);
    plx_status status = PLX_OK;
    if (values == NULL || some.data == NULL || some.scale == NULL)
        status = error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", row->path);
    for (int64_t first = 0; status == PLX_OK && first < packed->rows; first += piece) {
        some.rows = packed->rows - first < piece ? packed->rows - first : piece;
        status = safetensors_convert(row->entry, row->path, first * K, some.rows * K, "F32", values,
                                     err);
        if (status != PLX_OK) break;
        packed_store(&some, 0, some.rows, values);
        status = upload_packed(be, packed, first, &some, err);
    }
    free(some.scale);
    free(some.data);
    free(values);
    return status;
}

static plx_status read_values(struct model *model, const char *folder, bool adapters,
                              struct error *err)
{
    struct param_list *params = model_params(model);
    struct backend *be = model_backend(model);
    struct weights *weights;
    TRY(weights_open(folder, &weights, err));
    plx_status status = model_check_weights(params, weights, adapters, err);
    for (int i = 0; status == PLX_OK && i < params->count; i++) {
        const struct param *param = &params->items[i];
        if (param->adapts && !adapters) continue;
        const struct weights_row *row = weights_find(weights, param->name);
        status = param->packed.kind != PACKING_NONE
                     ? read_packed(be, row, &param->packed, err)
                     : safetensors_load(row->entry, row->path, &param->value, be->device,
                                        be->stream, err);
        file_map_forget(row->entry->data, row->entry->bytes);
    }
    weights_close(weights);
    return status == PLX_OK ? backend_refresh(be, params) : status;
}

plx_status model_load_values(struct model *model, const char *folder, struct error *err)
{
    return read_values(model, folder, true, err);
}

plx_status model_load_adapted(struct model *model, const char *folder, uint64_t seed,
                              struct error *err)
{
    const struct param_list *params = model_params(model);
    const struct backend *be = model_backend(model);
    for (int i = 0; i < params->count; i++)
        if (params->items[i].adapts)
            TRY(param_init_value(&params->items[i], seed, be->device, be->stream, err));
    return read_values(model, folder, false, err);
}

plx_status model_open(struct backend *be, const char *folder, struct model **model,
                      struct error *err)
{
    struct model_config config;
    *model = NULL;
    TRY(model_folder_config(folder, &config, err));
    plx_status status = model_create(be, &config, model);
    if (status != PLX_OK) {
        /* The backend has the sentence; it may or may not be the caller's. */
        if (be->err != err && be->err != NULL) error_set(err, status, "%s", be->err->text);
        return error_set(err, status, "%s: cannot make the model: %s", folder,
                         plx_status_text(status));
    }
    status = model_load_values(*model, folder, err);
    if (status != PLX_OK) {
        model_destroy(*model);
        *model = NULL;
    }
    return status;
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* model.safetensors beside its final name, then renamed: a process that has mapped the old file
 * keeps it. */
static plx_status save_values(const struct model *model, const struct param_list *params,
                              const char *folder, plx_dtype dtype, struct error *err)
{
    const struct backend *be = model_backend(model);
    char path[PATH_SIZE], beside[PATH_SIZE];
    TRY(join(folder, "model.safetensors", path, sizeof path, err));
    TRY(join(folder, "model.safetensors.partial", beside, sizeof beside, err));
    struct safetensors_write *entries = calloc((size_t)params->count, sizeof *entries);
    REQUIRE(err, entries != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    for (int i = 0; i < params->count; i++)
        entries[i] = (struct safetensors_write){params->items[i].name, params->items[i].value};
    static const char *const metadata[][2] = {{"format", "pt"}};
    plx_status status = safetensors_save_from(beside, entries, params->count, &dtype, be->device,
                                              be->stream, metadata, 1, err);
    if (status == PLX_OK) status = file_rename(beside, path, err);
    free(entries);
    return status;
}

plx_status model_save(struct model *model, const struct tokenizer *tokenizer, const char *folder,
                      plx_dtype dtype, struct error *err)
{
    char path[PATH_SIZE], *json;
    TRY(join(folder, "config.json", path, sizeof path, err));
    TRY(model_config_format(model_get_config(model), &json, err));
    plx_status status = file_replace(path, json, strlen(json), err);
    free(json);
    if (status != PLX_OK) return status;
    TRY(save_values(model, model_params(model), folder, dtype, err));
    if (tokenizer == NULL) return PLX_OK;
    TRY(join(folder, tokenizer_file_name(tokenizer), path, sizeof path, err));
    return tokenizer_save(tokenizer, path, err);
}
