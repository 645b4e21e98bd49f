/* attention_backward_body.h: the backward pass in one sweep of eight products (five for softmax
 * attention), in the words of an instruction set.
 *
 * With the saved statistics of a row, X = 1 + t - u, Y = a - b and P = e^(s - lse):
 *
 *     dl = P (X Y + (b - o.d_o))    du = -P Y    weight of d_o in dv: W = P X        (NOTES.md)
 *
 * Keys and queries are cut into blocks; a task is one pair of them with one key/value head and all
 * query heads that share it. In step s, key block j meets query block (j + s) mod n: no two tasks
 * of a step touch the same query block or the same key block, so all may run at once and add to the
 * gradients without locks, and the steps fix the order of the additions whatever the number of
 * threads. For each block of rows in a task:
 *
 *     1. [S; U] = [q; r] K'     A = d_o V'
 *     2. S, U, A become dl, du, W in place
 *     3. [d_q; d_r] = [dl; du] K, added to the gradients
 *     4. d_k += [dl; du]' [q; r]     d_v += W' d_o      (read transposed by the product)
 *
 * Gradients that are stored in a narrower type are summed in f32 in the workspace and rounded once
 * at the end. Next: NOTES.md for the derivation, attention_plan.c for the sizes. */
#ifndef PLX_ATTENTION_BACKWARD_BODY_H
#define PLX_ATTENTION_BACKWARD_BODY_H

#include "attention/attention_tile_body.h"
#include "cpu/threads.h"

/* One of dq, dr, dk, dv: what the caller gave, and where it is summed in f32. */
struct gradient {
    const struct plx_tensor *out;
    struct plx_tensor sum;
};

struct backward_job {
    const struct attention_problem *p;
    struct attention_plan plan;
    char *scratch; /* of all threads */
    float *stats;  /* [B,T,H,4] */
    struct gradient dq, dr, dk, dv;
    int64_t key_blocks; /* of the longest sequence */
    int64_t step;
};

/* A row's statistics: lse; t; b = d_o.m (softmax attention: d_o.o); b - d_o.o. */
enum { STAT_LSE, STAT_T, STAT_MEAN, STAT_EXCESS, STATS };

static inline float *backward_stats(const struct backward_job *job, struct row_place at)
{
    const struct attention_problem *p = job->p;
    return job->stats + ((at.b * p->T + at.t) * p->H + at.h) * STATS;
}

/* ---- Before and after the sweep ----------------------------------------------------------------
 */

/* The statistics of up to VEC_WIDTH queries of a head, from first on. d_o, m and o are turned into
 * one row a lane, so that b is summed in the same order as the product sums a: where a row sees one
 * key they cancel exactly. d_o.(m - o) does not cancel where m and o are close. */
static void stats_lanes(const struct backward_job *job, const struct attention_sequence *seq,
                        int64_t h, int64_t first, float *scratch)
{
    const struct attention_problem *p = job->p;
    const struct attention_plan *plan = &job->plan;
    const struct plx_tensor *mean = ATTENTION_PROBE ? &p->value_mean : &p->o;
    const int64_t rows = attention_least(VEC_WIDTH, seq->T - first);
    const int64_t b = seq->q_batch, t0 = seq->q_start + first;
    float *d_o = scratch + plan->offset[PIECE_KEYS], *o = scratch + plan->offset[PIECE_VALUES];
    float *m = scratch + plan->offset[PIECE_KEY_ROWS], lanes[2][VEC_WIDTH];
    pack_transposed(d_o, rows_of(&p->d_o, b, t0, h), rows, VEC_WIDTH, p->D, plan->depth);
    pack_transposed(o, rows_of(&p->o, b, t0, h), rows, VEC_WIDTH, p->D, plan->depth);
    pack_transposed(m, rows_of(mean, b, t0, h), rows, VEC_WIDTH, p->D, plan->depth);
    vec dot = vec_set(0.0f), excess = vec_set(0.0f), chain = vec_set(0.0f);
    for (int64_t d = 0; d < p->D; d++) {
        const vec gradient = vec_load(d_o + d * VEC_WIDTH), value = vec_load(m + d * VEC_WIDTH);
        chain = vec_fma(gradient, value, chain);
        if (d + 1 == p->D || (d + 1) % PRODUCT_SEGMENT == 0) {
            dot = vec_add(dot, chain);
            chain = vec_set(0.0f);
        }
        excess = vec_fma(gradient, vec_sub(value, vec_load(o + d * VEC_WIDTH)), excess);
    }
    vec_store(lanes[0], dot);
    vec_store(lanes[1], excess);
    for (int64_t i = 0; i < rows; i++) {
        float *stats = backward_stats(job, (struct row_place){b, t0 + i, h});
        const float *lse = p->lse.data, *t = p->probe_mean.data;
        stats[STAT_LSE] = lse[tensor_offset(&p->lse, b, t0 + i, h)];
        stats[STAT_T] = ATTENTION_PROBE ? t[tensor_offset(&p->probe_mean, b, t0 + i, h)] : 0.0f;
        stats[STAT_MEAN] = lanes[0][i];
        stats[STAT_EXCESS] = lanes[1][i];
    }
}

