/* terms.c: see terms.h. The formulas are those of parallax.h and lib/parallax/NOTES.md. */
#include "terms.h"

#include <math.h>
#include <stdlib.h>

#include "attention/attention.h"
#include "compare.h"

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

/* Where the sums over keys (o to dr) and over queries (dk, dv) gather, one number a row and head.
 */
struct sums {
    double *of[CASE_TENSORS];
    double saved; /* half a unit in the last place of o and m as stored, in units of ours */
};

/* A query row and a key row that it sees, with what the forward saved of the row. The softmax mean
 * of the values is m, which is o without a probe. */
struct pair {
    const double *q, *r, *k, *v, *o, *m, *d_o;
    int64_t row, key; /* index into [B,T,H] and [B,S,G] */
    double weight;    /* p */
    double x, u, t;   /* x = 1 + t - u; 1, 0 and 0 without a probe */
    /* How far rounding the products moves the logit and u. */
    double logit_error, u_error;
};

static struct pair pair_of(const struct attention_case *c, bool probe, const struct case_data *x,
                           double scale, int64_t row, int64_t key)
{
    const int64_t D = c->D;
    struct pair p = {.q = x->values[CASE_Q] + row * D,
                     .r = x->values[CASE_R] + row * D,
                     .k = x->values[CASE_K] + key * D,
                     .v = x->values[CASE_V] + key * D,
                     .o = x->values[CASE_O] + row * D,
                     .m = x->values[probe ? CASE_VALUE_MEAN : CASE_O] + row * D,
                     .d_o = x->values[CASE_D_O] + row * D,
                     .row = row,
                     .key = key,
                     .x = 1};
    p.weight = exp(scale * dot(p.q, p.k, D) - x->values[CASE_LSE][row]);
    p.logit_error = fabs(scale) * dot_size(p.q, p.k, D);
    if (!probe) return p;
    p.u = dot(p.r, p.k, D);
    p.t = x->values[CASE_PROBE_MEAN][row];
    p.x = 1 + p.t - p.u;
    p.u_error = dot_size(p.r, p.k, D);
    return p;
}

/* What the rounding of the logit and of u does to the outputs of the forward: their derivatives
 *
 *     do/dl = p (x (v - m) + m - o)    dm/dl = p (v - m)    dlse/dl = p    dt/dl = p (u - t)
 *     do/du = -p (v - m)                                                   dt/du = p
 *
 * times the errors. The rest of the forward rounds at the size of its results. */
static void add_forward(const struct pair *p, int64_t D, struct sums *sums)
{
    double o = 0, m = 0;
    for (int64_t d = 0; d < D; d++) {
        double apart = p->v[d] - p->m[d];
        o = fmax(o, fabs(p->x * apart + p->m[d] - p->o[d]) * p->logit_error +
                        fabs(apart) * p->u_error);
        m = fmax(m, fabs(apart) * p->logit_error);
    }
    sums->of[CASE_O][p->row] += p->weight * o;
    sums->of[CASE_VALUE_MEAN][p->row] += p->weight * m;
    sums->of[CASE_LSE][p->row] += p->weight * p->logit_error;
    sums->of[CASE_PROBE_MEAN][p->row] +=
        p->weight * (p->u_error + fabs(p->u - p->t) * p->logit_error);
}

/* The terms of the gradients: each difference replaced by the sum of its sides, and, because p is
 * the exponential of the rounded logit, what the logit's rounding does to p. The saved o and m were
 * rounded to their dtype, and two correct forwards need not round them alike. */
static void add_backward(const struct pair *p, int64_t D, bool probe, double scale,
                         struct sums *sums)
{
    double a = dot(p->d_o, p->v, D), b = dot(p->d_o, p->m, D), c = dot(p->d_o, p->o, D);
    double y_size = dot_size(p->d_o, p->v, D) + dot_size(p->d_o, p->m, D);
    double x_size = fabs(p->t) + p->u_error;
    double o_saved = sums->saved * dot_size(p->d_o, p->o, D);
    double m_saved = sums->saved * dot_size(p->d_o, p->m, D);
    double dl = y_size, du = y_size + p->logit_error * fabs(a - b), value = 1;
    if (probe) {
        dl = dot_size(p->d_o, p->v, D) + dot_size(p->d_o, p->o, D) + fabs(p->t - p->u) * y_size +
             x_size * fabs(a - b) + fabs(p->t - p->u) * m_saved;
        du += m_saved;
        value += x_size;
        sums->of[CASE_DR][p->row] += p->weight * du * largest(p->k, D);
        sums->of[CASE_DK][p->key] += p->weight * du * largest(p->r, D);
    }
    dl += p->logit_error * fabs(p->x * (a - b) + b - c) + o_saved;
    value += p->logit_error * fabs(p->x);
    sums->of[CASE_DQ][p->row] += fabs(scale) * p->weight * dl * largest(p->k, D);
    sums->of[CASE_DK][p->key] += fabs(scale) * p->weight * dl * largest(p->q, D);
    sums->of[CASE_DV][p->key] += p->weight * value * largest(p->d_o, D);
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
            int64_t row = (s.q_batch * c->T + s.q_start + i) * c->H + h;
            for (int64_t j = keys.first; j < keys.end; j++) {
                struct pair pair = pair_of(c, probe, oracle, p->scale, row,
                                           (s.k_batch * c->S + s.k_start + j) * c->G + g);
                add_forward(&pair, c->D, sums);
                if (last == PLX_BACKWARD) add_backward(&pair, c->D, probe, p->scale, sums);
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
