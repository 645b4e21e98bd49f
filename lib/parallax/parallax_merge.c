/* parallax_merge.c: joining results over disjoint ranges of keys.
 *
 * m and t are weighted means over keys, and m - o is their weighted covariance; with w_s =
 * exp(lse_s - lse) the covariance of the whole is the mean of the covariances plus the covariance
 * of the means:
 *
 *     t = sum w_s t_s    m = sum w_s m_s    m - o = sum w_s ((m_s - o_s) + (t_s - t)(m_s - m))
 *
 * Only differences of t appear, so a common offset of all keys cancels before it is multiplied. */
#include "attention/attention_merge.h"

#include <math.h>

static plx_status parallax_merge_check(plx_context *context,
                                       const struct plx_parallax_partial *parts, int count,
                                       const struct plx_parallax_partial *out)
{
    CHECK(context, count >= 1, PLX_INVALID_ARGUMENT, "count: %d parts are fewer than 1", count);
    CHECK(context, parts, PLX_INVALID_ARGUMENT, "parts: is NULL");
    CHECK(context, out, PLX_INVALID_ARGUMENT, "out: is NULL");
    const struct plx_tensor *like = &parts[0].o;
    for (int s = 0; s < count; s++) {
        const struct plx_parallax_partial *part = &parts[s];
        TRY(attention_merge_check(context, s, "o", &part->o, 4, like));
        TRY(attention_merge_check(context, s, "lse", &part->lse, 3, like));
        TRY(attention_merge_check(context, s, "probe_mean", &part->probe_mean, 3, like));
        TRY(attention_merge_check(context, s, "value_mean", &part->value_mean, 4, like));
    }
    TRY(attention_merge_check(context, -1, "o", &out->o, 4, like));
    if (out->lse.rank) TRY(attention_merge_check(context, -1, "lse", &out->lse, 3, like));
    if (out->probe_mean.rank)
        TRY(attention_merge_check(context, -1, "probe_mean", &out->probe_mean, 3, like));
    if (out->value_mean.rank)
        TRY(attention_merge_check(context, -1, "value_mean", &out->value_mean, 4, like));
    return PLX_OK;
}

static double row_lse(const struct plx_parallax_partial *part, int64_t b, int64_t t, int64_t h)
{
    return attention_merge_get(&part->lse, tensor_offset(&part->lse, b, t, h));
}

static double row_probe_mean(const struct plx_parallax_partial *part, int64_t b, int64_t t,
                             int64_t h)
{
    return attention_merge_get(&part->probe_mean, tensor_offset(&part->probe_mean, b, t, h));
}

/* Channels d .. d + width - 1 of one row, whose lse and probe mean are already joined. */
static void merge_block(const struct plx_parallax_partial *parts, int count,
                        const struct plx_parallax_partial *out, const int64_t row[3], int64_t d,
                        int64_t width, double lse, double t)
{
    const int64_t b = row[0], i = row[1], h = row[2];
    double mean[MERGE_BLOCK] = {0}, covariance[MERGE_BLOCK] = {0};
    for (int s = 0; s < count; s++) {
        const struct plx_tensor *value_mean = &parts[s].value_mean;
        double weight = exp(row_lse(&parts[s], b, i, h) - lse);
        int64_t m = tensor_offset(value_mean, b, i, h) + d;
        for (int64_t c = 0; c < width; c++)
            mean[c] += weight * attention_merge_get(value_mean, m + c);
    }
    for (int s = 0; s < count; s++) {
        const struct plx_parallax_partial *part = &parts[s];
        double weight = exp(row_lse(part, b, i, h) - lse), dt = row_probe_mean(part, b, i, h) - t;
        int64_t m = tensor_offset(&part->value_mean, b, i, h) + d;
        int64_t o = tensor_offset(&part->o, b, i, h) + d;
        for (int64_t c = 0; c < width; c++) {
            double m_s = attention_merge_get(&part->value_mean, m + c);
            double inner = m_s - attention_merge_get(&part->o, o + c);
            covariance[c] += weight * (inner + dt * (m_s - mean[c]));
        }
    }
    for (int64_t c = 0; c < width; c++) {
        attention_merge_set(&out->o, tensor_offset(&out->o, b, i, h) + d + c,
                            mean[c] - covariance[c]);
        if (out->value_mean.rank)
            attention_merge_set(&out->value_mean, tensor_offset(&out->value_mean, b, i, h) + d + c,
                                mean[c]);
    }
}

static void merge_row(const struct plx_parallax_partial *parts, int count,
                      const struct plx_parallax_partial *out, const int64_t row[3])
{
    const int64_t b = row[0], i = row[1], h = row[2], D = out->o.shape[3];
    double lse = -INFINITY, t = 0;
    for (int s = 0; s < count; s++) lse = attention_merge_lse(lse, row_lse(&parts[s], b, i, h));
    /* A row that sees no key in any part: all weights are exp(-infinity - 0) = 0. */
    double base = lse == -INFINITY ? 0 : lse;
    for (int s = 0; s < count; s++)
        t += exp(row_lse(&parts[s], b, i, h) - base) * row_probe_mean(&parts[s], b, i, h);
    for (int64_t d = 0; d < D; d += MERGE_BLOCK)
        merge_block(parts, count, out, row, d, D - d < MERGE_BLOCK ? D - d : MERGE_BLOCK, base, t);
    if (out->lse.rank) attention_merge_set(&out->lse, tensor_offset(&out->lse, b, i, h), lse);
    if (out->probe_mean.rank)
        attention_merge_set(&out->probe_mean, tensor_offset(&out->probe_mean, b, i, h), t);
}

plx_status plx_parallax_merge(plx_context *context, const struct plx_parallax_partial *parts,
                              int count, const struct plx_parallax_partial *out)
{
    if (!context) return PLX_INVALID_ARGUMENT;
    context_begin(context);
    TRY(parallax_merge_check(context, parts, count, out));
    const int64_t *shape = out->o.shape;
    for (int64_t b = 0; b < shape[0]; b++)
        for (int64_t i = 0; i < shape[1]; i++)
            for (int64_t h = 0; h < shape[2]; h++)
                merge_row(parts, count, out, (const int64_t[]){b, i, h});
    return PLX_OK;
}
