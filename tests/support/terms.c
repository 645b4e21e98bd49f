/* terms.c: see terms.h. The formulas are those of parallax.h, each difference replaced by the sum
 * of its sides. */
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

/* Where the sums gather: one number a row and head of each output, over keys for those of queries
 * and over queries for dk and dv. */
struct sums {
    const struct attention_case *c;
    const struct case_data *x;
    bool probe, backward;
    double scale;
    double *of[CASE_TENSORS];
};

/* What a query row brings to every key. */
struct query {
    int64_t row;
    const double *q, *r, *g;
    double lse, t;
    double q_largest, r_largest, g_largest;
    double go_size, gm_size, gm; /* of d_o.o and d_o.m, and d_o.m itself */
};

static struct query query_of(const struct sums *s, int64_t row)
{
    const int64_t D = s->c->D;
    double *const *values = s->x->values;
    struct query query = {.row = row, .q = values[CASE_Q] + row * D, .lse = values[CASE_LSE][row]};
    if (s->probe) {
        query.r = values[CASE_R] + row * D;
        query.t = values[CASE_PROBE_MEAN][row];
    }
    if (!s->backward) return query;
    query.g = values[CASE_D_O] + row * D;
    query.q_largest = largest(query.q, D);
    query.g_largest = largest(query.g, D);
    query.go_size = dot_size(query.g, values[CASE_O] + row * D, D);
    if (!s->probe) return query;
    query.r_largest = largest(query.r, D);
    query.gm_size = dot_size(query.g, values[CASE_VALUE_MEAN] + row * D, D);
    query.gm = dot(query.g, values[CASE_VALUE_MEAN] + row * D, D);
    return query;
}

/* A weight and a probed key with the sizes of their roundings. */
struct pair {
    double weight, logit_size, u, u_size;
};

static void add_forward(const struct sums *s, const struct query *query, const struct pair *pair,
                        double v_largest)
{
    const double spread = fabs(pair->u - query->t), size = fabs(pair->u) + pair->u_size;
    const double factor = 1 + fabs(query->t) + size + pair->logit_size * (1 + spread);
    s->of[CASE_O][query->row] += pair->weight * v_largest * factor;
    s->of[CASE_LSE][query->row] += pair->weight * pair->logit_size;
    s->of[CASE_VALUE_MEAN][query->row] += pair->weight * v_largest * (1 + pair->logit_size);
    s->of[CASE_PROBE_MEAN][query->row] += pair->weight * (size + pair->logit_size * spread);
}

static void add_backward(const struct sums *s, const struct query *query, const struct pair *pair,
                         int64_t key)
{
    const int64_t D = s->c->D;
    const double *k = s->x->values[CASE_K] + key * D, *v = s->x->values[CASE_V] + key * D;
    const double a = dot_size(query->g, v, D), weight = pair->weight;
    const double k_largest = largest(k, D);
    double dl = a + query->go_size, value = 1;
    if (s->probe) {
        const double du = a + query->gm_size, size = fabs(query->t) + pair->u_size;
        dl += fabs(query->t - pair->u) * du + size * fabs(dot(query->g, v, D) - query->gm);
        value += size;
        s->of[CASE_DR][query->row] += weight * du * k_largest;
        s->of[CASE_DK][key] += weight * du * query->r_largest;
    }
    s->of[CASE_DQ][query->row] += fabs(s->scale) * weight * dl * k_largest;
    s->of[CASE_DK][key] += fabs(s->scale) * weight * dl * query->q_largest;
    s->of[CASE_DV][key] += weight * value * query->g_largest;
}

/* Adds what a query and a key contribute to each other. */
static void add_pair(const struct sums *s, const struct query *query, int64_t key)
{
    const int64_t D = s->c->D;
    const double *k = s->x->values[CASE_K] + key * D;
    struct pair pair = {.weight = exp(s->scale * dot(query->q, k, D) - query->lse),
                        .logit_size = fabs(s->scale) * dot_size(query->q, k, D)};
    if (s->probe) {
        pair.u = dot(query->r, k, D);
        pair.u_size = dot_size(query->r, k, D);
    }
    add_forward(s, query, &pair, largest(s->x->values[CASE_V] + key * D, D));
    if (s->backward) add_backward(s, query, &pair, key);
}

/* The query heads of one key/value head of one sequence, whose sums no other pair of the two
 * touches.
 */
static void add_head(const struct attention_problem *p, int64_t n, int64_t g,
                     const struct sums *sums)
{
    const struct attention_case *c = sums->c;
    const int64_t group = c->H / c->G;
    struct attention_sequence s = attention_sequence(p, n);
    for (int64_t i = 0; i < s.T; i++) {
        struct attention_range keys = attention_keys(p, s.T, s.S, i);
        for (int64_t h = g * group; h < (g + 1) * group; h++) {
            struct query query = query_of(sums, (s.q_batch * c->T + s.q_start + i) * c->H + h);
            for (int64_t j = keys.first; j < keys.end; j++)
                add_pair(sums, &query, (s.k_batch * c->S + s.k_start + j) * c->G + g);
        }
    }
}

static struct plx_tensor list_view(const int32_t *list)
{
    return (struct plx_tensor){.data = (void *)(uintptr_t)list};
}

static struct term_size size_of(const double *sums, int64_t rows)
{
    struct term_size size = {0, 0};
    double squares = 0;
    for (int64_t row = 0; row < rows; row++) {
        if (!isfinite(sums[row])) continue;
        size.largest = fmax(size.largest, sums[row]);
        squares += sums[row] * sums[row];
    }
    size.rms = rows > 0 ? sqrt(squares / (double)rows) : 0;
    return size;
}

struct term_sizes term_sizes(const struct attention_case *c, plx_mechanism mechanism, plx_pass last,
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
    struct sums sums = {.c = c,
                        .x = oracle,
                        .probe = mechanism == PLX_PARALLAX,
                        .backward = last == PLX_BACKWARD,
                        .scale = p.scale};
    for (int n = CASE_O; n < CASE_TENSORS; n++)
        sums.of[n] = calloc((size_t)oracle->counts[n] + 1, sizeof(double));
    const int64_t sequences = c->q_offsets ? c->sequences : c->B;
#pragma omp parallel for schedule(dynamic)
    for (int64_t n = 0; n < sequences * c->G; n++) add_head(&p, n / c->G, n % c->G, &sums);
    for (int n = CASE_O; n < CASE_TENSORS; n++) {
        sizes.of[n] = size_of(sums.of[n], oracle->counts[n] / (oracle->ranks[n] == 4 ? c->D : 1));
        free(sums.of[n]);
    }
    return sizes;
}
