/* attention_forward_sm90_plan.c: see attention_forward_sm90_plan.h. */
#include "attention/attention_forward_sm90_plan.h"

#include <limits.h>

/* Bytes of keys and values that a section may have, about half of the L2 cache, and the shared
 * memory that a block may have beside its tiles: alignment, barriers and the description of items.
 */
enum { SECTION_BYTES = 24 << 20, SHARED_EXTRA = 512 };

/* Axes of extent 1 are never stepped along, so their strides do not count. */
static bool strides_fit(const struct plx_tensor *t, bool copied)
{
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

static int64_t tile_slots(const struct attention_problem *p)
{
    if (p->q_offsets.rank != 0) return p->T / FORWARD_SM90_ROWS + p->sequences;
    return (p->T + FORWARD_SM90_ROWS - 1) / FORWARD_SM90_ROWS;
}

static int64_t head_pairs(const struct attention_problem *p)
{
    return p->q_offsets.rank != 0 ? p->H : p->B * p->H;
}

const char *forward_sm90_refuse(const struct attention_problem *p)
{
    if (p->dtype != PLX_BF16) return "it takes bf16";
    if (p->D != 64 && p->D != 128) return "it takes 64 or 128 head channels";
    if (!(p->scale > 0)) return "it takes positive scales";
    const struct plx_tensor *copied[] = {&p->q, &p->k, &p->v, &p->r};
    for (int n = 0; n < (p->probe ? 4 : 3); n++)
        if (!strides_fit(copied[n], true))
            return "it takes inputs with rows on multiples of 16 bytes, none of them shared";
    if (!strides_fit(&p->o, false) || (p->value_mean.rank && !strides_fit(&p->value_mean, false)))
        return "it takes outputs with rows on multiples of 16 bytes";
    if (p->T > INT_MAX / 2 || p->S > INT_MAX / 2) return "it takes fewer than 2^30 tokens";
    /* Rounds past the last item must still be countable. */
    if (tile_slots(p) > INT_MAX / 4 || head_pairs(p) > INT_MAX / 4 ||
        tile_slots(p) * head_pairs(p) > INT_MAX / 4)
        return "it takes fewer than 2^29 tiles";
    return NULL;
}

struct forward_sm90_plan forward_sm90_plan(const struct attention_problem *p, int processors)
{
    struct forward_sm90_plan plan = {.tiles = (int)tile_slots(p), .pairs = (int)head_pairs(p)};
    /* Registers: with the probe a tile of keys needs twice as many. */
    plan.keys = p->probe ? 64 : 128;
    plan.stages = p->D == 64 ? 4 * 128 / plan.keys : 256 / plan.keys;
    int row = (int)p->D * 2;
    plan.shared_bytes = (p->probe ? 2 : 1) * FORWARD_SM90_ROWS * row +
                        2 * plan.stages * plan.keys * row + SHARED_EXTRA;
    plan.items = plan.tiles * plan.pairs;
    plan.grid = plan.items < processors ? plan.items : processors;
    int64_t bytes = 4 * p->S * p->D * p->G / p->H; /* of keys and values, a query head's share */
    int64_t most = bytes > 0 ? SECTION_BYTES / bytes : plan.pairs;
    most = most < 1 ? 1 : most > plan.pairs ? plan.pairs : most;
    int64_t sections = (plan.pairs + most - 1) / most;
    plan.section = (int)((plan.pairs + sections - 1) / sections);
    return plan;
}
