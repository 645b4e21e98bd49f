/* quantised.c: between numbers and 8-bit floats; see quantised.h. */
#include "core/quantised.h"

#include <math.h>

#include "core/bits.h"

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

/* Below 2^-6 numbers are multiples of 2^-9, above it they have four binary digits. A mantissa that
 * is rounded up to the next power of two carries into the exponent. */
uint8_t quantised_store(double value)
{
    const uint8_t sign = signbit(value) ? 0x80 : 0;
    double size = fabs(value);
    int exponent;
    if (isnan(value)) return sign | 0x7f;
    if (size < 0x1p-6) return sign | (uint8_t)rint(size * 0x1p9);
    double fraction = frexp(size, &exponent);
    return sign | (uint8_t)(((exponent + 6) << 3) + (int)rint(fraction * 16) - 8);
}

/* Its fields are where a double's are, but for the size of the exponent; the factor corrects that,
 * and makes subnormal numbers normal. */
double quantised_load(uint8_t stored)
{
    const uint64_t sign = (uint64_t)(stored & 0x80) << 56, size = (uint64_t)(stored & 0x7f) << 49;
    if ((stored & 0x7f) == 0x7f) return NAN;
    return bits_double(sign | size) * 0x1p1016;
}
