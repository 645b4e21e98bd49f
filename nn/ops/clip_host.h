/* clip_host.h: what the tables that run on the host share of clipping: the arithmetic of op.h's
 * struct clip, and the question whether an update is to change nothing. */
#ifndef NN_OPS_CLIP_HOST_H
#define NN_OPS_CLIP_HOST_H

#include <math.h>

#include "op.h"

static inline void clip_host(const struct clip *clip)
{
    const double *squares = clip->squares->data;
    const struct step_numbers *numbers = clip->numbers->data;
    struct clip_state *state = clip->state->data;
    if (state->bad_step != 0.0) return;
    int64_t count = plx_tensor_count(clip->squares), blame = count;
    double total = 0.0;
    for (int64_t i = 0; i < count; i++) {
        total += squares[i];
        if (blame == count && !isfinite(total)) blame = i;
    }
    double norm = sqrt(total);
    bool bad = blame < count;
    double factor = clip->limit > 0.0 && norm > clip->limit ? clip->limit / norm : 1.0;
    *state = (struct clip_state){.factor = bad ? 0.0 : factor,
                                 .norm = norm,
                                 .bad_step = bad ? numbers->step : 0.0,
                                 .bad_index = bad ? (double)blame : 0.0};
}

static inline bool update_is_void(const struct plx_tensor *factor)
{
    return *(const double *)factor->data == 0.0;
}

#endif
