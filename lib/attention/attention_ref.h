/* attention_ref.h: what both references do alike: they read keys and values whatever the cache is,
 * and walk the rows of all sequences. */
#ifndef PLX_ATTENTION_REF_H
#define PLX_ATTENTION_REF_H

#include <omp.h>

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

/* One row of a pass: query or key `row` of a head. */
typedef void (*ref_row)(const struct attention_problem *p, const struct attention_sequence *seq,
                        int64_t head, int64_t row, real *scratch);

/* Scratch of a thread for a number of reals, in whole cache lines. */
static inline int64_t ref_thread_reals(int64_t reals)
{
    const int64_t line = 64 / (int64_t)sizeof(real);
    return (reals + line - 1) / line * line;
}

/* Every row of all heads of a sequence; `reals` is the scratch of a thread. */
static inline void ref_rows(const struct attention_problem *p, const struct attention_sequence *seq,
                            int64_t heads, int64_t rows, ref_row run, real *scratch, int64_t reals)
{
#pragma omp parallel for num_threads(p->threads) schedule(static)
    for (int64_t n = 0; n < heads * rows; n++)
        run(p, seq, n / rows, n % rows, scratch + omp_get_thread_num() * reals);
}

static inline void ref_forward(const struct attention_problem *p, ref_row query, void *scratch,
                               int64_t reals)
{
    for (int64_t n = 0; n < p->sequences; n++) {
        const struct attention_sequence seq = attention_sequence(p, n);
        ref_rows(p, &seq, p->H, seq.T, query, scratch, reals);
    }
}

static inline void ref_backward(const struct attention_problem *p, ref_row query, ref_row key,
                                void *scratch, int64_t reals)
{
    for (int64_t n = 0; n < p->sequences; n++) {
        const struct attention_sequence seq = attention_sequence(p, n);
        ref_rows(p, &seq, p->H, seq.T, query, scratch, reals);
        ref_rows(p, &seq, p->G, seq.S, key, scratch, reals);
    }
}

#endif
