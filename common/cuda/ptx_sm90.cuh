/* ptx_sm90.cuh: the instructions of Hopper that kernels use, one thin function each.
 *
 * Nothing here decides anything: names and operands follow the PTX manual, and what must be ordered
 * with what is said where it is used. Four families: barriers in shared memory that also count
 * bytes (mbarrier), copies of boxes of a tensor into shared memory (TMA), products of a warpgroup
 * on the tensor cores (wgmma), and small arithmetic.
 *
 * Shared memory addresses are 32-bit values of the shared window (shared_address). Products of a
 * warpgroup exist on sm_90a only. */
#ifndef PLX_CUDA_PTX_SM90_CUH
#define PLX_CUDA_PTX_SM90_CUH

#include <cuda.h>

#include "cuda/instructions.cuh"

#define PTX_INLINE static __device__ __forceinline__

/* ---- Barriers ----------------------------------------------------------------------------------
 */

PTX_INLINE void mbarrier_init(uint32_t barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/* Makes initialised barriers known to the copy engine; before a barrier of the whole block. */
PTX_INLINE void mbarrier_init_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

PTX_INLINE void mbarrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives and announces bytes that copies will bring. */
PTX_INLINE void mbarrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* Arrives when the asynchronous copies that this thread has begun are complete. */
PTX_INLINE void mbarrier_arrive_copies(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

#define MBARRIER_WAIT(scope)                                                                       \
    asm volatile("{\n.reg .pred done;\nAGAIN:\n"                                                   \
                 "mbarrier.try_wait.parity.acquire." scope ".shared::cta.b64 done, [%0], %1;\n"    \
                 "@!done bra.uni AGAIN;\n}" ::"r"(barrier),                                        \
                 "r"(parity)                                                                       \
                 : "memory")

/* Waits for the end of the phase with this parity. */
PTX_INLINE void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    MBARRIER_WAIT("cta");
}

/* The same where other blocks of the cluster have stored what is waited for. */
PTX_INLINE void mbarrier_wait_cluster(uint32_t barrier, uint32_t parity)
{
    MBARRIER_WAIT("cluster");
}

/* Stores 8 or 16 bytes in the memory of a block of the cluster, which counts on that block's
 * barrier. */
PTX_INLINE void cluster_store(uint32_t target, float2 x, uint32_t barrier)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, "
                 "[%3];" ::"r"(target),
                 "f"(x.x), "f"(x.y), "r"(barrier)
                 : "memory");
}

PTX_INLINE void cluster_store(uint32_t target, float4 x, uint32_t barrier)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, "
                 "%4}, [%5];" ::"r"(target),
                 "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(barrier)
                 : "memory");
}

