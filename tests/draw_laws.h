/* draw_laws.h: what the operation draw must keep on any device, beyond its rows of op_cases.h: the
 * ids of the reference in double wherever rounding has no say, the frequencies of the distribution,
 * the same ids as every other device, and none of it a matter of the rows beside. */
#ifndef TESTS_DRAW_LAWS_H
#define TESTS_DRAW_LAWS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_backends.h"
#include "ops/draw.h"

/* Rows of logits on the host, and what their draws are told. */
struct draw_batch {
    int64_t N, V;
    float *logits;
    struct draw_numbers *numbers;
    int32_t *ids;
};

enum draw_kind { DRAW_NORMAL, DRAW_PEAKED, DRAW_TIED, DRAW_EQUAL, DRAW_FAR, DRAW_KINDS };

static inline float draw_logit(struct seeded *random, enum draw_kind kind)
{
    const double normal = seeded_normal(random);
    switch (kind) {
    case DRAW_PEAKED:
        return (float)(4 * normal);
    case DRAW_TIED:
        return (float)(rint(8 * normal) / 4);
    case DRAW_EQUAL:
        return normal > 0 ? 0.0f : -0.0f;
    case DRAW_FAR:
        return (float)(1e30 * normal);
    default:
        return (float)normal;
    }
}

/* Options of all kinds; ends of their ranges more often than by chance. */
static inline struct draw_numbers draw_options(struct seeded *random, int64_t V)
{
    static const double temperatures[] = {1, 0.7, 0.2, 3, 1e-300, 50};
    static const double shares[] = {1, 1, 0.9, 0.5, 1e-9, 0.99999};
    static const double floors[] = {-INFINITY, -INFINITY, -2, 0, -12};
    const double counts[] = {0, 0, 1, 7, (double)(V / 2 + 1), (double)V, (double)(V + 3)};
    const double uniforms[] = {0, 1 - 0x1p-53};
    const int64_t end = seeded_between(random, 0, 9);
    return (struct draw_numbers){.uniform = end < 2 ? uniforms[end] : seeded_uniform(random),
                                 .temperature = temperatures[seeded_between(random, 0, 5)],
                                 .top_k = counts[seeded_between(random, 0, 6)],
                                 .top_p = shares[seeded_between(random, 0, 5)],
                                 .floor = floors[seeded_between(random, 0, 4)]};
}

static inline struct draw_batch draw_batch_create(int64_t N, int64_t V)
{
    struct draw_batch batch = {N, V, calloc((size_t)(N * V), sizeof *batch.logits),
                               calloc((size_t)N, sizeof *batch.numbers),
                               calloc((size_t)N, sizeof *batch.ids)};
    assert_true(batch.logits != NULL && batch.numbers != NULL && batch.ids != NULL);
    return batch;
}

static inline void draw_batch_destroy(struct draw_batch *batch)
{
    free(batch->logits);
    free(batch->numbers);
    free(batch->ids);
}

static inline struct draw_batch draw_batch_random(struct seeded *random, int64_t N, int64_t V,
                                                  enum draw_kind kind)
{
    struct draw_batch batch = draw_batch_create(N, V);
    for (int64_t i = 0; i < N * V; i++) batch.logits[i] = draw_logit(random, kind);
    for (int64_t n = 0; n < N; n++) batch.numbers[n] = draw_options(random, V);
    return batch;
}

/* ---- Running ---- */

static inline void draw_must(const struct op_backend *backend, plx_status status)
{
    if (status != PLX_OK) fail_msg("%s: %s", backend->name, backend->be.err->text);
}

/* A tensor on the backend's device with room for bytes, filled where there is something to fill it
 * with. */
static inline void draw_place(struct op_backend *backend, struct plx_tensor *tensor,
                              const void *from, size_t bytes)
{
    struct backend *be = &backend->be;
    tensor->device = be->device->kind;
    draw_must(backend, be->device->allocate(&tensor->data, bytes, be->stream, be->err));
    if (from != NULL)
        draw_must(backend, be->device->upload(tensor->data, from, bytes, be->stream, be->err));
    else
        draw_must(backend, be->device->fill(tensor->data, 0x7f, bytes, be->stream, be->err));
}

/* The logits as numbers of the backend's storage dtype. */
static inline void draw_place_logits(struct op_backend *backend, struct plx_tensor *x,
                                     const struct draw_batch *batch)
{
    const int64_t count = batch->N * batch->V;
    double *wide = calloc((size_t)count, sizeof *wide);
    assert_non_null(wide);
    for (int64_t i = 0; i < count; i++) wide[i] = batch->logits[i];
    const bool is_wide = backend->be.storage == PLX_F64;
    *x = plx_tensor_dense(NULL, backend->be.storage, 2, (int64_t[]){batch->N, batch->V});
    draw_place(backend, x, is_wide ? (const void *)wide : batch->logits,
               (size_t)count * plx_dtype_size(backend->be.storage));
    free(wide);
}

