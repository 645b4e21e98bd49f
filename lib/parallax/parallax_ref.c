/* parallax_ref.c: Parallax as the paper writes it; the definition that every kernel is compared
 * with.
 *
 * For a query row i and the keys j that it sees:
 *
 *     l_ij = scale q_i.k_j    p_ij = softmax_j(l_ij)    u_ij = r_i.k_j    t_i = sum_j p_ij u_ij
 *     m_i = sum_j p_ij v_j    o_i = sum_j p_ij (1 + t_i - u_ij) v_j
 *
 * and backward, with a_ij = d_o_i.v_j, b_i = d_o_i.m_i, c_i = d_o_i.o_i, delta_ij = a_ij - b_i:
 *
 *     dl_ij = p_ij (a_ij - c_i + (t_i - u_ij) delta_ij)     du_ij = -p_ij delta_ij
 *     dq_i = scale sum_j dl_ij k_j    dk_j = sum_i (scale dl_ij q_i + du_ij r_i)
 *     dr_i = sum_j du_ij k_j          dv_j = sum_i p_ij (1 + t_i - u_ij) d_o_i
 *
 * Plain loops over rows: no tiles, no online softmax. One thread computes a row from its first term
 * to its last, so the bits do not depend on how many threads there are. Decode is the forward: the
 * same rows, fewer of them. Compiled in float and in double (core/real.h). Next: parallax.c. */
#include "parallax/parallax_impl.h"

#include "attention/attention_ref.h"

/* Per thread: two rows of S numbers and nine of D, in whole cache lines. */
static int64_t thread_reals(const struct attention_problem *p)
{
    return ref_thread_reals(2 * p->S + 9 * p->D);
}

size_t REAL(parallax_ref_workspace)(const struct attention_problem *p)
{
    return (size_t)p->threads * (size_t)thread_reals(p) * sizeof(real);
}

/* Query i of head h in one sequence: o, and lse, t and m where they are asked for. */
static void forward_row(const struct attention_problem *p, const struct attention_sequence *seq,
                        int64_t h, int64_t i, real *scratch)
{
    const int64_t D = p->D, g = h / (p->H / p->G), t_row = seq->q_start + i;
    const struct attention_range keys = attention_keys(p, seq->T, seq->S, i);
    const real scale = (real)p->scale;
    real *weight = scratch, *u = weight + p->S;
    real *q = u + p->S, *r = q + D, *row = r + D, *o = row + D, *m = o + D;

    real_load(q, &p->q, tensor_offset(&p->q, seq->q_batch, t_row, h), D);
    real_load(r, &p->r, tensor_offset(&p->r, seq->q_batch, t_row, h), D);
    real_zero(o, D);
    real_zero(m, D);

    real largest = -(real)INFINITY, sum = 0, t = 0;
    for (int64_t j = keys.first; j < keys.end; j++) {
        ref_load_key(row, p, &p->k, &p->k_scales, seq, j, g);
        weight[j] = scale * real_dot(q, row, D);
        u[j] = real_dot(r, row, D);
        if (!(weight[j] <= largest))
            largest = weight[j]; /* a NaN stays and shows in every output */
    }
    for (int64_t j = keys.first; j < keys.end; j++) {
        weight[j] = real_exp(weight[j] - largest);
        sum += weight[j];
    }
    for (int64_t j = keys.first; j < keys.end; j++) {
        weight[j] /= sum;
        t += weight[j] * u[j];
    }
    for (int64_t j = keys.first; j < keys.end; j++) {
        ref_load_key(row, p, &p->v, &p->v_scales, seq, j, g);
        real_add(o, weight[j] * (1 + t - u[j]), row, D);
        real_add(m, weight[j], row, D);
    }

    const real lse = keys.first < keys.end ? largest + real_log(sum) : -(real)INFINITY;
    real_store(o, &p->o, tensor_offset(&p->o, seq->q_batch, t_row, h), D);
    if (p->lse.rank) real_store(&lse, &p->lse, tensor_offset(&p->lse, seq->q_batch, t_row, h), 1);
    if (p->probe_mean.rank)
        real_store(&t, &p->probe_mean, tensor_offset(&p->probe_mean, seq->q_batch, t_row, h), 1);
    if (p->value_mean.rank)
        real_store(m, &p->value_mean, tensor_offset(&p->value_mean, seq->q_batch, t_row, h), D);
}

void REAL(parallax_ref_forward)(const struct attention_problem *p, void *workspace)
{
    ref_forward(p, forward_row, workspace, thread_reals(p));
}

