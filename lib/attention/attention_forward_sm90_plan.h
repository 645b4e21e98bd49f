/* attention_forward_sm90_plan.h: which problems the forward kernels for Hopper take, and how they
 * spread them over a GPU. Pure functions of shapes, strides and addresses; no CUDA is needed.
 *
 * A block works on tiles of `rows` query rows of one head against tiles of `keys` keys. Blocks are
 * as many as multiprocessors and stay: each takes the item of its own number first, and then the
 * next that nobody has taken, so that work is even whatever items cost. Items are ordered by
 * section (heads whose keys and values fit the L2 cache together), then from the last query tile,
 * which under a causal mask is the heaviest, to the first, then by head.
 */
#ifndef PLX_ATTENTION_FORWARD_SM90_PLAN_H
#define PLX_ATTENTION_FORWARD_SM90_PLAN_H

#include "attention/attention.h"

/* Keys of a box that is copied from a page: it divides the key tiles of all instances. */
enum { FORWARD_PAGE_BOX = 32 };

/* What an instance of the kernel is made for. */
struct forward_sm90_tiles {
    int rows, keys; /* of a query tile and a key tile */
    int stages;     /* key tiles, and as many value tiles, in shared memory */
};

struct forward_sm90_plan {
    struct forward_sm90_tiles sizes;
    int shared_bytes;
    int tiles;    /* query tiles of a pair; packed: slots of all sequences */
    int pairs;    /* heads of all batch entries; packed: heads */
    int sections; /* of pairs that share the L2 cache: as many in each as in any other, or one more
                   */
    int items;    /* tiles * pairs */
    int grid;
};

/* Whether rows lie on multiples of 16 bytes; copied: and the copy engine can hold the strides. */
bool forward_sm90_strides_fit(const struct plx_tensor *tensor, bool copied);

/* NULL where the kernels can run the problem, otherwise the reason, static storage. */
const char *forward_sm90_refuse(const struct attention_problem *problem);

/* For a problem that is not refused and has queries. */
struct forward_sm90_plan forward_sm90_plan(const struct attention_problem *problem,
                                           struct forward_sm90_tiles sizes, int processors);

struct forward_sm90_place {
    int tile, pair;
};

/* The first sections have one pair more than the others, where pairs do not divide evenly. */
ATTENTION_INLINE struct forward_sm90_place forward_sm90_place(const struct forward_sm90_plan *plan,
                                                              int item)
{
    int width = plan->pairs / plan->sections, wide = plan->pairs % plan->sections;
    int first = 0, rest = item;
    if (rest < wide * (width + 1) * plan->tiles) {
        width++;
    } else {
        first = wide * (width + 1);
        rest -= first * plan->tiles;
    }
    int section = rest / (width * plan->tiles);
    rest -= section * width * plan->tiles;
    return (struct forward_sm90_place){plan->tiles - 1 - rest / width,
                                       first + section * width + rest % width};
}

#endif
