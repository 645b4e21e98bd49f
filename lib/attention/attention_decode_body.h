/* attention_decode_body.h: few queries against many keys, in the words of an instruction set.
 *
 * The work is reading keys and values once. A task is one sequence, one key/value head with all
 * query heads that share it, a few queries, and one of a fixed number of ranges of the keys, so
 * that a single sequence keeps every core busy. Rows are read where they are if they are f32 in
 * whole vectors, and are widened or padded tile by tile otherwise; nothing is transposed:
 *
 *     1. [S; U]: dot products of rows          pairs of rows against half a vector of keys
 *     2. weights and the running state         attention_tile_body.h
 *     3. [A1; A2] += [P; W] V                  product_body.h
 *
 * A range leaves its state, A1 and A2 in the shared workspace; a second loop joins the ranges of a
 * row in order, moving every d2 and A2 to the reference c of the first. How a sequence is split
 * depends on how many keys it sees and on the extents of the call, not on the threads. Next:
 * parallax/NOTES.md for the join. */
#ifndef PLX_ATTENTION_DECODE_BODY_H
#define PLX_ATTENTION_DECODE_BODY_H

#include "attention/attention_tile_body.h"
#include "cpu/threads.h"

struct decode_job {
    const struct attention_problem *p;
    struct attention_plan plan;
    char *workspace;
    int64_t tiles; /* query tiles of the longest sequence */
};

/* Key range `split` of those that the rows of a tile see; an empty one where begin >= end. */
static struct attention_range decode_range(const struct attention_problem *p,
                                           const struct attention_plan *plan,
                                           const struct row_tile *tile, int64_t split,
                                           int64_t *splits)
{
    const struct attention_sequence *seq = &tile->seq;
    struct attention_range all = {
        attention_keys(p, seq->T, seq->S, tile->first).first,
        attention_keys(p, seq->T, seq->S, tile->first + tile->queries - 1).end};
    *splits = attention_plan_splits(plan, all.end - all.first);
    int64_t share = (all.end - all.first + *splits - 1) / *splits;
    share = attention_round_up(share, plan->keys);
    return (struct attention_range){all.first + split * share,
                                    attention_least(all.end, all.first + (split + 1) * share)};
}

/* A row's partial result of a split in the shared workspace: its state, A1, A2. */
static float *decode_partial(const struct decode_job *job, const struct row_tile *tile, int64_t row,
                             int64_t split)
{
    const struct attention_problem *p = job->p;
    struct row_place at = tile_place(tile, job->plan.group, row);
    int64_t place = ((split * p->B + at.b) * p->T + at.t) * p->H + at.h;
    return (float *)(void *)job->workspace +
           place * attention_plan_partial(&job->plan, ATTENTION_PROBE);
}

/* Keys or values of a tile as f32 rows of whole vectors: in place where they are that already and
 * neither the end of the tile nor of a page cuts them off, otherwise copied to `copy`. */
static struct rows decode_rows_ready(const struct attention_problem *p,
                                     const struct attention_plan *plan, const struct row_tile *tile,
                                     const struct plx_tensor *tensor,
                                     const struct plx_tensor *scales, int64_t key0, int64_t keys,
                                     float *copy)
{
    int64_t run = keys;
    const struct rows rows = key_rows(p, tensor, &tile->seq, tile->g, key0, &run);
    if (rows.dtype == PLX_F32 && p->D == plan->depth && keys % VEC_WIDTH == 0 && run == keys)
        return rows;
    pack_keys(copy, p, tensor, scales, &tile->seq, tile->g, key0, keys,
              attention_round_up(keys, VEC_WIDTH), plan->depth);
    return (struct rows){copy, plan->depth, PLX_F32};
}

/* Dot products of rows q and q + depth with half a vector of keys, each row with its scale. */
static inline void dot_pair(const float *q, const float *k, int64_t k_stride, int64_t depth,
                            float *s, int64_t s_row, const float scale[2])
{
    enum { HALF = VEC_WIDTH / 2 };
    vec sum[VEC_WIDTH];
    float lanes[VEC_WIDTH];
#pragma GCC unroll 16
    for (int n = 0; n < VEC_WIDTH; n++) sum[n] = vec_set(0.0f);
    for (int64_t d = 0; d < depth; d += VEC_WIDTH) {
        const vec first = vec_load(q + d), second = vec_load(q + depth + d);
#pragma GCC unroll 8
        for (int n = 0; n < HALF; n++) {
            vec key = vec_load(k + n * k_stride + d);
            sum[n] = vec_fma(first, key, sum[n]);
            sum[HALF + n] = vec_fma(second, key, sum[HALF + n]);
        }
    }
    vec_store(lanes, vec_sums(sum));
    for (int n = 0; n < HALF; n++) {
        s[n] = scale[0] * lanes[n];
        s[s_row + n] = scale[1] * lanes[HALF + n];
    }
}

