/* bench_exact.c: see bench_exact.h. The formulas are those of parallax.h, in the order in which
 * they stand there; this is the third writing of them in the project, because it shares nothing
 * with the kernels that it judges and takes its inputs from a pattern, not from tensors. */
#include "bench_exact.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a query row knows of its keys. */
struct query {
    int64_t keys;       /* it sees the first so many of its sequence */
    double *p, *u, *a;  /* weight, r.k and d_o.v a key */
    double t, g_o, g_m; /* probe_mean, d_o.o, d_o.m */
};

/* Where a query row lies. */
struct place {
    int64_t b, i, h;
};

static int64_t query_row(const struct bench_case *c, struct place at)
{
    return (at.b * bench_time(c) + at.i) * c->shape.hq + at.h;
}

static double dot(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t d = 0; d < count; d++) sum += (double)a[d] * b[d];
    return sum;
}

static plx_status query_create(const struct bench_tensors *x, const struct bench_case *c,
                               struct place at, struct query *query)
{
    const struct bench_shape s = c->shape;
    const int64_t row = query_row(c, at), g = at.h / (s.hq / s.hkv);
    const float *q = bench_tensors_row(x, SLOT_Q, row), *r = bench_tensors_row(x, SLOT_R, row);
    /* Queries end where their sequence does. */
    *query = (struct query){.keys = c->causal ? s.l - bench_time(c) + at.i + 1 : s.l};
    query->p = calloc((size_t)(3 * query->keys), sizeof(double));
    if (!query->p) return PLX_OUT_OF_MEMORY;
    query->u = query->p + query->keys;
    query->a = query->u + query->keys;
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < query->keys; j++) {
        const float *k = bench_tensors_row(x, SLOT_K, bench_key_row(c, at.b, j, g));
        query->p[j] = dot(q, k, s.d) / sqrt((double)s.d);
        query->u[j] = c->mechanism == PLX_PARALLAX ? dot(r, k, s.d) : 0;
        largest = fmax(largest, query->p[j]);
    }
    for (int64_t j = 0; j < query->keys; j++) sum += query->p[j] = exp(query->p[j] - largest);
    for (int64_t j = 0; j < query->keys; j++) {
        query->p[j] /= sum;
        query->t += query->p[j] * query->u[j];
    }
    if (c->pass != PLX_BACKWARD) return PLX_OK;
    const float *d_o = bench_tensors_row(x, SLOT_D_O, row);
    for (int64_t j = 0; j < query->keys; j++) {
        query->a[j] = dot(d_o, bench_tensors_row(x, SLOT_V, bench_key_row(c, at.b, j, g)), s.d);
        query->g_m += query->p[j] * query->a[j];
        query->g_o += query->p[j] * (1 + query->t - query->u[j]) * query->a[j];
    }
    return PLX_OK;
}

static void query_destroy(struct query *query)
{
    free(query->p);
}

/* Factors of a key in the sums of parallax.h: of v in o, of k in dq and in dr. */
static double factor_o(const struct query *query, int64_t j)
{
    return query->p[j] * (1 + query->t - query->u[j]);
}

static double factor_dq(const struct query *query, int64_t j)
{
    const double delta = query->a[j] - query->g_m;
    return query->p[j] * (query->a[j] - query->g_o + (query->t - query->u[j]) * delta);
}

static double factor_dr(const struct query *query, int64_t j)
{
    return -query->p[j] * (query->a[j] - query->g_m);
}

static void add_scaled(double factor, const float *row, int64_t count, double *sum)
{
    for (int64_t d = 0; d < count; d++) sum[d] += factor * row[d];
}

static struct bench_sample *add_sample(struct bench_exact *exact, enum bench_slot slot, int64_t row)
{
    struct bench_sample *sample = &exact->samples[exact->count++];
    memset(sample, 0, sizeof *sample);
    sample->slot = slot;
    sample->row = row;
    return sample;
}

