/* symmetric_sm90a.cu: chains of products that are known to be symmetric, for a batch of matrices,
 * on Hopper; see launch_update.h.
 *
 * A block computes a tile of 128 x 256 that reaches below or onto the diagonal and writes it twice,
 * once transposed, in boxes of 64 x 64. Tiles whose right half lies above the diagonal compute the
 * left one alone, which makes 18 of the 32 tiles of a side of 1024. One block lives on each
 * multiprocessor and takes tile after tile, through all products of the chain: one warp has the
 * copy engine bring slices of 64 channels into a ring of stages, and two warpgroups multiply 64
 * rows each. The ring fills for the next tile while a finished one is written, by ordinary stores
 * that nothing waits for: through the copy engine they would queue behind those slices. What lies
 * beyond a matrix arrives as zeros and is not written.
 *
 * A product may read what the one before it wrote, so its tiles wait until all tiles of its matrix
 * before it are written: a counter for each matrix says how many are, and a warp adds to it when a
 * tile's stores are done. All blocks are on the GPU at once, which a cooperative launch sees to,
 * and take tiles in order, so that what a tile waits for is always under way. A few matrices go
 * through the whole chain before the next do, so that the second-level cache keeps some of what is
 * between two products. */
#include "ops/cuda/launch_update.h"
#include "ops/cuda/numbers.cuh"
#include "ops/cuda/wgmma.cuh"

#include <cuda_fp16.h>