static void stats_task(void *pointer, int64_t index, int thread)
{
    const struct backward_job *job = pointer;
    const struct attention_problem *p = job->p;
    const struct attention_sequence seq = attention_sequence(p, index % p->sequences);
    const int64_t first = index / p->sequences * VEC_WIDTH;
    void *scratch = job->scratch + (size_t)thread * job->plan.thread_bytes;
    if (first >= seq.T) return;
    for (int64_t h = 0; h < p->H; h++) stats_lanes(job, &seq, h, first, scratch);
}

/* The f32 view that a gradient is summed in: its own memory, or a dense copy at *copy. */
static struct gradient gradient_begin(const struct plx_tensor *out, char **copy)
{
    struct gradient gradient = {out, *out};
    if (out->rank == 0 || out->dtype == PLX_F32) return gradient;
    gradient.sum =
        plx_tensor_4d(*copy, PLX_F32, out->shape[0], out->shape[1], out->shape[2], out->shape[3]);
    *copy += attention_round_up(plx_tensor_count(out) * (int64_t)sizeof(float), 64);
    return gradient;
}

static inline float *gradient_row(const struct gradient *gradient, int64_t b, int64_t t, int64_t h)
{
    return (float *)gradient->sum.data + tensor_offset(&gradient->sum, b, t, h);
}

/* Entry (b, t) of a gradient: zeros before the sweep; after it, rounding where the sum is a copy.
 */
static void gradient_clear(const struct gradient *gradient, int64_t b, int64_t t)
{
    if (gradient->out->rank == 0 || t >= gradient->out->shape[1]) return;
    for (int64_t h = 0; h < gradient->out->shape[2]; h++)
        memset(gradient_row(gradient, b, t, h), 0, (size_t)gradient->out->shape[3] * sizeof(float));
}

static void gradient_round(const struct gradient *gradient, int64_t b, int64_t t)
{
    const struct plx_tensor *out = gradient->out;
    if (out->rank == 0 || out->dtype == PLX_F32 || t >= out->shape[1]) return;
    for (int64_t h = 0; h < out->shape[2]; h++)
        store_row(out, b, t, h, gradient_row(gradient, b, t, h), out->shape[3]);
}

static void clear_task(void *pointer, int64_t index, int thread)
{
    const struct backward_job *job = pointer;
    const int64_t b = index % job->p->B, t = index / job->p->B;
    (void)thread;
    gradient_clear(&job->dq, b, t);
    gradient_clear(&job->dr, b, t);
    gradient_clear(&job->dk, b, t);
    gradient_clear(&job->dv, b, t);
}

static void round_task(void *pointer, int64_t index, int thread)
{
    const struct backward_job *job = pointer;
    const int64_t b = index % job->p->B, t = index / job->p->B;
    (void)thread;
    gradient_round(&job->dq, b, t);
    gradient_round(&job->dr, b, t);
    gradient_round(&job->dk, b, t);
    gradient_round(&job->dv, b, t);
}

