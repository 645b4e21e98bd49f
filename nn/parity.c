/* parity.c: a model against recorded results of another implementation; see parity.h.
 *
 * An error is the largest absolute difference in a tensor; divided by the tensor's largest absolute
 * value it is comparable between tensors, and that is what the tolerance is about. A NaN on either
 * side is an infinite error. */
#include "parity.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/transfer.h"
#include "io/safetensors.h"

struct comparison {
    char name[PARAM_NAME_MAX];
    double absolute, relative;
};

struct parity {
    struct model *model;
    const char *path;
    struct safetensors *file;
    struct error *err;
    int64_t rows, time;
    int32_t *arrays; /* ids, targets, positions, offsets of the batch */
    struct batch batch;
    double *reference; /* the tensor under comparison */
    size_t reference_capacity;
    struct plx_tensor logits;
    struct comparison *comparisons;
    int count;
};

/* ---- Reading the reference ---- */

static const char gradient_prefix[] = "grad.", greedy_prefix[] = "greedy_from_";

static bool has_prefix(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* The P of greedy_from_P; 0 where it is not a number above 0. */
static int64_t greedy_prompt(const char *name)
{
    char *end;
    long long prompt = strtoll(name + strlen(greedy_prefix), &end, 10);
    return *end == '\0' && prompt > 0 && prompt < INT32_MAX ? prompt : 0;
}

static plx_status check_names(const struct parity *parity)
{
    for (int i = 0; i < safetensors_count(parity->file); i++) {
        const char *name = safetensors_at(parity->file, i)->name;
        bool known =
            strcmp(name, "input_ids") == 0 || strcmp(name, "logits") == 0 ||
            strcmp(name, "loss") == 0 ||
            (has_prefix(name, greedy_prefix) && greedy_prompt(name) > 0) ||
            (has_prefix(name, gradient_prefix) &&
             param_find(model_params(parity->model), name + strlen(gradient_prefix)) != NULL);
        REQUIRE(parity->err, known, PLX_BAD_DATA, "%s: %s is not something this model could have",
                parity->path, name);
    }
    return PLX_OK;
}

enum { SHAPE_TEXT = 192 };

/* "[2, 48, 384]". */
static const char *shape_text(int rank, const int64_t *shape, char text[SHAPE_TEXT])
{
    size_t used = (size_t)snprintf(text, SHAPE_TEXT, "[");
    for (int axis = 0; axis < rank; axis++)
        used += (size_t)snprintf(text + used, SHAPE_TEXT - used, "%s%" PRId64, axis > 0 ? ", " : "",
                                 shape[axis]);
    snprintf(text + used, SHAPE_TEXT - used, "]");
    return text;
}

/* The entry's values as doubles; it must have exactly this shape. */
static plx_status read_reference(struct parity *parity, const struct safetensors_entry *entry,
                                 int rank, const int64_t *shape)
{
    char actual[SHAPE_TEXT], expected[SHAPE_TEXT];
    bool same = entry->rank == rank;
    for (int axis = 0; same && axis < rank; axis++) same = entry->shape[axis] == shape[axis];
    REQUIRE(parity->err, same, PLX_BAD_DATA, "%s: %s is %s but must be %s", parity->path,
            entry->name, shape_text(entry->rank, entry->shape, actual),
            shape_text(rank, shape, expected));
    struct plx_tensor target = plx_tensor_dense(NULL, PLX_F64, rank, shape);
    size_t count = (size_t)plx_tensor_count(&target);
    if (count > parity->reference_capacity) {
        free(parity->reference);
        parity->reference = malloc(count * sizeof *parity->reference);
        parity->reference_capacity = parity->reference != NULL ? count : 0;
        REQUIRE(parity->err, parity->reference != NULL, PLX_OUT_OF_MEMORY,
                "%s: out of memory for %zu values of %s", parity->path, count, entry->name);
    }
    target.data = parity->reference;
    return safetensors_read(entry, parity->path, &target, parity->err);
}

/* ---- The batch ---- */

/* A matrix of token ids that the model has. */
static plx_status read_ids(struct parity *parity, const char *name, int64_t rows, int64_t columns,
                           int32_t *ids)
{
    const struct safetensors_entry *entry = safetensors_find(parity->file, name);
    REQUIRE(parity->err, entry != NULL, PLX_BAD_DATA, "%s: holds no %s", parity->path, name);
    REQUIRE(parity->err, entry->rank == 2 && entry->shape[0] == rows && entry->shape[1] == columns,
            PLX_BAD_DATA, "%s: %s must be [%" PRId64 ", %" PRId64 "]", parity->path, name, rows,
            columns);
    struct plx_tensor target = plx_tensor_dense(ids, PLX_I32, 2, (int64_t[]){rows, columns});
    TRY(safetensors_read(entry, parity->path, &target, parity->err));
    const int64_t V = model_get_config(parity->model)->vocab_size;
    for (int64_t n = 0; n < rows * columns; n++)
        REQUIRE(parity->err, ids[n] >= 0 && ids[n] < V, PLX_BAD_DATA,
                "%s: %s holds the id %d but the model knows 0 to %" PRId64, parity->path, name,
                ids[n], V - 1);
    return PLX_OK;
}

/* Targets are the ids one further in the row; a row's last token has none. */
static plx_status make_batch(struct parity *parity)
{
    const struct safetensors_entry *entry = safetensors_find(parity->file, "input_ids");
    REQUIRE(parity->err,
            entry != NULL && entry->rank == 2 && entry->shape[0] > 0 && entry->shape[1] > 1,
            PLX_BAD_DATA, "%s: holds no input_ids [rows, time] with at least 2 tokens a row",
            parity->path);
    const int64_t B = parity->rows = entry->shape[0], T = parity->time = entry->shape[1];
    REQUIRE(parity->err, B <= INT32_MAX / 4 / T, PLX_BAD_DATA,
            "%s: input_ids is [%" PRId64 ", %" PRId64 "]", parity->path, B, T);
    const int64_t N = B * T;
    parity->arrays = malloc((size_t)(3 * N + B + 1) * sizeof *parity->arrays);
    REQUIRE(parity->err, parity->arrays != NULL, PLX_OUT_OF_MEMORY,
            "out of memory for %" PRId64 " tokens", N);
    int32_t *ids = parity->arrays, *targets = ids + N, *positions = targets + N,
            *offsets = positions + N;
    TRY(read_ids(parity, "input_ids", B, T, ids));
    for (int64_t n = 0; n < N; n++) {
        positions[n] = (int32_t)(n % T);
        targets[n] = n % T == T - 1 ? -1 : ids[n + 1];
    }
    for (int64_t b = 0; b <= B; b++) offsets[b] = (int32_t)(b * T);
    parity->batch = (struct batch){.tokens = N,
                                   .sequences = B,
                                   .ids = ids,
                                   .targets = targets,
                                   .positions = positions,
                                   .offsets = offsets};
    return PLX_OK;
}

/* ---- Comparing ---- */

static double value_at(const struct plx_tensor *tensor, int64_t i)
{
    return tensor->dtype == PLX_F64 ? ((const double *)tensor->data)[i]
                                    : ((const float *)tensor->data)[i];
}

static void compare(struct parity *parity, const char *name, const struct plx_tensor *actual)
{
    struct comparison *comparison = &parity->comparisons[parity->count++];
    double error = 0, largest = 0;
    for (int64_t i = 0; i < plx_tensor_count(actual); i++) {
        double difference = fabs(value_at(actual, i) - parity->reference[i]);
        if (!(difference <= error)) error = isnan(difference) ? INFINITY : difference;
        largest = fmax(largest, fabs(parity->reference[i]));
    }
    snprintf(comparison->name, sizeof comparison->name, "%s", name);
    comparison->absolute = error;
    comparison->relative = largest > 0 ? error / largest : error;
}

static plx_status compare_loss(struct parity *parity)
{
    struct model *model = parity->model;
    struct model_loss loss;
    const int64_t one = 1, scored = parity->rows * (parity->time - 1);
    TRY(model_zero_grads(model));
    TRY(model_loss_backward(model, &parity->batch, 1.0 / (double)scored, &loss));
    const struct safetensors_entry *entry = safetensors_find(parity->file, "loss");
    if (entry == NULL) return PLX_OK;
    TRY(read_reference(parity, entry, 1, &one));
    double mean = loss.sum / (double)scored;
    struct plx_tensor actual = plx_tensor_dense(&mean, PLX_F64, 1, &one);
    compare(parity, "loss", &actual);
    return PLX_OK;
}

static plx_status compare_gradient(struct parity *parity, const char *name,
                                   const struct plx_tensor *gradient)
{
    const struct backend *be = model_backend(parity->model);
    struct plx_tensor actual =
        plx_tensor_dense(NULL, gradient->dtype, gradient->rank, gradient->shape);
    actual.data = malloc((size_t)plx_tensor_count(gradient) * plx_dtype_size(gradient->dtype));
    REQUIRE(parity->err, actual.data != NULL, PLX_OUT_OF_MEMORY, "out of memory for %s", name);
    plx_status status =
        transfer_download(be->device, be->stream, gradient, actual.data, parity->err);
    if (status == PLX_OK) compare(parity, name, &actual);
    free(actual.data);
    return status;
}

/* Gradients are those that compare_loss left behind. */
static plx_status compare_gradients(struct parity *parity)
{
    struct param_list *params = model_params(parity->model);
    for (int p = 0; p < params->count; p++) {
        const struct param *param = &params->items[p];
        char name[PARAM_NAME_MAX + sizeof gradient_prefix];
        snprintf(name, sizeof name, "%s%s", gradient_prefix, param->name);
        const struct safetensors_entry *entry = safetensors_find(parity->file, name);
        if (entry == NULL) continue;
        TRY(read_reference(parity, entry, param->grad.rank, param->grad.shape));
        TRY(compare_gradient(parity, name, &param->grad));
    }
    return PLX_OK;
}

static plx_status compare_logits(struct parity *parity, plx_dtype dtype)
{
    const struct safetensors_entry *entry = safetensors_find(parity->file, "logits");
    if (entry == NULL) return PLX_OK;
    const int64_t V = model_get_config(parity->model)->vocab_size, N = parity->batch.tokens;
    TRY(read_reference(parity, entry, 3, (int64_t[]){parity->rows, parity->time, V}));
    struct plx_tensor logits = plx_tensor_dense(NULL, dtype, 2, (int64_t[]){N, V});
    logits.data = parity->logits.data = malloc((size_t)(N * V) * plx_dtype_size(dtype));
    REQUIRE(parity->err, logits.data != NULL, PLX_OUT_OF_MEMORY,
            "out of memory for logits of %" PRId64 " tokens", N);
    TRY(model_logits(parity->model, &parity->batch, &logits));
    compare(parity, "logits", &logits);
    return PLX_OK;
}

/* ---- Greedy decoding ---- */

static int32_t largest_logit(const struct plx_tensor *logits, int64_t row)
{
    int64_t V = logits->shape[1], best = 0;
    for (int64_t v = 1; v < V; v++)
        if (value_at(logits, row * V + v) > value_at(logits, row * V + best)) best = v;
    return (int32_t)best;
}

/* Rows advance together, each fed the reference's tokens, so that one mismatch does not cause the
 * next. */
static plx_status decode_rows(struct parity *parity, struct model_cache *cache,
                              const int32_t *expected, int64_t prompt, int64_t total, int32_t *step,
                              int64_t *counts, struct parity_result *result)
{
    const int64_t B = parity->rows;
    for (int64_t at = prompt, fed = 0; at < total; at++) {
        const int64_t count = at - fed;
        for (int64_t b = 0; b < B; b++) {
            counts[b] = count;
            memcpy(&step[b * count], &expected[b * total + fed], (size_t)count * sizeof *step);
        }
        TRY(model_decode(parity->model, cache, step, counts, &parity->logits));
        for (int64_t b = 0; b < B; b++) {
            result->greedy_tokens++;
            result->greedy_mismatches +=
                largest_logit(&parity->logits, b) != expected[b * total + at];
        }
        fed = at;
    }
    return PLX_OK;
}

static plx_status compare_greedy(struct parity *parity, const struct safetensors_entry *entry,
                                 plx_dtype dtype, struct parity_result *result)
{
    const int64_t B = parity->rows, V = model_get_config(parity->model)->vocab_size;
    const int64_t prompt = greedy_prompt(entry->name),
                  total = entry->rank == 2 ? entry->shape[1] : 0;
    REQUIRE(parity->err, total > prompt && total <= INT32_MAX / B, PLX_BAD_DATA,
            "%s: %s must be [%" PRId64 ", more than %" PRId64 "]", parity->path, entry->name, B,
            prompt);
    free(parity->logits.data);
    parity->logits = plx_tensor_dense(NULL, dtype, 2, (int64_t[]){B, V});
    parity->logits.data = malloc((size_t)(B * V) * plx_dtype_size(dtype));
    int32_t *ids = malloc((size_t)(2 * B * total) * sizeof *ids);
    int64_t *counts = malloc((size_t)B * sizeof *counts);
    struct model_cache *cache = NULL;
    plx_status status = PLX_OK;
    if (ids == NULL || counts == NULL || parity->logits.data == NULL)
        status = error_set(parity->err, PLX_OUT_OF_MEMORY, "out of memory for %s", entry->name);
    if (status == PLX_OK) status = read_ids(parity, entry->name, B, total, ids);
    if (status == PLX_OK)
        status = model_cache_create(
            parity->model, &(struct model_cache_config){.sequences = B, .capacity = total}, &cache);
    if (status == PLX_OK)
        status = decode_rows(parity, cache, ids, prompt, total, ids + B * total, counts, result);
    model_cache_destroy(cache);
    free(counts);
    free(ids);
    return status;
}

/* ---- The report ---- */

static int by_relative_error(const void *a, const void *b)
{
    double left = ((const struct comparison *)a)->relative,
           right = ((const struct comparison *)b)->relative;
    return (left < right) - (left > right);
}

/* Names what the file could have held and did not, the first few of them. */
static void report_missing(const struct parity *parity, FILE *out)
{
    enum { SHOWN = 8 };
    const struct param_list *params = model_params(parity->model);
    int missing = 0;
    for (int i = -2; i < params->count; i++) {
        char name[PARAM_NAME_MAX + sizeof gradient_prefix];
        if (i < 0)
            snprintf(name, sizeof name, "%s", i == -2 ? "loss" : "logits");
        else
            snprintf(name, sizeof name, "%s%s", gradient_prefix, params->items[i].name);
        if (safetensors_find(parity->file, name) != NULL) continue;
        if (missing++ < SHOWN)
            fprintf(out, "not compared, because not in the reference: %s\n", name);
    }
    if (missing > SHOWN) fprintf(out, "and %d more\n", missing - SHOWN);
}

static void report_print(const struct parity *parity, FILE *out)
{
    fprintf(out, "%-12s %-12s tensor\n", "absolute", "relative");
    for (int i = 0; i < parity->count; i++)
        fprintf(out, "%-12.3e %-12.3e %s\n", parity->comparisons[i].absolute,
                parity->comparisons[i].relative, parity->comparisons[i].name);
    report_missing(parity, out);
}

static plx_status report(struct parity *parity, double tolerance, FILE *out,
                         struct parity_result *result)
{
    qsort(parity->comparisons, (size_t)parity->count, sizeof *parity->comparisons,
          by_relative_error);
    const struct comparison *worst = &parity->comparisons[0];
    result->compared = parity->count;
    result->missing = model_params(parity->model)->count + 2 - parity->count;
    if (parity->count > 0) {
        result->worst = worst->relative;
        snprintf(result->worst_name, sizeof result->worst_name, "%s", worst->name);
    }
    if (out != NULL) report_print(parity, out);
    REQUIRE(parity->err, !(result->worst > tolerance), PLX_BAD_DATA,
            "%s: %s differs by %.3e of its largest value, more than the tolerance %.3e",
            parity->path, result->worst_name, result->worst, tolerance);
    REQUIRE(parity->err, result->greedy_mismatches == 0, PLX_BAD_DATA,
            "%s: %" PRId64 " of %" PRId64 " greedy tokens differ", parity->path,
            result->greedy_mismatches, result->greedy_tokens);
    return PLX_OK;
}

static plx_status run(struct parity *parity, double tolerance, FILE *out,
                      struct parity_result *result)
{
    struct model *model = parity->model;
    const plx_dtype dtype = model_params(model)->items[0].value.dtype;
    TRY(check_names(parity));
    TRY(make_batch(parity));
    parity->comparisons =
        calloc((size_t)model_params(model)->count + 2, sizeof *parity->comparisons);
    REQUIRE(parity->err, parity->comparisons != NULL, PLX_OUT_OF_MEMORY,
            "out of memory for the comparison");
    TRY(model_reserve(model, parity->batch.tokens, parity->rows, true, RECOMPUTE_NONE, NULL));
    TRY(compare_loss(parity));
    TRY(compare_gradients(parity));
    TRY(compare_logits(parity, dtype));
    for (int i = 0; i < safetensors_count(parity->file); i++) {
        const struct safetensors_entry *entry = safetensors_at(parity->file, i);
        if (has_prefix(entry->name, greedy_prefix))
            TRY(compare_greedy(parity, entry, dtype, result));
    }
    return report(parity, tolerance, out, result);
}

plx_status parity_run(struct model *model, const char *reference_path, double tolerance, FILE *out,
                      struct parity_result *result, struct error *err)
{
    struct parity parity = {.model = model, .path = reference_path, .err = err};
    *result = (struct parity_result){0};
    TRY(safetensors_open(reference_path, &parity.file, err));
    plx_status status = run(&parity, tolerance, out, result);
    safetensors_close(parity.file);
    free(parity.arrays);
    free(parity.reference);
    free(parity.logits.data);
    free(parity.comparisons);
    return status;
}
