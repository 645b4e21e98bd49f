/* dtype.h: floating-point values as the integers of the same bits, and single values between f32 or
 * f64 and the narrow floating-point dtypes: bf16 (the upper
 * half of an f32), f16 (IEEE half) and f8e4m3 (4 bits of exponent, 3 of mantissa, no infinity).
 *
 * Rounding is to nearest, ties to even; a NaN stays a NaN. What lies beyond the largest f8e4m3,
 * 448, becomes 448 of its sign, because the format has no infinity to show it with. */
#ifndef PLX_DTYPE_H
#define PLX_DTYPE_H

#include <stdint.h>
#include <string.h>

#include "parallax/parallax.h"

static inline uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bits_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint64_t double_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double bits_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* An f32 for a second rounding to a narrower type: rounds to odd, which keeps the information that
 * something was cut off, so that both roundings together are one. */
static inline float dtype_f64_to_odd_f32(double value)
{
    float nearest = (float)value;
    if ((double)nearest == value || value != value) return nearest;
    uint32_t bits = float_bits(nearest);
    double magnitude = value < 0 ? -value : value;
    double reached = nearest < 0 ? -(double)nearest : (double)nearest;
    if (reached > magnitude) bits -= 1;
    return bits_float(bits | 1u);
}

/* ---- bf16 ------------------------------------------------------------------------------------ */

static inline float dtype_bf16_to_f32(uint16_t value)
{
    return bits_float((uint32_t)value << 16);
}

/* The payload of a NaN may lie in the half that is cut off, so the quiet bit is set. */
static inline uint16_t dtype_f32_to_bf16(float value)
{
    uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    bits += 0x7fffu + ((bits >> 16) & 1u);
    return (uint16_t)(bits >> 16);
}

static inline uint16_t dtype_f64_to_bf16(double value)
{
    return dtype_f32_to_bf16(dtype_f64_to_odd_f32(value));
}

/* ---- f16 ------------------------------------------------------------------------------------- */

/* The fields move to their places in an f32, whose exponent then is too small by 127 - 15; the
 * product corrects that, subnormal numbers included. */
static inline float dtype_f16_to_f32(uint16_t value)
{
    uint32_t magnitude = (uint32_t)(value & 0x7fff) << 13, sign = (uint32_t)(value & 0x8000) << 16;
    if (magnitude >= 0x0f800000u) return bits_float(sign | 0x70000000u | magnitude);
    return bits_float(sign | float_bits(bits_float(magnitude) * 0x1p112f));
}

/* Below the normal numbers the sum with 0.5, whose last place is that of a subnormal f16, rounds.
 */
static inline uint16_t dtype_f32_to_f16(float value)
{
    uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (size >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (size < 0x38800000u)
        return (uint16_t)(sign | (float_bits(bits_float(size) + 0.5f) - 0x3f000000u));
    size += 0xfffu + (size >> 13 & 1u);
    return (uint16_t)(sign | (size - 0x38000000u) >> 13);
}

static inline uint16_t dtype_f64_to_f16(double value)
{
    return dtype_f32_to_f16(dtype_f64_to_odd_f32(value));
}

/* ---- f8e4m3 ---------------------------------------------------------------------------------- */

static inline float dtype_f8_to_f32(uint8_t value)
{
    uint32_t magnitude = (uint32_t)(value & 0x7f) << 20, sign = (uint32_t)(value & 0x80) << 24;
    if ((value & 0x7f) == 0x7f) return bits_float(sign | 0x7fc00000u);
    return bits_float(sign | float_bits(bits_float(magnitude) * 0x1p120f));
}

/* As f16; the last place of 2^14 is that of a subnormal f8e4m3. */
static inline uint8_t dtype_f32_to_f8(float value)
{
    uint32_t bits = float_bits(value), sign = bits >> 24 & 0x80u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
    if (size >= 0x43e00000u) return (uint8_t)(sign | 0x7eu);
    if (size < 0x3c800000u)
        return (uint8_t)(sign | (float_bits(bits_float(size) + 0x1p14f) - 0x46800000u));
    size += 0x7ffffu + (size >> 20 & 1u);
    return (uint8_t)(sign | (size - 0x3c000000u) >> 20);
}

static inline uint8_t dtype_f64_to_f8(double value)
{
    return dtype_f32_to_f8(dtype_f64_to_odd_f32(value));
}

/* ---- Any floating-point dtype ---------------------------------------------------------------- */

/* False for i32 and for what is not a dtype. */
static inline bool dtype_is_float(plx_dtype dtype)
{
    return dtype != PLX_I32 && plx_dtype_size(dtype) > 0;
}

/* Element n of an array; exact. */
static inline double dtype_load(const void *data, plx_dtype dtype, int64_t n)
{
    if (dtype == PLX_F32) return ((const float *)data)[n];
    if (dtype == PLX_F64) return ((const double *)data)[n];
    if (dtype == PLX_BF16) return dtype_bf16_to_f32(((const uint16_t *)data)[n]);
    if (dtype == PLX_F16) return dtype_f16_to_f32(((const uint16_t *)data)[n]);
    return dtype_f8_to_f32(((const uint8_t *)data)[n]);
}

/* Rounds once. */
static inline void dtype_store(void *data, plx_dtype dtype, int64_t n, double value)
{
    if (dtype == PLX_F32) ((float *)data)[n] = (float)value;
    if (dtype == PLX_F64) ((double *)data)[n] = value;
    if (dtype == PLX_BF16) ((uint16_t *)data)[n] = dtype_f64_to_bf16(value);
    if (dtype == PLX_F16) ((uint16_t *)data)[n] = dtype_f64_to_f16(value);
    if (dtype == PLX_F8E4M3) ((uint8_t *)data)[n] = dtype_f64_to_f8(value);
}

#endif