/* Barrier number `name` of the block, for `threads` threads in all. */
PTX_INLINE void barrier_sync(int name, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

PTX_INLINE void barrier_arrive(int name, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

/* Ordinary stores to shared memory before it are seen by tensor cores and copies after it. */
PTX_INLINE void proxy_fence(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Between ordinary accesses and copies to and from any memory, either way. */
PTX_INLINE void proxy_fence_global(void)
{
    asm volatile("fence.proxy.async;" ::: "memory");
}

/* Sixteen bytes of shared memory become zero. */
PTX_INLINE void shared_clear(uint32_t address)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(address), "r"(0) : "memory");
}

/* Registers of the executing warpgroup, from here on. */
template <int COUNT> PTX_INLINE void registers_grow(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> PTX_INLINE void registers_shrink(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* True in one lane of a warp, all of whose lanes are here; the compiler knows that it is one. */
PTX_INLINE bool elect_one(void)
{
    uint32_t chosen;
    asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}"
                 : "=r"(chosen));
    return chosen != 0;
}

/* The number of the lane for which that is true. */
PTX_INLINE int elected_lane(void)
{
    int lane;
    asm volatile("{.reg .pred p; elect.sync %0|p, 0xffffffff;}" : "=r"(lane));
    return lane;
}

/* ---- Copies ------------------------------------------------------------------------------------
 */

PTX_INLINE void tma_prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* The box at the given coordinates, fastest axis first, to shared memory; completes on barrier.
 * Maps have three axes, or four. */
PTX_INLINE void tma_load(uint32_t target, const CUtensorMap *map, int x, int y, int z,
                         uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(target),
                 "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

PTX_INLINE void tma_load(uint32_t target, const CUtensorMap *map, int x, int y, int z, int w,
                         uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(target),
                 "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

/* The same, kept in the L2 cache by a policy. */
PTX_INLINE void tma_load(uint32_t target, const CUtensorMap *map, int x, int y, int z, int w,
                         uint32_t barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(target),
                 "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "l"(policy)
                 : "memory");
}

/* The same for a tensor of five axes. */
PTX_INLINE void tma_load(uint32_t target, const CUtensorMap *map, int x, int y, int z, int w, int a,
                         uint32_t barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(target),
                 "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(a), "l"(policy)
                 : "memory");
}

/* Policies of the L2 cache, as createpolicy makes them: what a copy without one has, and lines that
 * leave before all others. */
static constexpr uint64_t CACHE_USUAL = 0x1000000000000000, CACHE_FIRST = 0x12f0000000000000;

/* Bytes in a row, a multiple of 16 at a multiple of 16; completes on barrier. */
PTX_INLINE void bulk_load(uint32_t target, const void *source, int bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(target),
                 "l"(source), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* Adds four values in a row to f32 in global memory, at a multiple of 16 bytes. */
PTX_INLINE void global_add(float *target, float a, float b, float c, float d)
{
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(target), "f"(a),
                 "f"(b), "f"(c), "f"(d)
                 : "memory");
}

/* Has the copy engine add f32 from shared memory to f32 in global memory, in a row, a multiple of
 * 16 bytes at multiples of 16. Additions that a thread begins before it commits are a group. */
PTX_INLINE void bulk_add(float *target, uint32_t source, int bytes)
{
    asm volatile(
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(target),
        "r"(source), "r"(bytes)
        : "memory");
}

PTX_INLINE void bulk_commit(void)
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* Waits until at most PENDING groups of this thread have still to be read from shared memory. */
template <int PENDING> PTX_INLINE void bulk_wait_read(void)
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

/* ---- Products of a warpgroup -------------------------------------------------------------------
 */

/* A matrix in shared memory with 128-byte swizzle begins at `place` plus a multiple of 16 bytes;
 * leading and groups: bytes between repetitions along the leading axis and between eight rows. */
PTX_INLINE uint64_t wgmma_matrix(uint32_t place, int bytes, uint32_t leading, uint32_t groups)
{
    uint32_t low = place + (bytes >> 4) + (leading >> 4 << 16);
    return low | (uint64_t)(groups >> 4 | 1u << 30) << 32;
}

/* Hidden from the compiler, which would otherwise keep the descriptors of every step of a loop in
 * registers instead of adding constants to one. */
PTX_INLINE uint32_t wgmma_place(uint32_t address)
{
    uint32_t place = (address & 0x3ffff) >> 4;
    asm volatile("" : "+r"(place));
    return place;
}

/* Earlier accesses to registers that products use are complete; before the first product. */
PTX_INLINE void wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

PTX_INLINE void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most PENDING committed groups are unfinished. */
template <int PENDING> PTX_INLINE void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* The compiler may neither move nor copy these registers across this point: products in flight
 * still read or write them. */
template <int N> PTX_INLINE void registers_pin(float (&values)[N])
{
#pragma unroll
    for (int n = 0; n < N; n++) asm volatile("" : "+f"(values[n])::"memory");
}

template <int N> PTX_INLINE void registers_pin(uint32_t (&values)[N])
{
#pragma unroll
    for (int n = 0; n < N; n++) asm volatile("" : "+r"(values[n])::"memory");
}

/* Operands: lists of the registers of accumulators, and their names in the instruction. */
#define WGMMA_8(c, d, n)                                                                           \
    c(d[n]), c(d[n + 1]), c(d[n + 2]), c(d[n + 3]), c(d[n + 4]), c(d[n + 5]), c(d[n + 6]),         \
        c(d[n + 7])
#define WGMMA_32(c, d) WGMMA_8(c, d, 0), WGMMA_8(c, d, 8), WGMMA_8(c, d, 16), WGMMA_8(c, d, 24)
#define WGMMA_40(c, d) WGMMA_32(c, d), WGMMA_8(c, d, 32)
#define WGMMA_48(c, d) WGMMA_40(c, d), WGMMA_8(c, d, 40)
#define WGMMA_64(c, d) WGMMA_48(c, d), WGMMA_8(c, d, 48), WGMMA_8(c, d, 56)
#define WGMMA_NAMES_32                                                                             \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                       \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES_40 WGMMA_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define WGMMA_NAMES_48 WGMMA_NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_NAMES_64                                                                             \
    WGMMA_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

/* The instruction for one count of columns and one format; across: "0" where b has a row for each
 * column, "1" where it has one for each channel. */
#define WGMMA_OPCODE(columns, format)                                                              \
    "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." format "." format " "
#define WGMMA_START(N, columns, format, across, a_name, b_name)                                    \
    asm volatile(                                                                                  \
        "{.reg .pred p; setp.ne.b32 p, 0, 0;\n" WGMMA_OPCODE(columns, format) "{" WGMMA_NAMES_##N  \
        "}, " a_name ", " b_name ", p, 1, 1, 0, " across ";}"                                      \
        : WGMMA_##N("=f", d)                                                                       \
        : "l"(a), "l"(b))
#define WGMMA_ADD(N, columns, format, across, a_name, b_name)                                      \
    asm volatile(WGMMA_OPCODE(columns, format) "{" WGMMA_NAMES_##N "}, " a_name ", " b_name        \
                                                                   ", 1, 1, 1, 0, " across ";"     \
                 : WGMMA_##N("+f", d)                                                              \
                 : "l"(a), "l"(b))
#define WGMMA_ADD_REGISTERS(N, columns, format, a_names, b_name)                                   \
    asm volatile(WGMMA_OPCODE(columns, format) "{" WGMMA_NAMES_##N "}, {" a_names "}, " b_name     \
                                                                   ", 1, 1, 1, 1;"                 \
                 : WGMMA_##N("+f", d)                                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

enum wgmma_format { WGMMA_BF16, WGMMA_F16 };

/* For 64 rows of a and N accumulators a thread, that is 2 N columns:
 * wgmma_start: d = a b' with 2 N rows of b, 16 channels, both in shared memory;
 * wgmma_add: d += a b', or, with a in four registers of pairs, d += a b for 16 rows of b with 2 N
 * channels. */
#define WGMMA_SHAPE(N, columns, x0, x1, x2, x3, x4)                                                \
    template <int FORMAT = WGMMA_BF16>                                                             \
    PTX_INLINE void wgmma_start(float(&d)[N], uint64_t a, uint64_t b)                              \
    {                                                                                              \
        if constexpr (FORMAT == WGMMA_F16)                                                         \
            WGMMA_START(N, columns, "f16", "0", x0, x1);                                           \
        else                                                                                       \
            WGMMA_START(N, columns, "bf16", "0", x0, x1);                                          \
    }                                                                                              \
    template <int FORMAT = WGMMA_BF16>                                                             \
    PTX_INLINE void wgmma_add(float(&d)[N], uint64_t a, uint64_t b)                                \
    {                                                                                              \
        if constexpr (FORMAT == WGMMA_F16)                                                         \
            WGMMA_ADD(N, columns, "f16", "0", x0, x1);                                             \
        else                                                                                       \
            WGMMA_ADD(N, columns, "bf16", "0", x0, x1);                                            \
    }                                                                                              \
    template <int FORMAT = WGMMA_BF16>                                                             \
    PTX_INLINE void wgmma_add(float(&d)[N], const uint32_t *a, uint64_t b)                         \
    {                                                                                              \
        if constexpr (FORMAT == WGMMA_F16)                                                         \
            WGMMA_ADD_REGISTERS(N, columns, "f16", x0 "," x1 "," x2 "," x3, x4);                   \
        else                                                                                       \
            WGMMA_ADD_REGISTERS(N, columns, "bf16", x0 "," x1 "," x2 "," x3, x4);                  \
    }
WGMMA_SHAPE(32, "64", "%32", "%33", "%34", "%35", "%36")
WGMMA_SHAPE(40, "80", "%40", "%41", "%42", "%43", "%44")
WGMMA_SHAPE(48, "96", "%48", "%49", "%50", "%51", "%52")
WGMMA_SHAPE(64, "128", "%64", "%65", "%66", "%67", "%68")

/* d = a b and d += a b with both in shared memory: 64 rows of a, 16 rows of b with 2 N channels. */
#define WGMMA_PRODUCT(N, columns, a_name, b_name)                                                  \
    template <int FORMAT = WGMMA_BF16>                                                             \
    PTX_INLINE void wgmma_start_product(float(&d)[N], uint64_t a, uint64_t b)                      \
    {                                                                                              \
        if constexpr (FORMAT == WGMMA_F16)                                                         \
            WGMMA_START(N, columns, "f16", "1", a_name, b_name);                                   \
        else                                                                                       \
            WGMMA_START(N, columns, "bf16", "1", a_name, b_name);                                  \
    }                                                                                              \
    template <int FORMAT = WGMMA_BF16>                                                             \
    PTX_INLINE void wgmma_add_product(float(&d)[N], uint64_t a, uint64_t b)                        \
    {                                                                                              \
        if constexpr (FORMAT == WGMMA_F16)                                                         \
            WGMMA_ADD(N, columns, "f16", "1", a_name, b_name);                                     \
        else                                                                                       \
            WGMMA_ADD(N, columns, "bf16", "1", a_name, b_name);                                    \
    }
WGMMA_PRODUCT(32, "64", "%32", "%33")
WGMMA_PRODUCT(64, "128", "%64", "%65")

/* Four 8x8 matrices of 16-bit elements, as products leave them, to shared memory; lanes 8n..8n+7
 * give the addresses of the rows of matrix n, which is transposed before if asked. */
template <bool TRANSPOSED> PTX_INLINE void store_matrices(uint32_t address, const uint32_t *m)
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

/* ---- Arithmetic --------------------------------------------------------------------------------
 */

/* Pairs of values in the format of a product, the first in the lower half. */
template <int FORMAT> PTX_INLINE uint32_t pair_pack(float low, float high)
{
    return FORMAT == WGMMA_BF16 ? pack_bf16(low, high) : pack_f16(low, high);
}

template <int FORMAT> PTX_INLINE float pair_low(uint32_t pair)
{
    return FORMAT == WGMMA_BF16 ? low_bf16(pair) : low_f16(pair);
}

template <int FORMAT> PTX_INLINE float pair_high(uint32_t pair)
{
    return FORMAT == WGMMA_BF16 ? high_bf16(pair) : high_f16(pair);
}

#endif
