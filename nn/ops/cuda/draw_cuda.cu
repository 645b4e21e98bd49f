/* draw_cuda.cu: choosing a token for rows of logits; see launch.h, and draw_cpu.c for how.
 *
 * A row belongs to a team: a cluster of blocks where there are clusters, otherwise one block. It
 * lies in the second-level cache, from where every pass reads it again; each warp reads neighbours.
 * Bins are shared memory's of each block, and the first block of the team, the leader, adds up
 * those of the others and says where the search goes on. Where what filters keep can only be among
 * a few tokens, as usual, these go to the leader, which searches them alone. Only whole numbers are
 * added, so who comes first does not show. */
#include "ops/cuda/draw_team.cuh"

namespace
{

/* ---- In the order of ids ---- */

/* Within the warp's segment: gives the id at which the measure, summed, exceeds the target. */
template <int W, class Measure>
static __device__ __forceinline__ void take_in_segment(const struct row &row, uint64_t target,
                                                       const Measure &measure, int32_t *id)
{
    for (int begin = row.first; begin < row.first + row.segment; begin += 32 * W) {
        uint64_t own[W], sum = 0;
        const int v = begin + threadIdx.x % 32 * W;
#pragma unroll
        for (int w = 0; w < W; w++) sum += own[w] = v + w < row.V ? measure(row.x[v + w]) : 0;
        uint64_t before = warp_before(sum);
        const uint64_t all = __shfl_sync(0xffffffffu, before + sum, 31);
        if (target >= all) {
            target -= all;
            continue;
        }
#pragma unroll
        for (int w = 0; w < W; before += own[w++])
            if (before <= target && target < before + own[w]) *id = v + w;
        return;
    }
}

/* The same within the row: share(all) is the target. */
template <int BLOCKS, int W, class Measure, class Share>
static __device__ __forceinline__ void take_in_order(struct board<BLOCKS> &board, struct row &row,
                                                     const Measure &measure, const Share &share,
                                                     int32_t *id)
{
    enum { A_LANE = (BLOCKS * WARPS + 31) / 32 };
    uint64_t sum = 0, own[A_LANE], mine = 0;
    for_logits<W>(row, [&](int, float logit, bool there) { sum += there ? measure(logit) : 0; });
    const uint64_t *values = team_gather<BLOCKS>(board, row, warp_sum(sum));
#pragma unroll
    for (int i = 0; i < A_LANE; i++) {
        const int w = threadIdx.x % 32 * A_LANE + i;
        mine += own[i] = w < BLOCKS * WARPS ? values[w] : 0;
    }
    uint64_t before = warp_before(mine);
    const uint64_t target = share(__shfl_sync(0xffffffffu, before + mine, 31));
    uint64_t left = 0;
    bool here = false;
#pragma unroll
    for (int i = 0; i < A_LANE; before += own[i++])
        if (threadIdx.x % 32 * A_LANE + i == row.warp && before <= target &&
            target < before + own[i]) {
            here = true;
            left = target - before;
        }
    const uint32_t lanes = __ballot_sync(0xffffffffu, here);
    if (lanes == 0) return;
    take_in_segment<W>(row, __shfl_sync(0xffffffffu, left, __ffs(lanes) - 1), measure, id);
}

/* ---- In falling order ---- */

static __device__ __forceinline__ void bins_add(struct bins *bins, uint32_t bin, uint64_t mass,
                                                uint32_t count)
{
    const uint32_t low = (uint32_t)mass, was = atomicAdd(&bins->low[bin], low);
    const uint32_t more = (uint32_t)(mass >> 32) + (was + low < was);
    if (more > 0) atomicAdd(&bins->high[bin], more);
    if (count > 0) atomicAdd(&bins->count[bin], count);
}

static __device__ __forceinline__ uint64_t bin_mass(const struct bins *bins, int b)
{
    return (uint64_t)bins->high[b] << 32 | bins->low[b];
}

/* What is counted: digits of a level of tokens whose key begins with prefix. */
struct filling {
    int level;
    uint32_t prefix;
    bool counting; /* tokens, and not only their mass */
};

static __device__ __forceinline__ void fill_bin(const struct row &row,
                                                const struct filling &filling, float logit)
{
    bins_add(bins_of(filling.level), draw_digit(draw_key(logit), filling.level),
             draw_weight(logit, row.largest, row.rate), filling.counting);
}

/* Those that begin with the prefix are few: they gather until there is one for every lane. */
template <int W>
static __device__ __forceinline__ void fill_deep(const struct row &row,
                                                 const struct filling &filling, float *list)
{
    const int lane = threadIdx.x % 32, shift = draw_shift(filling.level - 1);
    int count = 0;
    for_logits<W>(row, [&](int, float logit, bool there) {
        const bool wanted = there && draw_key(logit) >> shift == filling.prefix;
        const uint32_t lanes = __ballot_sync(0xffffffffu, wanted);
        if (lanes == 0) return;
        if (wanted) list[count + __popc(lanes & ((1u << lane) - 1))] = logit;
        count += __popc(lanes);
        __syncwarp();
        if (count < 32) return;
        count -= 32;
        fill_bin(row, filling, list[count + lane]);
        __syncwarp();
    });
    if (lane < count) fill_bin(row, filling, list[lane]);
}

/* The team's in the leader's bins. */
template <int BLOCKS, int W>
static __device__ __forceinline__ void fill_bins(struct board<BLOCKS> &board, const struct row &row,
                                                 const struct filling &filling)
{
    struct bins *bins = bins_of(filling.level);
    for (int b = threadIdx.x; b < DRAW_BINS; b += THREADS)
        bins->low[b] = bins->high[b] = bins->count[b] = 0;
    team_sync<BLOCKS>();
    if (filling.level > 0)
        fill_deep<W>(row, filling, board.list[threadIdx.x / 32]);
    else
        for_logits<W>(row, [&](int, float logit, bool there) {
            if (there) fill_bin(row, filling, logit);
        });
    __syncthreads();
    if (team_rank<BLOCKS>() > 0)
        for (int b = threadIdx.x; b < DRAW_BINS; b += THREADS)
            if (bin_mass(bins, b) > 0 || bins->count[b] > 0)
                bins_add(team_at<BLOCKS>(bins, 0), b, bin_mass(bins, b), bins->count[b]);
    team_sync<BLOCKS>();
}

/* The highest bin of a block's at which the measure, summed from the highest on, exceeds the
 * target. */
template <int BLOCKS>
static __device__ __forceinline__ void
find_bin(struct board<BLOCKS> &board, const struct bins *bins, int measure, struct place &place)
{
    uint64_t mass[A_THREAD], own[A_THREAD], sum = 0, all, higher = 0;
    const int highest = DRAW_BINS - 1 - (int)threadIdx.x * A_THREAD;
#pragma unroll
    for (int i = 0; i < A_THREAD; i++) {
        mass[i] = bin_mass(bins, highest - i);
        sum += own[i] = measure == COUNT ? bins->count[highest - i] : mass[i];
    }
    uint64_t before = block_before(board, sum, &all);
#pragma unroll
    for (int i = 0; i < A_THREAD; before += own[i++])
        if (before <= place.target && place.target < before + own[i]) {
            board.digit = (uint32_t)(highest - i);
            board.target = place.target - before;
        }
    __syncthreads();
    const uint32_t found = board.digit;
#pragma unroll
    for (int i = 0; i < A_THREAD; i++)
        if ((uint32_t)(highest - i) > found) higher += mass[i];
    block_before(board, higher, &all);
    place = {found, board.target, place.before + all};
}

/* The same for the team, by its leader. */
template <int BLOCKS>
static __device__ __forceinline__ void team_find_bin(struct board<BLOCKS> &board, struct row &row,
                                                     int level, int measure, struct place &place)
{
    struct place *word = &board.place[row.turn];
    row.turn = 1 - row.turn;
    if (team_rank<BLOCKS>() == 0) {
        find_bin(board, bins_of(level), measure, place);
        if (threadIdx.x < BLOCKS) *team_at<BLOCKS>(word, threadIdx.x) = place;
    }
    team_sync<BLOCKS>();
    place = *word;
}

/* A token in falling order: its logit's key, which of the equal ones it is, and the mass of it and
 * those before it. */
struct found {
    uint32_t key;
    uint64_t rank, mass;
};

static __device__ __forceinline__ float logit_of(uint32_t key)
{
    return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}

/* The first token at which the measure, summed in falling order, exceeds the target. */
template <int BLOCKS, int W>
static __device__ __noinline__ struct found find_token(struct board<BLOCKS> &board, struct row &row,
                                                       int measure, uint64_t target)
{
    struct place place = {0, target, 0};
    team_find_bin(board, row, 0, measure, place);
    uint32_t key = place.digit;
    for (int level = 1; level < DRAW_LEVELS; level++) {
        fill_bins<BLOCKS, W>(board, row, {level, key, measure == COUNT});
        team_find_bin(board, row, level, measure, place);
        key = key << (draw_shift(level - 1) - draw_shift(level)) | place.digit;
    }
    const uint64_t weight = draw_weight(logit_of(key), row.largest, row.rate);
    const uint64_t rank = measure == COUNT ? place.target : place.target / weight;
    return {key, rank, place.before + (rank + 1) * weight};
}

/* What all filters keep weighs so much together, of a row that weighs total. */
template <int BLOCKS, int W>
static __device__ __forceinline__ uint64_t kept_mass(struct board<BLOCKS> &board, struct row &row,
                                                     const struct draw_numbers &numbers,
                                                     uint64_t total)
{
    uint64_t mass = total, above = 0;
    if (numbers.top_k > 0)
        mass = find_token<BLOCKS, W>(board, row, COUNT, (uint64_t)numbers.top_k - 1).mass;
    if (numbers.top_p < 1)
        mass = find_token<BLOCKS, W>(board, row, MASS, draw_share(numbers.top_p, mass)).mass;
    if (numbers.floor == -INFINITY) return mass;
    for_logits<W>(row, [&](int, float logit, bool there) {
        if (there && (double)logit - (double)row.largest >= numbers.floor)
            above += draw_weight(logit, row.largest, row.rate);
    });
    above = team_sum<BLOCKS>(board, row, above);
    return above < mass ? above : mass;
}

/* Draws from what is kept of a row whose first digits have been counted. */
template <int BLOCKS, int W>
static __device__ __forceinline__ void take_kept(struct board<BLOCKS> &board, struct row &row,
                                                 const struct draw_numbers &numbers, uint64_t total,
                                                 int32_t *id)
{
    const uint64_t mass = kept_mass<BLOCKS, W>(board, row, numbers, total);
    const struct found found =
        find_token<BLOCKS, W>(board, row, MASS, draw_target(numbers.uniform, mass));
    take_in_order<BLOCKS, W>(
        board, row, [&](float logit) { return (uint64_t)(draw_key(logit) == found.key); },
        [&](uint64_t) { return found.rank; }, id);
}

/* Puts tokens whose first digit is at least the given one into the leader's list and returns how
 * many there are; nothing is there if they are more than it holds. */
template <int BLOCKS, int W>
static __device__ __forceinline__ int fill_list(struct board<BLOCKS> &board, struct row &row,
                                                uint32_t lowest)
{
    const int lane = threadIdx.x % 32;
    uint64_t count = 0, all = 0, before = 0;
    for_logits<W>(row, [&](int, float logit, bool there) {
        count += there && draw_digit(draw_key(logit), 0) >= lowest;
    });
    const uint64_t *values = team_gather<BLOCKS>(board, row, warp_sum(count));
    for (int w = lane; w < BLOCKS * WARPS; w += 32) {
        all += values[w];
        before += w < row.warp ? values[w] : 0;
    }
    all = warp_sum(all);
    if (all > LIST) return (int)all;
    struct list *list = team_at<BLOCKS>(&block_room()->list, 0);
    int at = (int)warp_sum(before);
    for_groups_of<W>(row, [&](int v, const float(&logits)[W], int there) {
        uint64_t mine = 0;
#pragma unroll
        for (int w = 0; w < W; w++)
            mine += w < there && draw_digit(draw_key(logits[w]), 0) >= lowest;
        if (!__any_sync(0xffffffffu, mine > 0)) return;
        int place = at + (int)warp_before(mine);
        at += (int)warp_sum(mine);
#pragma unroll
        for (int w = 0; w < W; w++)
            if (w < there && draw_digit(draw_key(logits[w]), 0) >= lowest) {
                list->logits[place] = logits[w];
                list->ids[place++] = v + w;
            }
    });
    team_sync<BLOCKS>();
    return (int)all;
}

/* Where its team is itself. */
static __device__ __forceinline__ struct board<1> &leaders_board(void) {
    __shared__ struct board<1> alone;
    return alone;
}

/* The lowest first digit of what top-k or, without it, top-p keeps. */
template <int BLOCKS>
static __device__ __forceinline__ uint32_t lowest_digit(struct board<BLOCKS> &board,
                                                        struct row &row,
                                                        const struct draw_numbers &numbers,
                                                        uint64_t total)
{
    const bool counts = numbers.top_k > 0;
    struct place place = {0, 0, 0};
    place.target = counts ? (uint64_t)numbers.top_k - 1 : draw_share(numbers.top_p, total);
    team_find_bin(board, row, 0, counts ? COUNT : MASS, place);
    return place.digit;
}

template <int BLOCKS, int W>
static __device__ __forceinline__ void draw_filtered(struct board<BLOCKS> &board, struct row &row,
                                                     struct draw_numbers numbers, int32_t *id)
{
    __shared__ int32_t found;
    uint64_t total = 0;
    if (numbers.top_k >= (double)row.V) numbers.top_k = 0;
    fill_bins<BLOCKS, W>(board, row, {0, 0, numbers.top_k > 0});
    if (team_rank<BLOCKS>() == 0)
        for (int b = threadIdx.x; b < DRAW_BINS; b += THREADS) total += bin_mass(bins_of(0), b);
    total = team_sum<BLOCKS>(board, row, total);
    const uint32_t lowest = lowest_digit<BLOCKS>(board, row, numbers, total);
    const int few = fill_list<BLOCKS, W>(board, row, lowest);
    if (few > LIST) {
        take_kept<BLOCKS, W>(board, row, numbers, total, id);
        return;
    }
    if (team_rank<BLOCKS>() > 0) return;
    share_row<1, 1>(row, block_room()->list.logits, few);
    take_kept<1, 1>(leaders_board(), row, numbers, total, &found);
    __syncthreads();
    if (threadIdx.x == 0) *id = block_room()->list.ids[found];
}

/* ---- Kernels ---- */

template <int BLOCKS, int W>
__global__ void __launch_bounds__(THREADS, 2)
    draw_kernel(int32_t *ids, const float *x, int64_t stride, int V,
                const struct draw_numbers *told)
{
    __shared__ struct board<BLOCKS> board;
    const int64_t n = blockIdx.x / BLOCKS;
    const struct draw_numbers numbers = told[n];
    struct row row;
    share_row<BLOCKS, W>(row, x + n * stride, V);
    team_sync<BLOCKS>(); /* nobody writes to a block that has not begun */
    const uint64_t largest = team_largest<BLOCKS, W>(board, row);
    const int32_t id = (int32_t) ~(uint32_t)largest;
    const bool odd = largest >> 32 == 0xffffffffu;
    if (odd || numbers.temperature == 0) {
        if (row.warp == 0 && threadIdx.x == 0) ids[n] = odd ? -1 - id : id;
        return;
    }
    row.largest = logit_of((uint32_t)(largest >> 32));
    row.rate = draw_rate(numbers.temperature);
    if (draw_is_filtered(&numbers))
        draw_filtered<BLOCKS, W>(board, row, numbers, &ids[n]);
    else
        take_in_order<BLOCKS, W>(
            board, row, [&](float logit) { return draw_weight(logit, row.largest, row.rate); },
            [&](uint64_t mass) { return draw_target(numbers.uniform, mass); }, &ids[n]);
}

__global__ void penalise_kernel(float *x, int64_t stride, int64_t V, const int32_t *seen, int64_t L,
                                const int32_t *counts, double penalty)
{
    const int64_t n = blockIdx.y, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= L || i >= counts[n]) return;
    const int32_t id = seen[n * L + i];
    if (id < 0 || id >= V) return;
    const double logit = x[n * stride + id];
    x[n * stride + id] = (float)(logit > 0 ? logit / penalty : logit * penalty);
}

