/* attention_forward_sm90_plan.c: see attention_forward_sm90_plan.h. */
#include "attention/attention_forward_sm90_plan.h"

#include <limits.h>

/* Bytes of keys and values that a section may have, about a third of the L2 cache; shared memory of
 * a block beside its tiles: barriers and the description of items; rows of the smallest query tile.
 */
enum { SECTION_BYTES = 16 << 20, SHARED_EXTRA = 512, FEWEST_ROWS = 128 };

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
    /* Numbers past the last item must still be countable. */
    int64_t slots = tile_slots(p, FEWEST_ROWS);
    if (slots > INT_MAX / 4 || head_pairs(p) > INT_MAX / 4 || slots * head_pairs(p) > INT_MAX / 4)
        return "it takes fewer than 2^29 tiles";
    return NULL;
}

/* Sections whose keys and values fit the L2 cache together. */
static int choose_sections(const struct attention_problem *p, int pairs)
{
    int64_t bytes = 4 * p->S * p->D * p->G / p->H; /* of keys and values, a query head's share */
    int64_t width = bytes > 0 ? SECTION_BYTES / bytes : pairs;
    if (width < 1) width = 1;
    return (int)((pairs + width - 1) / width);
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
    plan.sections = choose_sections(p, plan.pairs);
    return plan;
}
