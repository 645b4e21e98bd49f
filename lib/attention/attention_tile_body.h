/* attention_tile_body.h: packing tiles, the online softmax of a row, and its last step; shared by
 * the forward and decode bodies (backward uses the packing).
 *
 * The state of a row over the keys seen so far, with the score s and w_j = e^(s_j - m):
 *
 *     m = max s_j    d1 = sum w_j            A1 = sum w_j v_j
 *                    d2 = sum w_j (u_j - c)  A2 = sum w_j (u_j - c) v_j
 *
 * c is the weighted mean of u over the first keys that the row sees. It never changes afterwards
 * and drops out of the result; taking it off first keeps a common offset of u (one vector added to
 * every key) from cancelling in t - u with the precision of the offset instead of that of the
 * differences. d1 and d2 are kept as one sum a lane, added up once at the end.
 *
 * ATTENTION_PROBE (1 for Parallax, 0 for softmax attention) is a constant of the including file;
 * the first branch is the same sequence of operations in both, so r = 0 gives softmax attention bit
 * for bit. Include after the words. Next: attention_forward_body.h. */
#ifndef PLX_ATTENTION_TILE_BODY_H
#define PLX_ATTENTION_TILE_BODY_H

#include <math.h>
#include <string.h>

#include "attention/attention.h"
#include "attention/attention_plan.h"
#include "core/tensor.h"
#include "cpu/product_body.h"

enum { ATTENTION_STACK = ATTENTION_PROBE ? 2 : 1 };

static const struct attention_isa attention_isa = {VEC_WIDTH, PRODUCT_ROWS};

static inline int64_t attention_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t attention_most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t attention_round_up(int64_t count, int64_t unit)
{
    return (count + unit - 1) / unit * unit;
}

/* ---- Packing -----------------------------------------------------------------------------------
 */

/* Rows of one head: entry (b, t, h) of a [B,T,H,D] view, and those that follow along t. */
struct rows {
    const void *data;
    int64_t stride; /* elements between rows */
    plx_dtype dtype;
};

static inline struct rows rows_of(const struct plx_tensor *tensor, int64_t b, int64_t t, int64_t h)
{
    return (struct rows){tensor_at(tensor, tensor_offset(tensor, b, t, h)), tensor->stride[1],
                         tensor->dtype};
}

/* Channels d .. d + count - 1 of a row; zero in further lanes. */
static inline vec rows_load(struct rows rows, int64_t row, int64_t d, int count)
{
    const int64_t place = row * rows.stride + d;
    if (rows.dtype == PLX_F32) {
        const float *p = (const float *)rows.data + place;
        return count == VEC_WIDTH ? vec_load(p) : vec_load_part(p, count);
    }
    if (rows.dtype == PLX_F8E4M3)
        return vec_load_f8_part((const uint8_t *)rows.data + place, count);
    const uint16_t *p = (const uint16_t *)rows.data + place;
    if (rows.dtype == PLX_F16)
        return count == VEC_WIDTH ? vec_load_f16(p) : vec_load_f16_part(p, count);
    return count == VEC_WIDTH ? vec_load_bf16(p) : vec_load_bf16_part(p, count);
}

static inline int lanes_left(int64_t D, int64_t d)
{
    return (int)attention_least(VEC_WIDTH, D - d);
}

/* One row, zero behind D. */
static inline __attribute__((always_inline)) void pack_row(float *out, struct rows rows,
                                                           int64_t row, int64_t D, int64_t depth)
{
    int64_t d = 0;
    for (; d + VEC_WIDTH <= D; d += VEC_WIDTH)
        vec_store(out + d, rows_load(rows, row, d, VEC_WIDTH));
    if (d < depth) vec_store(out + d, rows_load(rows, row, d, (int)(D - d)));
}

/* Rows that are known to have this dtype, which is a constant of the caller. */
static inline __attribute__((always_inline)) void
pack_rows_of(float *out, struct rows rows, plx_dtype dtype, int64_t count, int64_t D, int64_t depth)
{
    const struct rows typed = {rows.data, rows.stride, dtype};
    for (int64_t i = 0; i < count; i++) pack_row(out + i * depth, typed, i, D, depth);
}