namespace
{

enum {
    ROWS = 128,
    COLUMNS = 256,
    BOX = 64,
    DEPTH = 64,
    STAGES = 4,
    GROUP = 128,
    WORKERS = 2 * GROUP,
    THREADS = WORKERS + GROUP,
    BOX_BYTES = BOX * BOX * 2,
    LEFT_BYTES = ROWS / BOX * BOX_BYTES,
    STAGE_BYTES = LEFT_BYTES + COLUMNS / BOX * BOX_BYTES,
    STRIP_BYTES = 16 * BOX * 2, /* a warp's 16 rows of a box */
    SHARED_BYTES = STAGES * STAGE_BYTES + WORKERS / 32 * 2 * STRIP_BYTES + 1024,
    SIGNALS = 2 /* tiles whose stores may be under way */
};

static const double TOGETHER = 2.0;

/* A product of the chain: places of its operands among the maps, and its numbers. */
struct link {
    int left, right, steps;
    bool tall, half, half_c, adds;
    uint16_t *c;
    const float *scales;
    float alpha, beta, gamma; /* the latter two divided by alpha */
};

struct symmetric_args {
    CUtensorMap maps[SYMMETRIC_MATRICES];
    link links[SYMMETRIC_CHAIN];
    uint32_t *written;                /* tiles of each matrix */
    int count, side, matrices, tiles; /* products, and tiles of a matrix */
    int together;                     /* matrices that go through the chain at a time */
};

/* Addresses in shared memory. */
struct places {
    uint32_t stages, full, empty; /* stages, and their barriers */
    uint32_t strips;              /* of a warp, as they are and transposed */
    uint32_t stored, counted;     /* barriers between stores and counters */
};

/* ---- The order of tiles ---------------------------------------------------------------------- */

struct position {
    int product, matrix;
    int row, column; /* first of the tile */
    bool half;       /* nothing of its right half is wanted */
};

/* Tiles of a matrix before those of rows 2 p and 2 p + 1, counted in tiles, of p + 1 each. */
static __host__ __device__ __forceinline__ int tiles_before(int p)
{
    return p * (p + 1);
}

static __device__ __forceinline__ position tile_of(const symmetric_args &args, int index)
{
    const int a_round = args.tiles * args.together * args.count;
    const int round = index / a_round, among = index - round * a_round;
    const int first = round * args.together, left = args.matrices - first;
    const int all = args.tiles * (left < args.together ? left : args.together);
    const int product = among / all, rest = among - product * all;
    const int matrix = rest / args.tiles, place = rest - matrix * args.tiles;
    int p = (int)((sqrtf(4.0f * (float)place + 1.0f) - 1.0f) / 2.0f);
    while (tiles_before(p + 1) <= place) p++;
    while (tiles_before(p) > place) p--;
    const int after = place - tiles_before(p), lower = after > p;
    const int row = (2 * p + lower) * ROWS, column = (after - lower * (p + 1)) * COLUMNS;
    return {.product = product,
            .matrix = first + matrix,
            .row = row,
            .column = column,
            .half = row == column};
}

/* Calls work with every tile of the block. */
template <class Work>
static __device__ __forceinline__ void for_tiles(const symmetric_args &args, const Work &work)
{
    const int all = args.tiles * args.matrices * args.count;
    for (int index = blockIdx.x; index < all; index += gridDim.x) work(tile_of(args, index));
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

/* Steps of products that add begin with the channels of the tile's own columns, where the left
 * operand's slices are what is added. */
static __device__ __forceinline__ int first_step(const link &link, const position &tile)
{
    return link.adds ? tile.column / DEPTH : 0;
}

/* ---- Bringing slices ------------------------------------------------------------------------- */

/* So many boxes of 64 rows, two of them a copy: one thread starts them all, and what it takes for
 * each is time that slices wait. Columns, where tall, come in boxes of 64 alone. */
template <int BOXES>
static __device__ __forceinline__ void bring(uint32_t target, const CUtensorMap *map, bool tall,
                                             int boxes, int first, int channel, int matrix,
                                             uint32_t full)
{
    if (tall) {
#pragma unroll
        for (int box = 0; box < BOXES; box++)
            if (box < boxes)
                tma_load(target + box * BOX_BYTES, map, first + box * BOX, channel, matrix, full);
    } else {
#pragma unroll
        for (int box = 0; box < BOXES; box += 2)
            if (box < boxes)
                tma_load(target + box * BOX_BYTES, map, channel, first + box * BOX, matrix, full);
    }
}

static __device__ __forceinline__ void bring_tile(const symmetric_args &args, const position &tile,
                                                  const places &at, ring<STAGES> &stage)
{
    const link link = args.links[tile.product];
    const uint32_t before = (uint32_t)args.tiles * (uint32_t)tile.product;
    const int first = first_step(link, tile), boxes = COLUMNS / BOX >> (int)tile.half;
    while (load_acquire(&args.written[tile.matrix]) < before) __nanosleep(100);
    proxy_fence_global();
    for (int step = 0; step < link.steps; step++) {
        const uint32_t target = at.stages + stage.place * STAGE_BYTES;
        const uint32_t full = at.full + 8 * stage.place;
        const int from = first + step < link.steps ? first + step : first + step - link.steps;
        mbarrier_wait(at.empty + 8 * stage.place, stage.round ^ 1);
        mbarrier_expect(full, LEFT_BYTES + boxes * BOX_BYTES);
        bring<ROWS / BOX>(target, &args.maps[link.left], link.tall, ROWS / BOX, tile.row,
                          from * DEPTH, tile.matrix, full);
        bring<COLUMNS / BOX>(target + LEFT_BYTES, &args.maps[link.right], link.tall, boxes,
                             tile.column, from * DEPTH, tile.matrix, full);
        stage.advance();
    }
}

/* ---- Multiplying ----------------------------------------------------------------------------- */

/* The sums of a warpgroup's 64 rows, of 128 columns each. */
struct tile_sums {
    float left[64], right[64];
};

/* Where a chunk of 16 bytes lies in a box of rows of 128 bytes. */
static __device__ __forceinline__ uint32_t swizzled(int row, int chunk)
{
    return row * 128 + (chunk ^ row % 8) * 16;
}

/* Sums of 64 columns from a slice of the left operand. */
static __device__ __forceinline__ void sums_from(float *sums, uint32_t slice, float beta)
{
    const int lane = threadIdx.x % 32, row = threadIdx.x % GROUP / 32 * 16 + lane / 4;
#pragma unroll
    for (int k = 0; k < 16; k++) {
        const uint32_t pair = load_shared(slice + swizzled(row + k % 2 * 8, k / 2) + lane % 4 * 4);
        const float2 numbers = __half22float2(*(const __half2 *)&pair);
        sums[2 * k] = beta * numbers.x, sums[2 * k + 1] = beta * numbers.y;
    }
}

/* Zero, or beta times what is added. */
template <bool ADDS>
static __device__ __forceinline__ void start_sums(tile_sums &sums, const link &link,
                                                  const position &tile, const places &at,
                                                  ring<STAGES> stage)
{
    static_assert(COLUMNS / BOX <= STAGES, "slices of all columns are there at once");
    uint32_t slice = 0;
#pragma unroll
    for (int box = 0; box < COLUMNS / BOX; box++) {
        float *of_box = (box < 2 ? sums.left : sums.right) + box % 2 * 32;
        if (!ADDS) {
#pragma unroll
            for (int n = 0; n < 32; n++) of_box[n] = 0;
            continue;
        }
        const bool inside = tile.column / DEPTH + box < link.steps;
        if (inside) {
            mbarrier_wait(at.full + 8 * stage.place, stage.round);
            slice = at.stages + stage.place * STAGE_BYTES + threadIdx.x / GROUP * BOX_BYTES;
            stage.advance();
        }
        sums_from(of_box, slice, inside ? link.beta : 0);
    }
}

/* Products of a slice: four times 16 channels, for this warpgroup's 64 rows. */
template <bool HALF, bool TALL, bool WIDE>
static __device__ __forceinline__ void multiply(tile_sums &sums, uint32_t left, uint32_t right)
{
#pragma unroll
    for (int step = 0; step < DEPTH / 16; step++) {
        const uint32_t along = TALL ? step * 2048 : step * 32, leading = TALL ? BOX_BYTES : 16;
        const uint64_t a = wgmma_matrix(left + along, leading);
        const uint64_t b = wgmma_matrix(right + along, leading);
        if (WIDE)
            wgmma_add_columns<HALF, TALL>(sums.left, sums.right, a, b);
        else
            wgmma_add_columns<HALF, TALL>(sums.left, a, b);
    }
}

/* A stage is free again when the products after it have begun and its own are complete. */
template <bool HALF, bool TALL, bool WIDE, bool ADDS>
static __device__ __forceinline__ void multiply_slices(tile_sums &sums, const link &link,
                                                       const position &tile, const places &at,
                                                       ring<STAGES> &stage)
{
    const bool speaks = threadIdx.x % 32 == 0;
    const int steps = link.steps;
    start_sums<ADDS>(sums, link, tile, at, stage);
    registers_pin(sums.left);
    registers_pin(sums.right);
    uint32_t before = 0;
    for (int step = 0; step < steps; step++) {
        const uint32_t left = at.stages + stage.place * STAGE_BYTES;
        mbarrier_wait(at.full + 8 * stage.place, stage.round);
        wgmma_fence();
        multiply<HALF, TALL, WIDE>(sums, left + threadIdx.x / GROUP * BOX_BYTES, left + LEFT_BYTES);
        wgmma_commit();
        wgmma_wait<1>();
        if (step > 0 && speaks) mbarrier_arrive(before);
        before = at.empty + 8 * stage.place;
        stage.advance();
    }
    wgmma_wait<0>();
    registers_pin(sums.left);
    registers_pin(sums.right);
    if (speaks) mbarrier_arrive(before);
}

template <bool HALF, bool TALL, bool ADDS>
static __device__ __forceinline__ void multiply_tile(tile_sums &sums, const link &link,
                                                     const position &tile, const places &at,
                                                     ring<STAGES> &stage)
{
    if (tile.half)
        multiply_slices<HALF, TALL, false, ADDS>(sums, link, tile, at, stage);
    else
        multiply_slices<HALF, TALL, true, ADDS>(sums, link, tile, at, stage);
}

/* ---- Writing --------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t pair_of(bool half, float low, float high)
{
    return half ? pack_f16(low, high) : pack_bf16(low, high);
}

/* Where a chunk of 16 bytes lies in a transposed strip, of rows of two. */
static __device__ __forceinline__ uint32_t mirrored_place(int row, int chunk)
{
    return row * 32 + (chunk ^ row / 4 % 2) * 16;
}

/* The warp's 16 rows of a box, whose 32 sums these are, into its strips. */
template <bool HALF_C>
static __device__ __forceinline__ void make_strips(float factor, const float *sums, uint32_t strips)
{
    const int lane = threadIdx.x % 32, down = lane / 8 % 2, right = lane / 16;
    const uint32_t straight = strips + swizzled(down * 8 + lane % 8, right);
    const uint32_t mirrored = strips + STRIP_BYTES + mirrored_place(right * 8 + lane % 8, down);
    uint32_t pairs[16];
#pragma unroll
    for (int k = 0; k < 16; k++)
        pairs[k] = pair_of(HALF_C, factor * sums[2 * k], factor * sums[2 * k + 1]);
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
        store_matrices<false>(straight ^ n * 16, pairs + 2 * n);
        store_matrices<true>(mirrored + n * 8 * 32, pairs + 2 * n);
    }
}

/* Adds to the diagonal of a box. */
static __device__ __forceinline__ void add_diagonal(float *sums, float more)
{
    const int lane = threadIdx.x % 32;
    const int ahead = threadIdx.x % GROUP / 32 * 16 + lane / 4 - lane % 4 * 2;
#pragma unroll
    for (int k = 0; k < 16; k++) {
        const int off = ahead + k % 2 * 8 - k / 2 * 8;
        if (off == 0) sums[2 * k] += more;
        if (off == 1) sums[2 * k + 1] += more;
    }
}

/* A strip's part in the matrix: 512 bytes at a time, of rows of the given number of chunks. */
struct strip_part {
    uint4 numbers[4];

