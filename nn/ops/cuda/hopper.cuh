/* hopper.cuh: the instructions of Hopper that products of ops_cuda use, one thin function each:
 * barriers in shared memory that count bytes (mbarrier), copies of boxes of a tensor between global
 * and shared memory (TMA), and products of a warpgroup on the tensor cores (wgmma), which exist on
 * sm_90a only. Addresses of shared memory are 32-bit values of the shared window. */
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

/* Registers of the executing warpgroup, from here on. */
template <int COUNT> HOPPER_INLINE void registers_grow(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> HOPPER_INLINE void registers_shrink(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
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

/* Neighbouring bytes, a multiple of 16 on addresses of 16, likewise. */
HOPPER_INLINE void bulk_load(uint32_t target, const void *from, uint32_t bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(target),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* Between ordinary accesses and copies to and from any memory, either way. */
HOPPER_INLINE void proxy_fence(void)
{
    asm volatile("fence.proxy.async;" ::: "memory");
}

/* ---- Counters in global memory --------------------------------------------------------------- */

/* What happened before an addition is seen by those who read the sum. */
HOPPER_INLINE void counter_add(uint32_t *counter)
{
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

HOPPER_INLINE uint32_t counter_read(const uint32_t *counter)
{
    uint32_t count;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter) : "memory");
    return count;
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
#define WGMMA_64(d)                                                                                \
    WGMMA_8(d, 0), WGMMA_8(d, 8), WGMMA_8(d, 16), WGMMA_8(d, 24), WGMMA_8(d, 32), WGMMA_8(d, 40),  \
        WGMMA_8(d, 48), WGMMA_8(d, 56)
#define WGMMA_NAMES_64                                                                             \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                       \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"                             \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                             \
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_NAMES_128                                                                            \
    WGMMA_NAMES_64                                                                                 \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"                            \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"                             \
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"                 \
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA_128_COLUMNS(format, transposed)                                                      \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." format "." format                  \
                 " {" WGMMA_NAMES_64 "}, %64, %65, 1, 1, 1, %66, %66;"                             \
                 : WGMMA_64(d)                                                                     \
                 : "l"(a), "l"(b), "n"(transposed))
#define WGMMA_256_COLUMNS(format, transposed)                                                      \
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." format "." format                  \
                 " {" WGMMA_NAMES_128 "}, %128, %129, 1, 1, 1, %130, %130;"                        \
                 : WGMMA_64(d), WGMMA_64(more)                                                     \
                 : "l"(a), "l"(b), "n"(transposed))

/* d += a b for 64 rows of a, 16 channels and 128 columns of b, or 256 where more are added to, all
 * in shared memory and of one format. Rows of both lie along the channels, or, TRANSPOSED, channels
 * have rows of their own. */
template <bool HALF, bool TRANSPOSED>
HOPPER_INLINE void wgmma_add(float (&d)[64], uint64_t a, uint64_t b)
{
    if (HALF)
        WGMMA_128_COLUMNS("f16", TRANSPOSED ? 1 : 0);
    else
        WGMMA_128_COLUMNS("bf16", TRANSPOSED ? 1 : 0);
}

template <bool HALF, bool TRANSPOSED>
HOPPER_INLINE void wgmma_add(float (&d)[64], float (&more)[64], uint64_t a, uint64_t b)
{
    if (HALF)
        WGMMA_256_COLUMNS("f16", TRANSPOSED ? 1 : 0);
    else
        WGMMA_256_COLUMNS("bf16", TRANSPOSED ? 1 : 0);
}

/* ---- Shared memory -------------------------------------------------------------------------- */

HOPPER_INLINE uint32_t shared_read(uint32_t address)
{
    uint32_t word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
    return word;
}

HOPPER_INLINE uint4 shared_read_wide(uint32_t address)
{
    uint4 words;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "r"(address)
                 : "memory");
    return words;
}

/* Four 8x8 matrices of 16-bit numbers, as products leave them, to shared memory; lanes 8n..8n+7
 * give the addresses of the rows of matrix n, which is transposed before if asked. */
template <bool TRANSPOSED> HOPPER_INLINE void store_matrices(uint32_t address, const uint32_t *m)
{
    if (TRANSPOSED)
        asm volatile(
            "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
            "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
            : "memory");
    else
        asm volatile(
            "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
            "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
            : "memory");
}

#endif