/* out[i][0 .. depth) = row i, zero behind D and behind `valid` rows. */
static void pack_rows(float *out, struct rows rows, int64_t valid, int64_t count, int64_t D,
                      int64_t depth)
{
    if (rows.dtype == PLX_F32) pack_rows_of(out, rows, PLX_F32, valid, D, depth);
    if (rows.dtype == PLX_BF16) pack_rows_of(out, rows, PLX_BF16, valid, D, depth);
    if (rows.dtype == PLX_F16) pack_rows_of(out, rows, PLX_F16, valid, D, depth);
    if (rows.dtype == PLX_F8E4M3) pack_rows_of(out, rows, PLX_F8E4M3, valid, D, depth);
    if (count > valid)
        memset(out + valid * depth, 0, (size_t)((count - valid) * depth) * sizeof(float));
}

/* out[d][j] = row j, channel d, for 0 <= d < depth and whole vectors of j up to `valid`; zero
 * behind valid and D. `count` is the distance between channels. */
static void pack_transposed(float *out, struct rows rows, int64_t valid, int64_t count, int64_t D,
                            int64_t depth)
{
    for (int64_t j = 0; j < valid; j += VEC_WIDTH)
        for (int64_t d = 0; d < depth; d += VEC_WIDTH) {
            vec square[VEC_WIDTH];
            int lanes = lanes_left(D, d);
            if (valid - j >= VEC_WIDTH) {
#pragma GCC unroll 16
                for (int n = 0; n < VEC_WIDTH; n++) square[n] = rows_load(rows, j + n, d, lanes);
            } else {
                for (int n = 0; n < VEC_WIDTH; n++)
                    square[n] = j + n < valid ? rows_load(rows, j + n, d, lanes) : vec_set(0.0f);
            }
            vec_transpose(square);
#pragma GCC unroll 16
            for (int n = 0; n < VEC_WIDTH; n++) vec_store(out + (d + n) * count + j, square[n]);
        }
}

/* ---- Keys and values ---------------------------------------------------------------------------
 */

/* Rows of k or v from key j of a sequence on, and how many of the next `keys` lie behind each
 * other: all of them, or those up to the end of the page. */
static inline struct rows key_rows(const struct attention_problem *p,
                                   const struct plx_tensor *tensor,
                                   const struct attention_sequence *seq, int64_t g, int64_t j,
                                   int64_t *keys)
{
    if (p->page > 0) *keys = attention_least(*keys, p->page - j % p->page);
    return (struct rows){tensor_at(tensor, attention_key_offset(p, tensor, seq, j, g)),
                         tensor->stride[1], tensor->dtype};
}

/* Keys or values j .. j + keys - 1 of a sequence as f32 rows, and zeros up to count: collected from
 * their pages, times the scale of their head. */
static void pack_keys(float *out, const struct attention_problem *p,
                      const struct plx_tensor *tensor, const struct plx_tensor *scales,
                      const struct attention_sequence *seq, int64_t g, int64_t j, int64_t keys,
                      int64_t count, int64_t depth)
{
    for (int64_t done = 0, run; done < keys; done += run) {
        run = keys - done;
        const struct rows rows = key_rows(p, tensor, seq, g, j + done, &run);
        pack_rows(out + done * depth, rows, run, run, p->D, depth);
    }
    memset(out + keys * depth, 0, (size_t)((count - keys) * depth) * sizeof(float));
    if (!scales->data) return;
    const vec scale = vec_set(((const float *)scales->data)[g]);
    for (int64_t n = 0; n < keys * depth; n += VEC_WIDTH)
        vec_store(out + n, vec_mul(scale, vec_load(out + n)));
}

/* ---- Results -----------------------------------------------------------------------------------
 */

