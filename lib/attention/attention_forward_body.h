/* attention_forward_body.h: the forward pass, for softmax attention and Parallax, in the words of
 * an instruction set.
 *
 * A task is one sequence, one key/value head and a tile of queries of all query heads that share
 * it, so that a packed key/value tile serves them all. For every key tile that any of its rows
 * sees:
 *
 *     1. pack the keys by channels and the values by rows
 *     for every block of rows:
 *     2. [S; U] = [q; r] K'                    one product, q and r stacked
 *     3. weights [P; W] and the running state  attention_tile_body.h
 *     4. [A1; A2] += [P; W] V                  one product
 *
 * and at the end o = m (1 + t') - A2/d1 row by row. Tiles and blocks that see nothing are skipped,
 * and the products of a block run over the columns between its first and last visible key only. Key
 * tiles start at multiples of their size, so a row's result depends on the keys it sees and on
 * nothing else. Next: attention_decode_body.h (few queries), attention_backward_body.h. */
#ifndef PLX_ATTENTION_FORWARD_BODY_H
#define PLX_ATTENTION_FORWARD_BODY_H

#include "attention/attention_tile_body.h"
#include "cpu/threads.h"

struct forward_job {
    const struct attention_problem *p;
    struct attention_plan plan;
    char *workspace;
    int64_t tiles; /* query tiles of the longest sequence */
};

static void forward_block(const struct attention_problem *p, const struct attention_plan *plan,
                          const struct row_tile *tile, float *scratch, int64_t first, int64_t key0,
                          int64_t keys)
{
    const int64_t depth = plan->depth, rows = block_rows(tile, plan, first);
    const int64_t stacked = ATTENTION_STACK * block_pairs(rows);
    struct attention_range columns = block_columns(p, tile, first, rows, key0, keys);
    if (columns.first >= columns.end) return;
    columns.first = columns.first / VEC_WIDTH * VEC_WIDTH;
    columns.end = attention_round_up(columns.end, VEC_WIDTH);

    float *scores = scratch + plan->offset[PIECE_SCORES];
    const struct product score = {.a = scratch + plan->offset[PIECE_QUERIES] +
                                       ATTENTION_STACK * first * depth,
                                  .a_row = depth,
                                  .a_step = 1,
                                  .b = scratch + plan->offset[PIECE_KEYS] + columns.first,
                                  .b_row = plan->keys,
                                  .c = scores + columns.first,
                                  .c_row = plan->keys,
                                  .rows = stacked,
                                  .vectors = (columns.end - columns.first) / VEC_WIDTH,
                                  .depth = p->D,
                                  .segment = PRODUCT_SEGMENT,
                                  .scale = (float)p->scale,
                                  .scaled = block_pairs(rows)};
    product_run(&score);
    block_update(p, plan, tile, scratch, first, key0, columns);
    const struct product sum = {.a = scores + columns.first,
                                .a_row = plan->keys,
                                .a_step = 1,
                                .b = scratch + plan->offset[PIECE_VALUES] + columns.first * depth,
                                .b_row = depth,
                                .c = scratch + plan->offset[PIECE_SUMS] +
                                     ATTENTION_STACK * first * depth,
                                .c_row = depth,
                                .rows = stacked,
                                .vectors = depth / VEC_WIDTH,
                                .depth = columns.end - columns.first,
                                .add = true};
    product_run(&sum);
}

/* Packs a tile of keys by channels; those of a cache are collected by rows first. */
static void forward_keys(const struct attention_problem *p, const struct attention_plan *plan,
                         const struct row_tile *tile, float *scratch, int64_t key0, int64_t keys)
{
    float *packed = scratch + plan->offset[PIECE_KEYS];
    int64_t run = keys;
    if (attention_keys_are_plain(p)) {
        const struct rows rows = key_rows(p, &p->k, &tile->seq, tile->g, key0, &run);
        pack_transposed(packed, rows, keys, plan->keys, p->D, plan->depth);
        return;
    }
    const struct rows copy = {scratch + plan->offset[PIECE_KEY_ROWS], plan->depth, PLX_F32};
    pack_keys(scratch + plan->offset[PIECE_KEY_ROWS], p, &p->k, &p->k_scales, &tile->seq, tile->g,
              key0, keys, keys, plan->depth);
    pack_transposed(packed, copy, keys, plan->keys, plan->depth, plan->depth);
}

static void forward_tile_run(const struct attention_problem *p, const struct attention_plan *plan,
                             const struct row_tile *tile, float *scratch)
{
    const int64_t depth = plan->depth;
    const struct attention_sequence *seq = &tile->seq;
    tile_begin(p, plan, tile, scratch);
    const int64_t begin = attention_keys(p, seq->T, seq->S, tile->first).first;
    const int64_t end = attention_keys(p, seq->T, seq->S, tile->first + tile->queries - 1).end;
    for (int64_t key0 = begin / plan->keys * plan->keys; key0 < end; key0 += plan->keys) {
        const int64_t keys = attention_least(plan->keys, seq->S - key0);
        forward_keys(p, plan, tile, scratch, key0, keys);
        pack_keys(scratch + plan->offset[PIECE_VALUES], p, &p->v, &p->v_scales, seq, tile->g, key0,
                  keys, attention_round_up(keys, VEC_WIDTH), depth);
        for (int64_t first = 0; first < tile->rows; first += plan->row_block)
            forward_block(p, plan, tile, scratch, first, key0, keys);
    }
    for (int64_t i = 0; i < tile->rows; i++) {
        int64_t moment_step;
        const float *sums = tile_sums(plan, tile, scratch, i, &moment_step);
        row_finish(p, tile_place(tile, plan->group, i),
                   scratch + plan->offset[PIECE_STATES] + i * plan->state, sums, sums + moment_step,
                   depth, scratch + plan->offset[PIECE_RESULT]);
    }
}

/* Last tiles first: under a causal mask they see the most keys. */
static void forward_task(void *pointer, int64_t index, int thread)
{
    const struct forward_job *job = pointer;
    const struct attention_problem *p = job->p;
    const int64_t heads = p->sequences * p->G, rest = index % heads;
    struct row_tile tile = {.seq = attention_sequence(p, rest / p->G), .g = rest % p->G};
    tile.first = (job->tiles - 1 - index / heads) * job->plan.queries;
    tile.queries = attention_least(job->plan.queries, tile.seq.T - tile.first);
    tile.rows = tile.queries * job->plan.group;
    if (tile.queries <= 0) return;
    void *scratch = job->workspace + (size_t)thread * job->plan.thread_bytes;
    forward_tile_run(p, &job->plan, &tile, scratch);
}

static size_t attention_forward_workspace(const void *problem)
{
    return attention_plan_forward(problem, attention_isa).bytes;
}

static plx_status attention_forward(plx_context *context, const void *problem, void *workspace,
                                    plx_stream stream)
{
    const struct attention_problem *p = problem;
    (void)context;
    (void)stream;
    struct forward_job job = {p, attention_plan_forward(p, attention_isa), workspace, 0};
    job.tiles = (longest_queries(p) + job.plan.queries - 1) / job.plan.queries;
    threads_for(p->threads, job.tiles * p->sequences * p->G, forward_task, &job);
    return PLX_OK;
}

#endif
