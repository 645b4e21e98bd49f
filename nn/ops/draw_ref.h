/* draw_ref.h: the reference of penalise and draw, in float and in double; see draw_ref.c. */
#ifndef NN_OPS_DRAW_REF_H
#define NN_OPS_DRAW_REF_H

#include "ops/draw.h"
#include "parallax/parallax.h"

/* One of a row, V of which draw works with. */
struct draw_ref_token {
    double logit, weight;
    int32_t id;
};

void draw_ref_penalise_float(const struct plx_tensor *x, const struct plx_tensor *seen,
                             const struct plx_tensor *counts, double penalty);
void draw_ref_penalise_double(const struct plx_tensor *x, const struct plx_tensor *seen,
                              const struct plx_tensor *counts, double penalty);
void draw_ref_draw_float(const struct plx_tensor *ids, const struct plx_tensor *x,
                         const struct draw_numbers *numbers, struct draw_ref_token *tokens);
void draw_ref_draw_double(const struct plx_tensor *ids, const struct plx_tensor *x,
                          const struct draw_numbers *numbers, struct draw_ref_token *tokens);

#endif
