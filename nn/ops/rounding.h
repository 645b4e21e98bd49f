/* rounding.h: f32 to bf16 so that nothing is lost on average. For C and CUDA.
 *
 * A moment that keeps 0.95 or 0.999 of itself moves by less than half of bf16's last place (2^-9)
 * wherever the gradient is like those before it or, worse, has become small: rounded to nearest it
 * would stay where it is for ever. Rounded up with the probability of what is cut off, its mean is
 * what it would be in f32, and what is left is noise of a few thousandths that averages out over
 * the steps. The random bits are a hash of the step, the parameter's number and the element's, so
 * they are the same on every device, with any number of threads and ranks, and after a resume. */
#ifndef NN_OPS_ROUNDING_H
#define NN_OPS_ROUNDING_H

#include <stdint.h>

#ifdef __CUDACC__
#define ROUNDING_INLINE static __device__ __forceinline__
#else
#define ROUNDING_INLINE static inline
#endif

/* A bijection of 32-bit words whose every output bit depends on every input bit; the constants are
 * "lowbias32" of C. Wellons' search for such functions (2018). */
ROUNDING_INLINE uint32_t rounding_mix(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

/* Of a parameter in a step. */
ROUNDING_INLINE uint32_t rounding_key(double step, uint32_t number)
{
    return rounding_mix(rounding_mix((uint32_t)(uint64_t)step) + number);
}

/* 32 random bits for an element: the lower half for its first number, the upper for its second. */
ROUNDING_INLINE uint32_t rounding_word(uint32_t key, uint32_t element)
{
    return rounding_mix(element ^ key);
}

/* The bf16 below or above a float, both as their bits, by the lower 16 random ones; a bf16 stays
 * what it is, and NaN is NaN. */
ROUNDING_INLINE uint16_t rounding_bf16(uint32_t bits, uint32_t random)
{
    const uint32_t sum = bits + (random & 0xffffu);
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : sum >> 16);
}

#endif