/* ---- The sweep ---------------------------------------------------------------------------------
 */

/* Phase 2 for one row: s, u and a become dl times scale, du and
 * the weight of d_o, over columns begin .. end - 1 of which the row sees first .. last - 1. */
static void gradient_weights(float *s, float *u, float *a, int64_t begin, int64_t end,
                             int64_t first, int64_t last, const float *stats, float score_scale)
{
    const vec lse = vec_set(stats[STAT_LSE]);
    const vec t = vec_set(stats[STAT_T]), one = vec_set(1.0f);
    const vec mean = vec_set(stats[STAT_MEAN]), excess = vec_set(stats[STAT_EXCESS]);
    const vec scale = vec_set(score_scale), zero = vec_set(0.0f);
    if (first >= last) first = last = end;
    const int64_t from = first / VEC_WIDTH * VEC_WIDTH;
    for (int64_t j = from; j < last; j += VEC_WIDTH) {
        const vec p = vec_exp(vec_sub(vec_load(s + j), lse));
        const vec py = vec_mul(p, vec_sub(vec_load(a + j), mean));
        if (ATTENTION_PROBE) {
            const vec x = vec_add(one, vec_sub(t, vec_load(u + j)));
            vec_store(s + j, vec_mul(scale, vec_fma(x, py, vec_mul(p, excess))));
            vec_store(u + j, vec_sub(zero, py));
            vec_store(a + j, vec_mul(p, x));
        } else {
            vec_store(s + j, vec_mul(scale, py));
            vec_store(a + j, p);
        }
    }
    float *const parts[] = {s, a, u};
    for (int n = 0; n < 1 + ATTENTION_STACK; n++) {
        for (int64_t j = begin; j < first; j++) parts[n][j] = 0.0f;
        for (int64_t j = last; j < end; j++) parts[n][j] = 0.0f;
    }
}

/* The tile is what the rows of a task have in common with those of the forward: one head here. */
struct backward_block {
    struct row_tile tile; /* first: the first query of the block of rows; rows = queries */
    int64_t h;
    int64_t pairs; /* rows in whole pairs */
    int64_t key0;
    struct attention_range columns;
};

static inline struct row_place block_place(const struct backward_block *block, int64_t row)
{
    return (struct row_place){block->tile.seq.q_batch,
                              block->tile.seq.q_start + block->tile.first + row, block->h};
}

static void block_pack(const struct backward_job *job, const struct backward_block *block,
                       float *scratch)
{
    const struct attention_problem *p = job->p;
    const struct attention_plan *plan = &job->plan;
    const int64_t b = block->tile.seq.q_batch, t = block->tile.seq.q_start + block->tile.first;
    const int64_t rows = block->tile.rows, pairs = block->pairs, depth = plan->depth;
    float *q = scratch + plan->offset[PIECE_QUERIES];
    pack_rows(q, rows_of(&p->q, b, t, block->h), rows, pairs, p->D, depth);
    if (ATTENTION_PROBE)
        pack_rows(q + pairs * depth, rows_of(&p->r, b, t, block->h), rows, pairs, p->D, depth);
    pack_rows(scratch + plan->offset[PIECE_GRADIENTS], rows_of(&p->d_o, b, t, block->h), rows,
              pairs, p->D, depth);
}

