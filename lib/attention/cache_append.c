/* cache_append.c: plx_cache_append: its checks, and the work on the CPU, where it is a copy of a
 * few rows. The cache is described by the problem that decode would make of it, so that pages,
 * lengths and scales mean the same in both. Next: cache_append_any.cu (the same on a GPU). */
#include "attention/cache_append.h"

#include <inttypes.h>
#include <string.h>

#include "attention/attention_check.h"
#include "core/dtype.h"
#include "core/tensor.h"

/* ---- Checks ---------------------------------------------------------------------------------- */

/* What a tensor must be like. */
struct append_rule {
    const char *name;
    const struct plx_tensor *tensor;
    plx_dtype dtype;
    const char *like; /* where the extents come from */
    int rank;
    int64_t shape[PLX_MAX_RANK];
    bool written;
};

static plx_status append_check_tensor(plx_context *context, const struct append_rule *rule)
{
    const struct plx_tensor *tensor = rule->tensor;
    TRY(tensor_check(context, rule->name, tensor));
    CHECK(context, tensor->rank == rule->rank, PLX_INVALID_ARGUMENT,
          "%s: rank is %d but must be %d", rule->name, tensor->rank, rule->rank);
    CHECK(context, tensor->dtype == rule->dtype, PLX_INVALID_ARGUMENT, "%s: dtype %s must be %s",
          rule->name, plx_dtype_name(tensor->dtype), plx_dtype_name(rule->dtype));
    for (int axis = 0; axis < rule->rank; axis++)
        CHECK(context, tensor->shape[axis] == rule->shape[axis], PLX_INVALID_ARGUMENT,
              "%s: extent %" PRId64 " of axis %d differs from the %" PRId64 " of %s", rule->name,
              tensor->shape[axis], axis, rule->shape[axis], rule->like);
    if (rule->written) TRY(tensor_check_written(context, rule->name, tensor));
    CHECK(context, tensor->data || plx_tensor_count(tensor) == 0, PLX_INVALID_ARGUMENT,
          "%s: data is NULL", rule->name);
    return PLX_OK;
}

/* k and k_cache give the dtypes and extents that the other tensors are compared with. */
static plx_status append_check_leaders(plx_context *context, const struct plx_attention *attention,
                                       struct cache_append *a)
{
    struct attention_problem *cache = &a->cache;
    const struct plx_tensor *k = &a->k, *to = &cache->k;
    TRY(tensor_check(context, "k", k));
    CHECK(context, k->rank == 4, PLX_INVALID_ARGUMENT, "k: rank is %d but must be 4", k->rank);
    CHECK(context, dtype_is_float(k->dtype) && k->dtype != PLX_F8E4M3, PLX_INVALID_ARGUMENT,
          "k: dtype %s is not one of f32, bf16, f16, f64", plx_dtype_name(k->dtype));
    CHECK(context, k->dtype != PLX_F64 || context->device == PLX_CPU, PLX_UNSUPPORTED,
          "k: dtype f64 is appended on the CPU only");
    cache->B = k->shape[0], cache->T = k->shape[1], cache->G = k->shape[2], cache->D = k->shape[3];
    CHECK(context, cache->D >= 1, PLX_INVALID_ARGUMENT, "k: has no channels");
    TRY(tensor_check(context, "k_cache", to));
    CHECK(context, to->rank == 4, PLX_INVALID_ARGUMENT, "k_cache: rank is %d but must be 4",
          to->rank);
    CHECK(context, dtype_is_float(to->dtype), PLX_INVALID_ARGUMENT,
          "k_cache: dtype %s is not one of f32, bf16, f16, f64, f8e4m3", plx_dtype_name(to->dtype));
    CHECK(context, (to->dtype == PLX_F64) == (k->dtype == PLX_F64), PLX_INVALID_ARGUMENT,
          "k_cache: dtype %s does not go with a k of %s", plx_dtype_name(to->dtype),
          plx_dtype_name(k->dtype));
    cache->pass = PLX_DECODE;
    cache->dtype = k->dtype;
    cache->kv_dtype = to->dtype;
    cache->S = to->shape[1];
    CHECK(context, attention->q_lengths.rank == 0, PLX_INVALID_ARGUMENT,
          "q_lengths: given although an append takes all of its rows");
    CHECK(context, attention->q_offsets.rank == 0 && attention->k_offsets.rank == 0,
          PLX_INVALID_ARGUMENT, "%s: given although a cache is not packed",
          attention->q_offsets.rank ? "q_offsets" : "k_offsets");
    cache->k_lengths = attention->k_lengths;
    cache->k_pages = attention->k_pages;
    cache->k_scales = attention->k_scales;
    cache->v_scales = attention->v_scales;
    if (cache->k_pages.rank != 0) TRY(attention_check_pages(context, cache, false));
    CHECK(context, cache->k_lengths.rank != 0, PLX_INVALID_ARGUMENT, "k_lengths: is absent");
    TRY(attention_check_list(context, "k_lengths", &cache->k_lengths, PLX_I32, cache->B, false));
    return attention_check_scales(context, cache, false);
}