/* A sum over the keys of one query row. */
static plx_status sum_keys(const struct bench_tensors *x, const struct bench_case *c,
                           struct place at, struct bench_sample *sample)
{
    const int64_t g = at.h / (c->shape.hq / c->shape.hkv), d = c->shape.d;
    const enum bench_slot summed = sample->slot == SLOT_O ? SLOT_V : SLOT_K;
    const double scale = sample->slot == SLOT_DQ ? 1 / sqrt((double)d) : 1;
    double (*const factor)(const struct query *, int64_t) = sample->slot == SLOT_O    ? factor_o
                                                            : sample->slot == SLOT_DQ ? factor_dq
                                                                                      : factor_dr;
    struct query query;
    TRY(query_create(x, c, at, &query));
    for (int64_t j = 0; j < query.keys; j++)
        add_scaled(scale * factor(&query, j),
                   bench_tensors_row(x, summed, bench_key_row(c, at.b, j, g)), d, sample->exact);
    query_destroy(&query);
    return PLX_OK;
}

/* What one query adds to the gradients of a key and its value. */
static plx_status add_query(const struct bench_tensors *x, const struct bench_case *c,
                            struct place at, int64_t j, double *dk, double *dv)
{
    const int64_t row = query_row(c, at), d = c->shape.d;
    struct query query;
    TRY(query_create(x, c, at, &query));
#pragma omp critical(bench_exact_add)
    {
        add_scaled(factor_dq(&query, j) / sqrt((double)d), bench_tensors_row(x, SLOT_Q, row), d,
                   dk);
        if (c->mechanism == PLX_PARALLAX)
            add_scaled(factor_dr(&query, j), bench_tensors_row(x, SLOT_R, row), d, dk);
        add_scaled(factor_o(&query, j), bench_tensors_row(x, SLOT_D_O, row), d, dv);
    }
    query_destroy(&query);
    return PLX_OK;
}

/* dk and dv of one key: sums over the queries that see it. */
static plx_status sum_queries(const struct bench_tensors *x, const struct bench_case *c, int64_t b,
                              int64_t g, int64_t j, struct bench_exact *exact)
{
    const int64_t row = bench_key_row(c, b, j, g), group = c->shape.hq / c->shape.hkv;
    double *dk = add_sample(exact, SLOT_DK, row)->exact,
           *dv = add_sample(exact, SLOT_DV, row)->exact;
    const int64_t first = c->causal ? j : 0, queries = c->shape.l - first;
    plx_status status = PLX_OK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t n = 0; n < queries * group; n++) {
        const struct place at = {b, first + n / group, g * group + n % group};
        if (add_query(x, c, at, j, dk, dv) != PLX_OK) {
#pragma omp atomic write
            status = PLX_OUT_OF_MEMORY;
        }
    }
    return status;
}

/* ---- Which rows --------------------------------------------------------------------------------
 */

enum { MAX_PLACES = 2 * (BENCH_FIRST_ROWS + 4) };

/* Query rows of the first head of the first sequence and the last of the last. */
static int choose_places(const struct bench_case *c, struct place places[MAX_PLACES])
{
    const struct bench_shape s = c->shape;
    const int64_t first = s.l < BENCH_FIRST_ROWS ? s.l : BENCH_FIRST_ROWS;
    const int64_t later[] = {s.l / 4, s.l / 2, 3 * s.l / 4, s.l - 1};
    int count = 0;
    if (c->pass == PLX_DECODE) {
        places[count++] = (struct place){0, 0, 0};
        if (c->tokens > 1) places[count++] = (struct place){0, c->tokens - 1, 0};
        if (s.hq > 1) places[count++] = (struct place){0, 0, s.hq - 1};
        if (s.b > 1) places[count++] = (struct place){s.b - 1, 0, s.hq / 2};
        if (s.b > 2) places[count++] = (struct place){s.b / 2, 0, 0};
        return count;
    }
    for (int64_t n = 0; n < first + 4; n++) {
        const int64_t i = n < first ? n : later[n - first];
        if (n >= first && i < first) continue;
        places[count++] = (struct place){0, i, 0};
        if (s.b * s.hq > 1) places[count++] = (struct place){s.b - 1, i, s.hq - 1};
    }
    return count;
}

