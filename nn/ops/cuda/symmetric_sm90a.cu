/* symmetric_sm90a.cu: chains of products that are known to be symmetric, for a batch of matrices,
 * on Hopper; see launch_update.h.
 *
 * A block computes a tile of 128 x 256 that reaches below or onto the diagonal and writes it twice,
 * once transposed, in boxes of 64 x 64: 20 of the 32 tiles of a side of 1024. One block lives on
 * each multiprocessor and takes tile after tile, through all products of the chain: one warp has
 * the copy engine bring slices of 64 channels into a ring of stages, two warpgroups multiply 64
 * rows each, and a warp for each of them has finished boxes written while the next tile is
 * multiplied. What lies beyond a matrix arrives as zeros and is not written.
 *
 * A product may read what the one before it wrote, so its tiles wait until all tiles of its matrix
 * before it are written: a counter for each matrix says how many are. All blocks are on the GPU at
 * once and take tiles in order, so that what a tile waits for is always under way. */
#include "hopper.cuh"
#include "launch_update.h"
#include "numbers.cuh"

#include <cuda_fp16.h>

namespace
{

enum {
    ROWS = 128,
    COLUMNS = 256,
    BOX = 64,
    DEPTH = 64,
    STAGES = 4,
    BUFFERS = 1, /* of a warpgroup, for finished boxes */
    GROUP = 128,
    WORKERS = 2 * GROUP,
    THREADS = WORKERS + GROUP,
    BOX_BYTES = BOX * BOX * 2,
    LEFT_BYTES = ROWS / BOX * BOX_BYTES,
    STAGE_BYTES = LEFT_BYTES + COLUMNS / BOX * BOX_BYTES,
    BUFFER_BYTES = 2 * BOX_BYTES, /* a box as it is and transposed */
    SHARED_BYTES = STAGES * STAGE_BYTES + 2 * BUFFERS * BUFFER_BYTES + 1024
};

/* A product of the chain: places of its operands among the maps, and its numbers. */
struct link {
    int left, right, c, steps;
    bool tall, half, half_c;
    const __half *add;
    const float *scales;
    float alpha, beta, gamma;
};

struct symmetric_args {
    CUtensorMap maps[SYMMETRIC_MATRICES];
    link links[SYMMETRIC_CHAIN];
    uint32_t *written;                /* boxes' rows of tiles of each matrix */
    int count, side, matrices, tiles; /* products, and tiles of a matrix */
};

/* Addresses in shared memory. */
struct places {
    uint32_t stages, full, empty;    /* stages, and their barriers */
    uint32_t buffers, ready, vacant; /* of one warpgroup */
};

/* ---- The order of tiles ---------------------------------------------------------------------- */

struct position {
    int product, matrix;
    int row, column; /* first of the tile */
};

/* Tiles of a matrix before those of rows 2 p and 2 p + 1, counted in tiles, of p + 1 each. */
static __host__ __device__ __forceinline__ int tiles_before(int p)
{
    return p * (p + 1);
}

static __device__ __forceinline__ position tile_of(const symmetric_args &args, int64_t index)
{
    const int all = args.tiles * args.matrices, among = (int)(index % all);
    const int place = among % args.tiles;
    int p = (int)((sqrtf(4.0f * (float)place + 1.0f) - 1.0f) / 2.0f);
    while (tiles_before(p + 1) <= place) p++;
    while (tiles_before(p) > place) p--;
    const int rest = place - tiles_before(p);
    return {.product = (int)(index / all),
            .matrix = among / args.tiles,
            .row = (2 * p + rest / (p + 1)) * ROWS,
            .column = rest % (p + 1) * COLUMNS};
}

/* Calls work with every tile of the block. */
template <class Work>
static __device__ __forceinline__ void for_tiles(const symmetric_args &args, const Work &work)
{
    const int64_t all = (int64_t)args.tiles * args.matrices * args.count;
    for (int64_t index = blockIdx.x; index < all; index += gridDim.x) work(tile_of(args, index));
}

/* A ring's place and the parity of its round. */
template <int LENGTH> struct ring {
    int place;
    uint32_t round;

    __device__ __forceinline__ void advance(void)
    {
        if (++place == LENGTH) place = 0, round ^= 1;
    }
};

/* ---- Bringing slices ------------------------------------------------------------------------- */

/* 64 rows of 64 channels, or channels of 64 columns where tall. */
static __device__ __forceinline__ void bring(uint32_t target, const CUtensorMap *map, bool tall,
                                             int first, int channel, int matrix, uint32_t barrier)
{
    tma_load(target, map, tall ? first : channel, tall ? channel : first, matrix, barrier);
}

static __device__ __forceinline__ void bring_tile(const symmetric_args &args, const position &tile,
                                                  const places &at, ring<STAGES> &stage)
{
    const link &link = args.links[tile.product];
    const uint32_t before = 2u * (uint32_t)args.tiles * (uint32_t)tile.product;
    while (counter_read(&args.written[tile.matrix]) < before) __nanosleep(100);
    proxy_fence();
    for (int step = 0; step < link.steps; step++) {
        const uint32_t target = at.stages + stage.place * STAGE_BYTES;
        const uint32_t full = at.full + 8 * stage.place;
        mbarrier_wait(at.empty + 8 * stage.place, stage.round ^ 1);
        mbarrier_expect(full, STAGE_BYTES);
#pragma unroll
        for (int box = 0; box < ROWS / BOX; box++)
            bring(target + box * BOX_BYTES, &args.maps[link.left], link.tall, tile.row + box * BOX,
                  step * DEPTH, tile.matrix, full);
#pragma unroll
        for (int box = 0; box < COLUMNS / BOX; box++)
            bring(target + LEFT_BYTES + box * BOX_BYTES, &args.maps[link.right], link.tall,
                  tile.column + box * BOX, step * DEPTH, tile.matrix, full);
        stage.advance();
    }
}

/* ---- Multiplying ----------------------------------------------------------------------------- */

/* Products of a slice: four times 16 channels, for this warpgroup's 64 rows. */
template <bool HALF, bool TALL>
static __device__ __forceinline__ void multiply(float (&sums)[128], uint32_t left, uint32_t right)
{
#pragma unroll
    for (int step = 0; step < DEPTH / 16; step++) {
        const uint32_t along = TALL ? step * 2048 : step * 32, leading = TALL ? BOX_BYTES : 16;
        wgmma_add<HALF, TALL>(sums, wgmma_matrix(left + along, leading),
                              wgmma_matrix(right + along, leading));
    }
}

/* A stage is free again when the products after it have begun and its own are complete. */
template <bool HALF, bool TALL>
static __device__ __forceinline__ void multiply_slices(float (&sums)[128], int steps,
                                                       const places &at, ring<STAGES> &stage)
{
    const bool speaks = threadIdx.x % 32 == 0;
#pragma unroll
    for (int n = 0; n < 128; n++) sums[n] = 0;
    registers_pin(sums);
    uint32_t before = 0;
    for (int step = 0; step < steps; step++) {
        const uint32_t left = at.stages + stage.place * STAGE_BYTES;
        mbarrier_wait(at.full + 8 * stage.place, stage.round);
        wgmma_fence();
        multiply<HALF, TALL>(sums, left + threadIdx.x / GROUP * BOX_BYTES, left + LEFT_BYTES);
        wgmma_commit();
        wgmma_wait<1>();
        if (step > 0 && speaks) mbarrier_arrive(before);
        before = at.empty + 8 * stage.place;
        stage.advance();
    }
    wgmma_wait<0>();
    registers_pin(sums);
    if (speaks) mbarrier_arrive(before);
}

/* ---- Finishing boxes ------------------------------------------------------------------------- */

/* Boxes of a warpgroup's rows are those up to the diagonal. */
static __device__ __forceinline__ bool is_wanted(const position &tile, int group, int box)
{
    return tile.column + box * BOX <= tile.row + group * BOX;
}

static __device__ __forceinline__ bool is_mirrored(const position &tile, int group, int box)
{
    return tile.column + box * BOX < tile.row + group * BOX;
}

static __device__ __forceinline__ uint32_t pair_of(bool half, float low, float high)
{
    uint32_t pair;
    if (!half) return packed_pair(low, high);
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* Where a chunk of 16 bytes lies in a box of rows of 128 bytes. */
static __device__ __forceinline__ uint32_t swizzled(int row, int chunk)
{
    return row * 128 + (chunk ^ row % 8) * 16;
}

/* Sixteen rows of the box by each warp, as they are and across the diagonal. sums: the 32 of the
 * box; row and column: where the box begins in the matrix. */
static __device__ __forceinline__ void finish_box(const link &link, int side, int matrix, int row,
                                                  int column, const float *sums, uint32_t straight)
{
    const int lane = threadIdx.x % 32, first = threadIdx.x % GROUP / 32 * 16;
    const float scale = link.scales != NULL ? link.scales[2 * matrix] : 1.0f;
    const __half *add = link.add + (int64_t)matrix * side * side;
    uint32_t added[16];
    const int own_row = row + first + lane / 4, own_column = column + lane % 4 * 2;
    if (link.add != NULL)
#pragma unroll
        for (int k = 0; k < 16; k++) {
            const int r = own_row + k % 2 * 8, c = own_column + k / 2 * 8;
            const bool inside = r < side && c < side;
            added[k] = inside ? __ldcg((const uint32_t *)(add + (int64_t)r * side + c)) : 0;
        }
    uint32_t pairs[16];
#pragma unroll
    for (int k = 0; k < 16; k++) {
        float low = link.alpha * sums[2 * k], high = link.alpha * sums[2 * k + 1];
        if (link.add != NULL) {
            const float2 more = __half22float2(*(const __half2 *)&added[k]);
            low += link.beta * more.x, high += link.beta * more.y;
        }
        const int off = own_row + k % 2 * 8 - (own_column + k / 2 * 8);
        if (off == 0) low += link.gamma;
        if (off == 1) high += link.gamma;
        pairs[k] = pair_of(link.half_c, scale * low, scale * high);
    }
    const int down = lane / 8 % 2, right = lane / 16;
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
        store_matrices<false>(straight + swizzled(first + down * 8 + lane % 8, n + right),
                              pairs + 2 * n);
        store_matrices<true>(straight + BOX_BYTES +
                                 swizzled((n + right) * 8 + lane % 8, first / 8 + down),
                             pairs + 2 * n);
    }
}

static __device__ __forceinline__ void finish_tile(const symmetric_args &args, const position &tile,
                                                   const float (&sums)[128], const places &at,
                                                   ring<BUFFERS> &buffer)
{
    const int group = threadIdx.x / GROUP;
#pragma unroll
    for (int box = 0; box < COLUMNS / BOX; box++) {
        if (!is_wanted(tile, group, box)) continue;
        mbarrier_wait(at.vacant + 8 * buffer.place, buffer.round ^ 1);
        finish_box(args.links[tile.product], args.side, tile.matrix, tile.row + group * BOX,
                   tile.column + box * BOX, sums + 32 * box,
                   at.buffers + buffer.place * BUFFER_BYTES);
        proxy_fence_shared();
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(at.ready + 8 * buffer.place);
        buffer.advance();
    }
}

/* ---- Writing boxes --------------------------------------------------------------------------- */

static __device__ __forceinline__ void write_tile(const symmetric_args &args, const position &tile,
                                                  int group, const places &at,
                                                  ring<BUFFERS> &buffer)
{
    const CUtensorMap *map = &args.maps[args.links[tile.product].c];
    for (int box = 0; box < COLUMNS / BOX; box++) {
        const int row = tile.row + group * BOX, column = tile.column + box * BOX;
        const uint32_t source = at.buffers + buffer.place * BUFFER_BYTES;
        if (!is_wanted(tile, group, box)) continue;
        mbarrier_wait(at.ready + 8 * buffer.place, buffer.round);
        tma_store(map, column, row, tile.matrix, source);
        if (is_mirrored(tile, group, box))
            tma_store(map, row, column, tile.matrix, source + BOX_BYTES);
        tma_commit();
        tma_wait_read();
        mbarrier_arrive(at.vacant + 8 * buffer.place);
        buffer.advance();
    }
    tma_wait_written();
    proxy_fence();
    counter_add(&args.written[tile.matrix]);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

static __device__ __forceinline__ void multiply_tile(const symmetric_args &args,
                                                     const position &tile, float (&sums)[128],
                                                     const places &at, ring<STAGES> &stage)
{
    const link &link = args.links[tile.product];
    if (link.half)
        multiply_slices<true, false>(sums, link.steps, at, stage);
    else if (link.tall)
        multiply_slices<false, true>(sums, link.steps, at, stage);
    else
        multiply_slices<false, false>(sums, link.steps, at, stage);
}

__global__ void __launch_bounds__(THREADS, 1)
    symmetric_kernel(const __grid_constant__ symmetric_args args)
{
    extern __shared__ unsigned char raw[];
    __shared__ uint64_t barriers[2 * STAGES + 4 * BUFFERS];
    const uint32_t stages = (shared_place(raw) + 1023) / 1024 * 1024;
    const int warp = threadIdx.x / 32, group = warp < 8 ? warp / 4 : warp % 2;
    places at = {.stages = stages, .full = shared_place(barriers)};
    at.empty = at.full + 8 * STAGES;
    at.buffers = stages + STAGES * STAGE_BYTES + group * BUFFERS * BUFFER_BYTES;
    at.ready = at.empty + 8 * STAGES + 16 * BUFFERS * group;
    at.vacant = at.ready + 8 * BUFFERS;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(at.full + 8 * s, 1);
            mbarrier_init(at.empty + 8 * s, WORKERS / 32);
        }
        for (int b = 0; b < BUFFERS; b++)
            for (int g = 0; g < 2; g++) {
                mbarrier_init(at.ready + 8 * b + 16 * BUFFERS * g, GROUP / 32);
                mbarrier_init(at.vacant + 8 * b + 16 * BUFFERS * g, 1);
            }
        mbarrier_init_fence();
    }
    __syncthreads();
    ring<STAGES> stage = {0, 0};
    ring<BUFFERS> buffer = {0, 0};
    if (warp < WORKERS / 32) {
        float sums[128];
        registers_grow<232>();
        for_tiles(args, [&](const position &tile) {
            multiply_tile(args, tile, sums, at, stage);
            finish_tile(args, tile, sums, at, buffer);
        });
    } else {
        registers_shrink<40>();
        if (threadIdx.x % 32 > 0 || warp == THREADS / 32 - 1) return;
        if (warp == WORKERS / 32)
            for_tiles(args, [&](const position &tile) { bring_tile(args, tile, at, stage); });
        else
            for_tiles(args,
                      [&](const position &tile) { write_tile(args, tile, group, at, buffer); });
    }
}

/* ---- Host ------------------------------------------------------------------------------------ */

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static const char *find_encode(encode_function *encode)
{
    cudaDriverEntryPointQueryResult found;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)encode,
                                                         12000, cudaEnableDefault, &found);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    return *encode != NULL ? NULL : "the driver has no cuTensorMapEncodeTiled";
}

/* Dense matrices behind each other, in boxes of 64 rows of 128 bytes. */
static const char *make_map(encode_function encode, CUtensorMap *map,
                            const struct symmetric_matrix *x, int64_t matrices)
{
    const cuuint64_t extents[3] = {(cuuint64_t)x->columns, (cuuint64_t)x->rows,
                                   (cuuint64_t)matrices};
    const cuuint64_t strides[2] = {(cuuint64_t)x->columns * 2,
                                   (cuuint64_t)(x->rows * x->columns) * 2};
    const cuuint32_t box[3] = {BOX, BOX, 1}, steps[3] = {1, 1, 1};
    CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, x->data, extents, strides, box,
                             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? NULL : "a tensor map cannot be made";
}

static link link_of(const struct symmetric_chain *chain, const struct symmetric_product *product)
{
    const struct symmetric_matrix *left = &chain->matrix[product->left];
    const int64_t depth = product->tall ? left->rows : left->columns;
    return {.left = product->left,
            .right = product->right,
            .c = product->c,
            .steps = (int)((depth + DEPTH - 1) / DEPTH),
            .tall = product->tall,
            .half = product->half,
            .half_c = product->half_c,
            .add = product->beta != 0 ? (const __half *)chain->matrix[product->add].data : NULL,
            .scales = product->scales,
            .alpha = product->alpha,
            .beta = product->beta,
            .gamma = product->gamma};
}

