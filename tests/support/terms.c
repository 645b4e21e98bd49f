/* terms.c: see terms.h. The formulas are those of parallax.h and lib/parallax/NOTES.md. */
#include "terms.h"

#include <math.h>
#include <stdlib.h>

#include "attention/attention.h"
#include "compare.h"

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < count; d++) sum += a[d] * b[d];
    return sum;
}

/* Size of the rounding of a dot product, in units of its precision. */
static double dot_size(const double *a, const double *b, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < count; d++) sum += a[d] * b[d] * a[d] * b[d];
    return sqrt(sum);
}

/* The larger one; NaN as the second does not count. */
static double larger(double a, double b)
{
    return b > a ? b : a;
}

static double largest(const double *a, int64_t count)
{
    double size = 0;
    for (int64_t d = 0; d < count; d++) size = larger(size, fabs(a[d]));
    return size;
}

/* Where the sums over keys (o to dr) and over queries (dk, dv) gather, one number a row and head.
 */
struct sums {
    double *of[CASE_TENSORS];
    double saved; /* half a unit in the last place of o and m as stored, in units of ours */
};

/* A query row, and what the forward saved of it. The softmax mean of the values is m, which is o
 * without a probe; b = d_o.m and c = d_o.o, which like the sizes are of the backward. */
struct query {
    const double *q, *r, *o, *m, *d_o;
    int64_t row; /* index into [B,T,H] */
    double lse, t, b, c, b_size, c_size, q_largest, r_largest, d_o_largest;
};

static struct query query_of(const struct attention_case *c, bool probe, const struct case_data *x,
                             int64_t row)
{
    const int64_t D = c->D;
    struct query q = {.q = x->values[CASE_Q] + row * D,
                      .r = x->values[CASE_R] + row * D,
                      .o = x->values[CASE_O] + row * D,
                      .m = x->values[probe ? CASE_VALUE_MEAN : CASE_O] + row * D,
                      .d_o = x->values[CASE_D_O] + row * D,
                      .row = row,
                      .lse = x->values[CASE_LSE][row],
                      .t = probe ? x->values[CASE_PROBE_MEAN][row] : 0};
    q.b = dot(q.d_o, q.m, D), q.b_size = dot_size(q.d_o, q.m, D);
    q.c = dot(q.d_o, q.o, D), q.c_size = dot_size(q.d_o, q.o, D);
    q.q_largest = largest(q.q, D), q.d_o_largest = largest(q.d_o, D);
    if (probe) q.r_largest = largest(q.r, D);
    return q;
}

/* A key row that a query row sees. */
struct pair {
    const double *k, *v;
    int64_t key;   /* index into [B,S,G] */
    double weight; /* p */
    double x, u;   /* x = 1 + t - u; 1 and 0 without a probe */
    /* How far rounding the products moves the logit and u. */
    double logit_error, u_error;
};

static struct pair pair_of(const struct query *q, const struct attention_case *c, bool probe,
                           const struct case_data *x, double scale, int64_t key)
{
    const int64_t D = c->D;
    struct pair p = {
        .k = x->values[CASE_K] + key * D, .v = x->values[CASE_V] + key * D, .key = key, .x = 1};
    p.weight = exp(scale * dot(q->q, p.k, D) - q->lse);
    p.logit_error = fabs(scale) * dot_size(q->q, p.k, D);
    if (!probe) return p;
    p.u = dot(q->r, p.k, D);
    p.x = 1 + q->t - p.u;
    p.u_error = dot_size(q->r, p.k, D);
    return p;
}

/* What the rounding of the logit and of u does to the outputs of the forward: their derivatives
 *
 *     do/dl = p (x (v - m) + m - o)    dm/dl = p (v - m)    dlse/dl = p    dt/dl = p (u - t)
 *     do/du = -p (v - m)                                                   dt/du = p
 *
 * times the errors. The rest of the forward rounds at the size of its results. */
