/* symmetric_sm90a.cu: chains of products that are known to be symmetric, for a batch of matrices,
 * on Hopper; see launch_update.h.
 *
 * A block computes tiles of 128 x 256 that reach below or onto the diagonal and writes them twice,
 * once transposed (symmetric_tile.cuh). Boxes of 64 x 64 above the diagonal are left out, which
 * makes 136 of the 256 of a side of 1024. One block lives on each multiprocessor and takes tile
 * after tile, through all products of the chain: one thread has the copy engine bring slices of 64
 * channels into a ring of stages, and posts which tile they are of; two warpgroups multiply, and
 * three warps write what is finished, by ordinary stores that nothing waits for: through the copy
 * engine they would queue behind slices.
 *
 * A product may read what the one before it wrote, so its tiles wait until all tiles of its matrix
 * before it are written: a counter for each matrix says how many are. All blocks are on the GPU at
 * once, which a cooperative launch sees to, and take tiles in order, so that what a tile waits for
 * is always under way. A few matrices go through the whole chain before the next do, so that the
 * second-level cache keeps some of what is between two products. */
#include "ops/cuda/symmetric_tile.cuh"

namespace
{

static const double TOGETHER = 2.0;

struct symmetric_args {
    CUtensorMap maps[SYMMETRIC_MATRICES];
    link links[SYMMETRIC_CHAIN];
    uint32_t *written;                /* times that a writer has written its part of a tile */
    int count, side, matrices, tiles; /* products, and tiles of a matrix */
    int together;                     /* matrices that go through the chain at a time */
};

/* ---- The order of tiles ---------------------------------------------------------------------- */

/* Tiles of a matrix before those of rows 2 p and 2 p + 1, counted in tiles, of p + 1 each. */
static __host__ __device__ __forceinline__ int tiles_before(int p)
{
    return p * (p + 1);
}

/* Each matrix begins with another tile: with one order for all, the same blocks would always get
 * those that have less to do. */
static __device__ __forceinline__ position tile_of(const symmetric_args &args, int index)
{
    const int a_round = args.tiles * args.together * args.count;
    const int round = index / a_round, among = index - round * a_round;
    const int first = round * args.together, left = args.matrices - first;
    const int all = args.tiles * (left < args.together ? left : args.together);
    const int product = among / all, rest = among - product * all;
    const int matrix = rest / args.tiles, place = (rest + matrix) % args.tiles;
    int p = (int)((sqrtf(4.0f * (float)place + 1.0f) - 1.0f) / 2.0f);
    while (tiles_before(p + 1) <= place) p++;
    while (tiles_before(p) > place) p--;
    const int after = place - tiles_before(p), lower = after > p;
    const int row = (2 * p + lower) * ROWS, column = (after - lower * (p + 1)) * COLUMNS;
    return {.product = product, .matrix = first + matrix, .row = row, .column = column};
}

/* Calls work with the index of every tile of the block, and its place among the posted. */
template <class Work>
static __device__ __forceinline__ void for_tiles(const symmetric_args &args, const Work &work)
{
    const int all = args.tiles * args.matrices * args.count;
    int place = 0;
    for (int index = blockIdx.x; index < all; index += gridDim.x) {
        work(index, place);
        place = (place + 1) % POSTED;
    }
}

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
                                                  const places &at, int place, ring<STAGES> &stage)
{
    const link link = args.links[tile.product];
    const uint32_t before = (uint32_t)(WRITERS * args.tiles * tile.product);
    const int first = first_step(link, tile);
    const int boxes = boxes_of(tile.row + ROWS - BOX, tile.column);
    while (load_acquire(&args.written[tile.matrix]) < before) __nanosleep(100);
    proxy_fence_global();
    for (int step = 0; step < link.steps; step++) {
        const uint32_t target = at.stages + stage.place * STAGE_BYTES;
        const uint32_t full = at.full + 8 * stage.place;
        const int from = first + step < link.steps ? first + step : first + step - link.steps;
        mbarrier_wait(at.empty + 8 * stage.place, stage.round ^ 1);
        if (step == 0)
            at.posted[place] = make_int4(tile.product, tile.matrix, tile.row, tile.column);
        mbarrier_expect(full, LEFT_BYTES + boxes * BOX_BYTES);
        bring<ROWS / BOX>(target, &args.maps[link.left], link.tall, ROWS / BOX, tile.row,
                          from * DEPTH, tile.matrix, full);
        bring<COLUMNS / BOX>(target + LEFT_BYTES, &args.maps[link.right], link.tall, boxes,
                             tile.column, from * DEPTH, tile.matrix, full);
        stage.advance();
    }
}

/* ---- The kernel ------------------------------------------------------------------------------ */

/* The group is fetched from a lane, so that the compiler knows that a warp agrees on it: what
 * products are told by it then stays in uniform registers. */
static __device__ __forceinline__ places make_places(unsigned char *raw, uint64_t *barriers,
                                                     int4 *posted)
{
    places at = {.stages = (shared_address(raw) + 1023) / 1024 * 1024,
                 .full = shared_address(barriers)};
    at.finished = at.stages + STAGES * STAGE_BYTES;
    at.empty = at.full + 8 * STAGES;
    at.staged = at.empty + 8 * STAGES;
    at.drained = at.staged + 8 * GROUPS;
    at.posted = posted;
    at.group = __shfl_sync(0xffffffffu, (int)threadIdx.x / GROUP, 0);
    if (threadIdx.x > 0) return at;
    for (int s = 0; s < STAGES; s++) {
        mbarrier_init(at.full + 8 * s, 1);
        mbarrier_init(at.empty + 8 * s, WORKERS / 32);
    }
    for (int group = 0; group < GROUPS; group++) {
        mbarrier_init(at.staged + 8 * group, GROUP / 32);
        mbarrier_init(at.drained + 8 * group, WRITERS);
    }
    mbarrier_init_fence();
    return at;
}

static __device__ __forceinline__ void work_on_tile(const symmetric_args &args, const places &at,
                                                    int place, ring<STAGES> &stage, ring<1> &turn)
{
    mbarrier_wait(at.full + 8 * stage.place, stage.round);
    const position tile = posted_tile(at, place);
    const link link = args.links[tile.product];
    const float scale = link.scales != NULL ? link.scales[2 * tile.matrix] : 1.0f;
    tile_sums sums;
    multiply_tile(sums, link, tile, at, stage);
    stage_tile(link, scale, tile, sums, at, turn);
}

__global__ void __launch_bounds__(THREADS, 1)
    symmetric_kernel(const __grid_constant__ symmetric_args args)
{
    extern __shared__ unsigned char raw[];
    __shared__ uint64_t barriers[2 * STAGES + 2 * GROUPS];
    __shared__ int4 posted[POSTED];
    const int writer = (int)threadIdx.x / 32 - WORKERS / 32 - 1;
    const places at = make_places(raw, barriers, posted);
    __syncthreads();
    ring<STAGES> stage = {0, 0};
    ring<1> turn = {0, 0};
    if (threadIdx.x < WORKERS) {
        registers_grow<216>();
        for_tiles(args, [&](int, int place) { work_on_tile(args, at, place, stage, turn); });
        return;
    }
    registers_shrink<72>();
    if (writer >= 0)
        for_tiles(args, [&](int, int place) {
            write_tile(args.links, args.written, args.side, at, place, writer, turn);
        });
    else if (threadIdx.x == WORKERS)
        for_tiles(args, [&](int index, int place) {
            bring_tile(args, tile_of(args, index), at, place, stage);
        });
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
