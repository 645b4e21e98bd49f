/* draw_cpu.c: ops_cpu's choice of a token for rows of logits.
 *
 * Nothing is sorted. Where tokens come in falling order, the one at which a sum is reached is found
 * digit by digit of its key (draw.h): the row's tokens are counted and their weights added up by
 * the first digit, once; the bin in which the sum is reached says which tokens to look at by their
 * second digit, and so on, until equal logits are left, which come by id. Each filter is such a
 * search, for how much the tokens it keeps weigh together, and so is the draw, within the least of
 * these sums: what a filter keeps is a beginning of the order, so the least sum is that of what all
 * of them keep. Rows are shared among threads; the arithmetic is whole numbers', so nobody's order
 * of additions shows. */
#include "ops/check.h"
#include "ops/cpu_state.h"
#include "ops/scratch.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Logits whose weights are computed together. */
enum { DRAW_CHUNK = 512 };

struct draw_bin {
    uint64_t count, mass;
};

struct draw_row {
    const struct rows *rows;
    const float *x;
    int64_t V;
    float largest;
    double rate;
    int32_t *ids;                   /* room for V */
    struct draw_bin top[DRAW_BINS]; /* of first digits, where something is filtered */
};

/* A token in falling order. */
struct draw_place {
    int32_t id;
    uint64_t mass; /* of it and those before it */
};

enum draw_measure { DRAW_COUNT, DRAW_MASS };

static uint64_t bin_measure(const struct draw_bin *bin, enum draw_measure measure)
{
    return measure == DRAW_COUNT ? bin->count : bin->mass;
}

static int64_t chunk_weights(const struct draw_row *row, int64_t first, uint64_t *weights)
{
    const int64_t left = row->V - first, count = left < DRAW_CHUNK ? left : DRAW_CHUNK;
    row->rows->draw_weights(weights, row->x + first, row->largest, row->rate, count);
    return count;
}

/* ---- In the order of ids ---- */

static int32_t draw_in_order(const struct draw_row *row, double uniform)
{
    uint64_t weights[DRAW_CHUNK], sums[DRAW_LONGEST_ROW / DRAW_CHUNK], total = 0;
    for (int64_t c = 0; c * DRAW_CHUNK < row->V; c++) {
        const int64_t count = chunk_weights(row, c * DRAW_CHUNK, weights);
        sums[c] = 0;
        for (int64_t i = 0; i < count; i++) sums[c] += weights[i];
        total += sums[c];
    }
    uint64_t left = draw_target(uniform, total);
    int64_t id = 0;
    for (int64_t c = 0; sums[c] <= left; c++, id += DRAW_CHUNK) left -= sums[c];
    chunk_weights(row, id, weights);
    for (int64_t i = 0; weights[i] <= left; i++, id++) left -= weights[i];
    return (int32_t)id;
}

/* ---- In falling order ---- */

static void fill_top(struct draw_row *row)
{
    uint64_t weights[DRAW_CHUNK];
    memset(row->top, 0, sizeof row->top);
    for (int64_t first = 0; first < row->V; first += DRAW_CHUNK) {
        const int64_t count = chunk_weights(row, first, weights);
        for (int64_t i = 0; i < count; i++) {
            struct draw_bin *bin = &row->top[draw_digit(draw_key(row->x[first + i]), 0)];
            bin->count++;
            bin->mass += weights[i];
        }
    }
}

/* The highest bin at which the measure, summed from the highest on, exceeds target. What the higher
 * ones have is taken off target, and their mass added to before. */
static uint32_t find_bin(const struct draw_bin *bins, enum draw_measure measure, uint64_t *target,
                         uint64_t *before)
{
    uint32_t b = DRAW_BINS - 1;
    for (; bin_measure(&bins[b], measure) <= *target; b--) {
        *target -= bin_measure(&bins[b], measure);
        *before += bins[b].mass;
    }
    return b;
}

/* The ids whose first digit is the given one. It is seldom a neighbour's too, so many are looked at
 * at once. */
static int64_t find_ids(const struct draw_row *row, uint32_t digit)
{
    enum { BLOCK = 64 };
    int64_t found = 0;
    for (int64_t first = 0; first < row->V; first += BLOCK) {
        const int64_t left = row->V - first, count = left < BLOCK ? left : BLOCK;
        const float *x = row->x + first;
        uint32_t any = 0;
#pragma omp simd reduction(+ : any)
        for (int64_t i = 0; i < count; i++) any += draw_digit(draw_key(x[i]), 0) == digit;
        for (int64_t i = 0; i < count && any > 0; i++) {
            row->ids[found] = (int32_t)(first + i);
            found += draw_digit(draw_key(x[i]), 0) == digit;
        }
    }
    return found;
}

/* Of count ids, those whose digit of the level is the given one. */
static int64_t keep_ids(const struct draw_row *row, int64_t count, int level, uint32_t digit)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        const int32_t id = row->ids[i];
        row->ids[kept] = id;
        kept += draw_digit(draw_key(row->x[id]), level) == digit;
    }
    return kept;
}

