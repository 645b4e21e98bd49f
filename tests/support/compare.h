/* compare.h: the one comparison of computed values with a reference, and the one tolerance rule.
 *
 * NaN and infinities must be at the same places with the same sign. Of the finite rest three
 * numbers are computed: the largest absolute error, the ratio of root mean squares |x - ref| /
 * |ref|, and the cosine distance 1 - <x,ref> / (|x| |ref|).
 *
 * The rule: a kernel's error against the double oracle may be at most twice the error that the
 * naive implementation (the reference in float, same storage dtype, rounding on store) makes on the
 * same input, plus a floor of a few units in the last place: 4 of f32 or 1 of bf16 or f16, the
 * storage dtype, at the size of the largest reference value, and 4 of f32 at the size of the terms
 * whose rounding stays in it (terms.h). Twice, because another order of summation is as good but
 * not as lucky; the floor, because on short rows the naive error can be zero while a kernel's
 * exponential, division or differently ordered dot product is legitimately off in the last place.
 * The same rule holds for the root mean square of the error, whose floor is taken at root mean
 * squares. */
#ifndef TEST_COMPARE_H
#define TEST_COMPARE_H

#include <stddef.h>

#include "parallax/parallax.h"
#include "terms.h"

struct comparison {
    int64_t anomaly; /* first place where NaN or infinity disagree; -1: none */
    int64_t worst;   /* place of the largest error; -1: nothing was finite */
    double max_abs;
    double rms; /* root mean square of the error */
    double rms_ratio;
    double cosine_distance;
    double largest;       /* largest finite absolute value of the reference */
    double reference_rms; /* its root mean square */
};

struct comparison compare_values(const double *got, const double *reference, int64_t count);

/* A few units in the last place of a dtype, for values of size 1. */
double compare_unit(plx_dtype storage);
/* The rule of the header above. Terms may be NULL where nothing cancels. */
double compare_limit(const struct comparison *naive, plx_dtype storage,
                     const struct term_size *terms);
bool compare_within(const struct comparison *kernel, const struct comparison *naive,
                    plx_dtype storage, const struct term_size *terms);

/* "[1,0,2,5] is 0.1 but must be 0.2; max abs ..., rms ratio ..., cosine distance ..." */
void compare_describe(char *text, size_t size, const struct comparison *comparison,
                      const double *got, const double *reference, int rank, const int64_t *shape);

#endif
