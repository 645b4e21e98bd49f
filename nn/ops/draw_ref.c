/* draw_ref.c: what penalise and draw of op.h mean: everything sorted, weights and their sums in
 * double. Part of ops_ref.c's table. */
#include "ops/draw_ref.h"

#include <math.h>
#include <stdlib.h>

#include "core/number.h"

void REAL(draw_ref_penalise)(const struct plx_tensor *x, const struct plx_tensor *seen,
                             const struct plx_tensor *counts, double penalty)
{
    for (int64_t n = 0; n < x->shape[0]; n++) {
        real *row = (real *)x->data + n * x->stride[0];
        const int32_t *ids = (const int32_t *)seen->data + n * seen->shape[1];
        for (int32_t i = 0; i < ((const int32_t *)counts->data)[n]; i++) {
            if (ids[i] < 0 || ids[i] >= x->shape[1]) continue;
            const double logit = row[ids[i]];
            row[ids[i]] = (real)(logit > 0.0 ? logit / penalty : logit * penalty);
        }
    }
}

static int draw_ref_order(const void *left, const void *right)
{
    const struct draw_ref_token *a = left, *b = right;
    if (a->logit != b->logit) return a->logit < b->logit ? 1 : -1;
    return (a->id > b->id) - (a->id < b->id);
}

/* How many tokens, which are in order, the filters keep. */
static int64_t draw_ref_kept(const struct draw_ref_token *tokens, int64_t count,
                             const struct draw_numbers *numbers)
{
    double total = 0.0, sum = 0.0;
    int64_t kept = 0;
    if (numbers->top_k > 0 && numbers->top_k < (double)count) count = (int64_t)numbers->top_k;
    for (int64_t i = 0; i < count; i++) total += tokens[i].weight;
    while (kept < count && (numbers->top_p >= 1 || sum < numbers->top_p * total)) {
        if (tokens[kept].logit - tokens[0].logit < numbers->floor) break;
        sum += tokens[kept++].weight;
    }
    return kept;
}

/* The first at which the sum of weights exceeds its share; rounding may let none do so. */
static int32_t draw_ref_take(const struct draw_ref_token *tokens, int64_t kept, double uniform)
{
    double sum = 0.0, reached = 0.0;
    for (int64_t i = 0; i < kept; i++) sum += tokens[i].weight;
    for (int64_t i = 0; i < kept; i++) {
        reached += tokens[i].weight;
        if (reached > uniform * sum) return tokens[i].id;
    }
    return tokens[kept - 1].id;
}

static int32_t draw_ref_row(const real *row, int64_t V, const struct draw_numbers *numbers,
                            struct draw_ref_token *tokens)
{
    double largest = row[0];
    for (int64_t v = 0; v < V; v++) {
        if (!isfinite(row[v])) return (int32_t)(-1 - v);
        largest = fmax(largest, row[v]);
    }
    for (int64_t v = 0; v < V; v++) {
        if (numbers->temperature == 0 && row[v] == largest) return (int32_t)v;
        tokens[v] = (struct draw_ref_token){
            row[v], row[v] == largest ? 1.0 : exp((row[v] - largest) / numbers->temperature),
            (int32_t)v};
    }
    const bool filtered = draw_is_filtered(numbers);
    if (filtered) qsort(tokens, (size_t)V, sizeof *tokens, draw_ref_order);
    return draw_ref_take(tokens, filtered ? draw_ref_kept(tokens, V, numbers) : V,
                         numbers->uniform);
}

void REAL(draw_ref_draw)(const struct plx_tensor *ids, const struct plx_tensor *x,
                         const struct draw_numbers *numbers, struct draw_ref_token *tokens)
{
    for (int64_t n = 0; n < x->shape[0]; n++)
        ((int32_t *)ids->data)[n] = draw_ref_row((const real *)x->data + n * x->stride[0],
                                                 x->shape[1], &numbers[n], tokens);
}
