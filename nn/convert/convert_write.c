/* convert_write.c: the files of the target folder: config.json, weights with their index, and what
 * belongs to the tokenizer as it is. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert/convert_parts.h"
#include "convert/modeling.h"
#include "io/companions.h"
#include "io/fields.h"
#include "io/file.h"
#include "io/model_file.h"
/* For the size of the hash state. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

enum { PATH_SIZE = 4096 };

/* The tokenizer in all its forms, copied where the source has them. */
static const char *const tokenizer_files[] = {"tokenizer.json", "tokenizer.model", "vocab.json",
                                              "merges.txt"};

static plx_status join(const char *folder, const char *name, char path[PATH_SIZE],
                       struct error *err)
{
    int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
    REQUIRE(err, length < PATH_SIZE, PLX_INVALID_ARGUMENT, "%.200s...: the path is too long",
            folder);
    return PLX_OK;
}

/* ---- Small files ----------------------------------------------------------------------------- */

static plx_status copy_file(const char *source, const char *folder, const char *name,
                            struct error *err)
{
    char from[PATH_SIZE], to[PATH_SIZE];
    struct file_map map;
    TRY(join(source, name, from, err));
    TRY(join(folder, name, to, err));
    if (!file_exists(from)) return PLX_OK;
    TRY(file_map(from, &map, err));
    plx_status status = file_replace(to, map.data, map.size, err);
    file_unmap(&map);
    return status;
}

static plx_status copy_companions(const char *source, const char *folder, struct error *err)
{
    struct companions companions;
    for (size_t i = 0; i < sizeof tokenizer_files / sizeof *tokenizer_files; i++)
        TRY(copy_file(source, folder, tokenizer_files[i], err));
    TRY(companions_read(source, &companions, err));
    plx_status status = companions_write(&companions, folder, err);
    companions_clear(&companions);
    return status;
}

/* The name that PyTorch gives a type. */
static const char *torch_dtype(const char *dtype)
{
    static const char *const names[][2] = {
        {"F32", "float32"}, {"BF16", "bfloat16"}, {"F16", "float16"}, {"F64", "float64"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i][0], dtype) == 0) return names[i][1];
    return "float32";
}

/* config.json, with what transformers wants besides: the type of weights and, for our own layout,
 * where its code is. */
static plx_status write_config(const struct convert_plan *plan, const struct model_config *config,
                               const char *folder, struct error *err)
{
    char path[PATH_SIZE], *json;
    TRY(join(folder, "config.json", path, err));
    TRY(model_config_format(config, &json, err));
    json_t *root = json_loads(json, 0, NULL);
    free(json);
    int failed = json_object_set_new(root, "torch_dtype",
                                     json_string(torch_dtype(plan->tensors[0].spec.dtype)));
    if (config->family == FAMILY_OURS)
        failed |= json_object_set_new(
            root, "auto_map",
            json_pack("{s:s, s:s}", "AutoConfig", MODELING_MODULE ".Qwen3ParallaxConfig",
                      "AutoModelForCausalLM", MODELING_MODULE ".Qwen3ParallaxForCausalLM"));
    char *text = failed == 0 ? fields_format(root, 2) : NULL;
    json_decref(root);
    REQUIRE(err, text != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    plx_status status = file_replace(path, text, strlen(text), err);
    free(text);
    return status;
}

static plx_status write_modeling(const char *folder, struct error *err)
{
    char path[PATH_SIZE];
    TRY(join(folder, MODELING_MODULE ".py", path, err));
    return file_replace(path, modeling_text, sizeof modeling_text, err);
}

/* ---- Weights --------------------------------------------------------------------------------- */

struct writing {
    const struct convert_options *options;
    struct safetensors_writer writer;
    XXH64_state_t sum; /* of the tensor being written */
    size_t done, total;
};

static plx_status write_piece(void *user, const void *data, size_t bytes, struct error *err)
{
    struct writing *writing = user;
    XXH64_update(&writing->sum, data, bytes);
    TRY(safetensors_writer_data(&writing->writer, data, bytes, err));
    writing->done += bytes;
    if (writing->options->progress != NULL)
        writing->options->progress(writing->options->user, "writing", writing->done,
                                   writing->total);
    return PLX_OK;
}

static void shard_name(const struct convert_plan *plan, int shard, char name[64])
{
    if (plan->shards == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, plan->shards);
}

static plx_status write_tensor(struct writing *writing, struct convert_tensor *tensor,
                               struct error *err)
{
    XXH64_reset(&writing->sum, 0);
    TRY(convert_stream(tensor, writing->options->seed, write_piece, writing, err));
    tensor->sum = XXH64_digest(&writing->sum);
    return PLX_OK;
}

static plx_status write_tensors(struct writing *writing, struct convert_tensor *tensors,
                                const struct safetensors_spec *specs, int count, const char *path,
                                struct error *err)
{
    static const char *const metadata[][2] = {{"format", "pt"}};
    plx_status status =
        safetensors_writer_open(&writing->writer, path, specs, count, metadata, 1, err);
    for (int i = 0; status == PLX_OK && i < count; i++)
        status = write_tensor(writing, &tensors[i], err);
    if (status == PLX_OK) status = safetensors_writer_close(&writing->writer, err);
    if (status != PLX_OK) safetensors_writer_abandon(&writing->writer);
    return status;
}

static plx_status write_shard(struct convert_plan *plan, int shard, const char *folder,
                              struct writing *writing, struct error *err)
{
    char name[64], path[PATH_SIZE];
    const int first = plan->first[shard], count = plan->first[shard + 1] - first;
    shard_name(plan, shard, name);
    TRY(join(folder, name, path, err));
    struct safetensors_spec *specs = calloc((size_t)count, sizeof *specs);
    REQUIRE(err, specs != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    for (int i = 0; i < count; i++) specs[i] = plan->tensors[first + i].spec;
    plx_status status = write_tensors(writing, plan->tensors + first, specs, count, path, err);
    free(specs);
    return status;
}

static plx_status write_index(const struct convert_plan *plan, const char *folder,
                              struct error *err)
{
    char name[64], path[PATH_SIZE];
    json_t *map = json_object();
    bool complete = map != NULL;
    for (int shard = 0; shard < plan->shards; shard++) {
        shard_name(plan, shard, name);
        for (int i = plan->first[shard]; complete && i < plan->first[shard + 1]; i++)
            complete = json_object_set_new(map, plan->tensors[i].spec.name, json_string(name)) == 0;
    }
    json_t *root = complete ? json_pack("{s:{s:I}, s:O}", "metadata", "total_size",
                                        (json_int_t)plan->bytes, "weight_map", map)
                            : NULL;
    char *text = root != NULL ? fields_print(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    json_decref(map);
    REQUIRE(err, text != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory for the index", folder);
    plx_status status = join(folder, "model.safetensors.index.json", path, err);
    if (status == PLX_OK) status = file_replace(path, text, strlen(text), err);
    free(text);
    return status;
}

plx_status convert_write(struct convert_plan *plan, const struct model_config *config,
                         const char *source, const char *folder,
                         const struct convert_options *options, struct error *err)
{
    struct writing writing = {.options = options, .total = plan->bytes};
    TRY(write_config(plan, config, folder, err));
    if (config->family == FAMILY_OURS) TRY(write_modeling(folder, err));
    if (source != NULL) TRY(copy_companions(source, folder, err));
    for (int shard = 0; shard < plan->shards; shard++)
        TRY(write_shard(plan, shard, folder, &writing, err));
    return plan->shards > 1 ? write_index(plan, folder, err) : PLX_OK;
}
