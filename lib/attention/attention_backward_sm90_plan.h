/* attention_backward_sm90_plan.h: which problems the backward kernels for Hopper take, what they
 * keep in the workspace, and how they spread over a GPU. Pure functions of shapes, strides and
 * addresses; no CUDA is needed.
 *
 * Queries are counted in slots of 64 rows. Dense batches have ceil(T / 64) slots a head and batch
 * entry; packed ones T / 64 + N a head, where sequence n begins at slot start / 64 + n.
 *
 * A block owns a tile of 128 keys of a key/value head, or of 128 queries of a query head, and walks
 * over the other side. There is a block for every tile, and the hardware hands the next one to
 * whichever multiprocessor is free; so the order is all there is to plan: by section (heads whose
 * walked tensors fit the L2 cache together), then from the tile with most work under a causal mask
 * to the one with least, then by head. */
#ifndef PLX_ATTENTION_BACKWARD_SM90_PLAN_H
#define PLX_ATTENTION_BACKWARD_SM90_PLAN_H

#include "attention/attention.h"

enum { BACKWARD_SM90_TILE = 128, BACKWARD_SM90_SLOT = 64 };

/* The blocks of one kernel. */
struct backward_sm90_grid {
    int tiles, pairs; /* tiles of a pair; heads of all batch entries (packed: heads) */
    int section;      /* pairs whose blocks come before those of the next */
    bool rising;      /* the first tile has most work */
};

struct backward_sm90_plan {
    bool fused;       /* one kernel adds to dq and dr, in no fixed order */
    int slots, pairs; /* of queries: slots of a pair; heads of all batch entries */
    int scalars;      /* f32 values a query row keeps */
    size_t sums;      /* floats of the sums of dq, and again of dr; 0 unless fused */
    size_t bytes;     /* of the workspace: scalars, then sums */
    struct backward_sm90_grid keys, queries;
};

/* NULL where the kernels can run the problem, otherwise the reason, static storage. */
const char *backward_sm90_refuse(const struct attention_problem *problem);

/* For a problem that is not refused. */
struct backward_sm90_plan backward_sm90_plan(const struct attention_problem *problem);

struct backward_sm90_place {
    int tile, pair;
};

/* The tile of a block, 0 <= block < tiles * pairs. */
ATTENTION_INLINE struct backward_sm90_place backward_sm90_place(struct backward_sm90_grid grid,
                                                                int block)
{
    int first = block / (grid.tiles * grid.section) * grid.section;
    int rest = block - first * grid.tiles;
    int width = grid.pairs - first < grid.section ? grid.pairs - first : grid.section;
    int tile = rest / width;
    struct backward_sm90_place place = {grid.rising ? tile : grid.tiles - 1 - tile,
                                        first + rest % width};
    return place;
}

/* Walked tiles begin .. end - 1. */
struct backward_sm90_tiles {
    int begin, end;
};

/* The tiles of 64 rows, all of them there, that no mask comes between and rows first .. first +
 * count - 1 of a sequence's keys, or else of its queries: every query sees every key. Own queries
 * behind the last do not count. */
ATTENTION_INLINE struct backward_sm90_tiles
backward_sm90_plain(const struct attention_problem *problem, int T, int S, int first, int count,
                    bool keys)
{
    /* Query i sees keys up to i + shift, and `window` of them. */
    int last = first + count - 1, shift = S - T, begin = 0, end;
    int window = S + T + count; /* all, for any row of a tile */
    if (problem->causal && problem->window > 0 && problem->window < S + T)
        window = (int)problem->window;
    if (keys) {
        end = last < S ? T : 0;
        if (problem->causal && last > shift) begin = last - shift;
        if (first - shift + window < end) end = first - shift + window;
    } else {
        end = problem->causal ? first + shift + 1 : S;
        if (last + shift + 1 > window) begin = last + shift + 1 - window;
    }
    struct backward_sm90_tiles tiles = {(begin + BACKWARD_SM90_SLOT - 1) / BACKWARD_SM90_SLOT,
                                        end > 0 ? end / BACKWARD_SM90_SLOT : 0};
    return tiles;
}

#endif
