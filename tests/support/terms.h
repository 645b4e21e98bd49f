/* terms.h: how large the terms are whose sum an output is.
 *
 * A gradient is a sum of differences that may cancel to exactly zero (one key only, constant rows),
 * and the mean of r.k is a sum of numbers of both signs; there the naive implementation is right by
 * luck, because it rounds both sides alike or because few numbers are compared. Every correct
 * kernel still leaves the rounding of the terms, so the tolerance must know their size. Within a
 * dot product rounding errors are taken as independent (root of the sum of squares), across keys
 * and queries as adding up; an error of a logit is one of the weight's, relative to the weight. */
#ifndef TEST_TERMS_H
#define TEST_TERMS_H

#include "attention_case.h"

struct term_size {
    double largest, rms; /* over the rows of the tensor */
};

/* For what forward writes, and dq, dr, dk, dv, from an oracle's data after backward or, those being
 * zero then, after forward; zero for inputs. */
struct term_sizes {
    struct term_size of[CASE_TENSORS];
};

struct term_sizes term_sizes(const struct attention_case *c, plx_mechanism mechanism, plx_pass last,
                             const struct case_data *oracle);

#endif