    __device__ __forceinline__ void read_straight(uint32_t strip)
    {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < 4; n++)
            numbers[n] = load_shared_wide(strip + swizzled(4 * n + lane / 8, lane % 8));
    }
    __device__ __forceinline__ void read_mirrored(uint32_t strip)
    {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < 4; n++)
            numbers[n] = load_shared_wide(strip + mirrored_place(16 * n + lane / 2, lane % 2));
    }
    /* From c on, as far as rows and columns reach. */
    template <int CHUNKS>
    __device__ __forceinline__ void write(uint16_t *c, int side, int rows, int columns) const
    {
        const int lane = threadIdx.x % 32, down = lane / CHUNKS, chunk = lane % CHUNKS;
        const int reach = chunk * 8 < columns ? rows - down : 0;
        uint16_t *to = c + down * side + chunk * 8;
#pragma unroll
        for (int n = 0; n < 4; n++, to += 32 / CHUNKS * side)
            if (n * (32 / CHUNKS) < reach) *(uint4 *)to = numbers[n];
    }
};

static __device__ __forceinline__ void write_tile(const link &link, int side, const position &tile,
                                                  tile_sums &sums, const places &at,
                                                  ring<SIGNALS> &signal)
{
    const int block_row = tile.row + threadIdx.x / GROUP * BOX;
    const int row = block_row + threadIdx.x % GROUP / 32 * 16;
    uint16_t *c = link.c + (int64_t)tile.matrix * side * side;
    const float scale = link.scales != NULL ? link.scales[2 * tile.matrix] : 1.0f;
    const float factor = scale * link.alpha;
#pragma unroll
    for (int box = 0; box < COLUMNS / BOX; box++) {
        const int column = tile.column + box * BOX;
        float *of_box = (box < 2 ? sums.left : sums.right) + box % 2 * 32;
        if (column > block_row) continue; /* above the diagonal */
        if (column == block_row) add_diagonal(of_box, link.gamma);
        if (link.half_c)
            make_strips<true>(factor, of_box, at.strips);
        else
            make_strips<false>(factor, of_box, at.strips);
        __syncwarp();
        strip_part straight, mirrored;
        straight.read_straight(at.strips);
        mirrored.read_mirrored(at.strips + STRIP_BYTES);
        __syncwarp();
        straight.write<8>(c + (int64_t)row * side + column, side, side - row, side - column);
        if (column < block_row)
            mirrored.write<2>(c + (int64_t)column * side + row, side, side - column, side - row);
    }
    if (threadIdx.x % 32 == 0) {
        mbarrier_wait(at.counted + 8 * signal.place, signal.round ^ 1);
        mbarrier_arrive(at.stored + 8 * signal.place);
    }
    signal.advance();
}