/* Rows behind `scaled` are those of r, whose products stay as they are. */
static void decode_scores(const struct attention_plan *plan, const float *q, int64_t rows,
                          int64_t scaled, float scale, struct rows keys, int64_t count,
                          float *scores)
{
    const float *k = keys.data;
    for (int64_t j = 0; j < count; j += VEC_WIDTH / 2)
        for (int64_t i = 0; i < rows; i += 2) {
            const float scales[2] = {i < scaled ? scale : 1.0f, i + 1 < scaled ? scale : 1.0f};
            dot_pair(q + i * plan->depth, k + j * keys.stride, keys.stride, plan->depth,
                     scores + i * plan->keys + j, plan->keys, scales);
        }
}

/* Asks for the rows of a tile ahead of their use: heads lie far apart, so that a row is a few cache
 * lines at a new page for the hardware. */
static inline void decode_prefetch(const struct attention_problem *p,
                                   const struct plx_tensor *tensor, const struct row_tile *tile,
                                   int64_t key0, int64_t keys)
{
    const int64_t size = (int64_t)plx_dtype_size(tensor->dtype);
    for (int64_t done = 0, run; done < keys; done += run) {
        run = keys - done;
        const struct rows rows = key_rows(p, tensor, &tile->seq, tile->g, key0 + done, &run);
        for (int64_t j = 0; j < run; j++)
            for (int64_t byte = 0; byte < p->D * size; byte += 64)
                __builtin_prefetch((const char *)rows.data + j * rows.stride * size + byte);
    }
}

static void decode_keys(const struct attention_problem *p, const struct attention_plan *plan,
                        const struct row_tile *tile, float *scratch, int64_t key0, int64_t keys,
                        int64_t next)
{
    const int64_t depth = plan->depth, stacked = ATTENTION_STACK * block_pairs(tile->rows);
    float *scores = scratch + plan->offset[PIECE_SCORES];
    const struct attention_range columns = {0, attention_round_up(keys, VEC_WIDTH)};

    decode_prefetch(p, &p->k, tile, key0 + keys, next);
    struct rows ready = decode_rows_ready(p, plan, tile, &p->k, &p->k_scales, key0, keys,
                                          scratch + plan->offset[PIECE_KEY_ROWS]);
    decode_scores(plan, scratch + plan->offset[PIECE_QUERIES], stacked, block_pairs(tile->rows),
                  (float)p->scale, ready, columns.end, scores);
    block_update(p, plan, tile, scratch, 0, key0, columns);

    decode_prefetch(p, &p->v, tile, key0 + keys, next);
    ready = decode_rows_ready(p, plan, tile, &p->v, &p->v_scales, key0, keys,
                              scratch + plan->offset[PIECE_VALUES]);
    const struct product sum = {.a = scores,
                                .a_row = plan->keys,
                                .a_step = 1,
                                .b = ready.data,
                                .b_row = ready.stride,
                                .c = scratch + plan->offset[PIECE_SUMS],
                                .c_row = depth,
                                .rows = stacked,
                                .vectors = depth / VEC_WIDTH,
                                .depth = columns.end,
                                .add = true};
    product_run(&sum);
}

/* Query tile `index` of all sequences, head g; false where the sequence is shorter. */
static bool decode_tile(const struct decode_job *job, int64_t index, int64_t g,
                        struct row_tile *tile)
{
    const struct attention_problem *p = job->p;
    *tile = (struct row_tile){.seq = attention_sequence(p, index / job->tiles), .g = g};
    tile->first = index % job->tiles * job->plan.queries;
    tile->queries = attention_least(job->plan.queries, tile->seq.T - tile->first);
    tile->rows = tile->queries * job->plan.group;
    return tile->queries > 0;
}

static float *decode_scratch(const struct decode_job *job, int thread)
{
    return (float *)(void *)(job->workspace + job->plan.shared_bytes +
                             (size_t)thread * job->plan.thread_bytes);
}

/* One range of keys for one tile of rows. Heads come before ranges: those of one range lie in the
 * same pages of memory, and a page that has to be looked up for each row of 512 bytes costs more
 * than reading it. */
