/* attention_decode_sm90_element.cuh: what the decode kernel needs to know of a 16-bit element type:
 * products of it, and numbers of it in pairs. */
#ifndef PLX_ATTENTION_DECODE_SM90_ELEMENT_CUH
#define PLX_ATTENTION_DECODE_SM90_ELEMENT_CUH

#include "cuda/element.cuh"
#include "cuda/instructions.cuh"

/* Two numbers that lie side by side, at any address. */
static __device__ __forceinline__ uint32_t decode_pair(const uint16_t *from)
{
    return from[0] | (uint32_t)from[1] << 16;
}

struct decode_bf16 {
    /* What the weights of the probe branch are multiplied with before they are packed. */
    static constexpr float probe_unit = 1.0f;
    static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                                    uint32_t b0, uint32_t b1)
    {
        multiply_add(c, a[0], a[1], a[2], a[3], b0, b1);
    }
    static __device__ __forceinline__ uint32_t pack(float low, float high)
    {
        return pack_bf16(low, high);
    }
    static __device__ __forceinline__ float low(uint32_t pair)
    {
        return low_bf16(pair);
    }
    static __device__ __forceinline__ float high(uint32_t pair)
    {
        return high_bf16(pair);
    }
};

struct decode_f16 {
    /* f16 ends at 65504, and u may be large. */
    static constexpr float probe_unit = 1.0f / 64;
    static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                                    uint32_t b0, uint32_t b1)
    {
        multiply_add_f16(c, a[0], a[1], a[2], a[3], b0, b1);
    }
    static __device__ __forceinline__ uint32_t pack(float low, float high)
    {
        return pack_f16(low, high);
    }
    static __device__ __forceinline__ float low(uint32_t pair)
    {
        return low_f16(pair);
    }
    static __device__ __forceinline__ float high(uint32_t pair)
    {
        return high_f16(pair);
    }
};

#endif
