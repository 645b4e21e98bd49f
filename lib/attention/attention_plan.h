/* attention_plan.h: how the tiled CPU kernels cut a problem up, and how much scratch that takes.
 *
 * A plan is a pure function of shapes and of the register tile of the instruction set: never of the
 * number of threads (only the total of scratch is), the contents of memory, or what else is in the
 * batch beside a sequence. That is why results are the same bits for any number of threads. Sizes
 * within a plan are in floats unless a name says bytes. Next: attention_tile_body.h, which uses the
 * pieces. */
#ifndef PLX_ATTENTION_PLAN_H
#define PLX_ATTENTION_PLAN_H

#include <stdio.h>

#include "attention/attention.h"

/* What a plan has to know about the words a kernel is compiled with (cpu/avx512.h, cpu/portable.h).
 */
struct attention_isa {
    int width;        /* floats in a vector */
    int product_rows; /* rows of the register tile */
};

/* Scratch of one thread. "Stacked" rows are those of a row block for q, then those for r, as one
 * operand of a product; softmax attention has only the first half. */
enum attention_piece {
    PIECE_QUERIES,   /* q and r, stacked by row block */
    PIECE_GRADIENTS, /* d_o (backward) */
    PIECE_KEYS,      /* the key tile by channels: [depth, keys] */
    PIECE_KEY_ROWS,  /* the key tile as it is: [keys, depth] (backward, decode, caches) */
    PIECE_VALUES,    /* the value tile: [keys, depth]; backward: [depth, keys] */
    PIECE_SCORES,    /* scores and probe products of a row block, stacked: [rows, keys] */
    PIECE_WEIGHTS,   /* a_ij, then the weights of d_o (backward) */
    PIECE_SUMS,      /* A1 and A2, stacked like q and r (forward, decode); d_k and d_v (backward) */
    PIECE_RESULT, /* d_q and d_r of a row block (backward); one row of output (forward, decode) */
    PIECE_STATES, /* m, c and the lanes of d1 and d2 of every row */
    ATTENTION_PIECES
};

struct attention_plan {
    int64_t depth;     /* D in whole vectors */
    int64_t group;     /* query heads that share a key/value head */
    int64_t queries;   /* queries of a task; its rows are group * queries (backward: queries) */
    int64_t rows;      /* rows of a task in whole row blocks */
    int64_t row_block; /* rows that are carried through all phases of a tile together */
    int64_t keys;      /* keys of a tile */
    int64_t splits;    /* decode: the most key ranges a sequence is split into */
    int64_t state;     /* floats of one row's state */
    size_t piece[ATTENTION_PIECES];  /* floats */
    size_t offset[ATTENTION_PIECES]; /* of each piece in a thread's scratch, in floats */
    size_t thread_bytes;
    size_t shared_bytes; /* before the threads' scratch: partial results or f32 gradients */
    size_t bytes;        /* all of it */
};

struct attention_plan attention_plan_forward(const struct attention_problem *problem,
                                             struct attention_isa isa);
struct attention_plan attention_plan_backward(const struct attention_problem *problem,
                                              struct attention_isa isa);
struct attention_plan attention_plan_decode(const struct attention_problem *problem,
                                            struct attention_isa isa);

/* Decode: into how many ranges `keys` visible keys are cut, at most plan->splits. */
int64_t attention_plan_splits(const struct attention_plan *plan, int64_t keys);
/* Decode: floats of one row's partial result (its state, A1 and A2). */
int64_t attention_plan_partial(const struct attention_plan *plan, bool probe);

/* One line a member, for people. */
void attention_plan_print(const struct attention_plan *plan, FILE *file);

#endif