static void fill_bins(const struct draw_row *row, int64_t count, int level, struct draw_bin *bins)
{
    memset(bins, 0, DRAW_BINS * sizeof *bins);
    for (int64_t i = 0; i < count; i++) {
        const float logit = row->x[row->ids[i]];
        struct draw_bin *bin = &bins[draw_digit(draw_key(logit), level)];
        bin->count++;
        bin->mass += draw_weight(logit, row->largest, row->rate);
    }
}

/* The first token at which the measure, summed in falling order, exceeds target; that of all does.
 */
static struct draw_place find_place(const struct draw_row *row, enum draw_measure measure,
                                    uint64_t target)
{
    struct draw_bin bins[DRAW_BINS];
    uint64_t before = 0;
    uint32_t digit = find_bin(row->top, measure, &target, &before);
    int64_t count = find_ids(row, digit);
    for (int level = 1; level < DRAW_LEVELS; level++) {
        fill_bins(row, count, level, bins);
        digit = find_bin(bins, measure, &target, &before);
        count = keep_ids(row, count, level, digit);
    }
    const uint64_t weight = draw_weight(row->x[row->ids[0]], row->largest, row->rate);
    const uint64_t rank = measure == DRAW_COUNT ? target : target / weight;
    return (struct draw_place){row->ids[rank], before + (rank + 1) * weight};
}

static uint64_t mass_above(const struct draw_row *row, double floor)
{
    uint64_t mass = 0;
    for (int64_t i = 0; i < row->V; i++)
        if ((double)row->x[i] - (double)row->largest >= floor)
            mass += draw_weight(row->x[i], row->largest, row->rate);
    return mass;
}

static int32_t draw_filtered(struct draw_row *row, const struct draw_numbers *numbers)
{
    uint64_t mass = 0;
    fill_top(row);
    for (int b = 0; b < DRAW_BINS; b++) mass += row->top[b].mass;
    if (numbers->top_k > 0 && numbers->top_k < (double)row->V)
        mass = find_place(row, DRAW_COUNT, (uint64_t)numbers->top_k - 1).mass;
    if (numbers->top_p < 1)
        mass = find_place(row, DRAW_MASS, draw_share(numbers->top_p, mass)).mass;
    if (numbers->floor > -INFINITY) {
        const uint64_t above = mass_above(row, numbers->floor);
        mass = above < mass ? above : mass;
    }
    return find_place(row, DRAW_MASS, draw_target(numbers->uniform, mass)).id;
}

/* ---- The operations ---- */

static int32_t find_logit(const float *x, float logit)
{
    int32_t id = 0;
    while (x[id] != logit) id++;
    return id;
}

static int32_t find_odd(const float *x)
{
    int32_t id = 0;
    while (isfinite(x[id])) id++;
    return id;
}

static int32_t draw_row(struct draw_row *row, const struct draw_numbers *numbers)
{
    row->largest = row->rows->top_logit(row->x, row->V);
    if (isnan(row->largest)) return -1 - find_odd(row->x);
    if (numbers->temperature == 0) return find_logit(row->x, row->largest);
    row->rate = draw_rate(numbers->temperature);
    if (!draw_is_filtered(numbers)) return draw_in_order(row, numbers->uniform);
    return draw_filtered(row, numbers);
}

static int draw_threads(const struct backend *be, const struct plx_tensor *x)
{
    const int threads = cpu_threads(be, x->shape[0] * x->shape[1]);
    return x->shape[0] < threads ? (int)x->shape[0] : threads;
}

size_t cpu_draw_scratch(const struct backend *be, const struct plx_tensor *x)
{
    return (size_t)(draw_threads(be, x) * x->shape[1]) * sizeof(int32_t);
}

plx_status cpu_draw(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x,
                    const struct plx_tensor *numbers)
{
    TRY(check_draw(be, ids, x, numbers));
    size_t mark = arena_mark(&be->scratch);
    void *room;
    plx_status status = scratch_push(be, "draw", cpu_draw_scratch(be, x), &room);
    if (status == PLX_OK && x->shape[0] > 0) {
        const int64_t V = x->shape[1];
        const struct draw_numbers *told = numbers->data;
        int32_t *id = ids->data;
#pragma omp parallel for num_threads(draw_threads(be, x)) schedule(dynamic)
        for (int64_t n = 0; n < x->shape[0]; n++) {
            struct draw_row row = {.rows = cpu_rows(be),
                                   .x = (const float *)x->data + n * x->stride[0],
                                   .V = V,
                                   .ids = (int32_t *)room + omp_get_thread_num() * V};
            id[n] = draw_row(&row, &told[n]);
        }
    }
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cpu_penalise(struct backend *be, const struct plx_tensor *x,
                        const struct plx_tensor *seen, const struct plx_tensor *counts,
                        double penalty)
{
    TRY(check_penalise(be, x, seen, counts));
    for (int64_t n = 0; n < x->shape[0]; n++) {
        float *row = (float *)x->data + n * x->stride[0];
        const int32_t *ids = (const int32_t *)seen->data + n * seen->shape[1];
        for (int32_t i = 0; i < ((const int32_t *)counts->data)[n]; i++) {
            if (ids[i] < 0 || ids[i] >= x->shape[1]) continue;
            const double logit = row[ids[i]];
            row[ids[i]] = (float)(logit > 0.0 ? logit / penalty : logit * penalty);
        }
    }
    return PLX_OK;
}
