/* terms.c: see terms.h. The formulas are those of the backward in parallax.h, each difference
 * replaced by the sum of its sides. */
#include "terms.h"

#include <math.h>
#include <stdlib.h>

#include "attention/attention.h"

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t d = 0; d < count; d++) sum += a[d] * b[d];
    return sum;
}

/* Size of the rounding of a dot product, in units of its precision. */
static double dot_size(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t d = 0; d < count; d++) sum += a[d] * b[d] * a[d] * b[d];
    return sqrt(sum);
}

static double largest(const double *a, int64_t count)
{
    double size = 0;
    for (int64_t d = 0; d < count; d++) size = fmax(size, fabs(a[d]));
    return size;
}

/* Where sums over keys (dq, dr) and over queries (dk, dv) gather, one number a row and head. */
struct sums {
    double *of[CASE_TENSORS];
};

/* Adds what query row (index into [B,T,H]) and key row (into [B,S,G]) contribute to each other. */
static void add_pair(const struct attention_case *c, bool probe, const struct case_data *x,
                     double scale, int64_t row, int64_t key, struct sums *sums)
{
    const int64_t D = c->D;
    const double *q = x->values[CASE_Q] + row * D, *k = x->values[CASE_K] + key * D;
    const double *v = x->values[CASE_V] + key * D, *g = x->values[CASE_D_O] + row * D;
    double weight = exp(scale * dot(q, k, D) - x->values[CASE_LSE][row]);
    double a = dot_size(g, v, D), o = dot_size(g, x->values[CASE_O] + row * D, D);
    double dl = a + o, du = 0, value = 1;
    if (probe) {
        const double *r = x->values[CASE_R] + row * D, *m = x->values[CASE_VALUE_MEAN] + row * D;
        double t = x->values[CASE_PROBE_MEAN][row], u = dot(r, k, D), u_size = dot_size(r, k, D);
        du = a + dot_size(g, m, D);
        dl += fabs(t - u) * du + (fabs(t) + u_size) * fabs(dot(g, v, D) - dot(g, m, D));
        value += fabs(t) + u_size;
        sums->of[CASE_DR][row] += weight * du * largest(k, D);
        sums->of[CASE_DK][key] += weight * du * largest(r, D);
    }
    sums->of[CASE_DQ][row] += fabs(scale) * weight * dl * largest(k, D);
    sums->of[CASE_DK][key] += fabs(scale) * weight * dl * largest(q, D);
    sums->of[CASE_DV][key] += weight * value * largest(g, D);
}

static void add_sequence(const struct attention_case *c, const struct attention_problem *p,
                         int64_t n, bool probe, const struct case_data *oracle, struct sums *sums)
{
    struct attention_sequence s = attention_sequence(p, n);
    for (int64_t i = 0; i < s.T; i++) {
        struct attention_range keys = attention_keys(p, s.T, s.S, i);
        for (int64_t h = 0; h < c->H; h++) {
            int64_t row = (s.q_batch * c->T + s.q_start + i) * c->H + h, g = h / (c->H / c->G);
            for (int64_t j = keys.first; j < keys.end; j++)
                add_pair(c, probe, oracle, p->scale, row,
                         (s.k_batch * c->S + s.k_start + j) * c->G + g, sums);
        }
    }
}

static struct plx_tensor list_view(const int32_t *list)
{
    return (struct plx_tensor){.data = (void *)(uintptr_t)list};
}

struct term_sizes term_sizes(const struct attention_case *c, plx_mechanism mechanism,
                             const struct case_data *oracle)
{
    struct attention_problem p = {.T = c->T,
                                  .S = c->S,
                                  .causal = c->causal,
                                  .window = c->window,
                                  .scale = c->scale != 0 ? c->scale : 1 / sqrt((double)c->D),
                                  .q_lengths = list_view(c->q_lengths),
                                  .k_lengths = list_view(c->k_lengths),
                                  .q_offsets = list_view(c->q_offsets),
                                  .k_offsets = list_view(c->k_offsets)};
    struct term_sizes sizes = {{{0, 0}}};
    struct sums sums = {{NULL}};
    for (int n = CASE_DQ; n <= CASE_DV; n++)
        sums.of[n] = calloc((size_t)oracle->counts[n] + 1, sizeof(double));
    for (int64_t n = 0; n < (c->q_offsets ? c->sequences : c->B); n++)
        add_sequence(c, &p, n, mechanism == PLX_PARALLAX, oracle, &sums);
    for (int n = CASE_DQ; n <= CASE_DV; n++) {
        int64_t rows = oracle->counts[n] / c->D;
        double squares = 0;
        for (int64_t row = 0; row < rows; row++) {
            if (!isfinite(sums.of[n][row])) continue;
            sizes.of[n].largest = fmax(sizes.of[n].largest, sums.of[n][row]);
            squares += sums.of[n][row] * sums.of[n][row];
        }
        sizes.of[n].rms = rows > 0 ? sqrt(squares / (double)rows) : 0;
        free(sums.of[n]);
    }
    return sizes;
}