/* Stores D floats as a row of a [B,T,H,D] view of f32, bf16 or f16. */
static void store_row(const struct plx_tensor *tensor, int64_t b, int64_t t, int64_t h,
                      const float *row, int64_t D)
{
    void *out = tensor_at(tensor, tensor_offset(tensor, b, t, h));
    for (int64_t d = 0; d < D; d += VEC_WIDTH) {
        int lanes = lanes_left(D, d);
        vec x = vec_load_part(row + d, lanes);
        if (tensor->dtype == PLX_F32) vec_store_part((float *)out + d, x, lanes);
        if (tensor->dtype == PLX_BF16) vec_store_bf16_part((uint16_t *)out + d, x, lanes);
        if (tensor->dtype == PLX_F16) vec_store_f16_part((uint16_t *)out + d, x, lanes);
    }
}

static inline void store_scalar(const struct plx_tensor *tensor, int64_t b, int64_t t, int64_t h,
                                float value)
{
    if (tensor->rank) ((float *)tensor->data)[tensor_offset(tensor, b, t, h)] = value;
}

/* ---- The online softmax of a row ---------------------------------------------------------------
 */

/* A row's state in floats: m, c, the lanes of d1, the lanes of d2. */
enum { STATE_M = 0, STATE_C = 1, STATE_D1 = 2, STATE_D2 = 2 + VEC_WIDTH };

static void state_reset(float *state)
{
    state[STATE_M] = -INFINITY;
    state[STATE_C] = 0.0f;
    vec_store(state + STATE_D1, vec_set(0.0f));
    vec_store(state + STATE_D2, vec_set(0.0f));
}

/* Multiplies what has been summed so far by e^(old m - new m). */
static void state_rescale(float *state, float *sums, float *moments, int64_t depth, float factor)
{
    const vec f = vec_set(factor);
    vec_store(state + STATE_D1, vec_mul(f, vec_load(state + STATE_D1)));
    for (int64_t d = 0; d < depth; d += VEC_WIDTH)
        vec_store(sums + d, vec_mul(f, vec_load(sums + d)));
    if (!ATTENTION_PROBE) return;
    vec_store(state + STATE_D2, vec_mul(f, vec_load(state + STATE_D2)));
    for (int64_t d = 0; d < depth; d += VEC_WIDTH)
        vec_store(moments + d, vec_mul(f, vec_load(moments + d)));
}

/* e^x of one number by the same polynomial as everywhere. */
static inline float exp_scalar(float x)
{
    float lanes[VEC_WIDTH];
    vec_store(lanes, vec_exp(vec_set(x)));
    return lanes[0];
}

/* Weighted mean of u over the tile, the reference c of a row that sees its first keys. */
static float first_mean(const float *p, const float *u, int64_t begin, int64_t end)
{
    vec weights = vec_set(0.0f), weighted = vec_set(0.0f);
    for (int64_t j = begin; j < end; j += VEC_WIDTH) {
        weights = vec_add(weights, vec_load(p + j));
        weighted = vec_fma(vec_load(p + j), vec_load(u + j), weighted);
    }
    return vec_sum(weighted) / vec_sum(weights);
}

/* Turns the scores s and probe products u of one row, columns begin .. end - 1 of a tile (whole
 * vectors), of which it sees first .. last - 1, into its weights w and w (u - c), in place, and
 * brings the row's state, A1 (sums) and A2 (moments) to the new maximum. Columns it does not see
 * get weights of zero. */
