/* dtype.h: single values between f32 and bf16, the upper half of an f32.
 *
 * Rounding is to nearest, ties to even; a NaN stays a NaN (its payload may lie in the half that is
 * cut off, so the quiet bit is set). */
#ifndef PLX_DTYPE_H
#define PLX_DTYPE_H

#include <stdint.h>
#include <string.h>

static inline float dtype_bf16_to_f32(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static inline uint16_t dtype_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    bits += 0x7fffu + ((bits >> 16) & 1u);
    return (uint16_t)(bits >> 16);
}

/* Rounds once, not twice: the step through f32 rounds to odd, which keeps the information that
 * something was cut off until the last rounding. */
static inline uint16_t dtype_f64_to_bf16(double value)
{
    float nearest = (float)value;
    if ((double)nearest != value && value == value) {
        uint32_t bits;
        memcpy(&bits, &nearest, sizeof bits);
        double magnitude = value < 0 ? -value : value;
        double reached = nearest < 0 ? -(double)nearest : (double)nearest;
        if (reached > magnitude) bits -= 1;
        bits |= 1u;
        memcpy(&nearest, &bits, sizeof nearest);
    }
    return dtype_f32_to_bf16(nearest);
}

#endif