static void decode_task(void *pointer, int64_t index, int thread)
{
    const struct decode_job *job = pointer;
    const struct attention_problem *p = job->p;
    const struct attention_plan *plan = &job->plan;
    const int64_t split = index / p->G % plan->splits, depth = plan->depth;
    float *scratch = decode_scratch(job, thread);
    struct row_tile tile;
    int64_t splits;
    if (!decode_tile(job, index / p->G / plan->splits, index % p->G, &tile)) return;
    const struct attention_range range = decode_range(p, plan, &tile, split, &splits);
    if (split >= splits) return;

    tile_begin(p, plan, &tile, scratch);
    for (int64_t key0 = range.first; key0 < range.end; key0 += plan->keys) {
        int64_t keys = attention_least(plan->keys, range.end - key0);
        int64_t next = attention_least(plan->keys, range.end - key0 - keys);
        decode_keys(p, plan, &tile, scratch, key0, keys, next);
    }
    for (int64_t i = 0; i < tile.rows; i++) {
        int64_t moment_step;
        const float *state = scratch + plan->offset[PIECE_STATES] + i * plan->state;
        const float *sums = tile_sums(plan, &tile, scratch, i, &moment_step);
        if (splits == 1) {
            row_finish(p, tile_place(&tile, plan->group, i), state, sums, sums + moment_step, depth,
                       scratch + plan->offset[PIECE_RESULT]);
            continue;
        }
        float *partial = decode_partial(job, &tile, i, split);
        memcpy(partial, state, (size_t)plan->state * sizeof(float));
        memcpy(partial + plan->state, sums, (size_t)depth * sizeof(float));
        if (ATTENTION_PROBE)
            memcpy(partial + plan->state + depth, sums + moment_step,
                   (size_t)depth * sizeof(float));
    }
}

/* Adds `factor` times a partial result to a row's state and sums; its moments move from its own
 * reference to the row's: sum w (u - c) = sum w (u - c_s) + (c_s - c) sum w. */
static void partial_add(const float *partial, const struct attention_plan *plan, float factor,
                        float *state, float *sums, float *moments)
{
    const int64_t depth = plan->depth;
    const float *a1 = partial + plan->state, *a2 = a1 + depth;
    const vec f = vec_set(factor), shift = vec_set(partial[STATE_C] - state[STATE_C]);
    const vec d1 = vec_load(partial + STATE_D1);
    vec_store(state + STATE_D1, vec_fma(f, d1, vec_load(state + STATE_D1)));
    for (int64_t d = 0; d < depth; d += VEC_WIDTH)
        vec_store(sums + d, vec_fma(f, vec_load(a1 + d), vec_load(sums + d)));
    if (!ATTENTION_PROBE) return;
    const vec d2 = vec_fma(shift, d1, vec_load(partial + STATE_D2));
    vec_store(state + STATE_D2, vec_fma(f, d2, vec_load(state + STATE_D2)));
    for (int64_t d = 0; d < depth; d += VEC_WIDTH) {
        vec moved = vec_fma(shift, vec_load(a1 + d), vec_load(a2 + d));
        vec_store(moments + d, vec_fma(f, moved, vec_load(moments + d)));
    }
}

static bool partial_is_empty(const float *partial)
{
    return partial[STATE_M] == -INFINITY && vec_sum(vec_load(partial + STATE_D1)) == 0.0f;
}

/* Joins the ranges of every row of a tile, in order. */
static void decode_join(void *pointer, int64_t index, int thread)
{
    const struct decode_job *job = pointer;
    const struct attention_plan *plan = &job->plan;
    float *scratch = decode_scratch(job, thread), *state = scratch + plan->offset[PIECE_STATES];
    float *sums = scratch + plan->offset[PIECE_SUMS], *moments = sums + plan->depth;
    struct row_tile tile;
    int64_t splits;
    if (!decode_tile(job, index / job->p->G, index % job->p->G, &tile)) return;
    decode_range(job->p, plan, &tile, 0, &splits);
    if (splits == 1) return;
    for (int64_t i = 0; i < tile.rows; i++) {
        state_reset(state);
        memset(sums, 0, (size_t)(ATTENTION_STACK * plan->depth) * sizeof(float));
        for (int64_t s = splits - 1; s >= 0; s--) {
            const float *partial = decode_partial(job, &tile, i, s);
            if (partial_is_empty(partial)) continue;
            if (!(partial[STATE_M] <= state[STATE_M])) state[STATE_M] = partial[STATE_M];
            state[STATE_C] = partial[STATE_C];
        }
        for (int64_t s = 0; s < splits; s++) {
            const float *partial = decode_partial(job, &tile, i, s);
            if (partial_is_empty(partial)) continue;
            partial_add(partial, plan, exp_scalar(partial[STATE_M] - state[STATE_M]), state, sums,
                        moments);
        }
        row_finish(job->p, tile_place(&tile, plan->group, i), state, sums, moments, plan->depth,
                   scratch + plan->offset[PIECE_RESULT]);
    }
}

static size_t attention_decode_workspace(const void *problem)
{
    return attention_plan_decode(problem, attention_isa).bytes;
}

static plx_status attention_decode(plx_context *context, const void *problem, void *workspace,
                                   plx_stream stream)
{
    const struct attention_problem *p = problem;
    (void)context;
    (void)stream;
    struct decode_job job = {p, attention_plan_decode(p, attention_isa), workspace, 0};
    job.tiles = (longest_queries(p) + job.plan.queries - 1) / job.plan.queries;
    const int64_t tasks = p->sequences * p->G * job.tiles;
    threads_for(p->threads, tasks * job.plan.splits, decode_task, &job);
    if (job.plan.splits > 1) threads_for(p->threads, tasks, decode_join, &job);
    return PLX_OK;
}

#endif
