/* attention_plan.c: tile sizes and scratch of the tiled CPU kernels.
 *
 * The sizes are chosen for a core with 1 MiB of second-level cache and 32 KiB of first-level cache;
 * the arithmetic and the measurements behind them are in parallax/NOTES.md. They depend on D and
 * the group only, so a row's result does not depend on how long or how many the sequences are. */
#include "attention/attention_plan.h"

#include <inttypes.h>

static int64_t round_up(int64_t count, int64_t unit)
{
    return (count + unit - 1) / unit * unit;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Lays the pieces one after another, each from a new cache line on, and adds up. */
static void plan_place(struct attention_plan *plan, int threads)
{
    size_t floats = 0;
    for (int n = 0; n < ATTENTION_PIECES; n++) {
        plan->offset[n] = floats;
        floats += (size_t)round_up((int64_t)plan->piece[n], 16);
    }
    plan->thread_bytes = floats * sizeof(float);
    plan->shared_bytes = (size_t)round_up((int64_t)plan->shared_bytes, 64);
    plan->bytes = plan->shared_bytes + (size_t)threads * plan->thread_bytes;
}

/* What forward and decode share, once queries, row_block and keys are set. */
static void plan_rows(struct attention_plan *plan, const struct attention_problem *p,
                      struct attention_isa isa)
{
    const size_t stack = p->probe ? 2 : 1;
    plan->rows = round_up(plan->group * plan->queries, plan->row_block);
    plan->state = 2 * isa.width + 2;
    size_t rows = (size_t)plan->rows, depth = (size_t)plan->depth, keys = (size_t)plan->keys;
    plan->piece[PIECE_QUERIES] = stack * rows * depth;
    plan->piece[PIECE_VALUES] = keys * depth;
    plan->piece[PIECE_SCORES] = stack * (size_t)plan->row_block * keys;
    plan->piece[PIECE_SUMS] = stack * rows * depth;
    plan->piece[PIECE_RESULT] = 2 * depth;
    plan->piece[PIECE_STATES] = rows * (size_t)plan->state;
}

struct attention_plan attention_plan_forward(const struct attention_problem *p,
                                             struct attention_isa isa)
{
    struct attention_plan plan = {.depth = round_up(p->D, isa.width), .group = p->H / p->G};
    bool wide = plan.depth > 128;
    plan.row_block = isa.product_rows * 4;
    plan.keys = wide ? 64 : 128;
    /* About 96 rows share a packed tile: the tile's packing is then 2 % of its products, and the
     * rows (q, r, A1, A2) take 192 KiB at D = 128. */
    plan.queries = least(p->T, wide ? 48 / plan.group : 96 / plan.group);
    if (plan.queries < 1) plan.queries = 1;
    plan_rows(&plan, p, isa);
    plan.piece[PIECE_KEYS] = (size_t)(plan.keys * plan.depth);
    if (!attention_keys_are_plain(p)) plan.piece[PIECE_KEY_ROWS] = plan.piece[PIECE_KEYS];
    plan_place(&plan, p->threads);
    return plan;
}

struct attention_plan attention_plan_decode(const struct attention_problem *p,
                                            struct attention_isa isa)
{
    struct attention_plan plan = {.depth = round_up(p->D, isa.width), .group = p->H / p->G};
    plan.keys = 64;
    plan.queries = least(p->T, 32 / plan.group);
    if (plan.queries < 1) plan.queries = 1;
    plan.row_block = round_up(plan.group * plan.queries, 2);
    plan_rows(&plan, p, isa);
    plan.piece[PIECE_KEY_ROWS] = (size_t)(plan.keys * plan.depth);
    /* Up to 32 ranges keep 32 cores busy with one key/value head; more rows need fewer, so that the
     * partial results of a key/value head stay below 128 rows or so. */
    int64_t quarter = round_up(plan.group * p->T, 4) / 4;
    plan.splits = quarter < 32 ? 32 / quarter : 1;
    plan.splits = attention_plan_splits(&plan, p->S);
    if (plan.splits > 1)
        plan.shared_bytes =
            (size_t)(plan.splits * p->B * p->T * p->H * attention_plan_partial(&plan, p->probe)) *
            sizeof(float);
    plan_place(&plan, p->threads);
    return plan;
}

int64_t attention_plan_splits(const struct attention_plan *plan, int64_t keys)
{
    int64_t splits = least(keys / 256, plan->splits);
    return splits > 1 ? splits : 1;
}

int64_t attention_plan_partial(const struct attention_plan *plan, bool probe)
{
    return plan->state + (probe ? 2 : 1) * plan->depth;
}

/* Bytes of an f32 copy of a gradient that is not f32 itself. */
static size_t plan_copy(const struct plx_tensor *gradient)
{
    if (gradient->rank == 0 || gradient->dtype == PLX_F32) return 0;
    return (size_t)round_up(plx_tensor_count(gradient) * (int64_t)sizeof(float), 64);
}

struct attention_plan attention_plan_backward(const struct attention_problem *p,
                                              struct attention_isa isa)
{
    const size_t stack = p->probe ? 2 : 1;
    struct attention_plan plan = {.depth = round_up(p->D, isa.width), .group = p->H / p->G};
    bool wide = plan.depth > 128;
    plan.row_block = isa.product_rows * 8;
    plan.keys = wide ? 64 : 128;
    plan.queries = plan.row_block * (wide ? 2 : 4);
    plan.rows = plan.queries;
    plan.state = 4;
    size_t block = (size_t)plan.row_block, depth = (size_t)plan.depth, keys = (size_t)plan.keys;
    plan.piece[PIECE_QUERIES] = stack * block * depth;
    plan.piece[PIECE_GRADIENTS] = block * depth;
    plan.piece[PIECE_KEYS] = depth * keys;
    plan.piece[PIECE_KEY_ROWS] = depth * keys;
    plan.piece[PIECE_VALUES] = depth * keys;
    plan.piece[PIECE_SCORES] = stack * block * keys;
    plan.piece[PIECE_WEIGHTS] = block * keys;
    plan.piece[PIECE_SUMS] = 2 * keys * depth;
    plan.piece[PIECE_RESULT] = stack * block * depth;
    /* Four scalars a row and head, and f32 sums of gradients that are stored in a narrower type. */
    plan.shared_bytes =
        (size_t)round_up(p->B * p->T * p->H * plan.state * (int64_t)sizeof(float), 64);
    plan.shared_bytes += plan_copy(&p->dq) + plan_copy(&p->dk) + plan_copy(&p->dv);
    plan.shared_bytes += plan_copy(&p->dr);
    plan_place(&plan, p->threads);
    return plan;
}

void attention_plan_print(const struct attention_plan *plan, FILE *file)
{
    static const char *const names[ATTENTION_PIECES] = {
        [PIECE_QUERIES] = "queries",   [PIECE_GRADIENTS] = "gradients", [PIECE_KEYS] = "keys",
        [PIECE_KEY_ROWS] = "key rows", [PIECE_VALUES] = "values",       [PIECE_SCORES] = "scores",
        [PIECE_WEIGHTS] = "weights",   [PIECE_SUMS] = "sums",           [PIECE_RESULT] = "result",
        [PIECE_STATES] = "states"};
    fprintf(file,
            "task: %" PRId64 " queries x %" PRId64 " heads, %" PRId64 " rows in blocks of %" PRId64
            "\n",
            plan->queries, plan->group, plan->rows, plan->row_block);
    fprintf(file, "tile: %" PRId64 " keys, %" PRId64 " channels; at most %" PRId64 " splits\n",
            plan->keys, plan->depth, plan->splits);
    for (int n = 0; n < ATTENTION_PIECES; n++)
        if (plan->piece[n])
            fprintf(file, "  %-10s %9zu bytes\n", names[n], plan->piece[n] * sizeof(float));
    fprintf(file, "a thread %zu bytes, shared %zu bytes, in all %zu bytes\n", plan->thread_bytes,
            plan->shared_bytes, plan->bytes);
}
