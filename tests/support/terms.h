/* terms.h: how large the terms are whose rounding every correct kernel leaves in a result.
 *
 * A gradient is a sum of differences that may cancel to exactly zero (one key only, constant rows),
 * where the naive implementation is right by luck because it rounds both sides alike. A logit is a
 * product whose terms may be far larger than itself (an offset of all keys), and its rounding moves
 * the weight p by as much again; over the few rows of a small case the naive implementation's
 * largest error is a matter of luck too. So the tolerance must know the size of the terms. Within a
 * dot product rounding errors are taken as independent (root of the sum of squares), across keys
 * and queries as adding up. */
#ifndef TEST_TERMS_H
#define TEST_TERMS_H

#include "attention_case.h"

struct term_size {
    double largest, rms; /* over the rows of the tensor */
};

/* From an oracle's data: for what the forward writes, and for the gradients too where `last` is the
 * backward, which reads o and value_mean in dtype `saved`; zero for every other tensor. */
struct term_sizes {
    struct term_size of[CASE_TENSORS];
};

struct term_sizes term_sizes(const struct attention_case *c, plx_mechanism mechanism, plx_pass last,
                             plx_dtype saved, const struct case_data *oracle);

#endif