/* What the backward of a query row needs besides the keys. */
struct saved_row {
    real *q, *r, *d_o;         /* [D] each */
    real lse, t, o_dot, m_dot; /* the last two are c_i and b_i of the header above */
};

/* Loads query i of head h; scratch holds five rows. */
static struct saved_row load_saved(const struct attention_problem *p,
                                   const struct attention_sequence *seq, int64_t h, int64_t i,
                                   real *scratch)
{
    const int64_t D = p->D, b = seq->q_batch, t_row = seq->q_start + i;
    struct saved_row s = {.q = scratch, .r = scratch + D, .d_o = scratch + 2 * D};
    real *o = scratch + 3 * D, *m = scratch + 4 * D;
    real_load(s.q, &p->q, tensor_offset(&p->q, b, t_row, h), D);
    real_load(s.r, &p->r, tensor_offset(&p->r, b, t_row, h), D);
    real_load(s.d_o, &p->d_o, tensor_offset(&p->d_o, b, t_row, h), D);
    real_load(o, &p->o, tensor_offset(&p->o, b, t_row, h), D);
    real_load(m, &p->value_mean, tensor_offset(&p->value_mean, b, t_row, h), D);
    real_load(&s.lse, &p->lse, tensor_offset(&p->lse, b, t_row, h), 1);
    real_load(&s.t, &p->probe_mean, tensor_offset(&p->probe_mean, b, t_row, h), 1);
    s.o_dot = real_dot(s.d_o, o, D);
    s.m_dot = real_dot(s.d_o, m, D);
    return s;
}

/* The gradients that flow through one (query, key) pair: of l_ij, of u_ij, and the factor of d_o in
 * dv. */
struct pair {
    real dl, du, value_weight;
};

static struct pair pair_gradient(const struct saved_row *s, real scale, const real *k,
                                 const real *v, int64_t D)
{
    const real weight = real_exp(scale * real_dot(s->q, k, D) - s->lse);
    const real u = real_dot(s->r, k, D), a = real_dot(s->d_o, v, D), delta = a - s->m_dot;
    return (struct pair){.dl = weight * (a - s->o_dot + (s->t - u) * delta),
                         .du = -weight * delta,
                         .value_weight = weight * (1 + s->t - u)};
}

/* dq and dr of query i, head h. */
static void backward_query(const struct attention_problem *p, const struct attention_sequence *seq,
                           int64_t h, int64_t i, real *scratch)
{
    const int64_t D = p->D, g = h / (p->H / p->G), t_row = seq->q_start + i;
    const struct attention_range keys = attention_keys(p, seq->T, seq->S, i);
    const real scale = (real)p->scale;
    real *k = scratch + 5 * D, *v = k + D, *dq = v + D, *dr = dq + D;
    const struct saved_row saved = load_saved(p, seq, h, i, scratch);
    real_zero(dq, D);
    real_zero(dr, D);
    for (int64_t j = keys.first; j < keys.end; j++) {
        real_load(k, &p->k, tensor_offset(&p->k, seq->k_batch, seq->k_start + j, g), D);
        real_load(v, &p->v, tensor_offset(&p->v, seq->k_batch, seq->k_start + j, g), D);
        const struct pair pair = pair_gradient(&saved, scale, k, v, D);
        real_add(dq, scale * pair.dl, k, D);
        real_add(dr, pair.du, k, D);
    }
    real_store(dq, &p->dq, tensor_offset(&p->dq, seq->q_batch, t_row, h), D);
    real_store(dr, &p->dr, tensor_offset(&p->dr, seq->q_batch, t_row, h), D);
}

/* dk and dv of key j, key/value head g: summed over the query heads that share it. */
static void backward_key(const struct attention_problem *p, const struct attention_sequence *seq,
                         int64_t g, int64_t j, real *scratch)
{
    const int64_t D = p->D, group = p->H / p->G, s_row = seq->k_start + j;
    const real scale = (real)p->scale;
    real *k = scratch + 5 * D, *v = k + D, *dk = v + D, *dv = dk + D;
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
            real_add(dk, pair.du, saved.r, D);
            real_add(dv, pair.value_weight, saved.d_o, D);
        }
    }
    real_store(dk, &p->dk, tensor_offset(&p->dk, seq->k_batch, s_row, g), D);
    real_store(dv, &p->dv, tensor_offset(&p->dv, seq->k_batch, s_row, g), D);
}

void REAL(parallax_ref_backward)(const struct attention_problem *p, void *workspace)
{
    ref_backward(p, backward_query, backward_key, workspace, thread_reals(p));
}