/* Draws for every row. */
static inline void draw_on(struct op_backend *backend, struct draw_batch *batch)
{
    struct backend *be = &backend->be, dry = backend_dry(be);
    struct plx_tensor x,
        ids = plx_tensor_dense(NULL, PLX_I32, 1, &batch->N),
        numbers = plx_tensor_dense(NULL, PLX_F64, 2, (int64_t[]){batch->N, DRAW_NUMBERS});
    draw_place_logits(backend, &x, batch);
    draw_place(backend, &ids, NULL, (size_t)batch->N * sizeof *batch->ids);
    draw_place(backend, &numbers, batch->numbers, (size_t)batch->N * sizeof *batch->numbers);
    draw_must(backend, dry.ops->draw(&dry, &ids, &x, &numbers));
    draw_must(backend, backend_reserve(be, dry.scratch.peak));
    draw_must(backend, be->ops->draw(be, &ids, &x, &numbers));
    draw_must(backend,
              be->device->download(batch->ids, ids.data, (size_t)batch->N * sizeof *batch->ids,
                                   be->stream, be->err));
    be->device->release(x.data, be->stream);
    be->device->release(ids.data, be->stream);
    be->device->release(numbers.data, be->stream);
}

static inline void draw_same_ids(const struct draw_batch *batch, const int32_t *ids,
                                 const char *what)
{
    for (int64_t n = 0; n < batch->N; n++) {
        if (ids[n] == batch->ids[n]) continue;
        const struct draw_numbers *told = &batch->numbers[n];
        fail_msg("%s: row %lld of %lld logits gives %d, not %d (uniform %.17g, temperature %g, "
                 "top-k %g, top-p %g, floor %g)",
                 what, (long long)n, (long long)batch->V, ids[n], batch->ids[n], told->uniform,
                 told->temperature, told->top_k, told->top_p, told->floor);
    }
}

/* ---- The reference ---- */

/* How far shares of the kernels' weights can be from exact ones. A weight is w (1 + e) + a with |e|
 * below 2^-29 and a of at most 2^-42 of the largest, which weighs 1; so a sum of n weights is off
 * by e times itself and n a, the sum of all by as much, and their quotient, as the latter is at
 * least 1, by 2 (e + n a) and the square of that. Rounding down to a whole number adds one a. */
static inline double draw_uncertainty(int64_t V)
{
    const double off = 2 * (0x1p-29 + (double)(V + 1) * 0x1p-42);
    return off + off * off;
}

/* The reference's ids with uniform and top-p moved by so much. */
static inline void draw_moved(struct op_backend *oracle, const struct draw_batch *batch,
                              double uniform, double share, int32_t *ids)
{
    struct draw_batch moved = *batch;
    moved.ids = ids;
    moved.numbers = calloc((size_t)batch->N, sizeof *moved.numbers);
    assert_non_null(moved.numbers);
    for (int64_t n = 0; n < batch->N; n++) {
        struct draw_numbers *told = &moved.numbers[n];
        *told = batch->numbers[n];
        told->uniform = fmin(fmax(told->uniform + uniform, 0), 1 - 0x1p-53);
        if (told->top_p < 1) told->top_p = fmax(told->top_p + share, 0x1p-1000);
    }
    draw_on(oracle, &moved);
    free(moved.numbers);
}

/* A token's place is monotone in uniform and in top-p: where the four corners of what rounding may
 * make of them give one id, it is the only right one. Returns how many rows were such. */
static inline int64_t draw_check_oracle(struct op_backend *oracle, struct op_backend *backend,
                                        struct draw_batch *batch)
{
    const double off = draw_uncertainty(batch->V);
    int32_t *corners = calloc((size_t)(4 * batch->N), sizeof *corners);
    int64_t certain = 0;
    assert_non_null(corners);
    for (int c = 0; c < 4; c++)
        draw_moved(oracle, batch, c & 1 ? off : -off, c & 2 ? off : -off, corners + c * batch->N);
    draw_on(backend, batch);
    for (int64_t n = 0; n < batch->N; n++) {
        const int32_t id = corners[n];
        bool one = true;
        for (int c = 1; c < 4; c++) one = one && corners[c * batch->N + n] == id;
        if (!one) corners[n] = batch->ids[n];
        certain += one;
    }
    draw_same_ids(batch, corners, backend->name);
    free(corners);
    return certain;
}

static const struct {
    int64_t N, V;
} draw_sizes[] = {{40, 1}, {60, 2}, {90, 17}, {60, 257}, {20, 5000}, {1, 151669}, {1, 151936}};
enum { DRAW_SIZES = sizeof draw_sizes / sizeof *draw_sizes };

/* Nearly all rows must be certain, or the law would say nothing. */
static inline void draws_are_the_references(struct op_backend *oracle, struct op_backend *backend,
                                            uint64_t seed)
{
    int64_t rows = 0, certain = 0;
    for (int i = 0; i < DRAW_SIZES; i++)
        for (int kind = 0; kind < DRAW_KINDS; kind++) {
            struct seeded random = seeded_make(seed, (uint64_t)(i * DRAW_KINDS + kind));
            struct draw_batch batch =
                draw_batch_random(&random, draw_sizes[i].N, draw_sizes[i].V, (enum draw_kind)kind);
            certain += draw_check_oracle(oracle, backend, &batch);
            rows += batch.N;
            draw_batch_destroy(&batch);
        }
    print_message("%s: %lld of %lld rows certain\n", backend->name, (long long)certain,
                  (long long)rows);
    assert_true(certain > rows * 95 / 100);
}

