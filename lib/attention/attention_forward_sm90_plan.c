/* attention_forward_sm90_plan.c: see attention_forward_sm90_plan.h. */
#include "attention/attention_forward_sm90_plan.h"

#include <limits.h>

/* Bytes of keys and values that a section may have, about half of the L2 cache; shared memory of a
 * block beside its tiles: barriers and the description of items; items that balancing looks at;
 * rows of the smallest query tile. */
enum { SECTION_BYTES = 24 << 20, SHARED_EXTRA = 512, BALANCED_ITEMS = 1 << 16, FEWEST_ROWS = 128 };

bool forward_sm90_strides_fit(const struct plx_tensor *t, bool copied)
{
    /* Axes of extent 1 are never stepped along, so their strides do not count. */
    int64_t unit = (int64_t)(16 / plx_dtype_size(t->dtype));
    if ((uintptr_t)t->data % 16 != 0) return false;
    for (int axis = 0; axis < 3; axis++) {
        if (t->shape[axis] <= 1) continue;
        if (t->stride[axis] % unit != 0) return false;
        /* The copy engine holds 40 bits of stride, and no zero. */
        if (copied && (t->stride[axis] == 0 || t->stride[axis] >= (int64_t)1 << 38)) return false;
    }
    return true;
}

static int64_t tile_slots(const struct attention_problem *p, int rows)
{
    if (p->q_offsets.rank != 0) return p->T / rows + p->sequences;
    return (p->T + rows - 1) / rows;
}

static int64_t head_pairs(const struct attention_problem *p)
{
    return p->q_offsets.rank != 0 ? p->H : p->B * p->H;
}

const char *forward_sm90_refuse(const struct attention_problem *p)
{
    if (p->dtype != PLX_BF16 && p->dtype != PLX_F16) return "it takes bf16 and f16";
    if (p->kv_dtype == PLX_F8E4M3) return "it takes no f8e4m3 keys";
    if (p->page % FORWARD_PAGE_BOX != 0) return "it takes pages of multiples of 32";
    if (p->D != 64 && p->D != 128) return "it takes 64 or 128 head channels";
    if (!(p->scale > 0)) return "it takes positive scales";
    const struct plx_tensor *copied[] = {&p->q, &p->k, &p->v, &p->r};
    for (int n = 0; n < (p->probe ? 4 : 3); n++)
        if (!forward_sm90_strides_fit(copied[n], true))
            return "it takes inputs with rows on multiples of 16 bytes, none of them shared";
    if (!forward_sm90_strides_fit(&p->o, false) ||
        (p->value_mean.rank && !forward_sm90_strides_fit(&p->value_mean, false)))
        return "it takes outputs with rows on multiples of 16 bytes";
    if (p->T > INT_MAX / 2 || p->S > INT_MAX / 2) return "it takes fewer than 2^30 tokens";
    /* Rounds past the last item must still be countable. */
    int64_t slots = tile_slots(p, FEWEST_ROWS);
    if (slots > INT_MAX / 4 || head_pairs(p) > INT_MAX / 4 || slots * head_pairs(p) > INT_MAX / 4)
        return "it takes fewer than 2^29 tiles";
    return NULL;
}

/* Work of the block that has most, in pairs of a query tile and as many keys. */
static int64_t heaviest_block(const struct attention_problem *p,
                              const struct forward_sm90_plan *plan)
{
    int64_t most = 0, seen = p->window > 0 ? p->window / plan->sizes.rows + 2 : plan->tiles;
    for (int block = 0; block < plan->grid; block++) {
        struct forward_sm90_place place;
        int64_t work = 0;
        for (int round = 0; forward_sm90_place(plan, block, round, &place); round++)
            work += !p->causal ? plan->tiles : place.tile < seen ? place.tile + 1 : seen;
        most = work > most ? work : most;
    }
    return most;
}

/* Pairs whose keys and values fit the L2 cache together; but the rounds of some numbers of pairs
 * fall in step with the tiles, so that some blocks always get heavy ones. Rounds over all pairs are
 * even: they are taken where they save more than a thirtieth. */
static int choose_section(const struct attention_problem *p, struct forward_sm90_plan plan)
{
    int64_t bytes = 4 * p->S * p->D * p->G / p->H; /* of keys and values, a query head's share */
    int64_t most = bytes > 0 ? SECTION_BYTES / bytes : plan.pairs;
    if (most >= plan.pairs || plan.grid == plan.items) return plan.pairs;
    if (most < 1) most = 1;
    int64_t sections = (plan.pairs + most - 1) / most;
    int small = (int)((plan.pairs + sections - 1) / sections);
    if (plan.items > BALANCED_ITEMS) return small;
    plan.section = small;
    int64_t work = heaviest_block(p, &plan);
    plan.section = plan.pairs;
    return heaviest_block(p, &plan) * 31 < work * 30 ? plan.pairs : small;
}

struct forward_sm90_plan forward_sm90_plan(const struct attention_problem *p,
                                           struct forward_sm90_tiles sizes, int processors)
{
    struct forward_sm90_plan plan = {
        .sizes = sizes, .tiles = (int)tile_slots(p, sizes.rows), .pairs = (int)head_pairs(p)};
    int row = (int)p->D * 2;
    plan.shared_bytes =
        (p->probe ? 2 : 1) * sizes.rows * row + 2 * sizes.stages * sizes.keys * row + SHARED_EXTRA;
    plan.items = plan.tiles * plan.pairs;
    plan.grid = plan.items < processors ? plan.items : processors;
    plan.section = choose_section(p, plan);
    return plan;
}
