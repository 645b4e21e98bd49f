/* attention_rows.h: which problems the tiled CPU kernels take, in words; used by their table rows.
 */
#ifndef PLX_ATTENTION_ROWS_H
#define PLX_ATTENTION_ROWS_H

#include "attention/attention.h"

/* More channels than this do not fit the tiles' scratch in the cache they were sized for. */
enum { ATTENTION_TILE_MAX_D = 256 };

static inline const char *attention_refuse_portable(const void *problem, const plx_context *context)
{
    const struct attention_problem *p = problem;
    const char *elsewhere = attention_refuse_none(problem, context);
    if (elsewhere) return elsewhere;
    if (p->dtype == PLX_F64) return "it takes no f64";
    if (p->D > ATTENTION_TILE_MAX_D) return "it takes at most 256 channels";
    return NULL;
}

/* other: the reason where q has another dtype. */
static inline const char *attention_refuse_avx512(const void *problem, const plx_context *context,
                                                  plx_dtype dtype, const char *other)
{
    const struct attention_problem *p = problem;
    if (!(plx_context_features(context) & PLX_FEATURE_AVX512))
        return "it needs AVX-512 (F, BW, DQ and VL)";
    if (p->dtype != dtype) return other;
    return attention_refuse_portable(problem, context);
}

#endif
