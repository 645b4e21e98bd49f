/* numbers.cuh: reading and writing f32 and bf16 in groups, and sums over threads.
 *
 * Kernels compute in float whatever the tensors are. Eight neighbours at once are one access of 16
 * bytes in bf16 and two in f32; where rows or addresses do not allow that, kernels are instantiated
 * for groups of one. Everything here keeps a fixed order of additions, so that results repeat. */
#ifndef NN_OPS_CUDA_NUMBERS_CUH
#define NN_OPS_CUDA_NUMBERS_CUH

#include <cuda_bf16.h>
#include <float.h>
#include <stdint.h>

#include "cuda/instructions.cuh"
#include "ops/cuda/launch.h"

typedef __nv_bfloat16 bf16;

/* ---- Single numbers -------------------------------------------------------------------------- */

static __device__ __forceinline__ float number(float x)
{
    return x;
}

static __device__ __forceinline__ float number(bf16 x)
{
    return __bfloat162float(x);
}

static __device__ __forceinline__ float number(int8_t x)
{
    return (float)x;
}

template <class T> static __device__ __forceinline__ T rounded(float x);

template <> __device__ __forceinline__ float rounded<float>(float x)
{
    return x;
}

template <> __device__ __forceinline__ bf16 rounded<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* ---- Groups of W neighbours, as they are in memory ------------------------------------------- */

template <class T, int W> struct group;

template <class T> struct group<T, 1> {
    T only;

    __device__ __forceinline__ void load(const T *from)
    {
        only = *from;
    }
    __device__ __forceinline__ void store(T *to) const
    {
        *to = only;
    }
    __device__ __forceinline__ void get(float (&v)[1]) const
    {
        v[0] = number(only);
    }
    __device__ __forceinline__ void set(const float (&v)[1])
    {
        only = rounded<T>(v[0]);
    }
};

template <> struct group<float, 8> {
    float4 half[2];

    __device__ __forceinline__ void load(const float *from)
    {
        half[0] = ((const float4 *)from)[0];
        half[1] = ((const float4 *)from)[1];
    }
    __device__ __forceinline__ void store(float *to) const
    {
        ((float4 *)to)[0] = half[0];
        ((float4 *)to)[1] = half[1];
    }
    __device__ __forceinline__ void get(float (&v)[8]) const
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            v[4 * i] = half[i].x;
            v[4 * i + 1] = half[i].y;
            v[4 * i + 2] = half[i].z;
            v[4 * i + 3] = half[i].w;
        }
    }
    __device__ __forceinline__ void set(const float (&v)[8])
    {
#pragma unroll
        for (int i = 0; i < 2; i++)
            half[i] = make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
    }
};

/* Bytes, widened: they are only read. */
template <> struct group<int8_t, 16> {
    uint4 words;

    __device__ __forceinline__ void load(const int8_t *from)
    {
        words = *(const uint4 *)from;
    }
    __device__ __forceinline__ void get(float (&v)[16]) const
    {
        const uint32_t fours[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 16; i++) v[i] = (float)(int8_t)(fours[i / 4] >> (i % 4 * 8));
    }
};

template <> struct group<bf16, 8> {
    uint4 words;

    __device__ __forceinline__ void load(const bf16 *from)
    {
        words = *(const uint4 *)from;
    }
    __device__ __forceinline__ void store(bf16 *to) const
    {
        *(uint4 *)to = words;
    }
    __device__ __forceinline__ void get(float (&v)[8]) const
    {
        const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] = __uint_as_float(pairs[i] << 16);
            v[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
        }
    }
    __device__ __forceinline__ void set(const float (&v)[8])
    {
        words = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                           pack_bf16(v[6], v[7]));
    }
};

/* The numbers at an address, and back. */
template <int W, class T>
static __device__ __forceinline__ void read_numbers(float (&v)[W], const T *from)
{
    group<T, W> in;
    in.load(from);
    in.get(v);
}

template <int W, class T>
static __device__ __forceinline__ void write_numbers(T *to, const float (&v)[W])
{
    group<T, W> out;
    out.set(v);
    out.store(to);
}

/* i / length. A division of 64 bits costs more than the rest of most kernels. */
static __device__ __forceinline__ int64_t row_of(int64_t i, int64_t length)
{
    if (i <= UINT32_MAX && length <= UINT32_MAX) return (uint32_t)i / (uint32_t)length;
    return i / length;
}

/* ---- Functions of which f32 tensors need the last bit and bf16 tensors do not ---------------- */

template <class T> static __device__ __forceinline__ float exponential(float x)
{
    return sizeof(T) == sizeof(bf16) ? __expf(x) : expf(x);
}

template <class T> static __device__ __forceinline__ float sigmoid(float x)
{
    float e = 1 + exponential<T>(-x);
    return sizeof(T) == sizeof(bf16) ? __fdividef(1, e) : 1 / e;
}

/* What dot products over a row are added up in: where terms cancel, an f32 result shows every bit
 * that a float loses. */
template <class T> struct row_sum {
    typedef double type;
};

template <> struct row_sum<bf16> {
    typedef float type;
};

/* ---- Sums over teams of threads -------------------------------------------------------------- */

/* The sum over a team of TEAM neighbouring threads, a power of two, in each of them. A team larger
 * than a warp is the whole block. Every thread of the warps takes part. */
template <int TEAM, class S> static __device__ __forceinline__ S team_sum(S value)
{
#pragma unroll
    for (int step = (TEAM < 32 ? TEAM : 32) / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    if (TEAM <= 32) return value;
    __shared__ S of_warp[TEAM / 32 > 0 ? TEAM / 32 : 1];
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    S sum = 0;
#pragma unroll
    for (int warp = 0; warp < TEAM / 32; warp++) sum += of_warp[warp];
    return sum;
}

/* ---- Host ------------------------------------------------------------------------------------ */

static inline const char *launched(void)
{
    cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? NULL : cudaGetErrorString(error);
}

/* Whether the GPU has what Hopper brought: kernels that overlap, clusters of blocks. */
static inline bool is_hopper(void)
{
    int device, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 9;
}

static inline int64_t blocks_for(int64_t items, int64_t a_block)
{
    return (items + a_block - 1) / a_block;
}

/* Groups of eight are possible where every row begins on 16 bytes. */
template <class... Pointers> static inline bool is_wide(int64_t row, Pointers... pointers)
{
    return row % 8 == 0 && (... && ((uintptr_t)pointers % 16 == 0));
}

/* Calls work with a value of the dtype's type. */
template <class Work> static inline void for_dtype(plx_dtype dtype, const Work &work)
{
    if (dtype == PLX_BF16)
        work(bf16());
    else
        work(float());
}

template <int W> struct width {
    static constexpr int value = W;
};

/* Calls work with the type of the dtype and a width of 8 or 1. */
template <class Work> static inline void for_groups(plx_dtype dtype, bool wide, const Work &work)
{
    for_dtype(dtype, [&](auto zero) {
        if (wide)
            work(zero, width<8>());
        else
            work(zero, width<1>());
    });
}

#endif