/* Phases 1 and 2. */
static void block_weights(const struct backward_job *job, const struct backward_block *block,
                          float *scratch)
{
    const struct attention_problem *p = job->p;
    const struct attention_plan *plan = &job->plan;
    const int64_t begin = block->columns.first, end = block->columns.end, keys = plan->keys;
    float *s = scratch + plan->offset[PIECE_SCORES], *u = s + block->pairs * keys;
    float *a = scratch + plan->offset[PIECE_WEIGHTS];
    struct product score = {.a = scratch + plan->offset[PIECE_QUERIES],
                            .a_row = plan->depth,
                            .a_step = 1,
                            .b = scratch + plan->offset[PIECE_KEYS] + begin,
                            .b_row = keys,
                            .c = s + begin,
                            .c_row = keys,
                            .rows = ATTENTION_STACK * block->pairs,
                            .vectors = (end - begin) / VEC_WIDTH,
                            .depth = p->D,
                            .segment = PRODUCT_SEGMENT,
                            .scale = (float)p->scale,
                            .scaled = block->pairs};
    product_run(&score);
    score.a = scratch + plan->offset[PIECE_GRADIENTS];
    score.b = scratch + plan->offset[PIECE_VALUES] + begin;
    score.c = a + begin;
    score.rows = block->pairs;
    score.scaled = 0;
    product_run(&score);
    for (int64_t i = 0; i < block->pairs; i++) {
        struct attention_range seen = {0, 0};
        const float *stats = job->stats;
        if (i < block->tile.rows) {
            seen = tile_keys(p, &block->tile, i);
            stats = backward_stats(job, block_place(block, i));
        }
        gradient_weights(s + i * keys, u + i * keys, a + i * keys, begin, end,
                         attention_most(seen.first - block->key0, begin),
                         attention_least(seen.end - block->key0, end), stats, (float)p->scale);
    }
}

static void add_row(float *out, const float *row, int64_t D, float factor)
{
    for (int64_t d = 0; d < D; d += VEC_WIDTH) {
        int lanes = lanes_left(D, d);
        vec sum = vec_fma(vec_set(factor), vec_load(row + d), vec_load_part(out + d, lanes));
        vec_store_part(out + d, sum, lanes);
    }
}

/* A row whose q, r or d_o is not finite must spoil the gradients of the keys it sees and no others,
 * but zero times NaN is NaN in a product. Such a row (its statistics show it, as they do for a row
 * that sees no key) adds to its keys one by one and is cleared before the products. */
static void block_take_out(const struct backward_job *job, const struct backward_block *block,
                           int64_t row, float *scratch)
{
    const struct attention_plan *plan = &job->plan;
    const int64_t depth = plan->depth, keys = plan->keys, pairs = block->pairs;
    const struct attention_range seen = tile_keys(job->p, &block->tile, row);
    const int64_t first = attention_most(seen.first - block->key0, block->columns.first);
    const int64_t last = attention_least(seen.end - block->key0, block->columns.end);
    float *s = scratch + plan->offset[PIECE_SCORES] + row * keys, *u = s + pairs * keys;
    float *w = scratch + plan->offset[PIECE_WEIGHTS] + row * keys;
    float *q = scratch + plan->offset[PIECE_QUERIES] + row * depth, *r = q + pairs * depth;
    float *d_o = scratch + plan->offset[PIECE_GRADIENTS] + row * depth;
    float *dk = scratch + plan->offset[PIECE_SUMS], *dv = dk + keys * depth;
    for (int64_t j = first; j < last; j++) {
        add_row(dk + j * depth, q, depth, s[j]);
        if (ATTENTION_PROBE) add_row(dk + j * depth, r, depth, u[j]);
        add_row(dv + j * depth, d_o, depth, w[j]);
    }
    memset(s, 0, (size_t)keys * sizeof(float));
    memset(w, 0, (size_t)keys * sizeof(float));
    memset(q, 0, (size_t)depth * sizeof(float));
    memset(d_o, 0, (size_t)depth * sizeof(float));
    if (!ATTENTION_PROBE) return;
    memset(u, 0, (size_t)keys * sizeof(float));
    memset(r, 0, (size_t)depth * sizeof(float));
}

static bool stats_are_finite(const float *stats)
{
    float sum = 0.0f;
    for (int n = 0; n < STATS; n++) sum += 0.0f * stats[n];
    return sum == 0.0f;
}

static void block_take_out_rows(const struct backward_job *job, const struct backward_block *block,
                                float *scratch)
{
    for (int64_t i = 0; i < block->tile.rows; i++)
        if (!stats_are_finite(backward_stats(job, block_place(block, i))))
            block_take_out(job, block, i, scratch);
}

