/* symmetric_tile.cuh: tiles of symmetric_sm90a.cu: what its workers multiply and its writers write.
 *
 * Tiles of 128 x 256 numbers reach below or onto the diagonal of a matrix that is known to be
 * symmetric. Two warpgroups, the workers, multiply 64 rows each, slice after slice of 64 channels,
 * and leave them in shared memory as boxes of 64 x 64; three warps, the writers, write every box
 * twice from there, once transposed, while the workers are on to the next tile. What lies beyond a
 * matrix arrives as zeros and is not written. */
#ifndef NN_OPS_CUDA_SYMMETRIC_TILE_CUH
#define NN_OPS_CUDA_SYMMETRIC_TILE_CUH

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
    STAGES = 3,
    GROUP = 128,
    GROUPS = 2,
    WORKERS = GROUPS * GROUP,
    WRITERS = 3, /* warps */
    THREADS = WORKERS + GROUP,
    BOX_BYTES = BOX * BOX * 2,
    LEFT_BYTES = ROWS / BOX * BOX_BYTES,
    STAGE_BYTES = LEFT_BYTES + COLUMNS / BOX * BOX_BYTES,
    FINISHED_BYTES = COLUMNS / BOX * BOX_BYTES, /* a warpgroup's 64 rows of a tile */
    SHARED_BYTES = STAGES * STAGE_BYTES + GROUPS * FINISHED_BYTES + 1024,
    POSTED = 8 /* more than the tiles that a block has under way */
};

/* A product of the chain: places of its operands among the maps, and its numbers. */
struct link {
    int left, right, steps;
    bool tall, half, half_c, adds;
    uint16_t *c;
    const float *scales;
    float alpha, beta, gamma; /* the latter two divided by alpha */
};

struct position {
    int product, matrix;
    int row, column; /* first of the tile */
};

/* Addresses in shared memory, and whose of them a warp takes. */
struct places {
    uint32_t stages, full, empty;       /* slices, and their barriers */
    uint32_t finished, staged, drained; /* rows of each warpgroup, and theirs */
    int4 *posted;                       /* products, matrices, rows and columns of tiles */
    int group;                          /* of a worker */
};

/* A ring's place and the parity of its round. */
template <int LENGTH> struct ring {
    int place;
    uint32_t round;

    __device__ __forceinline__ void advance(void)
    {
        if (++place == LENGTH) place = 0, round ^= 1;
    }
};

/* As the thread that brings slices has posted it before the first of them arrived. */
static __device__ __forceinline__ position posted_tile(const places &at, int place)
{
    const int4 posted = at.posted[place];
    return {.product = posted.x, .matrix = posted.y, .row = posted.z, .column = posted.w};
}

/* How many boxes of a tile with this first column reach below or onto the diagonal, in the 64 rows
 * from this one on. */
static __device__ __forceinline__ int boxes_of(int row, int first_column)
{
    const int reach = (row - first_column) / BOX + 1;
    return reach < COLUMNS / BOX ? reach : COLUMNS / BOX;
}

/* ---- Multiplying ----------------------------------------------------------------------------- */

/* The sums of a warpgroup's 64 rows, box by box. */
struct tile_sums {
    float boxes[COLUMNS / BOX][32];
};

/* Where a chunk of 16 bytes lies in a box of rows of 128 bytes. */
static __device__ __forceinline__ uint32_t swizzled(int row, int chunk)
{
    return row * 128 + (chunk ^ row % 8) * 16;
}

/* Adds to the sums of 64 columns from a slice of the left operand. */
static __device__ __forceinline__ void add_slice(float *sums, uint32_t slice, float beta)
{
    const int lane = threadIdx.x % 32, row = threadIdx.x % GROUP / 32 * 16 + lane / 4;
#pragma unroll
    for (int k = 0; k < 16; k++) {
        const uint32_t pair = load_shared(slice + swizzled(row + k % 2 * 8, k / 2) + lane % 4 * 4);
        const float2 numbers = __half22float2(*(const __half2 *)&pair);
        sums[2 * k] += beta * numbers.x, sums[2 * k + 1] += beta * numbers.y;
    }
}

/* Products of a slice: four times 16 channels, for so many boxes of this warpgroup's 64 rows. */
template <bool HALF, bool TALL, int BOXES>
static __device__ __forceinline__ void multiply(tile_sums &sums, uint32_t left, uint32_t right)
{
#pragma unroll
    for (int step = 0; step < DEPTH / 16; step++) {
        const uint32_t along = TALL ? step * 2048 : step * 32, leading = TALL ? BOX_BYTES : 16;
        const uint64_t a = wgmma_matrix(left + along, leading);
        const uint64_t b = wgmma_matrix(right + along, leading);
        wgmma_add_boxes<HALF, TALL, BOXES>(sums.boxes, a, b);
    }
}

/* What wgmma adds to, when none of it is under way. */
template <int BOXES> static __device__ __forceinline__ void pin(tile_sums &sums)
{
#pragma unroll
    for (int box = 0; box < BOXES; box++) registers_pin(sums.boxes[box]);
}

