/* softmax_ref.c: softmax attention as it is usually written; the definition for its kernels.
 *
 *     l_ij = scale q_i.k_j    p_ij = softmax_j(l_ij)    o_i = sum_j p_ij v_j
 *
 * and backward, with c_i = d_o_i.o_i:
 *
 *     dl_ij = p_ij (d_o_i.v_j - c_i)
 *     dq_i = scale sum_j dl_ij k_j    dk_j = scale sum_i dl_ij q_i    dv_j = sum_i p_ij d_o_i
 *
 * The loops are those of parallax/parallax_ref.c without the probe, term for term in the same
 * order, so that Parallax with a zero probe gives these bits. Decode is the forward. Compiled in
 * float and in double (core/real.h). */
#include "softmax/softmax_impl.h"

#include "attention/attention_ref.h"

/* Per thread: one row of S numbers and seven of D, in whole cache lines. */
static int64_t thread_reals(const struct attention_problem *p)
{
    return ref_thread_reals(p->S + 7 * p->D);
}

size_t REAL(softmax_ref_workspace)(const struct attention_problem *p)
{
    return (size_t)p->threads * (size_t)thread_reals(p) * sizeof(real);
}

/* Query i of head h in one sequence: o, and lse where it is asked for. */
static void forward_row(const struct attention_problem *p, const struct attention_sequence *seq,
                        int64_t h, int64_t i, real *scratch)
{
    const int64_t D = p->D, g = h / (p->H / p->G), t_row = seq->q_start + i;
    const struct attention_range keys = attention_keys(p, seq->T, seq->S, i);
    const real scale = (real)p->scale;
    real *weight = scratch, *q = weight + p->S, *row = q + D, *o = row + D;

    real_load(q, &p->q, tensor_offset(&p->q, seq->q_batch, t_row, h), D);
    real_zero(o, D);

    real largest = -(real)INFINITY, sum = 0;
    for (int64_t j = keys.first; j < keys.end; j++) {
        ref_load_key(row, p, &p->k, &p->k_scales, seq, j, g);
        weight[j] = scale * real_dot(q, row, D);
        if (!(weight[j] <= largest))
            largest = weight[j]; /* a NaN stays and shows in every output */
    }
    for (int64_t j = keys.first; j < keys.end; j++) {
        weight[j] = real_exp(weight[j] - largest);
        sum += weight[j];
    }
    for (int64_t j = keys.first; j < keys.end; j++) {
        ref_load_key(row, p, &p->v, &p->v_scales, seq, j, g);
        weight[j] /= sum;
        real_add(o, weight[j], row, D);
    }

    const real lse = keys.first < keys.end ? largest + real_log(sum) : -(real)INFINITY;
    real_store(o, &p->o, tensor_offset(&p->o, seq->q_batch, t_row, h), D);
    if (p->lse.rank) real_store(&lse, &p->lse, tensor_offset(&p->lse, seq->q_batch, t_row, h), 1);
}

void REAL(softmax_ref_forward)(const struct attention_problem *p, void *workspace)
{
    ref_forward(p, forward_row, workspace, thread_reals(p));
}

/* What the backward of a query row needs besides the keys. */
struct saved_row {
    real *q, *d_o;   /* [D] each */
    real lse, o_dot; /* the last is c_i of the header above */
};

/* Loads query i of head h; scratch holds three rows. */
static struct saved_row load_saved(const struct attention_problem *p,
                                   const struct attention_sequence *seq, int64_t h, int64_t i,
                                   real *scratch)
{
    const int64_t D = p->D, b = seq->q_batch, t_row = seq->q_start + i;
    struct saved_row s = {.q = scratch, .d_o = scratch + D};
    real *o = scratch + 2 * D;
    real_load(s.q, &p->q, tensor_offset(&p->q, b, t_row, h), D);
    real_load(s.d_o, &p->d_o, tensor_offset(&p->d_o, b, t_row, h), D);
    real_load(o, &p->o, tensor_offset(&p->o, b, t_row, h), D);
    real_load(&s.lse, &p->lse, tensor_offset(&p->lse, b, t_row, h), 1);
    s.o_dot = real_dot(s.d_o, o, D);
    return s;
}

/* The gradient that flows through one (query, key) pair, and the factor of d_o in dv. */
struct pair {
    real dl, value_weight;
};

static struct pair pair_gradient(const struct saved_row *s, real scale, const real *k,
                                 const real *v, int64_t D)
{
    const real weight = real_exp(scale * real_dot(s->q, k, D) - s->lse);
    return (struct pair){.dl = weight * (real_dot(s->d_o, v, D) - s->o_dot),
                         .value_weight = weight};
}

/* dq of query i, head h. */
static void backward_query(const struct attention_problem *p, const struct attention_sequence *seq,
                           int64_t h, int64_t i, real *scratch)
{
    const int64_t D = p->D, g = h / (p->H / p->G), t_row = seq->q_start + i;
    const struct attention_range keys = attention_keys(p, seq->T, seq->S, i);
    const real scale = (real)p->scale;
    real *k = scratch + 3 * D, *v = k + D, *dq = v + D;
    const struct saved_row saved = load_saved(p, seq, h, i, scratch);
    real_zero(dq, D);
    for (int64_t j = keys.first; j < keys.end; j++) {
        real_load(k, &p->k, tensor_offset(&p->k, seq->k_batch, seq->k_start + j, g), D);
        real_load(v, &p->v, tensor_offset(&p->v, seq->k_batch, seq->k_start + j, g), D);
        const struct pair pair = pair_gradient(&saved, scale, k, v, D);
        real_add(dq, scale * pair.dl, k, D);
    }
    real_store(dq, &p->dq, tensor_offset(&p->dq, seq->q_batch, t_row, h), D);
}

/* dk and dv of key j, key/value head g: summed over the query heads that share it. */
static void backward_key(const struct attention_problem *p, const struct attention_sequence *seq,
                         int64_t g, int64_t j, real *scratch)
{
    const int64_t D = p->D, group = p->H / p->G, s_row = seq->k_start + j;
    const real scale = (real)p->scale;
    real *k = scratch + 3 * D, *v = k + D, *dk = v + D, *dv = dk + D;
    real_load(k, &p->k, tensor_offset(&p->k, seq->k_batch, s_row, g), D);
    real_load(v, &p->v, tensor_offset(&p->v, seq->k_batch, s_row, g), D);
    real_zero(dk, D);
    real_zero(dv, D);
    for (int64_t h = g * group; h < (g + 1) * group; h++) {
        for (int64_t i = 0; i < seq->T; i++) {
            const struct attention_range keys = attention_keys(p, seq->T, seq->S, i);
            if (j < keys.first || j >= keys.end) continue;
            const struct saved_row saved = load_saved(p, seq, h, i, scratch);
            const struct pair pair = pair_gradient(&saved, scale, k, v, D);
            real_add(dk, scale * pair.dl, saved.q, D);
            real_add(dv, pair.value_weight, saved.d_o, D);
        }
    }
    real_store(dk, &p->dk, tensor_offset(&p->dk, seq->k_batch, s_row, g), D);
    real_store(dv, &p->dv, tensor_offset(&p->dv, seq->k_batch, s_row, g), D);
}

void REAL(softmax_ref_backward)(const struct attention_problem *p, void *workspace)
{
    ref_backward(p, backward_query, backward_key, workspace, thread_reals(p));
}
