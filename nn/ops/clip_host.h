/* clip_host.h: what the tables that run on the host share of clipping: the arithmetic of op.h's
 * struct clip, and the question whether an update is to change nothing. */
#ifndef NN_OPS_CLIP_HOST_H
#define NN_OPS_CLIP_HOST_H

#include <math.h>

#include "op.h"

static inline void clip_host(const struct clip *clip)
{
    const double *squares = clip->squares->data;
    double *state = clip->state->data, total = 0.0;
    if (state[CLIP_BAD_STEP] != 0.0) return;
    int64_t count = plx_tensor_count(clip->squares), blame = count;
    for (int64_t i = 0; i < count; i++) {
        total += squares[i];
        if (blame == count && !isfinite(total)) blame = i;
    }
    double norm = sqrt(total);
    bool bad = blame<count, shortens = clip->limit> 0.0 && norm > clip->limit;
    state[CLIP_NORM] = norm;
    state[CLIP_FACTOR] = bad ? 0.0 : shortens ? clip->limit / norm : 1.0;
    state[CLIP_BAD_STEP] = bad ? (double)clip->step : 0.0;
    state[CLIP_BAD_INDEX] = bad ? (double)blame : 0.0;
}

static inline bool update_is_void(const struct plx_tensor *factor)
{
    return *(const double *)factor->data == 0.0;
}

#endif