/* ---- Devices and rows ---- */

/* Both backends, twice, and each row alone. */
static inline void draws_are_the_same(struct op_backend *one, struct op_backend *other,
                                      uint64_t seed)
{
    for (int i = 0; i < DRAW_SIZES; i++)
        for (int kind = 0; kind < DRAW_KINDS; kind++) {
            struct seeded random = seeded_make(seed, (uint64_t)(1000 + i * DRAW_KINDS + kind));
            struct draw_batch batch =
                draw_batch_random(&random, draw_sizes[i].N, draw_sizes[i].V, (enum draw_kind)kind);
            if (kind == DRAW_PEAKED) batch.logits[(batch.N - 1) * batch.V + batch.V / 2] = NAN;
            int32_t *ids = calloc((size_t)batch.N, sizeof *ids);
            assert_non_null(ids);
            draw_on(one, &batch);
            memcpy(ids, batch.ids, (size_t)batch.N * sizeof *ids);
            draw_on(other, &batch);
            draw_same_ids(&batch, ids, one->name);
            draw_on(other, &batch);
            draw_same_ids(&batch, ids, "a second time");
            for (int64_t n = 0; n < batch.N && batch.V < 5000; n++) {
                struct draw_batch row = {1, batch.V, batch.logits + n * batch.V, batch.numbers + n,
                                         batch.ids + n};
                draw_on(other, &row);
            }
            draw_same_ids(&batch, ids, "rows alone");
            free(ids);
            draw_batch_destroy(&batch);
        }
}

/* ---- Frequencies ---- */

enum { DRAW_TOKENS = 40, DRAW_ROWS = 60000 };

/* Pearson's statistic of many draws from one distribution, whose shares are given, must stay under
 * its 0.9999 quantile, which is below 95 for 39 degrees of freedom and fewer. The seed is fixed, so
 * this either always passes or never does. */
static inline void draw_check_shares(struct op_backend *backend, const float *logits,
                                     const struct draw_numbers *told, const double *shares)
{
    struct draw_batch batch = draw_batch_create(DRAW_ROWS, DRAW_TOKENS);
    struct seeded random = seeded_make(17, 4);
    int64_t counts[DRAW_TOKENS] = {0};
    double statistic = 0;
    for (int64_t n = 0; n < DRAW_ROWS; n++) {
        memcpy(batch.logits + n * DRAW_TOKENS, logits, DRAW_TOKENS * sizeof *logits);
        batch.numbers[n] = *told;
        batch.numbers[n].uniform = seeded_uniform(&random);
    }
    draw_on(backend, &batch);
    for (int64_t n = 0; n < DRAW_ROWS; n++) {
        assert_in_range(batch.ids[n], 0, DRAW_TOKENS - 1);
        counts[batch.ids[n]]++;
    }
    for (int v = 0; v < DRAW_TOKENS; v++) {
        const double expected = shares[v] * DRAW_ROWS, off = (double)counts[v] - expected;
        if (expected == 0) assert_int_equal(counts[v], 0);
        if (expected > 0) statistic += off * off / expected;
    }
    if (statistic > 95)
        fail_msg("%s: chi-square statistic %.1f (top-k %g, top-p %g, floor %g)", backend->name,
                 statistic, told->top_k, told->top_p, told->floor);
    draw_batch_destroy(&batch);
}

/* Weights fall by a tenth from one token to the next, in a mixed order of ids, so that the kept are
 * easily told. */
static inline void draws_have_the_right_frequencies(struct op_backend *backend)
{
    const double ratio = 0.9, temperature = 0.7;
    const struct {
        struct draw_numbers told;
        int kept;
    } rows[] = {{{0, temperature, 0, 1, -INFINITY}, DRAW_TOKENS},
                {{0, temperature, 12, 1, -INFINITY}, 12},
                /* 1 - 0.9^6 = 0.469 and 1 - 0.9^7 = 0.522 of 1 - 0.9^40 */
                {{0, temperature, 0, 0.5, -INFINITY}, 7},
                /* of twelve's 0.718: 0.469 is more than 0.6 */
                {{0, temperature, 12, 0.6, -INFINITY}, 6},
                {{0, temperature, 0, 1, temperature * log(0.5)}, 7}};
    float logits[DRAW_TOKENS];
    for (int rank = 0; rank < DRAW_TOKENS; rank++)
        logits[rank * 11 % DRAW_TOKENS] = (float)(temperature * log(ratio) * rank + 3);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        double shares[DRAW_TOKENS] = {0};
        for (int rank = 0; rank < rows[r].kept; rank++)
            shares[rank * 11 % DRAW_TOKENS] =
                pow(ratio, rank) * (1 - ratio) / (1 - pow(ratio, rows[r].kept));
        draw_check_shares(backend, logits, &rows[r].told, shares);
    }
}

#endif