static void row_update(float *s, float *u, int64_t begin, int64_t end, int64_t first, int64_t last,
                       float *state, float *sums, float *moments, int64_t depth)
{
    if (first >= last) {
        memset(s + begin, 0, (size_t)(end - begin) * sizeof(float));
        if (ATTENTION_PROBE) memset(u + begin, 0, (size_t)(end - begin) * sizeof(float));
        return;
    }
    for (int64_t j = begin; j < first; j++) s[j] = -INFINITY;
    for (int64_t j = last; j < end; j++) s[j] = -INFINITY;
    if (ATTENTION_PROBE) {
        for (int64_t j = begin; j < first; j++) u[j] = 0.0f;
        for (int64_t j = last; j < end; j++) u[j] = 0.0f;
    }

    vec largest = vec_set(state[STATE_M]);
    for (int64_t j = begin; j < end; j += VEC_WIDTH) largest = vec_max(largest, vec_load(s + j));
    const float old_m = state[STATE_M], new_m = vec_largest(largest);
    const bool is_first = old_m == -INFINITY;
    if (!is_first && new_m != old_m)
        state_rescale(state, sums, moments, depth, exp_scalar(old_m - new_m));
    state[STATE_M] = new_m;

    const vec m = vec_set(new_m);
    vec d1 = vec_load(state + STATE_D1);
    for (int64_t j = begin; j < end; j += VEC_WIDTH) {
        vec w = vec_exp(vec_sub(vec_load(s + j), m));
        vec_store(s + j, w);
        d1 = vec_add(d1, w);
    }
    vec_store(state + STATE_D1, d1);
    if (!ATTENTION_PROBE) return;

    if (is_first) state[STATE_C] = first_mean(s, u, begin, end);
    const vec c = vec_set(state[STATE_C]);
    vec d2 = vec_load(state + STATE_D2);
    for (int64_t j = begin; j < end; j += VEC_WIDTH) {
        vec w = vec_mul(vec_load(s + j), vec_sub(vec_load(u + j), c));
        vec_store(u + j, w);
        d2 = vec_add(d2, w);
    }
    vec_store(state + STATE_D2, d2);
}

/* ---- The result of a row -----------------------------------------------------------------------
 */

/* Where a row's results go. */
struct row_place {
    int64_t b, t, h;
};

/* m_i = A1/d1, t' = d2/d1, o = m (1 + t') - A2/d1, and the statistics: t = t' + c, lse in natural
 * units. result is scratch for two rows. A row that saw no key gets zeros and -infinity. */
static void row_finish(const struct attention_problem *p, struct row_place at, const float *state,
                       const float *sums, const float *moments, int64_t depth, float *result)
{
    const float d1 = vec_sum(vec_load(state + STATE_D1));
    const bool empty = state[STATE_M] == -INFINITY && d1 == 0.0f;
    const float inverse = empty ? 0.0f : 1.0f / d1;
    const float t = ATTENTION_PROBE ? vec_sum(vec_load(state + STATE_D2)) * inverse : 0.0f;
    const vec scale = vec_set(inverse), gain = vec_set(1.0f + t);
    float *mean = result + depth;
    for (int64_t d = 0; d < depth; d += VEC_WIDTH) {
        vec value = vec_mul(vec_load(sums + d), scale);
        vec_store(mean + d, value);
        if (ATTENTION_PROBE)
            value = vec_sub(vec_mul(value, gain), vec_mul(vec_load(moments + d), scale));
        vec_store(result + d, value);
    }
    store_row(&p->o, at.b, at.t, at.h, result, p->D);
    if (p->value_mean.rank) store_row(&p->value_mean, at.b, at.t, at.h, mean, p->D);
    if (p->lse.rank) {
        double lse = (double)state[STATE_M] + log((double)d1);
        store_scalar(&p->lse, at.b, at.t, at.h, empty ? -INFINITY : (float)lse);
    }
    store_scalar(&p->probe_mean, at.b, at.t, at.h, empty ? 0.0f : t + state[STATE_C]);
}

/* ---- A tile of rows ----------------------------------------------------------------------------
 */

/* A task: some queries of one sequence, all heads of a group. Row i of its `rows` is head
 * i / queries of the group and query first + i % queries. */
struct row_tile {
    struct attention_sequence seq;
    int64_t g, first, queries, rows;
};

/* The longest sequence decides how many tiles the parallel loop has. */
static int64_t longest_queries(const struct attention_problem *p)
{
    int64_t longest = 0;
    for (int64_t n = 0; n < p->sequences; n++)
        longest = attention_most(longest, attention_sequence(p, n).T);
    return longest;
}

static inline struct row_place tile_place(const struct row_tile *tile, int64_t group, int64_t row)
{
    return (struct row_place){tile->seq.q_batch,
                              tile->seq.q_start + tile->first + row % tile->queries,
                              tile->g * group + row / tile->queries};
}

static inline struct attention_range tile_keys(const struct attention_problem *p,
                                               const struct row_tile *tile, int64_t row)
{
    return attention_keys(p, tile->seq.T, tile->seq.S, tile->first + row % tile->queries);
}

