/* counter.cuh: a counter in a caller's workspace from which the blocks of a launch draw numbers. It
 * needs no zeroing before a launch: its upper half must be a hash of its own address, or it counts
 * as zero; and the last draw leaves it at zero for the next launch. */
#ifndef PLX_CUDA_COUNTER_CUH
#define PLX_CUDA_COUNTER_CUH

#include "cuda/instructions.cuh"

static __device__ __forceinline__ unsigned long long counter_zero(const unsigned long long *counter)
{
    unsigned long long x = (unsigned long long)counter * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9ull;
    return (x ^ x >> 32) << 32;
}

/* What a counter holds some time after the launch began, for counter_draw. */
static __device__ __forceinline__ unsigned long long counter_look(const unsigned long long *counter)
{
    return *(const volatile unsigned long long *)counter;
}

/* 0, 1, ... draws - 1, each once; as many draws as that must be made in a launch. What other
 * threads wrote before their draws is visible after a later one. */
static __device__ __forceinline__ unsigned counter_draw(unsigned long long *counter,
                                                        unsigned long long seen, unsigned draws)
{
    unsigned long long zero = counter_zero(counter);
    if ((seen ^ zero) >> 32 != 0) atomicCAS(counter, seen, zero);
    unsigned drawn = (unsigned)(add_acquire_release(counter, 1) - zero);
    if (drawn == draws - 1) *(volatile unsigned long long *)counter = zero;
    return drawn;
}

#endif