/* When all warps have stored their part of the tile it counts. */
static __device__ __forceinline__ void count_tile(const symmetric_args &args, const position &tile,
                                                  const places &at, ring<SIGNALS> &signal)
{
    mbarrier_wait(at.stored + 8 * signal.place, signal.round);
    __threadfence();
    proxy_fence_global();
    add_release(&args.written[tile.matrix]);
    mbarrier_arrive(at.counted + 8 * signal.place);
    signal.advance();
}

/* ---- The kernel ------------------------------------------------------------------------------ */

static __device__ __forceinline__ void work_on_tile(const symmetric_args &args,
                                                    const position &tile, const places &at,
                                                    ring<STAGES> &stage, ring<SIGNALS> &signal)
{
    const link link = args.links[tile.product];
    tile_sums sums;
    if (link.adds)
        multiply_tile<true, false, true>(sums, link, tile, at, stage);
    else if (link.half)
        multiply_tile<true, false, false>(sums, link, tile, at, stage);
    else if (link.tall)
        multiply_tile<false, true, false>(sums, link, tile, at, stage);
    else
        multiply_tile<false, false, false>(sums, link, tile, at, stage);
    write_tile(link, args.side, tile, sums, at, signal);
}

__global__ void __launch_bounds__(THREADS, 1)
    symmetric_kernel(const __grid_constant__ symmetric_args args)
{
    extern __shared__ unsigned char raw[];
    __shared__ uint64_t barriers[2 * STAGES + 2 * SIGNALS];
    const int warp = threadIdx.x / 32;
    places at = {.stages = (shared_address(raw) + 1023) / 1024 * 1024,
                 .full = shared_address(barriers)};
    at.strips = at.stages + STAGES * STAGE_BYTES + warp * 2 * STRIP_BYTES;
    at.empty = at.full + 8 * STAGES;
    at.stored = at.empty + 8 * STAGES;
    at.counted = at.stored + 8 * SIGNALS;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(at.full + 8 * s, 1);
            mbarrier_init(at.empty + 8 * s, WORKERS / 32);
        }
        for (int s = 0; s < SIGNALS; s++) {
            mbarrier_init(at.stored + 8 * s, WORKERS / 32);
            mbarrier_init(at.counted + 8 * s, 1);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    ring<STAGES> stage = {0, 0};
    ring<SIGNALS> signal = {0, 0};
    if (warp < WORKERS / 32) {
        registers_grow<232>();
        for_tiles(args, [&](const position &tile) { work_on_tile(args, tile, at, stage, signal); });
    } else {
        registers_shrink<40>();
        if (threadIdx.x == WORKERS)
            for_tiles(args, [&](const position &tile) { bring_tile(args, tile, at, stage); });
        else if (threadIdx.x == WORKERS + 32)
            for_tiles(args, [&](const position &tile) { count_tile(args, tile, at, signal); });
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

/* Dense matrices behind each other, in boxes of so many rows of 128 bytes. */
static const char *make_map(encode_function encode, CUtensorMap *map,
                            const struct symmetric_matrix *x, int64_t matrices, int rows)
{
    const cuuint64_t extents[3] = {(cuuint64_t)x->columns, (cuuint64_t)x->rows,
                                   (cuuint64_t)matrices};
    const cuuint64_t strides[2] = {(cuuint64_t)x->columns * 2,
                                   (cuuint64_t)(x->rows * x->columns) * 2};
    const cuuint32_t box[3] = {BOX, (cuuint32_t)rows, 1}, steps[3] = {1, 1, 1};
    CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, x->data, extents, strides, box,
                             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? NULL : "a tensor map cannot be made";
}

static bool is_tall(const struct symmetric_chain *chain, int matrix)
{
    bool tall = false;
    for (int i = 0; i < chain->count; i++) {
        const struct symmetric_product *product = &chain->product[i];
        tall |= product->tall && (product->left == matrix || product->right == matrix);
    }
    return tall;
}

static link link_of(const struct symmetric_chain *chain, const struct symmetric_product *product)
{
    const struct symmetric_matrix *left = &chain->matrix[product->left];
    const int64_t depth = product->tall ? left->rows : left->columns;
    return {.left = product->left,
            .right = product->right,
            .steps = (int)((depth + DEPTH - 1) / DEPTH),
            .tall = product->tall,
            .half = product->half,
            .half_c = product->half_c,
            .adds = product->beta != 0,
            .c = (uint16_t *)chain->matrix[product->c].data,
            .scales = product->scales,
            .alpha = product->alpha,
            .beta = product->beta / product->alpha,
            .gamma = product->gamma / product->alpha};
}

/* As many matrices at a time as have TOGETHER tiles for every block: with fewer, blocks would wait
 * for the product before. */
static const char *launch_blocks(plx_stream stream, symmetric_args *args)
{
    int device, processors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(symmetric_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     SHARED_BYTES);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(args->written, 0, sizeof(uint32_t) * (size_t)args->matrices,
                                (cudaStream_t)stream);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    const int64_t all = (int64_t)args->tiles * args->matrices;
    const int enough = (int)(TOGETHER * processors / args->tiles) + 1;
    const int rounds = args->matrices < enough ? 1 : args->matrices / enough;
    args->together = (args->matrices + rounds - 1) / rounds;
    cudaLaunchAttribute together = {};
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(all < processors ? all : processors));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = SHARED_BYTES;
    config.stream = (cudaStream_t)stream;
    config.attrs = &together;
    config.numAttrs = 1;
    cudaLaunchKernelEx(&config, symmetric_kernel, *args);
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
            failure = make_map(encode, &args.maps[i], &chain->matrix[i], chain->matrices,
                               is_tall(chain, i) ? BOX : 2 * BOX);
    if (failure != NULL) return failure;
    for (int i = 0; i < chain->count; i++) args.links[i] = link_of(chain, &chain->product[i]);
    const int rows = (args.side + ROWS - 1) / ROWS, pairs = rows / 2;
    args.tiles = tiles_before(pairs) + rows % 2 * (pairs + 1);
    return launch_blocks(stream, &args);
}
