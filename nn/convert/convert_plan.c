/* convert_plan.c: where each tensor of the target comes from, in which file it goes, and its bytes.
 *
 * Families differ in names only, so the table of the target's parameters, made once with its own
 * names and once with the source's, pairs them up. What the source does not have is new and takes
 * its start values, or those of the query beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert/convert_parts.h"
#include "io/file.h"
#include "io/model_file.h"

/* Elements that go through memory at once where they are converted or made, and bytes that are
 * handed on at once where they are not: few enough to be in the cache still when they are hashed
 * and copied to the system. */
enum { PIECE_ELEMENTS = 1 << 19, PIECE_BYTES = 1 << 20 };

/* ---- Tensors --------------------------------------------------------------------------------- */

struct planning {
    const struct weights *weights;
    const struct lora *lora; /* of the source */
    const struct convert_options *options;
    struct convert_plan *plan;
    struct error *err;
};

/* "...self_attn.r_norm.weight" -> "...self_attn.q_norm.weight" */
static void query_name(const char *probe_name, char name[PARAM_NAME_MAX])
{
    snprintf(name, PARAM_NAME_MAX, "%s", probe_name);
    char *part = strstr(name, ".r_");
    if (part != NULL) part[1] = 'q';
}

static const struct weights_row *find_source(const struct planning *planning, const char *name)
{
    char other[PARAM_NAME_MAX];
    if (planning->weights == NULL) return NULL;
    const struct weights_row *row = weights_find(planning->weights, name);
    if (row != NULL || planning->options->probe != CONVERT_COPY_Q) return row;
    query_name(name, other);
    return weights_find(planning->weights, other);
}

/* The type of start values where none was asked for: that of the source's first tensor. */
static const char *usual_dtype(const struct planning *planning)
{
    if (planning->options->dtype != NULL) return planning->options->dtype;
    if (planning->weights == NULL || weights_count(planning->weights) == 0) return "F32";
    return weights_at(planning->weights, 0)->entry->dtype;
}

/* Whether every number of a type is one of another. */
static bool widens(const char *from, const char *to)
{
    if (strcmp(from, to) == 0 || strcmp(to, "F64") == 0) return true;
    return strcmp(to, "F32") == 0 && strcmp(from, "F64") != 0;
}

/* X.weight may have X.lora_A.weight and X.lora_B.weight, whose shapes the whole source has been
 * checked for. */
static void plan_adapter(const struct planning *planning, struct convert_tensor *tensor)
{
    char name[PARAM_NAME_MAX + 16];
    const char *weight = tensor->source->entry->name;
    const int stem = (int)(strlen(weight) - strlen(".weight"));
    if (planning->lora->rank == 0 || stem < 0) return;
    snprintf(name, sizeof name, "%.*s.lora_A.weight", stem, weight);
    tensor->down = weights_find(planning->weights, name);
    if (tensor->down == NULL) return;
    snprintf(name, sizeof name, "%.*s.lora_B.weight", stem, weight);
    tensor->up = weights_find(planning->weights, name);
    tensor->lora = *planning->lora;
}

static plx_status plan_tensor(const struct planning *planning, const struct param *param,
                              const char *source_name, struct convert_tensor *tensor)
{
    struct convert_plan *plan = planning->plan;
    const struct weights_row *row = find_source(planning, source_name);
    const char *dtype = usual_dtype(planning);
    if (row != NULL && planning->options->dtype == NULL) dtype = row->entry->dtype;
    *tensor = (struct convert_tensor){
        .spec = {.name = param->name, .dtype = dtype, .rank = param->value.rank},
        .source = row,
        .param = param};
    for (int i = 0; i < param->value.rank; i++) tensor->spec.shape[i] = param->value.shape[i];
    plan->bytes += safetensors_spec_bytes(&tensor->spec);
    if (row == NULL || strcmp(row->entry->name, source_name) != 0)
        plan->added += plx_tensor_count(&param->value);
    if (row == NULL) return PLX_OK;
    plan_adapter(planning, tensor);
    plan->exact = plan->exact && tensor->down == NULL && widens(row->entry->dtype, dtype);
    return safetensors_check(row->entry, row->path, &param->value, planning->err);
}

/* Wide elements first, so that every tensor is aligned to its elements; otherwise in the order of
 * the model. */
static int compare_tensors(const void *left, const void *right)
{
    const struct convert_tensor *a = left, *b = right;
    size_t a_bytes = safetensors_float_bytes(a->spec.dtype),
           b_bytes = safetensors_float_bytes(b->spec.dtype);
    if (a_bytes != b_bytes) return a_bytes > b_bytes ? -1 : 1;
    return a->param < b->param ? -1 : a->param > b->param;
}

static plx_status plan_shards(struct planning *planning)
{
    struct convert_plan *plan = planning->plan;
    const size_t limit = planning->options->shard_bytes;
    plan->first = calloc((size_t)plan->count + 1, sizeof *plan->first);
    REQUIRE(planning->err, plan->first != NULL, PLX_OUT_OF_MEMORY, "out of memory for a plan");
    size_t used = 0;
    for (int i = 0; i < plan->count; i++) {
        size_t bytes = safetensors_spec_bytes(&plan->tensors[i].spec);
        if (i == 0 || (limit > 0 && used + bytes > limit)) {
            plan->first[plan->shards++] = i;
            used = 0;
        }
        used += bytes;
    }
    plan->first[plan->shards] = plan->count;
    return PLX_OK;
}

