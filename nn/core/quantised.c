/* quantised.c: see quantised.h. */
#include "core/quantised.h"

#include <math.h>

/* Smaller scales would have reciprocals that a float cannot hold. */
enum { LEAST_EXPONENT = -126 };

double quantised_scale(double largest)
{
    int exponent;
    if (!isfinite(largest)) return NAN;
    double fraction = frexp(largest, &exponent);
    exponent -= 9; /* 448 = 7/8 2^9 */
    if (fraction > 0.875) exponent++;
    if (largest == 0 || exponent < LEAST_EXPONENT) exponent = LEAST_EXPONENT;
    return ldexp(1.0, exponent);
}
