/* attention_ref.h: reading keys and values in a reference source, whatever the cache is. */
#ifndef PLX_ATTENTION_REF_H
#define PLX_ATTENTION_REF_H

#include "attention/attention.h"
#include "core/real.h"

/* Row j of k or v of a sequence, times the scale of its head. */
static inline void ref_load_key(real *row, const struct attention_problem *p,
                                const struct plx_tensor *tensor, const struct plx_tensor *scales,
                                const struct attention_sequence *seq, int64_t j, int64_t g)
{
    real_load(row, tensor, attention_key_offset(p, tensor, seq, j, g), p->D);
    if (!scales->data) return;
    const real scale = (real)((const float *)scales->data)[g];
    for (int64_t d = 0; d < p->D; d++) row[d] *= scale;
}

#endif