static plx_status plan_tensors(struct planning *planning, const struct param_list *names)
{
    struct convert_plan *plan = planning->plan;
    plan->tensors = calloc((size_t)plan->params.count, sizeof *plan->tensors);
    REQUIRE(planning->err, plan->tensors != NULL, PLX_OUT_OF_MEMORY, "out of memory for a plan");
    plan->exact = true;
    for (int i = 0; i < plan->params.count; i++)
        TRY(plan_tensor(planning, &plan->params.items[i], names->items[i].name,
                        &plan->tensors[plan->count++]));
    qsort(plan->tensors, (size_t)plan->count, sizeof *plan->tensors, compare_tensors);
    return plan_shards(planning);
}

/* The source must be whole before its tensors are believed; what it has and the target lacks is
 * counted. */
static plx_status check_source(const struct model_config *source, struct planning *planning,
                               const struct param_list *names)
{
    struct param_list own;
    TRY(model_describe(source, &own, planning->err));
    plx_status status = model_check_weights(&own, planning->weights, true, planning->err);
    struct param_list wanted = *names;
    for (int i = 0; status == PLX_OK && i < own.count; i++) {
        const int64_t count = plx_tensor_count(&own.items[i].value);
        if (own.items[i].adapts)
            planning->plan->merged += count;
        else if (param_find(&wanted, own.items[i].name) == NULL)
            planning->plan->dropped += count;
    }
    param_list_destroy(&own);
    return status;
}

plx_status convert_plan_make(const struct model_config *source, const struct model_config *target,
                             const struct weights *weights, const struct convert_options *options,
                             struct convert_plan *plan, struct error *err)
{
    *plan = (struct convert_plan){0};
    struct planning planning = {weights, &source->lora, options, plan, err};
    struct param_list names;
    struct model_config renamed = *target;
    renamed.family = source->family;
    TRY(model_describe(&renamed, &names, err));
    plx_status status = model_describe(target, &plan->params, err);
    if (status == PLX_OK && weights != NULL) status = check_source(source, &planning, &names);
    if (status == PLX_OK) status = plan_tensors(&planning, &names);
    param_list_destroy(&names);
    if (status != PLX_OK) convert_plan_clear(plan);
    return status;
}

void convert_plan_clear(struct convert_plan *plan)
{
    param_list_destroy(&plan->params);
    free(plan->tensors);
    free(plan->first);
    *plan = (struct convert_plan){0};
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

static plx_status stream_bytes(const struct safetensors_entry *entry, convert_sink *sink,
                               void *user, struct error *err)
{
    for (size_t at = 0; at < entry->bytes; at += PIECE_BYTES) {
        size_t bytes = entry->bytes - at < PIECE_BYTES ? entry->bytes - at : PIECE_BYTES;
        TRY(sink(user, entry->data + at, bytes, err));
        file_map_forget(entry->data + at, bytes);
    }
    return PLX_OK;
}

static plx_status stream_converted(const struct convert_tensor *tensor, void *piece,
                                   convert_sink *sink, void *user, struct error *err)
{
    const struct safetensors_entry *entry = tensor->source->entry;
    const char *dtype = tensor->spec.dtype;
    const int64_t total = plx_tensor_count(&tensor->param->value);
    const size_t width = safetensors_float_bytes(dtype),
                 source_width = safetensors_float_bytes(entry->dtype);
    for (int64_t at = 0; at < total; at += PIECE_ELEMENTS) {
        int64_t count = total - at < PIECE_ELEMENTS ? total - at : PIECE_ELEMENTS;
        TRY(safetensors_convert(entry, tensor->source->path, at, count, dtype, piece, err));
        TRY(sink(user, piece, (size_t)count * width, err));
        file_map_forget(entry->data + (size_t)at * source_width, (size_t)count * source_width);
    }
    return PLX_OK;
}

static plx_status stream_start(const struct convert_tensor *tensor, uint64_t seed, void *piece,
                               convert_sink *sink, void *user, struct error *err)
{
    const char *dtype = tensor->spec.dtype;
    const int64_t total = plx_tensor_count(&tensor->param->value);
    struct rng stream = param_stream(tensor->param, seed);
    float *values = (float *)piece + PIECE_ELEMENTS * 2;
    struct safetensors_entry made = {
        .name = tensor->spec.name, .dtype = "F32", .data = (const unsigned char *)values};
    for (int64_t at = 0; at < total; at += PIECE_ELEMENTS) {
        int64_t count = total - at < PIECE_ELEMENTS ? total - at : PIECE_ELEMENTS;
        param_start(tensor->param, &stream, PLX_F32, values, count);
        TRY(safetensors_convert(&made, "start values", 0, count, dtype, piece, err));
        TRY(sink(user, piece, (size_t)count * safetensors_float_bytes(dtype), err));
    }
    return PLX_OK;
}

plx_status convert_stream(const struct convert_tensor *tensor, uint64_t seed, convert_sink *sink,
                          void *user, struct error *err)
{
    const struct weights_row *source = tensor->source;
    if (tensor->down != NULL) return convert_stream_merged(tensor, sink, user, err);
    if (source != NULL && strcmp(source->entry->dtype, tensor->spec.dtype) == 0)
        return stream_bytes(source->entry, sink, user, err);
    /* Room for a piece of the widest type, and for the f32 numbers that one is made of. */
    void *piece = malloc(PIECE_ELEMENTS * (sizeof(double) + sizeof(float)));
    REQUIRE(err, piece != NULL, PLX_OUT_OF_MEMORY, "%s: cannot allocate a piece of %d numbers",
            tensor->spec.name, PIECE_ELEMENTS);
    plx_status status = source != NULL ? stream_converted(tensor, piece, sink, user, err)
                                       : stream_start(tensor, seed, piece, sink, user, err);
    free(piece);
    return status;
}
