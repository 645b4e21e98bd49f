/* instructions.cuh: thin names for the instructions that CUDA C has no words for: copies that do
 * not pass through registers, matrix fragments and products, counters
 * that blocks share, and dependent launches. One function an instruction; what the operands mean is
 * said here once, so that kernels read as algorithms. Everything exists from sm_90 on, most of it
 * from sm_80. */
#ifndef PLX_CUDA_INSTRUCTIONS_CUH
#define PLX_CUDA_INSTRUCTIONS_CUH

#include <cuda_fp16.h>
#include <stdint.h>

/* ---- Shared memory and asynchronous copies -----------------------------------------------------
 */

static __device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* 16 bytes from global to shared memory, of which the first `bytes` are read and the rest become
 * zero. Both addresses are multiples of 16. */
static __device__ __forceinline__ void copy_async(uint32_t target, const void *source, int bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target),
                 "l"(source), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void store_shared(uint32_t target, uint4 value)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(target), "r"(value.x),
                 "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
}

static __device__ __forceinline__ uint32_t load_shared(uint32_t address)
{
    uint32_t word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
    return word;
}

static __device__ __forceinline__ uint4 load_shared_wide(uint32_t address)
{
    uint4 words;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "r"(address)
                 : "memory");
    return words;
}

/* ---- Matrix fragments ---------------------------------------------------------------------------
 */

/* Four 8x8 matrices of 16-bit elements; lanes 8n..8n+7 give the addresses of the rows of matrix n.
 */
static __device__ __forceinline__ void load_matrices(uint32_t address, uint32_t (&m)[4])
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

/* The same, each matrix transposed. */
static __device__ __forceinline__ void load_matrices_transposed(uint32_t address, uint32_t (&m)[4])
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

/* c (16x8, f32) += a (16x16, bf16) b (16x8, bf16). Lane = 4 g + t holds rows g and g + 8:
 * c[0], c[1] are columns 2t, 2t + 1 of row g, c[2], c[3] those of row g + 8;
 * a[0] is row g, channels 2t, 2t + 1; a[1] row g + 8; a[2] and a[3] the same 8 channels later. */
static __device__ __forceinline__ void multiply_add(float (&c)[4], uint32_t a0, uint32_t a1,
                                                    uint32_t a2, uint32_t a3, uint32_t b0,
                                                    uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* The same for f16. */
static __device__ __forceinline__ void multiply_add_f16(float (&c)[4], uint32_t a0, uint32_t a1,
                                                        uint32_t a2, uint32_t a3, uint32_t b0,
                                                        uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Two f32 as bf16, rounded to nearest; `low` in the lower half. */
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

static __device__ __forceinline__ float low_bf16(uint32_t packed)
{
    return __uint_as_float(packed << 16);
}

static __device__ __forceinline__ float high_bf16(uint32_t packed)
{
    return __uint_as_float(packed & 0xffff0000u);
}

/* The same for f16. */
static __device__ __forceinline__ uint32_t pack_f16(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

static __device__ __forceinline__ float low_f16(uint32_t packed)
{
    return __half2float(__ushort_as_half((unsigned short)packed));
}

static __device__ __forceinline__ float high_f16(uint32_t packed)
{
    return __half2float(__ushort_as_half((unsigned short)(packed >> 16)));
}

/* 2^x to about 2^-22; denormal results become zero, 2^-infinity is 0 and NaN stays NaN. */
static __device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Adds to a counter that blocks share and returns what it held. What this thread has seen written
 * is visible to whoever sees the sum, and the other way round. */
static __device__ __forceinline__ unsigned long long
add_acquire_release(unsigned long long *counter, unsigned long long value)
{
    unsigned long long old;
    asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], %2;"
                 : "=l"(old)
                 : "l"(counter), "l"(value)
                 : "memory");
    return old;
}

/* What this thread has done before an addition is seen by those who read the sum. */
static __device__ __forceinline__ void add_release(uint32_t *counter)
{
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

static __device__ __forceinline__ uint32_t load_acquire(const uint32_t *counter)
{
    uint32_t count;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter) : "memory");
    return count;
}

/* What a word holds now, not a copy that the first cache has of it. */
static __device__ __forceinline__ int32_t load_relaxed(const int32_t *from)
{
    int32_t x;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
    return x;
}

/* ---- Clusters of blocks -------------------------------------------------------------------------
 */

/* A barrier of all threads of a cluster: who waits sees what the others wrote before they arrived.
 */
static __device__ __forceinline__ void cluster_arrive(void)
{
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

static __device__ __forceinline__ void cluster_wait(void)
{
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/* Where block `rank` of the cluster has what this block has at `own`, in the window of the cluster.
 */
static __device__ __forceinline__ uint32_t cluster_address(uint32_t own, int rank)
{
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(own), "r"(rank));
    return address;
}

/* ---- What the compiler should know --------------------------------------------------------------
 */

/* The number of this warp in its block, known to be the same in all its lanes. */
static __device__ __forceinline__ int uniform_warp(void)
{
    return __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0);
}

/* The compiler has this number computed here, not where it is needed. */
static __device__ __forceinline__ void computed_here(int &x)
{
    asm volatile("" : "+r"(x));
}

static __device__ __forceinline__ void computed_here(float &x)
{
    asm volatile("" : "+f"(x));
}

static __device__ __forceinline__ void computed_here(int64_t &x)
{
    asm volatile("" : "+l"(x));
}

/* Waits here for a number that was loaded, where otherwise its first use would, and with it for
 * whatever was loaded since; or has it computed here by the assembler too, which is not bound by
 * computed_here. */
template <class T> static __device__ __forceinline__ void arrived_here(T &x)
{
    x = __shfl_sync(0xffffffffu, x, (int)threadIdx.x % 32);
}

/* Of a pointer to global memory, which the compiler would not know of it any more. */
template <class T> static __device__ __forceinline__ void arrived_here(const T *&x)
{
    size_t place = __cvta_generic_to_global(x);
    arrived_here(place);
    x = (const T *)__cvta_global_to_generic(place);
}

/* ---- Dependent launches; older GPUs run one launch after the other --------------------------- */

/* Waits until the launches before this one have finished and their writes are visible. */
static __device__ __forceinline__ void dependency_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Lets the next launch begin; it waits by itself for our results. */
static __device__ __forceinline__ void dependency_release(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif
