/* symmetric_sm90a.cu: products of a matrix with its own transpose on Hopper; see launch_update.h.
 *
 * The result is symmetric, so a block computes a tile of 128 x 128 on or below the diagonal and
 * writes it twice, once transposed: 36 of 64 tiles at a side of 1024. One warp has the copy engine
 * bring slices of 64 channels of both tiles into a ring of stages; two warpgroups multiply 64 rows
 * each. Two blocks share a multiprocessor, so that one multiplies while the other writes. */
#include "hopper.cuh"
#include "launch_update.h"
#include "numbers.cuh"

namespace
{

enum {
    TILE = 128,
    DEPTH = 64,
    STAGES = 3,
    GROUP = 128,
    WORKERS = 2 * GROUP,
    THREADS = WORKERS + 32,
    BOX_BYTES = 64 * 128,           /* 64 rows of 128 bytes */
    SLICE_BYTES = TILE * DEPTH * 2, /* a stage of one operand: two boxes' worth */
    PITCH = TILE + 8,               /* of the finished tile, in floats */
    SHARED_BYTES = STAGES * 2 * SLICE_BYTES + 1024
};

struct symmetric_args {
    CUtensorMap map;
    bf16 *c;
    const bf16 *add;
    int64_t stride; /* elements of a result */
    int side, steps;
    float alpha, beta;
};

/* ---- Bringing slices ------------------------------------------------------------------------- */

/* 128 rows of 64 channels; with channels in rows of their own as two boxes of 64 columns. */
template <bool TALL>
static __device__ __forceinline__ void bring(uint32_t target, const CUtensorMap *map, int first,
                                             int channel, int matrix, uint32_t barrier)
{
    if (TALL) {
        tma_load(target, map, first, channel, matrix, barrier);
        tma_load(target + BOX_BYTES, map, first + 64, channel, matrix, barrier);
    } else {
        tma_load(target, map, channel, first, matrix, barrier);
    }
}

/* ---- Multiplying ----------------------------------------------------------------------------- */

/* Products of a slice: four times 16 channels, for this warpgroup's 64 rows. */
template <bool TALL>
static __device__ __forceinline__ void multiply(float (&sums)[64], uint32_t left, uint32_t right)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const uint32_t along = TALL ? step * 2048 : step * 32, leading = TALL ? BOX_BYTES : 16;
        wgmma_add<TALL>(sums, wgmma_matrix(left + along, leading),
                        wgmma_matrix(right + along, leading));
    }
}

static __device__ __forceinline__ void meet(void)
{
    asm volatile("bar.sync 1, %0;" ::"r"(WORKERS) : "memory");
}

/* ---- Writing --------------------------------------------------------------------------------- */

static __device__ __forceinline__ void keep_sums(float *tile, const float (&sums)[64])
{
    int thread = threadIdx.x, lane = thread % 32;
    int row = thread / 32 * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 16; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            *(float2 *)&tile[(row + 8 * half) * PITCH + column + 8 * n] =
                make_float2(sums[4 * n + 2 * half], sums[4 * n + 2 * half + 1]);
}

/* alpha times the tile plus beta times what is added, to c and back to the tile. */
static __device__ __forceinline__ void write_tile(const symmetric_args &args, float *tile,
                                                  int64_t corner)
{
    for (int n = threadIdx.x; n < TILE * TILE / 8; n += WORKERS) {
        int row = n / (TILE / 8), column = n % (TILE / 8) * 8;
        int64_t place = corner + (int64_t)row * args.side + column;
        float v[8], added[8];
        read_numbers(v, tile + row * PITCH + column);
        if (args.beta != 0) read_numbers(added, args.add + place);
#pragma unroll
        for (int k = 0; k < 8; k++)
            v[k] = args.beta != 0 ? args.alpha * v[k] + args.beta * added[k] : args.alpha * v[k];
        write_numbers(args.c + place, v);
        write_numbers(tile + row * PITCH + column, v);
    }
}

/* The finished tile across the diagonal: a thread takes 16 rows of a column. */
static __device__ __forceinline__ void write_mirrored(const symmetric_args &args, const float *tile,
                                                      int64_t corner)
{
    for (int n = threadIdx.x; n < TILE * TILE / 16; n += WORKERS) {
        int column = n % TILE, row = n / TILE * 16;
        bf16 *target = args.c + corner + (int64_t)column * args.side + row;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float v[8];
#pragma unroll
            for (int k = 0; k < 8; k++) v[k] = tile[(row + 8 * half + k) * PITCH + column];
            write_numbers(target + 8 * half, v);
        }
    }
}

/* ---- The kernel ------------------------------------------------------------------------------ */

template <bool TALL>
__global__ void __launch_bounds__(THREADS, 2)
    symmetric_kernel(const __grid_constant__ symmetric_args args)
{
    extern __shared__ unsigned char raw[];
    __shared__ uint64_t full[STAGES], empty[STAGES];
    unsigned char *stages = raw + (1024 - shared_place(raw) % 1024) % 1024;
    int i = (int)((sqrtf(8.0f * (float)blockIdx.x + 1.0f) - 1.0f) / 2.0f);
    int j = (int)blockIdx.x - i * (i + 1) / 2, matrix = (int)blockIdx.y;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(shared_place(&full[s]), 1);
            mbarrier_init(shared_place(&empty[s]), WORKERS / 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    if (threadIdx.x >= WORKERS) {
        if (threadIdx.x > WORKERS) return;
        for (int step = 0; step < args.steps; step++) {
            int s = step % STAGES;
            uint32_t left = shared_place(stages + s * 2 * SLICE_BYTES);
            uint32_t barrier = shared_place(&full[s]);
            mbarrier_wait(shared_place(&empty[s]), ~(step / STAGES) & 1);
            mbarrier_expect(barrier, i == j ? SLICE_BYTES : 2 * SLICE_BYTES);
            bring<TALL>(left, &args.map, i * TILE, step * DEPTH, matrix, barrier);
            if (i != j)
                bring<TALL>(left + SLICE_BYTES, &args.map, j * TILE, step * DEPTH, matrix, barrier);
        }
        return;
    }

    float sums[64];
#pragma unroll
    for (int n = 0; n < 64; n++) sums[n] = 0;
    registers_pin(sums);
    for (int step = 0; step < args.steps; step++) {
        int s = step % STAGES;
        uint32_t left = shared_place(stages + s * 2 * SLICE_BYTES);
        mbarrier_wait(shared_place(&full[s]), step / STAGES & 1);
        wgmma_fence();
        multiply<TALL>(sums, left + threadIdx.x / GROUP * BOX_BYTES,
                       i == j ? left : left + SLICE_BYTES);
        wgmma_commit();
        wgmma_wait<1>();
        if (step > 0 && threadIdx.x % 32 == 0)
            mbarrier_arrive(shared_place(&empty[(step - 1) % STAGES]));
    }
    wgmma_wait<0>();
    registers_pin(sums);
    meet(); /* the stages are free */
    float *tile = (float *)stages;
    keep_sums(tile, sums);
    meet();
    int64_t base = matrix * args.stride;
    write_tile(args, tile, base + (int64_t)i * TILE * args.side + j * TILE);
    if (i == j) return;
    meet();
    write_mirrored(args, tile, base + (int64_t)j * TILE * args.side + i * TILE);
}

/* ---- Host ------------------------------------------------------------------------------------ */

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Dense matrices of rows x columns behind each other, in boxes of rows of 128 bytes. */
const char *make_map(CUtensorMap *map, const void *x, int64_t matrices, int64_t rows,
                     int64_t columns, int box_rows)
{
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                         cudaEnableDefault, &found);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    if (encode == NULL) return "the driver has no cuTensorMapEncodeTiled";
    const cuuint64_t extents[3] = {(cuuint64_t)columns, (cuuint64_t)rows, (cuuint64_t)matrices};
    const cuuint64_t strides[2] = {(cuuint64_t)columns * 2, (cuuint64_t)(rows * columns) * 2};
    const cuuint32_t box[3] = {64, (cuuint32_t)box_rows, 1}, steps[3] = {1, 1, 1};
    CUresult result = ((encode_function)encode)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)x, extents, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? NULL : "a tensor map cannot be made";
}

} // namespace

bool symmetric_fits(const void *c, const void *add, const void *x, int64_t side, int64_t depth)
{
    uintptr_t all = (uintptr_t)c | (uintptr_t)add | (uintptr_t)x;
    return side % TILE == 0 && depth % DEPTH == 0 && depth > 0 && side <= 1 << 14 && all % 16 == 0;
}

const char *launch_symmetric(plx_stream stream, void *c, const void *add, const void *x, bool tall,
                             int64_t matrices, int64_t side, int64_t depth, float alpha, float beta)
{
    symmetric_args args = {.c = (bf16 *)c,
                           .add = (const bf16 *)add,
                           .stride = side * side,
                           .side = (int)side,
                           .steps = (int)(depth / DEPTH),
                           .alpha = alpha,
                           .beta = beta};
    const char *failure = make_map(&args.map, x, matrices, tall ? depth : side, tall ? side : depth,
                                   tall ? DEPTH : TILE);
    if (failure != NULL) return failure;
    auto kernel = tall ? symmetric_kernel<true> : symmetric_kernel<false>;
    cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    int64_t tiles = side / TILE;
    dim3 grid((unsigned)(tiles * (tiles + 1) / 2), (unsigned)matrices);
    kernel<<<grid, THREADS, SHARED_BYTES, (cudaStream_t)stream>>>(args);
    return launched();
}