static plx_status append_check_tensors(plx_context *context, const struct cache_append *a)
{
    const struct attention_problem *c = &a->cache;
    const bool paged = c->k_pages.rank != 0;
    const int64_t B = c->B, T = c->T, G = c->G, D = c->D;
    const int64_t entries = paged ? c->pages : B, rows = paged ? c->page : c->S;
    const struct append_rule rules[] = {
        {"k", &a->k, c->dtype, "k", 4, {B, T, G, D}, false},
        {"v", &a->v, c->dtype, "k", 4, {B, T, G, D}, false},
        {"k_cache", &c->k, c->kv_dtype, "k", 4, {entries, rows, G, D}, true},
        {"v_cache", &c->v, c->kv_dtype, "k_cache", 4, {entries, rows, G, D}, true},
    };
    for (size_t n = 0; n < sizeof rules / sizeof rules[0]; n++)
        TRY(append_check_tensor(context, &rules[n]));
    return PLX_OK;
}

/* The tables, and what they turn besides the keys. */
static plx_status append_check_rotary(plx_context *context, const struct cache_append *a)
{
    const struct attention_problem *c = &a->cache;
    const int64_t B = c->B, T = c->T, D = c->D, positions = a->cosines.shape[0];
    const int64_t H = a->q.shape[2];
    CHECK(context, !a->cosines.rank == !a->sines.rank, PLX_INVALID_ARGUMENT,
          "%s: is absent although its other half is given", a->cosines.rank ? "sines" : "cosines");
    CHECK(context, a->cosines.rank || !a->q.rank, PLX_INVALID_ARGUMENT,
          "q: given without cosines and sines");
    CHECK(context, a->q.rank || !a->r.rank, PLX_INVALID_ARGUMENT, "r: given without q");
    if (!a->cosines.rank) return PLX_OK;
    CHECK(context, c->dtype != PLX_F64, PLX_INVALID_ARGUMENT,
          "cosines: given although k is of f64, which they would round");
    CHECK(context, D % 2 == 0, PLX_INVALID_ARGUMENT,
          "k: %" PRId64 " channels are odd, so they do not turn in pairs", D);
    const struct append_rule rules[] = {
        {"cosines", &a->cosines, PLX_F32, "k", 2, {positions, D / 2}, false},
        {"sines", &a->sines, PLX_F32, "cosines", 2, {positions, D / 2}, false},
        {"q", &a->q, c->dtype, "k", 4, {B, T, H, D}, false},
        {"q_rotated", &a->q_rotated, c->dtype, "q", 4, {B, T, H, D}, true},
        {"r", &a->r, c->dtype, "q", 4, {B, T, H, D}, false},
        {"r_rotated", &a->r_rotated, c->dtype, "q", 4, {B, T, H, D}, true},
    };
    const size_t count = a->r.rank ? 6 : a->q.rank ? 4 : 2;
    for (size_t n = 0; n < count; n++) TRY(append_check_tensor(context, &rules[n]));
    CHECK(context, positions >= c->S, PLX_INVALID_ARGUMENT,
          "cosines: %" PRId64 " positions are fewer than the %" PRId64 " keys of the cache",
          positions, c->S);
    return PLX_OK;
}

/* ---- The CPU --------------------------------------------------------------------------------- */

/* Where the angles of a row are; NULL where it is not turned. */
struct append_angles {
    const float *cosine, *sine;
};