plx_status bench_exact_create(const struct bench_tensors *tensors, const struct bench_case *c,
                              struct bench_exact *exact, struct error *err)
{
    const struct bench_shape s = c->shape;
    struct place places[MAX_PLACES], sampled[BENCH_MAX_SAMPLES];
    const int count = choose_places(c, places);
    plx_status status = PLX_OK;
    REQUIRE(err, s.d <= BENCH_MAX_D, PLX_UNSUPPORTED, "bench: %lld channels are more than %d",
            (long long)s.d, BENCH_MAX_D);
    exact->count = 0;
    for (int n = 0; n < count; n++) {
        sampled[exact->count] = places[n];
        add_sample(exact, c->pass == PLX_BACKWARD ? SLOT_DQ : SLOT_O, query_row(c, places[n]));
        if (c->pass != PLX_BACKWARD || c->mechanism != PLX_PARALLAX) continue;
        sampled[exact->count] = places[n];
        add_sample(exact, SLOT_DR, query_row(c, places[n]));
    }
    const int rows = exact->count;
#pragma omp parallel for schedule(dynamic)
    for (int n = 0; n < rows; n++) {
        if (sum_keys(tensors, c, sampled[n], &exact->samples[n]) != PLX_OK) {
#pragma omp atomic write
            status = PLX_OUT_OF_MEMORY;
        }
    }
    const bool keys = c->pass == PLX_BACKWARD && (c->causal || s.l <= 4096);
    const int64_t seen = s.l < 64 ? s.l : 64;
    if (keys && status == PLX_OK) status = sum_queries(tensors, c, 0, 0, s.l - seen, exact);
    if (keys && status == PLX_OK)
        status = sum_queries(tensors, c, s.b - 1, s.hkv - 1, s.l - 1, exact);
    REQUIRE(err, status == PLX_OK, status, "bench: no memory for the exact values of %lld keys",
            (long long)s.l);
    return PLX_OK;
}

/* ---- Comparison --------------------------------------------------------------------------------
 */

/* Rounds the exact values like the output, and reads the output as f64. */
static plx_status convert(double *exact, plx_dtype dtype, void *stored, double *got, int64_t d,
                          struct error *err)
{
    float rounded[BENCH_MAX_D];
    struct plx_tensor from = plx_tensor_dense(exact, PLX_F64, 1, &d);
    struct plx_tensor as = plx_tensor_dense(rounded, dtype, 1, &d);
    struct plx_tensor out = plx_tensor_dense(stored, dtype, 1, &d);
    struct plx_tensor read = plx_tensor_dense(got, PLX_F64, 1, &d);
    plx_context *context;
    plx_status status = plx_context_create(NULL, &context);
    if (status == PLX_OK) status = plx_convert(context, &out, &read);
    if (status == PLX_OK) status = plx_convert(context, &from, &as);
    if (status == PLX_OK) status = plx_convert(context, &as, &from);
    if (status != PLX_OK) error_set(err, status, "bench: %s", plx_error(context));
    plx_context_destroy(context);
    return status;
}

plx_status bench_exact_compare(const struct bench_tensors *tensors,
                               const struct bench_arguments *args, const struct bench_exact *exact,
                               double *error, double *equal, struct error *err)
{
    double worst[SLOTS] = {0}, largest[SLOTS] = {0};
    struct bench_arguments views = *args;
    int64_t same = 0, all = 0;
    for (int n = 0; n < exact->count; n++) {
        const struct bench_sample *sample = &exact->samples[n];
        const struct plx_tensor *tensor = &bench_slots(&views)[sample->slot];
        const size_t bytes = plx_dtype_size(tensor->dtype) * (size_t)tensors->d;
        double rounded[BENCH_MAX_D], got[BENCH_MAX_D];
        float stored[BENCH_MAX_D];
        memcpy(rounded, sample->exact, sizeof rounded);
        TRY(tensors->device->download(stored, (char *)tensor->data + (size_t)sample->row * bytes,
                                      bytes, tensors->stream, err));
        TRY(convert(rounded, tensor->dtype, stored, got, tensors->d, err));
        for (int64_t d = 0; d < tensors->d; d++, all++) {
            const double difference = fabs(got[d] - sample->exact[d]);
            same += got[d] == rounded[d];
            worst[sample->slot] =
                isnan(difference) ? INFINITY : fmax(worst[sample->slot], difference);
            largest[sample->slot] = fmax(largest[sample->slot], fabs(sample->exact[d]));
        }
    }
    *error = 0;
    *equal = all > 0 ? (double)same / (double)all : 1;
    for (int n = 0; n < SLOTS; n++)
        if (largest[n] > 0) *error = fmax(*error, worst[n] / largest[n]);
    return PLX_OK;
}
