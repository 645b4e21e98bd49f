/* attention_backward_sm90_plan.c: see attention_backward_sm90_plan.h. */
#include "attention/attention_backward_sm90_plan.h"

#include <limits.h>

#include "attention/attention_forward_sm90_plan.h"

/* Bytes that the walked tensors of a section may have, about half of the L2 cache. */
enum { SECTION_BYTES = 28 << 20 };

/* Tiles of an axis that a pair has. */
static int64_t tiles_of(const struct attention_problem *p, int64_t extent, int rows)
{
    if (p->q_offsets.rank != 0) return extent / rows + p->sequences;
    return (extent + rows - 1) / rows;
}

static int64_t pairs_of(const struct attention_problem *p, int64_t heads)
{
    return p->q_offsets.rank != 0 ? heads : p->B * heads;
}

const char *backward_sm90_refuse(const struct attention_problem *p)
{
    if ((p->dtype != PLX_BF16 && p->dtype != PLX_F16) || p->d_o.dtype != p->dtype)
        return "it takes bf16 and f16, the same for d_o";
    if (p->D != 64 && p->D != 128) return "it takes 64 or 128 head channels";
    if (attention_is_empty(p)) return "it takes calls with queries and keys";
    const struct plx_tensor *copied[] = {&p->q, &p->k, &p->v, &p->d_o, &p->r};
    for (int n = 0; n < (p->probe ? 5 : 4); n++)
        if (!forward_sm90_strides_fit(copied[n], true))
            return "it takes inputs with rows on multiples of 16 bytes, none of them shared";
    const struct plx_tensor *others[] = {&p->o, &p->dq, &p->dk, &p->dv, &p->value_mean, &p->dr};
    for (int n = 0; n < (p->probe ? 6 : 4); n++)
        if (!forward_sm90_strides_fit(others[n], false))
            return "it takes outputs and their gradients with rows on multiples of 16 bytes";
    if (p->T > INT_MAX / 4 || p->S > INT_MAX / 4) return "it takes fewer than 2^29 tokens";
    if (tiles_of(p, p->T, BACKWARD_SM90_SLOT) * pairs_of(p, p->H) > INT_MAX / 4 ||
        tiles_of(p, p->S, BACKWARD_SM90_TILE) * pairs_of(p, p->G) > INT_MAX / 4)
        return "it takes fewer than 2^29 tiles";
    return NULL;
}

/* The blocks that own tiles of `extent` rows of each of `heads` heads; `bytes`: what a pair walks
 * over. */
static struct backward_sm90_grid grid_of(const struct attention_problem *p, int64_t extent,
                                         int64_t heads, int64_t bytes, bool rising)
{
    struct backward_sm90_grid grid = {.tiles = (int)tiles_of(p, extent, BACKWARD_SM90_TILE),
                                      .pairs = (int)pairs_of(p, heads),
                                      .rising = rising};
    int64_t most = bytes > 0 ? SECTION_BYTES / bytes : grid.pairs;
    if (most < 1) most = 1;
    grid.section = most < grid.pairs ? (int)most : grid.pairs;
    return grid;
}

/* Keys that a query sees, on average, where sequences are as long as they may be. */
static int64_t keys_seen(const struct attention_problem *p)
{
    int64_t n = p->q_offsets.rank != 0 && p->sequences > 0 ? p->sequences : 1;
    int64_t T = p->T / n, S = p->S / n;
    int64_t seen = !p->causal ? S : S > T ? S - T / 2 : S / 2;
    return p->causal && p->window > 0 && p->window < seen ? p->window : seen;
}

/* True where one kernel that adds to dq and dr is faster than two that do not. What it has to do
 * once a query, zeroing and converting sums, must be small beside what it saves a key; and with
 * more query heads a key head, from four on, it has fewer blocks, and longer ones
 * (parallax/NOTES.md). */
static bool fused_is_faster(const struct attention_problem *p)
{
    int64_t group = p->H / p->G, keys = p->probe ? 256 : 0; /* that a query must see */
    if (p->D == 128) keys = p->probe ? 1024 : 512;
    return 4 * keys_seen(p) >= keys * (group > 2 ? group * group : 4);
}

struct backward_sm90_plan backward_sm90_plan(const struct attention_problem *p)
{
    struct backward_sm90_plan plan = {.fused = !p->deterministic && fused_is_faster(p),
                                      .slots = (int)tiles_of(p, p->T, BACKWARD_SM90_SLOT),
                                      .pairs = (int)pairs_of(p, p->H),
                                      .scalars = p->probe ? 4 : 2};
    int tensors = p->probe ? 2 : 1; /* that are summed over keys */
    size_t rows = (size_t)plan.slots * (size_t)plan.pairs * BACKWARD_SM90_SLOT;
    if (plan.fused) plan.sums = rows * (size_t)p->D;
    plan.bytes = (rows * (size_t)plan.scalars + plan.sums * (size_t)tensors) * sizeof(float);
    int64_t group = p->H / p->G, row = p->D * 2;
    int64_t walked = group * p->T * row * (1 + tensors + (plan.fused ? 2 * tensors : 0));
    plan.keys = grid_of(p, p->S, p->G, walked, true);
    plan.queries = grid_of(p, p->T, p->H, 2 * p->S * row / group, false);
    return plan;
}
