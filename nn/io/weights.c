/* weights.c: opening a folder's weights and finding tensors in them; see weights.h.
 *
 * All files are mapped, their entries put into one table sorted by name, and for shards the table
 * is compared with the index. */
#include "io/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

struct shard {
    char *path;
    struct safetensors *file;
};

struct weights {
    char *path;
    struct shard *shards;
    int shard_count;
    struct weights_row *rows; /* sorted by name */
    int count;
};

static plx_status join(const char *folder, const char *name, char **path, struct error *err)
{
    int length = asprintf(path, "%s/%s", folder, name);
    if (length < 0) *path = NULL;
    REQUIRE(err, length >= 0, PLX_OUT_OF_MEMORY, "%s/%s: out of memory", folder, name);
    return PLX_OK;
}

static int compare_rows(const void *left, const void *right)
{
    const struct weights_row *a = left, *b = right;
    return strcmp(a->entry->name, b->entry->name);
}

/* The file's place in shards is taken at once, so that weights_close frees what failed half-way. */
static plx_status open_shard(struct weights *weights, const char *folder, const char *name,
                             struct error *err)
{
    struct shard *shard = &weights->shards[weights->shard_count++];
    TRY(join(folder, name, &shard->path, err));
    return safetensors_open(shard->path, &shard->file, err);
}

/* The table of every tensor of every file. */
static plx_status collect_rows(struct weights *weights, struct error *err)
{
    size_t total = 0;
    for (int s = 0; s < weights->shard_count; s++)
        total += (size_t)safetensors_count(weights->shards[s].file);
    weights->rows = calloc(total + 1, sizeof *weights->rows);
    REQUIRE(err, weights->rows != NULL && total <= INT32_MAX, PLX_OUT_OF_MEMORY,
            "%s: cannot allocate a table of %zu tensors", weights->path, total);
    for (int s = 0; s < weights->shard_count; s++)
        for (int i = 0; i < safetensors_count(weights->shards[s].file); i++)
            weights->rows[weights->count++] = (struct weights_row){
                safetensors_at(weights->shards[s].file, i), weights->shards[s].path};
    qsort(weights->rows, (size_t)weights->count, sizeof *weights->rows, compare_rows);
    for (int i = 1; i < weights->count; i++)
        REQUIRE(err, compare_rows(&weights->rows[i - 1], &weights->rows[i]) != 0, PLX_BAD_DATA,
                "%s: tensor %.200s is also in %s", weights->rows[i].path,
                weights->rows[i].entry->name, weights->rows[i - 1].path);
    return PLX_OK;
}

/* ---- Shards ---------------------------------------------------------------------------------- */

static int compare_texts(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Opens each file that the index names, once. */
static plx_status open_shards(struct weights *weights, const char *folder,
                              const struct weight_index *index, struct error *err)
{
    const char **names = calloc((size_t)index->count, sizeof *names);
    weights->shards = calloc((size_t)index->count, sizeof *weights->shards);
    plx_status status = PLX_OK;
    if (names == NULL || weights->shards == NULL)
        status = error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", weights->path);
    for (int i = 0; status == PLX_OK && i < index->count; i++) names[i] = index->rows[i].file;
    if (status == PLX_OK) qsort(names, (size_t)index->count, sizeof *names, compare_texts);
    for (int i = 0; status == PLX_OK && i < index->count; i++)
        if (i == 0 || strcmp(names[i - 1], names[i]) != 0)
            status = open_shard(weights, folder, names[i], err);
    free(names);
    return status;
}

/* Index and table, both sorted by name, hold the same tensors in the same files. */
static plx_status compare_with_index(const struct weights *weights,
                                     const struct weight_index *index, struct error *err)
{
    for (int i = 0; i < index->count; i++) {
        const struct weight_index_row *said = &index->rows[i];
        const struct weights_row *found = weights_find(weights, said->name);
        REQUIRE(err, found != NULL, PLX_BAD_DATA,
                "%s: weight_map puts tensor %.200s into %s, which does not hold it", weights->path,
                said->name, said->file);
        const char *slash = strrchr(found->path, '/');
        REQUIRE(err, strcmp(slash + 1, said->file) == 0, PLX_BAD_DATA,
                "%s: weight_map puts tensor %.200s into %s, but it is in %s", weights->path,
                said->name, said->file, slash + 1);
    }
    for (int i = 0; i < weights->count; i++) {
        struct weight_index_row key = {.name = weights->rows[i].entry->name};
        bool listed =
            bsearch(&key, index->rows, (size_t)index->count, sizeof key, compare_texts) != NULL;
        REQUIRE(err, listed, PLX_BAD_DATA, "%s: tensor %.200s is not in the index %s",
                weights->rows[i].path, key.name, weights->path);
    }
    return PLX_OK;
}

static plx_status open_by_index(struct weights *weights, const char *folder, struct error *err)
{
    char *text;
    size_t size;
    struct weight_index index;
    TRY(file_read_all(weights->path, (size_t)16 << 20, &text, &size, err));
    plx_status status = weight_index_parse(text, size, weights->path, &index, err);
    free(text);
    if (status != PLX_OK) return status;
    status = open_shards(weights, folder, &index, err);
    if (status == PLX_OK) status = collect_rows(weights, err);
    if (status == PLX_OK) status = compare_with_index(weights, &index, err);
    weight_index_clear(&index);
    return status;
}

/* ---- The folder ------------------------------------------------------------------------------ */

static plx_status open_single(struct weights *weights, const char *folder, struct error *err)
{
    weights->shards = calloc(1, sizeof *weights->shards);
    REQUIRE(err, weights->shards != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", folder);
    TRY(open_shard(weights, folder, "model.safetensors", err));
    return collect_rows(weights, err);
}

static plx_status open_folder(struct weights *weights, const char *folder, struct error *err)
{
    TRY(join(folder, "model.safetensors", &weights->path, err));
    if (file_exists(weights->path)) return open_single(weights, folder, err);
    free(weights->path);
    weights->path = NULL;
    TRY(join(folder, "model.safetensors.index.json", &weights->path, err));
    REQUIRE(err, file_exists(weights->path), PLX_IO_ERROR,
            "%s: holds neither model.safetensors nor model.safetensors.index.json", folder);
    return open_by_index(weights, folder, err);
}

plx_status weights_open(const char *folder, struct weights **weights, struct error *err)
{
    *weights = NULL;
    struct weights *made = calloc(1, sizeof *made);
    REQUIRE(err, made != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", folder);
    plx_status status = open_folder(made, folder, err);
    if (status == PLX_OK)
        *weights = made;
    else
        weights_close(made);
    return status;
}

void weights_close(struct weights *weights)
{
    if (weights == NULL) return;
    for (int s = 0; s < weights->shard_count; s++) {
        safetensors_close(weights->shards[s].file);
        free(weights->shards[s].path);
    }
    free(weights->shards);
    free(weights->rows);
    free(weights->path);
    free(weights);
}

int weights_count(const struct weights *weights)
{
    return weights->count;
}

const struct weights_row *weights_at(const struct weights *weights, int index)
{
    return index >= 0 && index < weights->count ? &weights->rows[index] : NULL;
}

const struct weights_row *weights_find(const struct weights *weights, const char *name)
{
    struct safetensors_entry wanted = {.name = name};
    struct weights_row key = {.entry = &wanted};
    return bsearch(&key, weights->rows, (size_t)weights->count, sizeof key, compare_rows);
}

const char *weights_path(const struct weights *weights)
{
    return weights->path;
}