/* A row of D elements, turned and divided by the scale that the cache multiplies with. */
static void append_row(const struct plx_tensor *from, int64_t source, const struct plx_tensor *to,
                       int64_t target, int64_t D, struct append_angles angles, float scale)
{
    if (!angles.cosine && from->dtype == to->dtype) {
        const size_t width = plx_dtype_size(to->dtype);
        memcpy((char *)to->data + (size_t)target * width,
               (const char *)from->data + (size_t)source * width, (size_t)D * width);
        return;
    }
    if (!angles.cosine) {
        for (int64_t d = 0; d < D; d++)
            dtype_store(to->data, to->dtype, target + d,
                        (double)((float)dtype_load(from->data, from->dtype, source + d) / scale));
        return;
    }
    for (int64_t d = 0, half = D / 2; d < half; d++) {
        const float x = (float)dtype_load(from->data, from->dtype, source + d);
        const float y = (float)dtype_load(from->data, from->dtype, source + half + d);
        const float c = angles.cosine[d], s = angles.sine[d];
        dtype_store(to->data, to->dtype, target + d, (double)((x * c - y * s) / scale));
        dtype_store(to->data, to->dtype, target + half + d, (double)((y * c + x * s) / scale));
    }
}

static float append_scale(const struct plx_tensor *scales, int64_t g)
{
    return scales->data ? ((const float *)scales->data)[g] : 1.0f;
}

/* New row t of sequence b: its keys and values, and the queries and probes beside them. */
static void append_token(const struct cache_append *a, int64_t b, int64_t t)
{
    const struct attention_problem *c = &a->cache;
    const struct attention_sequence seq = {.k_batch = b};
    const int64_t key = cache_append_key(a, b, t), position = key < 0 ? 0 : key;
    const struct append_angles still = {NULL, NULL};
    struct append_angles angles = still;
    if (a->cosines.rank) {
        angles.cosine = (const float *)a->cosines.data + position * a->cosines.stride[0];
        angles.sine = (const float *)a->sines.data + position * a->sines.stride[0];
    }
    for (int64_t g = 0; key >= 0 && g < c->G; g++) {
        append_row(&a->k, tensor_offset(&a->k, b, t, g), &c->k,
                   attention_key_offset(c, &c->k, &seq, key, g), c->D, angles,
                   append_scale(&c->k_scales, g));
        append_row(&a->v, tensor_offset(&a->v, b, t, g), &c->v,
                   attention_key_offset(c, &c->v, &seq, key, g), c->D, still,
                   append_scale(&c->v_scales, g));
    }
    for (int64_t h = 0; a->q.rank && h < a->q.shape[2]; h++)
        append_row(&a->q, tensor_offset(&a->q, b, t, h), &a->q_rotated,
                   tensor_offset(&a->q_rotated, b, t, h), c->D, angles, 1.0f);
    for (int64_t h = 0; a->r.rank && h < a->r.shape[2]; h++)
        append_row(&a->r, tensor_offset(&a->r, b, t, h), &a->r_rotated,
                   tensor_offset(&a->r_rotated, b, t, h), c->D, angles, 1.0f);
}

plx_status plx_cache_append(plx_context *context, const struct plx_attention *attention,
                            const struct plx_cache_append_args *args, plx_stream stream)
{
    if (!context) return PLX_INVALID_ARGUMENT;
    context_begin(context);
    CHECK(context, attention, PLX_INVALID_ARGUMENT, "attention: is NULL");
    CHECK(context, args, PLX_INVALID_ARGUMENT, "args: is NULL");
    CHECK(context, stream == NULL || context->device != PLX_CPU, PLX_INVALID_ARGUMENT,
          "stream: must be NULL on the CPU");
    struct cache_append a = {.cache = {.k = args->k_cache, .v = args->v_cache},
                             .k = args->k,
                             .v = args->v,
                             .cosines = args->cosines,
                             .sines = args->sines,
                             .q = args->q,
                             .r = args->r,
                             .q_rotated = args->q_rotated,
                             .r_rotated = args->r_rotated};
    TRY(append_check_leaders(context, attention, &a));
    TRY(append_check_tensors(context, &a));
    TRY(append_check_rotary(context, &a));
    if (context->device == PLX_CPU || context->validate)
        TRY(attention_check_lists(context, &a.cache, stream));
    if (context->device == PLX_CUDA) return cache_append_cuda(context, &a, stream);
#pragma omp parallel for num_threads(context->threads) schedule(static)
    for (int64_t n = 0; n < a.cache.B * a.cache.T; n++)
        append_token(&a, n / a.cache.T, n % a.cache.T);
    return PLX_OK;
}
