/* softmax_merge.c: joining results over disjoint ranges of keys: with w_s = exp(lse_s - lse),
 * o = sum w_s o_s. */
#include "attention/attention_merge.h"

#include <math.h>

static plx_status softmax_merge_check(plx_context *context, const struct plx_softmax_partial *parts,
                                      int count, const struct plx_softmax_partial *out)
{
    CHECK(context, count >= 1, PLX_INVALID_ARGUMENT, "count: %d parts are fewer than 1", count);
    CHECK(context, parts, PLX_INVALID_ARGUMENT, "parts: is NULL");
    CHECK(context, out, PLX_INVALID_ARGUMENT, "out: is NULL");
    const struct plx_tensor *like = &parts[0].o;
    for (int s = 0; s < count; s++) {
        TRY(attention_merge_check(context, s, "o", &parts[s].o, 4, like));
        TRY(attention_merge_check(context, s, "lse", &parts[s].lse, 3, like));
    }
    TRY(attention_merge_check(context, -1, "o", &out->o, 4, like));
    if (out->lse.rank) TRY(attention_merge_check(context, -1, "lse", &out->lse, 3, like));
    return PLX_OK;
}

static double row_lse(const struct plx_softmax_partial *part, int64_t b, int64_t t, int64_t h)
{
    return attention_merge_get(&part->lse, tensor_offset(&part->lse, b, t, h));
}

static void merge_row(const struct plx_softmax_partial *parts, int count,
                      const struct plx_softmax_partial *out, int64_t b, int64_t i, int64_t h)
{
    const int64_t D = out->o.shape[3];
    double lse = -INFINITY;
    for (int s = 0; s < count; s++) lse = attention_merge_lse(lse, row_lse(&parts[s], b, i, h));
    /* A row that sees no key in any part: all weights are exp(-infinity - 0) = 0. */
    double base = lse == -INFINITY ? 0 : lse;
    for (int64_t d = 0; d < D; d += MERGE_BLOCK) {
        int64_t width = D - d < MERGE_BLOCK ? D - d : MERGE_BLOCK;
        double mean[MERGE_BLOCK] = {0};
        for (int s = 0; s < count; s++) {
            double weight = exp(row_lse(&parts[s], b, i, h) - base);
            int64_t o = tensor_offset(&parts[s].o, b, i, h) + d;
            for (int64_t c = 0; c < width; c++)
                mean[c] += weight * attention_merge_get(&parts[s].o, o + c);
        }
        for (int64_t c = 0; c < width; c++)
            attention_merge_set(&out->o, tensor_offset(&out->o, b, i, h) + d + c, mean[c]);
    }
    if (out->lse.rank) attention_merge_set(&out->lse, tensor_offset(&out->lse, b, i, h), lse);
}

plx_status plx_softmax_merge(plx_context *context, const struct plx_softmax_partial *parts,
                             int count, const struct plx_softmax_partial *out)
{
    if (!context) return PLX_INVALID_ARGUMENT;
    context_begin(context);
    TRY(softmax_merge_check(context, parts, count, out));
    const int64_t *shape = out->o.shape;
    for (int64_t b = 0; b < shape[0]; b++)
        for (int64_t i = 0; i < shape[1]; i++)
            for (int64_t h = 0; h < shape[2]; h++) merge_row(parts, count, out, b, i, h);
    return PLX_OK;
}