static const char *launch_blocks(plx_stream stream, const symmetric_args &args)
{
    int device, processors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(symmetric_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     SHARED_BYTES);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(args.written, 0, sizeof(uint32_t) * (size_t)args.matrices,
                                (cudaStream_t)stream);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    const int64_t all = (int64_t)args.tiles * args.matrices;
    symmetric_kernel<<<(unsigned)(all < processors ? all : processors), THREADS, SHARED_BYTES,
                       (cudaStream_t)stream>>>(args);
    return launched();
}

} // namespace

bool symmetric_serves(int64_t rows, int64_t columns, const void *x)
{
    int device, major = 0;
    bool fits = rows > 0 && columns > 0 && rows % 8 == 0 && columns % 8 == 0 && rows <= 1 << 20 &&
                columns <= 1 << 20 && (rows <= 1 << 14 || columns <= 1 << 14);
    return fits && (uintptr_t)x % 16 == 0 && cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major == 9;
}

const char *launch_symmetric(plx_stream stream, const struct symmetric_chain *chain)
{
    symmetric_args args = {.written = chain->written,
                           .count = chain->count,
                           .side = (int)chain->side,
                           .matrices = (int)chain->matrices};
    encode_function encode;
    const char *failure = chain->matrices > 0 ? find_encode(&encode) : NULL;
    if (failure != NULL || chain->matrices == 0) return failure;
    for (int i = 0; i < SYMMETRIC_MATRICES && failure == NULL; i++)
        if (chain->matrix[i].data != NULL)
            failure = make_map(encode, &args.maps[i], &chain->matrix[i], chain->matrices);
    if (failure != NULL) return failure;
    for (int i = 0; i < chain->count; i++) args.links[i] = link_of(chain, &chain->product[i]);
    const int rows = (args.side + ROWS - 1) / ROWS, pairs = rows / 2;
    args.tiles = tiles_before(pairs) + rows % 2 * (pairs + 1);
    return launch_blocks(stream, args);
}