template <int BLOCKS, int W>
static cudaError_t draw(cudaStream_t stream, const struct draw_call *call)
{
    const auto kernel = draw_kernel<BLOCKS, W>;
    const size_t room = sizeof(struct room);
    cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room);
    if (error != cudaSuccess) return error;
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = BLOCKS;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(call->N * BLOCKS));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = room;
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = BLOCKS > 1 ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, call->ids, call->x, call->stride, (int)call->V,
                              (const struct draw_numbers *)call->numbers);
}

template <int W> static cudaError_t draw_by_teams(cudaStream_t stream, const struct draw_call *call)
{
    return is_hopper() ? draw<CLUSTER, W>(stream, call) : draw<1, W>(stream, call);
}

} // namespace

const char *launch_draw(plx_stream stream, const struct draw_call *call)
{
    if (call->N == 0) return NULL;
    const cudaError_t error = is_wide(call->stride, call->x)
                                  ? draw_by_teams<8>((cudaStream_t)stream, call)
                                  : draw_by_teams<1>((cudaStream_t)stream, call);
    return error == cudaSuccess ? NULL : cudaGetErrorString(error);
}

const char *launch_penalise(plx_stream stream, const struct penalise_call *call)
{
    if (call->N == 0 || call->L == 0) return NULL;
    const dim3 blocks((unsigned)blocks_for(call->L, THREADS), (unsigned)call->N);
    penalise_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>(
        call->x, call->stride, call->V, call->seen, call->L, call->counts, call->penalty);
    return launched();
}