static void add_forward(const struct query *q, const struct pair *p, int64_t D, struct sums *sums)
{
    double o = 0, m = 0;
    for (int64_t d = 0; d < D; d++) {
        double apart = p->v[d] - q->m[d];
        o = larger(o, fabs(p->x * apart + q->m[d] - q->o[d]) * p->logit_error +
                          fabs(apart) * p->u_error);
        m = larger(m, fabs(apart) * p->logit_error);
    }
    sums->of[CASE_O][q->row] += p->weight * o;
    sums->of[CASE_VALUE_MEAN][q->row] += p->weight * m;
    sums->of[CASE_LSE][q->row] += p->weight * p->logit_error;
    sums->of[CASE_PROBE_MEAN][q->row] +=
        p->weight * (p->u_error + fabs(p->u - q->t) * p->logit_error);
}

/* The terms of the gradients: each difference replaced by the sum of its sides, and, because p is
 * the exponential of the rounded logit, what the logit's rounding does to p. The saved o and m were
 * rounded to their dtype, and two correct forwards need not round them alike. */
static void add_backward(const struct query *q, const struct pair *p, int64_t D, bool probe,
                         double scale, struct sums *sums)
{
    double a = dot(q->d_o, p->v, D), b = q->b, c = q->c, a_size = dot_size(q->d_o, p->v, D);
    double y_size = a_size + q->b_size, x_size = fabs(q->t) + p->u_error;
    double o_saved = sums->saved * q->c_size, m_saved = sums->saved * q->b_size;
    double dl = y_size, du = y_size + p->logit_error * fabs(a - b), value = 1;
    double k_largest = largest(p->k, D);
    if (probe) {
        dl = a_size + q->c_size + fabs(q->t - p->u) * y_size + x_size * fabs(a - b) +
             fabs(q->t - p->u) * m_saved;
        du += m_saved;
        value += x_size;
        sums->of[CASE_DR][q->row] += p->weight * du * k_largest;
        sums->of[CASE_DK][p->key] += p->weight * du * q->r_largest;
    }
    dl += p->logit_error * fabs(p->x * (a - b) + b - c) + o_saved;
    value += p->logit_error * fabs(p->x);
    sums->of[CASE_DQ][q->row] += fabs(scale) * p->weight * dl * k_largest;
    sums->of[CASE_DK][p->key] += fabs(scale) * p->weight * dl * q->q_largest;
    sums->of[CASE_DV][p->key] += p->weight * value * q->d_o_largest;
}

/* The query heads of one key/value head of one sequence, whose sums no other pair of the two
 * touches.
 */
static void add_head(const struct attention_case *c, const struct attention_problem *p, int64_t n,
                     int64_t g, bool probe, plx_pass last, const struct case_data *oracle,
                     struct sums *sums)
{
    const int64_t group = c->H / c->G;
    struct attention_sequence s = attention_sequence(p, n);
    for (int64_t i = 0; i < s.T; i++) {
        struct attention_range keys = attention_keys(p, s.T, s.S, i);
        for (int64_t h = g * group; h < (g + 1) * group; h++) {
            struct query query =
                query_of(c, probe, oracle, (s.q_batch * c->T + s.q_start + i) * c->H + h);
            for (int64_t j = keys.first; j < keys.end; j++) {
                struct pair pair = pair_of(&query, c, probe, oracle, p->scale,
                                           (s.k_batch * c->S + s.k_start + j) * c->G + g);
                add_forward(&query, &pair, c->D, sums);
                if (last == PLX_BACKWARD) add_backward(&query, &pair, c->D, probe, p->scale, sums);
            }
        }
    }
}

static struct plx_tensor list_view(const int32_t *list)
{
    return (struct plx_tensor){.data = (void *)(uintptr_t)list};
}

struct term_sizes term_sizes(const struct attention_case *c, plx_mechanism mechanism, plx_pass last,
                             plx_dtype saved, const struct case_data *oracle)
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
    struct sums sums = {.saved = compare_unit(saved) / compare_unit(PLX_F32) / 2};
    for (int n = CASE_O; n <= CASE_DV; n++)
        sums.of[n] = calloc((size_t)oracle->counts[n] + 1, sizeof(double));
    const int64_t sequences = c->q_offsets ? c->sequences : c->B;
#pragma omp parallel for schedule(dynamic)
    for (int64_t n = 0; n < sequences * c->G; n++)
        add_head(c, &p, n / c->G, n % c->G, mechanism == PLX_PARALLAX, last, oracle, &sums);
    for (int n = CASE_O; n <= CASE_DV; n++) {
        int64_t rows = oracle->counts[n] / (oracle->ranks[n] == 4 ? c->D : 1);
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
