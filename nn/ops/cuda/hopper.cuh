/* hopper.cuh: the instructions of Hopper that products of ops_cuda use, one thin function each:
 * barriers in shared memory that count bytes (mbarrier), copies of boxes of a tensor (TMA), and
 * products of a warpgroup on the tensor cores (wgmma), which exist on sm_90a only. */
#ifndef NN_OPS_CUDA_HOPPER_CUH
#define NN_OPS_CUDA_HOPPER_CUH

#include <cuda.h>
#include <stdint.h>

#define HOPPER_INLINE static __device__ __forceinline__

HOPPER_INLINE uint32_t shared_place(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* ---- Barriers -------------------------------------------------------------------------------- */

HOPPER_INLINE void mbarrier_init(uint32_t barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/* Makes initialised barriers known to the copy engine; before a barrier of the whole block. */
HOPPER_INLINE void mbarrier_init_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

HOPPER_INLINE void mbarrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives and announces bytes that copies will bring. */
HOPPER_INLINE void mbarrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* Waits for the end of the phase with this parity. */
HOPPER_INLINE void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n.reg .pred done;\nAGAIN:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra.uni AGAIN;\n}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* ---- Copies ---------------------------------------------------------------------------------- */

/* The box at the given coordinates, fastest axis first, to shared memory; completes on barrier. */
HOPPER_INLINE void tma_load(uint32_t target, const CUtensorMap *map, int x, int y, int z,
                            uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(target),
                 "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

/* ---- Products of a warpgroup ----------------------------------------------------------------- */

/* A matrix in shared memory with rows of 128 bytes whose chunks of 16 are swizzled; leading: bytes
 * between repetitions along the axis of the rows. Eight rows follow each other. */
HOPPER_INLINE uint64_t wgmma_matrix(uint32_t address, uint32_t leading)
{
    uint32_t low = (address & 0x3ffff) >> 4 | leading >> 4 << 16;
    return low | (uint64_t)(1024 >> 4 | 1u << 30) << 32;
}

HOPPER_INLINE void wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

HOPPER_INLINE void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most PENDING committed groups are unfinished. */
template <int PENDING> HOPPER_INLINE void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* The compiler may neither move nor copy these registers across this point: products in flight
 * still write them. */
template <int N> HOPPER_INLINE void registers_pin(float (&values)[N])
{
#pragma unroll
    for (int n = 0; n < N; n++) asm volatile("" : "+f"(values[n])::"memory");
}

#define WGMMA_8(d, n)                                                                              \
    "+f"(d[n]), "+f"(d[n + 1]), "+f"(d[n + 2]), "+f"(d[n + 3]), "+f"(d[n + 4]), "+f"(d[n + 5]),    \
        "+f"(d[n + 6]), "+f"(d[n + 7])

/* d += a b for 64 rows of a, 16 channels and 128 columns of b, all bf16 in shared memory. Rows of
 * both lie along the channels, or, TRANSPOSED, channels have rows of their own. */
template <bool TRANSPOSED> HOPPER_INLINE void wgmma_add(float (&d)[64], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
                 "%64, %65, 1, 1, 1, %66, %66;"
                 : WGMMA_8(d, 0), WGMMA_8(d, 8), WGMMA_8(d, 16), WGMMA_8(d, 24), WGMMA_8(d, 32),
                   WGMMA_8(d, 40), WGMMA_8(d, 48), WGMMA_8(d, 56)
                 : "l"(a), "l"(b), "n"(TRANSPOSED ? 1 : 0));
}

#endif
