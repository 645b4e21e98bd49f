/* attention_decode_sm90_f8.cuh: what attention_decode_sm90_tile.cuh does, for tiles of f8e4m3.
 *
 * f16 holds every such number, so products are of f16: q and r, whatever their dtype, are divided
 * by a power of two near the largest of their row, which rounds nothing that a sum in f32 keeps.
 * Tiles have rows of as many bytes as a head has channels, and ldmatrix moves two numbers as one:
 *
 *     keys     a lane gets channels 16 c + 4 t .. + 3 of chunk c. They stand where a product of 16
 *              channels expects 2 t, 2 t + 1, 2 t + 8 and 2 t + 9, in q and r alike
 *     values   a lane gets channels 16 c + 2 g, + 1 of two keys; the even channels of a chunk are
 * one product, the odd ones the next */
#ifndef PLX_ATTENTION_DECODE_SM90_F8_CUH
#define PLX_ATTENTION_DECODE_SM90_F8_CUH

#include "attention/attention_decode_sm90_tile.cuh"

/* A row of q (which = 0) or r (which = 1), from this lane's first channel on, to where its left
 * operands will be. */
template <int D, bool ALIGNED>
static __device__ __forceinline__ void decode_query_f8(const uint16_t *from, int which,
                                                       uint32_t (&operands)[D / 16][4])
{
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint2 four;
        if (ALIGNED)
            four = *(const uint2 *)(from + 16 * i);
        else
            four = {decode_pair(from + 16 * i), decode_pair(from + 16 * i + 2)};
        operands[i][which] = four.x, operands[i][2 + which] = four.y;
    }
}

/* Makes it operands of f16, which are divided by the result. All lanes of a row come here. */
template <class E, int D>
static __device__ __forceinline__ float decode_query_f8_ready(int which,
                                                              uint32_t (&operands)[D / 16][4])
{
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < D / 16; i++)
#pragma unroll
        for (int n = which; n < 4; n += 2)
            most =
                fmaxf(most, fmaxf(fabsf(E::low(operands[i][n])), fabsf(E::high(operands[i][n]))));
    uint32_t unit = __float_as_uint(quad_max(most)) & 0x7f800000u; /* a power of two */
    if (unit == 0 || unit >= 0x7f000000u) unit = 0x3f800000u;
    float factor = __uint_as_float(0x7f000000u - unit);
#pragma unroll
    for (int i = 0; i < D / 16; i++)
#pragma unroll
        for (int n = which; n < 4; n += 2)
            operands[i][n] =
                pack_f16(E::low(operands[i][n]) * factor, E::high(operands[i][n]) * factor);
    return __uint_as_float(unit);
}

/* Four f8e4m3 numbers, the low and the high two, as f16. */
static __device__ __forceinline__ void decode_widen(uint32_t four, uint32_t &low, uint32_t &high)
{
    asm("{.reg .b16 a, b; mov.b32 {a, b}, %2;"
        " cvt.rn.f16x2.e4m3x2 %0, a; cvt.rn.f16x2.e4m3x2 %1, b;}"
        : "=r"(low), "=r"(high)
        : "r"(four));
}

/* factors: what q and r and the keys were divided by. */
template <class SHAPE>
static __device__ __forceinline__ void
decode_multiply_keys_f8(uint32_t first, const uint32_t (&q)[SHAPE::D / 16][4],
                        const float (&factors)[2], struct decode_scores<SHAPE> &x)
{
#pragma unroll
    for (int n = 0; n < SHAPE::KEYS / 8; n += 2) {
        float c[2][2][4] = {};
#pragma unroll
        for (int i = 0; i < SHAPE::D / 32; i++) {
            uint32_t k[4], low[4], high[4];
            load_matrices(decode_chunk_from<SHAPE>(first, 8 * n, 2 * i), k);
#pragma unroll
            for (int m = 0; m < 4; m++) decode_widen(k[m], low[m], high[m]);
#pragma unroll
            for (int m = 0; m < 4; m++)
                decode_f16::multiply(c[m / 2][m % 2], q[2 * i + m % 2], low[m], high[m]);
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                x.s[n + half][h] = (c[half][0][h] + c[half][1][h]) * factors[0];
                x.u[n + half][h] = (c[half][0][2 + h] + c[half][1][2 + h]) * factors[1];
            }
    }
}

/* Column 2t + h of product 2c + i is channel 16 c + 4 t + 2 h + i. */
template <class SHAPE, bool PROBE>
static __device__ __forceinline__ void
decode_multiply_values_f8(uint32_t first, const struct decode_scores<SHAPE> &x,
                          struct decode_sums<SHAPE::D> &sums)
{
#pragma unroll
    for (int n = 0; n < SHAPE::KEYS / 8; n += 2) {
        uint32_t high[4], low[4];
        decode_split<decode_f16, PROBE>(x.s[n], x.u[n], high, low, 0);
        decode_split<decode_f16, PROBE>(x.s[n + 1], x.u[n + 1], high, low, 1);
#pragma unroll
        for (int c = 0; c < SHAPE::D / 16; c += 2) {
            uint32_t v[4], b[4][2];
            load_matrices_transposed(decode_chunk_from<SHAPE>(first, 8 * n, c), v);
#pragma unroll
            for (int m = 0; m < 4; m++)
                decode_widen(__byte_perm(v[m], 0, 0x3120), b[m / 2 * 2][m % 2],
                             b[m / 2 * 2 + 1][m % 2]);
#pragma unroll
            for (int i = 0; i < 4; i++)
                decode_f16::multiply(sums.a[2 * c + i], high, b[i][0], b[i][1]);
            if (PROBE)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    decode_f16::multiply(sums.a[2 * c + i], low, b[i][0], b[i][1]);
        }
    }
}

#endif