/* Phases 3 and 4. */
static void block_gradients(const struct backward_job *job, const struct backward_block *block,
                            float *scratch)
{
    const struct attention_problem *p = job->p;
    const struct attention_plan *plan = &job->plan;
    const int64_t begin = block->columns.first, width = block->columns.end - begin;
    const int64_t depth = plan->depth, keys = plan->keys, stacked = ATTENTION_STACK * block->pairs;
    const int64_t b = block->tile.seq.q_batch, t = block->tile.seq.q_start + block->tile.first;
    float *s = scratch + plan->offset[PIECE_SCORES], *result = scratch + plan->offset[PIECE_RESULT];
    float *sums = scratch + plan->offset[PIECE_SUMS] + begin * depth;

    const struct product row_sums = {.a = s + begin,
                                     .a_row = keys,
                                     .a_step = 1,
                                     .b = scratch + plan->offset[PIECE_KEY_ROWS] + begin * depth,
                                     .b_row = depth,
                                     .c = result,
                                     .c_row = depth,
                                     .rows = stacked,
                                     .vectors = depth / VEC_WIDTH,
                                     .depth = width};
    product_run(&row_sums);
    for (int64_t i = 0; i < block->tile.rows; i++) {
        add_row(gradient_row(&job->dq, b, t + i, block->h), result + i * depth, p->D, 1.0f);
        if (ATTENTION_PROBE)
            add_row(gradient_row(&job->dr, b, t + i, block->h), result + (block->pairs + i) * depth,
                    p->D, 1.0f);
    }

    block_take_out_rows(job, block, scratch);
    struct product key_sums = {.a = s + begin,
                               .a_row = 1,
                               .a_step = keys,
                               .b = scratch + plan->offset[PIECE_QUERIES],
                               .b_row = depth,
                               .c = sums,
                               .c_row = depth,
                               .rows = width,
                               .vectors = depth / VEC_WIDTH,
                               .depth = stacked,
                               .add = true};
    product_run(&key_sums);
    key_sums.a = scratch + plan->offset[PIECE_WEIGHTS] + begin;
    key_sums.b = scratch + plan->offset[PIECE_GRADIENTS];
    key_sums.c = sums + keys * depth;
    key_sums.depth = block->pairs;
    product_run(&key_sums);
}

/* All rows of a query block and one head against the packed key block. */
static void backward_rows(const struct backward_job *job, const struct row_tile *tile, int64_t h,
                          int64_t key0, int64_t keys, float *scratch)
{
    for (int64_t first = 0; first < tile->queries; first += job->plan.row_block) {
        struct backward_block block = {.tile = *tile, .h = h, .key0 = key0};
        block.tile.first = tile->first + first;
        block.tile.rows = attention_least(job->plan.row_block, tile->queries - first);
        block.tile.queries = block.tile.rows;
        block.pairs = attention_round_up(block.tile.rows, 2);
        block.columns = block_columns(job->p, &block.tile, 0, block.tile.rows, key0, keys);
        if (block.columns.first >= block.columns.end) continue;
        block.columns.first = block.columns.first / VEC_WIDTH * VEC_WIDTH;
        block.columns.end = attention_round_up(block.columns.end, VEC_WIDTH);
        block_pack(job, &block, scratch);
        block_weights(job, &block, scratch);
        block_gradients(job, &block, scratch);
    }
}