/* Rows of the block that begins at row `first`. */
static inline int64_t block_rows(const struct row_tile *tile, const struct attention_plan *plan,
                                 int64_t first)
{
    return attention_least(plan->row_block, tile->rows - first);
}

/* Rows in each half of the stack, so that the stack is even: one more than there are where an odd
 * number is not stacked. */
static inline int64_t block_pairs(int64_t rows)
{
    return ATTENTION_PROBE ? rows : attention_round_up(rows, 2);
}

/* Packs q and r of every row, stacked by block, and empties states and sums.
 */
static void tile_begin(const struct attention_problem *p, const struct attention_plan *plan,
                       const struct row_tile *tile, float *scratch)
{
    const int64_t depth = plan->depth;
    float *sums = scratch + plan->offset[PIECE_SUMS];
    for (int64_t first = 0; first < tile->rows; first += plan->row_block) {
        int64_t rows = block_rows(tile, plan, first), pairs = block_pairs(rows);
        float *q = scratch + plan->offset[PIECE_QUERIES] + ATTENTION_STACK * first * depth;
        for (int64_t i = 0; i < pairs; i++) {
            struct row_place at =
                tile_place(tile, plan->group, first + attention_least(i, rows - 1));
            pack_rows(q + i * depth, rows_of(&p->q, at.b, at.t, at.h), i < rows, 1, p->D, depth);
            if (ATTENTION_PROBE)
                pack_rows(q + (pairs + i) * depth, rows_of(&p->r, at.b, at.t, at.h), i < rows, 1,
                          p->D, depth);
        }
        memset(sums + ATTENTION_STACK * first * depth, 0,
               (size_t)(ATTENTION_STACK * pairs * depth) * sizeof(float));
    }
    for (int64_t i = 0; i < tile->rows; i++)
        state_reset(scratch + plan->offset[PIECE_STATES] + i * plan->state);
}

/* A1 of a row; A2 lies `moment_step` floats behind. */
static inline float *tile_sums(const struct attention_plan *plan, const struct row_tile *tile,
                               float *scratch, int64_t row, int64_t *moment_step)
{
    int64_t first = row / plan->row_block * plan->row_block;
    *moment_step = block_pairs(block_rows(tile, plan, first)) * plan->depth;
    return scratch + plan->offset[PIECE_SUMS] +
           (ATTENTION_STACK * first + (row - first)) * plan->depth;
}

/* Columns of the key tile at key0 that rows of a block see: the union of their ranges. */
static struct attention_range block_columns(const struct attention_problem *p,
                                            const struct row_tile *tile, int64_t first,
                                            int64_t rows, int64_t key0, int64_t keys)
{
    struct attention_range all = {keys, 0};
    for (int64_t i = first; i < first + rows; i++) {
        struct attention_range seen = tile_keys(p, tile, i);
        int64_t begin = attention_most(seen.first - key0, 0);
        int64_t end = attention_least(seen.end - key0, keys);
        if (begin >= end) continue;
        all.first = attention_least(all.first, begin);
        all.end = attention_most(all.end, end);
    }
    return all;
}

/* Phase 3 for the rows of a block: the columns begin .. end - 1 of its scores, whole vectors. */
static void block_update(const struct attention_problem *p, const struct attention_plan *plan,
                         const struct row_tile *tile, float *scratch, int64_t first, int64_t key0,
                         struct attention_range columns)
{
    const int64_t rows = block_rows(tile, plan, first), pairs = block_pairs(rows);
    float *s = scratch + plan->offset[PIECE_SCORES], *u = s + pairs * plan->keys;
    float *states = scratch + plan->offset[PIECE_STATES];
    for (int64_t i = 0; i < rows; i++) {
        struct attention_range seen = tile_keys(p, tile, first + i);
        int64_t moment_step;
        float *sums = tile_sums(plan, tile, scratch, first + i, &moment_step);
        row_update(s + i * plan->keys, u + i * plan->keys, columns.first, columns.end,
                   attention_most(seen.first - key0, columns.first),
                   attention_least(seen.end - key0, columns.end),
                   states + (first + i) * plan->state, sums, sums + moment_step, plan->depth);
    }
}

#endif