/* The first slices of a product that adds: box n of the columns gets beta times slice n of the left
 * operand, which begins with the tile's own columns. */
template <bool HALF, bool TALL, int BOXES>
static __device__ __forceinline__ uint32_t multiply_and_add(tile_sums &sums, const link &link,
                                                            const position &tile, const places &at,
                                                            ring<STAGES> &stage)
{
    const bool speaks = threadIdx.x % 32 == 0;
    const int inside = link.steps - tile.column / DEPTH;
    uint32_t before = 0;
#pragma unroll
    for (int box = 0; box < COLUMNS / BOX; box++) {
        if (box >= link.steps) break;
        const uint32_t left = at.stages + stage.place * STAGE_BYTES;
        const uint32_t rows = left + at.group * BOX_BYTES;
        mbarrier_wait(at.full + 8 * stage.place, stage.round);
        if (box > 0) {
            wgmma_wait<0>();
            pin<BOXES>(sums);
            if (speaks) mbarrier_arrive(before);
        }
        if (box < BOXES && box < inside) add_slice(sums.boxes[box], rows, link.beta);
        pin<BOXES>(sums);
        wgmma_fence();
        multiply<HALF, TALL, BOXES>(sums, rows, left + LEFT_BYTES);
        wgmma_commit();
        before = at.empty + 8 * stage.place;
        stage.advance();
    }
    return before;
}

/* A stage is free again when the products after it have begun and its own are complete. */
template <bool HALF, bool TALL, int BOXES, bool ADDS>
static __device__ __forceinline__ void multiply_slices(tile_sums &sums, const link &link,
                                                       const position &tile, const places &at,
                                                       ring<STAGES> &stage)
{
    const bool speaks = threadIdx.x % 32 == 0;
    const int first = !ADDS ? 0 : link.steps < COLUMNS / BOX ? link.steps : COLUMNS / BOX;
    uint32_t before = 0;
#pragma unroll
    for (int n = 0; n < BOXES * 32; n++) sums.boxes[n / 32][n % 32] = 0;
    if (ADDS)
        before = multiply_and_add<HALF, TALL, BOXES>(sums, link, tile, at, stage);
    else
        pin<BOXES>(sums);
    for (int step = first; step < link.steps; step++) {
        const uint32_t left = at.stages + stage.place * STAGE_BYTES;
        mbarrier_wait(at.full + 8 * stage.place, stage.round);
        wgmma_fence();
        multiply<HALF, TALL, BOXES>(sums, left + at.group * BOX_BYTES, left + LEFT_BYTES);
        wgmma_commit();
        wgmma_wait<1>();
        if (step > 0 && speaks) mbarrier_arrive(before);
        before = at.empty + 8 * stage.place;
        stage.advance();
    }
    wgmma_wait<0>();
    pin<BOXES>(sums);
    if (speaks) mbarrier_arrive(before);
}

/* Nothing is multiplied for boxes beyond the diagonal. */
template <bool HALF, bool TALL, bool ADDS>
static __device__ __forceinline__ void multiply_boxes(tile_sums &sums, const link &link,
                                                      const position &tile, const places &at,
                                                      ring<STAGES> &stage)
{
    const int boxes = boxes_of(tile.row + at.group * BOX, tile.column);
    if (boxes == 4)
        multiply_slices<HALF, TALL, 4, ADDS>(sums, link, tile, at, stage);
    else if (boxes == 3)
        multiply_slices<HALF, TALL, 3, ADDS>(sums, link, tile, at, stage);
    else if (boxes == 2)
        multiply_slices<HALF, TALL, 2, ADDS>(sums, link, tile, at, stage);
    else
        multiply_slices<HALF, TALL, 1, ADDS>(sums, link, tile, at, stage);
}

static __device__ __forceinline__ void multiply_tile(tile_sums &sums, const link &link,
                                                     const position &tile, const places &at,
                                                     ring<STAGES> &stage)
{
    if (link.adds)
        multiply_boxes<true, false, true>(sums, link, tile, at, stage);
    else if (link.half)
        multiply_boxes<true, false, false>(sums, link, tile, at, stage);
    else if (link.tall)
        multiply_boxes<false, true, false>(sums, link, tile, at, stage);
    else
        multiply_boxes<false, false, false>(sums, link, tile, at, stage);
}

/* ---- Leaving finished rows to the writers ---------------------------------------------------- */

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

/* Where a chunk lies in a finished box. Both eight rows in a row, which workers write together, and
 * rows 2 m and 2 m + 1 of each eight in 32, which writers read together, lie in different banks. */
static __device__ __forceinline__ uint32_t staged_place(int row, int chunk)
{
    return row * 128 + (chunk ^ row % 8 ^ row / 8 % 4 * 2) * 16;
}