static void backward_pair(const struct backward_job *job, const struct row_tile *tile, int64_t key0,
                          float *scratch)
{
    const struct attention_problem *p = job->p;
    const struct attention_plan *plan = &job->plan;
    const struct attention_sequence *seq = &tile->seq;
    const int64_t depth = plan->depth, keys = attention_least(plan->keys, seq->S - key0);
    const struct rows k = rows_of(&p->k, seq->k_batch, seq->k_start + key0, tile->g);
    const struct rows v = rows_of(&p->v, seq->k_batch, seq->k_start + key0, tile->g);
    float *sums = scratch + plan->offset[PIECE_SUMS];
    pack_transposed(scratch + plan->offset[PIECE_KEYS], k, keys, plan->keys, p->D, depth);
    pack_transposed(scratch + plan->offset[PIECE_VALUES], v, keys, plan->keys, p->D, depth);
    pack_rows(scratch + plan->offset[PIECE_KEY_ROWS], k, keys, attention_round_up(keys, VEC_WIDTH),
              p->D, depth);
    memset(sums, 0, plan->piece[PIECE_SUMS] * sizeof(float));
    for (int64_t h = tile->g * plan->group; h < (tile->g + 1) * plan->group; h++)
        backward_rows(job, tile, h, key0, keys, scratch);
    for (int64_t j = 0; j < keys; j++) {
        int64_t t = seq->k_start + key0 + j;
        add_row(gradient_row(&job->dk, seq->k_batch, t, tile->g), sums + j * depth, p->D, 1.0f);
        add_row(gradient_row(&job->dv, seq->k_batch, t, tile->g), sums + (plan->keys + j) * depth,
                p->D, 1.0f);
    }
}

static inline int64_t blocks(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

static inline int64_t sequence_steps(const struct attention_plan *plan,
                                     const struct attention_sequence *seq)
{
    return attention_most(blocks(seq->T, plan->queries), blocks(seq->S, plan->keys));
}

/* Key block j of one sequence and head in the current step. */
static void backward_task(void *pointer, int64_t index, int thread)
{
    const struct backward_job *job = pointer;
    const struct attention_problem *p = job->p;
    const struct attention_plan *plan = &job->plan;
    const int64_t heads = p->sequences * p->G, rest = index % heads, j = index / heads;
    struct row_tile tile = {.seq = attention_sequence(p, rest / p->G), .g = rest % p->G};
    const int64_t steps = sequence_steps(plan, &tile.seq), key0 = j * plan->keys;
    if (job->step >= steps || key0 >= tile.seq.S) return;
    tile.first = (j + job->step) % steps * plan->queries;
    tile.queries = attention_least(plan->queries, tile.seq.T - tile.first);
    tile.rows = tile.queries;
    if (tile.queries <= 0) return;
    const int64_t last = tile.first + tile.queries - 1;
    if (attention_keys(p, tile.seq.T, tile.seq.S, last).end <= key0) return;
    if (attention_keys(p, tile.seq.T, tile.seq.S, tile.first).first >= key0 + plan->keys) return;
    void *scratch = job->scratch + (size_t)thread * plan->thread_bytes;
    backward_pair(job, &tile, key0, scratch);
}

static size_t attention_backward_workspace(const void *problem)
{
    return attention_plan_backward(problem, attention_isa).bytes;
}

static plx_status attention_backward(plx_context *context, const void *problem, void *workspace,
                                     plx_stream stream)
{
    const struct attention_problem *p = problem;
    (void)context;
    (void)stream;
    struct backward_job job = {.p = p, .plan = attention_plan_backward(p, attention_isa)};
    char *copy = workspace;
    job.stats = workspace;
    copy += attention_round_up(p->B * p->T * p->H * STATS * (int64_t)sizeof(float), 64);
    job.dq = gradient_begin(&p->dq, &copy);
    job.dr = gradient_begin(&p->dr, &copy);
    job.dk = gradient_begin(&p->dk, &copy);
    job.dv = gradient_begin(&p->dv, &copy);
    job.scratch = (char *)workspace + job.plan.shared_bytes;

    int64_t steps = 0;
    for (int64_t n = 0; n < p->sequences; n++) {
        const struct attention_sequence seq = attention_sequence(p, n);
        steps = attention_most(steps, sequence_steps(&job.plan, &seq));
        job.key_blocks = attention_most(job.key_blocks, blocks(seq.S, job.plan.keys));
    }
    const int64_t places = p->B * attention_most(p->T, p->S);
    threads_for(p->threads, places, clear_task, &job);
    threads_for(p->threads, p->sequences * blocks(longest_queries(p), VEC_WIDTH), stats_task, &job);
    for (job.step = 0; job.step < steps; job.step++)
        threads_for(p->threads, p->sequences * p->G * job.key_blocks, backward_task, &job);
    threads_for(p->threads, places, round_task, &job);
    return PLX_OK;
}

#endif