/* The warp's 16 rows of a box, whose 32 sums these are. */
template <int FORMAT>
static __device__ __forceinline__ void stage_strip(float factor, const float *sums, uint32_t box)
{
    const int lane = threadIdx.x % 32, down = lane / 8 % 2, right = lane / 16;
    const int row = threadIdx.x % GROUP / 32 * 16 + down * 8 + lane % 8;
    const uint32_t place = box + staged_place(row, right);
    uint32_t pairs[16];
#pragma unroll
    for (int k = 0; k < 16; k++)
        pairs[k] = pair_pack<FORMAT>(factor * sums[2 * k], factor * sums[2 * k + 1]);
#pragma unroll
    for (int n = 0; n < 8; n += 2) store_matrices<false>(place ^ n * 16, pairs + 2 * n);
}

/* The warpgroup's rows of the tile, once the writers have read those of the tile before. */
static __device__ __forceinline__ void stage_tile(const link &link, float scale,
                                                  const position &tile, tile_sums &sums,
                                                  const places &at, ring<1> &turn)
{
    const int group = at.group, row = tile.row + group * BOX;
    const float factor = scale * link.alpha;
    mbarrier_wait(at.drained + 8 * group, turn.round ^ 1);
#pragma unroll
    for (int box = 0; box < COLUMNS / BOX; box++) {
        const int column = tile.column + box * BOX;
        const uint32_t place = at.finished + group * FINISHED_BYTES + box * BOX_BYTES;
        if (column > row) continue; /* above the diagonal */
        if (column == row) add_diagonal(sums.boxes[box], link.gamma);
        if (link.half_c)
            stage_strip<WGMMA_F16>(factor, sums.boxes[box], place);
        else
            stage_strip<WGMMA_BF16>(factor, sums.boxes[box], place);
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(at.staged + 8 * group);
    turn.advance();
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* 16 rows of a box, and 16 of its columns as rows. */
struct strip {
    uint4 rows[4];
    uint32_t columns[4][4];

    /* Of a column a lane gets 8 numbers that follow each other: matrix m of a load is made of rows
     * 2 m and 2 m + 1 of each 8 in 32. */
    __device__ __forceinline__ void read(uint32_t box, int number)
    {
        const int lane = threadIdx.x % 32;
        const int row = lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;
#pragma unroll
        for (int n = 0; n < 4; n++)
            rows[n] =
                load_shared_wide(box + staged_place(16 * number + 4 * n + lane / 8, lane % 8));
#pragma unroll
        for (int n = 0; n < 4; n++)
            load_matrices_transposed(box + staged_place(n % 2 * 32 + row, 2 * number + n / 2),
                                     columns[n]);
    }
    /* The rows, to this row and column of c. */
    __device__ __forceinline__ void write_rows(uint16_t *c, int side, int row, int column) const
    {
        const int lane = threadIdx.x % 32, down = row + lane / 8, right = column + lane % 8 * 8;
        const int reach = right < side ? side - down : 0;
        uint16_t *to = c + (int64_t)down * side + right;
#pragma unroll
        for (int n = 0; n < 4; n++)
            if (4 * n < reach) *(uint4 *)(to + 4 * n * side) = rows[n];
    }
    __device__ __forceinline__ void write_columns(uint16_t *c, int side, int row, int column) const
    {
        const int lane = threadIdx.x % 32, down = row + lane / 4, right = column + lane % 4 * 8;
        uint16_t *to = c + (int64_t)down * side + right;
#pragma unroll
        for (int n = 0; n < 4; n++)
            if (down + n / 2 * 8 < side && right + n % 2 * 32 < side)
                *(uint4 *)(to + n / 2 * 8 * side + n % 2 * 32) =
                    make_uint4(columns[n][0], columns[n][1], columns[n][2], columns[n][3]);
    }
};

/* A writer's strips of a warpgroup's rows. */
static __device__ __forceinline__ void write_rows(uint16_t *c, int side, uint32_t finished,
                                                  int writer, int row, int first_column)
{
    const int strips = BOX / 16 * boxes_of(row, first_column);
#pragma unroll 1
    for (int n = writer; n < strips; n += WRITERS) {
        const int box = n / (BOX / 16), number = n % (BOX / 16), column = first_column + box * BOX;
        strip strip;
        strip.read(finished + box * BOX_BYTES, number);
        strip.write_rows(c, side, row + 16 * number, column);
        if (column < row) strip.write_columns(c, side, column + 16 * number, row);
    }
}

/* Counts the tile in written when its stores are done. */
static __device__ __forceinline__ void write_tile(const link *links, uint32_t *written, int side,
                                                  const places &at, int place, int writer,
                                                  ring<1> &turn)
{
    position tile;
    for (int group = 0; group < GROUPS; group++) {
        mbarrier_wait(at.staged + 8 * group, turn.round);
        tile = posted_tile(at, place);
        uint16_t *c = links[tile.product].c + (int64_t)tile.matrix * side * side;
        write_rows(c, side, at.finished + group * FINISHED_BYTES, writer, tile.row + group * BOX,
                   tile.column);
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(at.drained + 8 * group);
    }
    turn.advance();
    proxy_fence_global();
    __syncwarp();
    if (threadIdx.x % 32 == 0) add_release(&written[tile.matrix]);
}

} // namespace

#endif
