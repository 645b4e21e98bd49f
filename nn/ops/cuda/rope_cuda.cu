/* rope_cuda.cu: rotary positions, alone and together with the norm of heads; see launch.h.
 *
 * An angle is a position times a frequency, up to many thousands, so it is reduced in double; its
 * sine and cosine are then those of a float below one half turn. A block takes a few tokens: first
 * it computes the turns of each once, then all heads use them. */
#include "ops/cuda/chain.cuh"
#include "ops/cuda/norm.cuh"

namespace
{

enum { TOKENS = 16 /* that a block takes at a time, at most */ };

/* ---- Turns in shared memory ------------------------------------------------------------------ */

/* Sine and cosine of half_turns * position * pi. */
static __device__ __forceinline__ void turn_of(double half_turns, int position, bool inverse,
                                               float *sine, float *cosine)
{
    const double turns = half_turns * position, rest = turns - 2 * rint(turns / 2);
    sincospif((float)(inverse ? -rest : rest), sine, cosine);
}

/* Where the number of a pair stands. Groups of eight are split in halves that lie apart, so that
 * neighbouring threads read neighbouring 16 bytes. */
template <int W> static __device__ __forceinline__ int slot_of(int pair, int pairs)
{
    if (W == 1) return pair;
    return pair % 8 / 4 * (pairs / 2) + pair / 8 * 4 + pair % 4;
}

template <int W>
static __device__ __forceinline__ void read_slots(float (&v)[W], const float *slots, int pair,
                                                  int pairs)
{
    if constexpr (W == 1) {
        v[0] = slots[pair];
    } else {
        const float4 low = *(const float4 *)(slots + pair / 2),
                     high = *(const float4 *)(slots + pairs / 2 + pair / 2);
        v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
        v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    }
}

/* Cosines and sines [count][2][pairs] of the tokens from first on. */
template <int W>
static __device__ __forceinline__ void compute_turns(float *turned, const struct rope_turns &turns,
                                                     const int32_t *positions, int64_t first,
                                                     int count, int pairs, bool inverse)
{
    for (int i = threadIdx.x; i < count * pairs; i += THREADS) {
        const int token = i / pairs, pair = i - token * pairs;
        float *cosines = turned + token * 2 * pairs, sine, cosine;
        turn_of(turns.of[pair], positions[first + token], inverse, &sine, &cosine);
        cosines[slot_of<W>(pair, pairs)] = cosine;
        cosines[pairs + slot_of<W>(pair, pairs)] = sine;
    }
}

/* Turns W pairs (low, high) of a token. */
template <int W>
static __device__ __forceinline__ void turn_pairs(float (&low)[W], float (&high)[W],
                                                  const float *cosines, int pair, int pairs)
{
    float c[W], s[W];
    read_slots<W>(c, cosines, pair, pairs);
    read_slots<W>(s, cosines + pairs, pair, pairs);
#pragma unroll
    for (int w = 0; w < W; w++) {
        const float a = low[w], b = high[w];
        low[w] = a * c[w] - b * s[w];
        high[w] = b * c[w] + a * s[w];
    }
}

/* ---- Rope ------------------------------------------------------------------------------------ */

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    rope_kernel(T *y, const T *x, const int32_t *positions,
                const __grid_constant__ struct rope_turns turns, bool inverse,
                struct rope_shape shape, int tokens)
{
    extern __shared__ __align__(16) float turned[];
    const int H = shape.H, D = shape.D, pairs = D / 2, groups = pairs / W;
    const int64_t first = (int64_t)blockIdx.x * tokens;
    const int count = (int)(shape.N - first < tokens ? shape.N - first : tokens);
    compute_turns<W>(turned, turns, positions, first, count, pairs, inverse);
    __syncthreads();
    for (int i = threadIdx.x; i < count * H * groups; i += THREADS) {
        const int head = i / groups, pair = (i - head * groups) * W;
        const int64_t at = (first * H + head) * D + pair;
        float low[W], high[W];
        read_numbers(low, x + at);
        read_numbers(high, x + at + pairs);
        turn_pairs(low, high, turned + head / H * 2 * pairs, pair, pairs);
        write_numbers(y + at, low);
        write_numbers(y + at + pairs, high);
    }
}

/* ---- Norm of heads and rope ------------------------------------------------------------------ */

/* A head in the registers of TEAM threads: channels 8 lane .. 8 lane + 7 of either half, so that a
 * thread holds both numbers of each of its pairs. */
template <class T> struct half_heads {
    group<T, 8> half[2];

    __device__ __forceinline__ void load(const T *head, int pair, int pairs)
    {
        half[0].load(head + pair);
        half[1].load(head + pairs + pair);
    }
    __device__ __forceinline__ void get(float (&v)[2][8]) const
    {
        half[0].get(v[0]);
        half[1].get(v[1]);
    }
};

static __device__ __forceinline__ void read_gain(float (&weight)[2][8], const float *gain, int pair,
                                                 int pairs)
{
    read_numbers(weight[0], gain + pair);
    read_numbers(weight[1], gain + pairs + pair);
}

/* `each` blocks for each kind of heads. Each head is loaded while the one before it is worked on.
 */
template <class T, int TEAM>
__global__ void __launch_bounds__(THREADS)
    norm_rope_kernel(const __grid_constant__ struct heads_list list, const int32_t *positions,
                     const __grid_constant__ struct rope_turns turns, unsigned each, int tokens)
{
    enum { D = TEAM * 16, PAIRS = D / 2, TEAMS = THREADS / TEAM };
    __shared__ __align__(16) float turned[TOKENS * 2 * PAIRS];
    const struct heads_item &item = list.of[blockIdx.x / each];
    const T *x = (const T *)item.x;
    T *y = (T *)item.y;
    const int lane = threadIdx.x % TEAM, team = threadIdx.x / TEAM, pair = lane * 8, H = item.H;
    const int64_t first = (int64_t)(blockIdx.x % each) * tokens;
    const int count = (int)(list.N - first < tokens ? list.N - first : tokens);
    const int heads = count * H;
    const bool many = heads > TEAMS; /* few heads are loaded when the turns are known */
    half_heads<T> next;
    dependency_release();
    if (many) dependency_wait();
    if (many) next.load(x + (first * H + team) * D, pair, PAIRS);
    compute_turns<8>(turned, turns, positions, first, count, PAIRS, false);
    __syncthreads();
    if (!many) dependency_wait();
    if (!many && team < heads) next.load(x + (first * H + team) * D, pair, PAIRS);
    for (int start = 0; start < heads; start += TEAMS) {
        const int head = start + team;
        const int64_t row = first * H + head;
        float v[2][8] = {}, weight[2][8], squares = 0;
        if (head < heads) next.get(v);
        if (head + TEAMS < heads) next.load(x + (row + TEAMS) * D, pair, PAIRS);
#pragma unroll
        for (int i = 0; i < 8; i++) squares += v[0][i] * v[0][i] + v[1][i] * v[1][i];
        const float factor = 1 / sqrtf(team_sum<TEAM>(squares) / D + list.eps);
        if (head >= heads) continue;
        if (lane == 0) item.rstd[row] = factor;
        read_gain(weight, item.gain, pair, PAIRS);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[0][i] *= factor * weight[0][i];
            v[1][i] *= factor * weight[1][i];
        }
        turn_pairs(v[0], v[1], turned + head / H * 2 * PAIRS, pair, PAIRS);
        write_numbers(y + row * D + pair, v[0]);
        write_numbers(y + row * D + PAIRS + pair, v[1]);
    }
}

/* The gradient turned back, then as rmsnorm_backward_kernel. */
template <class T, int TEAM>
__global__ void __launch_bounds__(THREADS, 2)
    norm_rope_backward_kernel(T *dx, float *partials, const T *dy, const T *x, const float *gain,
                              const float *rstd, const int32_t *positions,
                              const __grid_constant__ struct rope_turns turns,
                              struct rope_shape shape, int tokens)
{
    typedef typename row_sum<T>::type sum_type;
    typedef layout<TEAM, 2> L;
    enum { D = TEAM * 16, PAIRS = D / 2 };
    __shared__ __align__(16) float turned[TOKENS * 2 * PAIRS];
    const int lane = threadIdx.x % TEAM, team = threadIdx.x / TEAM, pair = lane * 8;
    float dgain[2][8] = {}, weight[2][8];
    read_gain(weight, gain, pair, PAIRS);
    for (int64_t first = (int64_t)blockIdx.x * tokens; first < shape.N;
         first += (int64_t)gridDim.x * tokens) {
        const int count = (int)(shape.N - first < tokens ? shape.N - first : tokens);
        const int heads = count * shape.H;
        half_heads<T> next_d, next_v;
        float next_factor = 0;
        auto load_next = [&](int head) {
            const int64_t row = first * shape.H + head;
            if (head >= heads) return;
            next_d.load(dy + row * D, pair, PAIRS);
            next_v.load(x + row * D, pair, PAIRS);
            next_factor = rstd[row];
        };
        load_next(team);
        __syncthreads();
        compute_turns<8>(turned, turns, positions, first, count, PAIRS, true);
        __syncthreads();
        for (int start = 0; start < heads; start += L::teams) {
            const int head = start + team;
            const bool live = head < heads;
            const int64_t row = first * shape.H + head;
            const float factor = next_factor;
            float d[2][8] = {}, v[2][8] = {};
            if (live) {
                next_d.get(d);
                next_v.get(v);
                turn_pairs(d[0], d[1], turned + head / shape.H * 2 * PAIRS, pair, PAIRS);
            }
            load_next(head + L::teams);
            sum_type dot = 0;
#pragma unroll
            for (int c = 0; c < 2; c++)
#pragma unroll
                for (int i = 0; i < 8; i++)
                    dot += (sum_type)(d[c][i] * weight[c][i]) * (sum_type)v[c][i];
            const float mean = (float)(team_sum<TEAM>(dot) * (sum_type)factor / (sum_type)D);
            if (!live) continue;
#pragma unroll
            for (int c = 0; c < 2; c++) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const float normal = v[c][i] * factor;
                    dgain[c][i] += d[c][i] * normal;
                    v[c][i] = factor * (d[c][i] * weight[c][i] - normal * mean);
                }
                write_numbers(dx + row * D + c * PAIRS + pair, v[c]);
            }
        }
    }
    store_partial<L>(partials + (int64_t)blockIdx.x * D, dgain, D);
}

/* ---- The same for heads of any length on any address: a block a head, read twice ------------- */

template <class T>
__global__ void __launch_bounds__(THREADS)
    norm_rope_any_kernel(T *y, float *rstd, const T *x, const float *gain, float eps,
                         const int32_t *positions, const __grid_constant__ struct rope_turns turns,
                         struct rope_shape shape)
{
    const int D = shape.D, pairs = D / 2;
    const int64_t row = blockIdx.x;
    const int position = positions[row_of(row, shape.H)];
    float squares = 0;
    for (int e = threadIdx.x; e < D; e += THREADS) {
        const float v = number(x[row * D + e]);
        squares += v * v;
    }
    const float factor = 1 / sqrtf(team_sum<THREADS>(squares) / D + eps);
    if (threadIdx.x == 0) rstd[row] = factor;
    for (int pair = threadIdx.x; pair < pairs; pair += THREADS) {
        const float low = number(x[row * D + pair]) * factor * gain[pair],
                    high = number(x[row * D + pairs + pair]) * factor * gain[pairs + pair];
        float s, c;
        turn_of(turns.of[pair], position, false, &s, &c);
        y[row * D + pair] = rounded<T>(low * c - high * s);
        y[row * D + pairs + pair] = rounded<T>(high * c + low * s);
    }
}

/* The gradient of a pair before it was turned. */
template <class T>
static __device__ __forceinline__ void turned_back(float (&d)[2], const T *dy, double half_turns,
                                                   int position, int pair, int pairs)
{
    const float low = number(dy[pair]), high = number(dy[pairs + pair]);
    float s, c;
    turn_of(half_turns, position, true, &s, &c);
    d[0] = low * c - high * s;
    d[1] = high * c + low * s;
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    norm_rope_backward_any_kernel(T *dx, float *partials, const T *dy, const T *x,
                                  const float *gain, const float *rstd, const int32_t *positions,
                                  const __grid_constant__ struct rope_turns turns,
                                  struct rope_shape shape)
{
    typedef typename row_sum<T>::type sum_type;
    const int D = shape.D, pairs = D / 2;
    float *partial = partials + (int64_t)blockIdx.x * D;
    for (int e = threadIdx.x; e < D; e += THREADS) partial[e] = 0;
    __syncthreads();
    for (int64_t row = blockIdx.x; row < shape.N * shape.H; row += gridDim.x) {
        const int position = positions[row_of(row, shape.H)];
        const float factor = rstd[row];
        sum_type dot = 0;
        for (int pair = threadIdx.x; pair < pairs; pair += THREADS) {
            float d[2];
            turned_back(d, dy + row * D, turns.of[pair], position, pair, pairs);
            for (int c = 0; c < 2; c++)
                dot += (sum_type)(d[c] * gain[c * pairs + pair]) *
                       (sum_type)number(x[row * D + c * pairs + pair]);
        }
        const float mean = (float)(team_sum<THREADS>(dot) * (sum_type)factor / (sum_type)D);
        for (int pair = threadIdx.x; pair < pairs; pair += THREADS) {
            float d[2];
            turned_back(d, dy + row * D, turns.of[pair], position, pair, pairs);
            for (int c = 0; c < 2; c++) {
                const int e = c * pairs + pair;
                const float normal = number(x[row * D + e]) * factor;
                partial[e] += d[c] * normal;
                dx[row * D + e] = rounded<T>(factor * (d[c] * gain[e] - normal * mean));
            }
        }
    }
}

/* As many tokens that each thread of a block has a few groups of work, but no more than TOKENS. */
int tokens_of(struct rope_shape shape)
{
    const int64_t fitting = 8 * THREADS * 16 / ((int64_t)shape.H * shape.D);
    return (int)(fitting > TOKENS ? TOKENS : fitting > 1 ? fitting : 1);
}

/* Calls work with the team whose heads have D channels; false where there is none. */
template <class Work> bool for_team(int64_t D, const Work &work)
{
    if (D == 64)
        work(width<4>());
    else if (D == 128)
        work(width<8>());
    else if (D == 256)
        work(width<16>());
    else
        return false;
    return true;
}

} // namespace

/* ---- Launchers ------------------------------------------------------------------------------- */

const char *launch_rope(plx_stream stream, plx_dtype dtype, void *y, const void *x,
                        const int32_t *positions, const struct rope_turns *turns, bool inverse,
                        struct rope_shape shape)
{
    const int tokens = tokens_of(shape);
    const size_t shared = (size_t)tokens * shape.D * sizeof(float);
    if (shape.N == 0 || shape.H == 0 || shape.D == 0) return NULL;
    for_groups(dtype, is_wide(shape.D / 2, y, x), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        rope_kernel<T, w.value>
            <<<blocks_for(shape.N, tokens), THREADS, shared, (cudaStream_t)stream>>>(
                (T *)y, (const T *)x, positions, *turns, inverse, shape, tokens);
    });
    return launched();
}

const char *launch_norm_rope(plx_stream stream, plx_dtype dtype, const struct heads_list *list,
                             const int32_t *positions, const struct rope_turns *turns)
{
    int64_t H = 0;
    bool wide = list->D % 8 == 0;
    for (int i = 0; i < list->count; i++) {
        const struct heads_item *item = &list->of[i];
        wide = wide && is_wide(list->D, item->y, item->x, item->gain);
        if (item->H > H) H = item->H;
    }
    if (list->N == 0 || H == 0 || list->D == 0) return NULL;
    const int tokens = tokens_of({list->N, (int)H, list->D});
    const int64_t each = blocks_for(list->N, tokens);
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        bool done = wide && for_team(list->D, [&](auto team) {
                        launch_chained(norm_rope_kernel<T, team.value>, list->count * each, THREADS,
                                       stream, *list, positions, *turns, (unsigned)each, tokens);
                    });
        for (int i = 0; i < list->count && !done; i++) {
            const struct heads_item *item = &list->of[i];
            if (item->H > 0)
                norm_rope_any_kernel<<<list->N * item->H, THREADS, 0, (cudaStream_t)stream>>>(
                    (T *)item->y, item->rstd, (const T *)item->x, item->gain, list->eps, positions,
                    *turns, {list->N, item->H, list->D});
        }
    });
    return launched();
}

const char *launch_norm_rope_backward(plx_stream stream, plx_dtype dtype, void *dx, float *dgain,
                                      const void *dy, const void *x, const float *gain,
                                      const float *rstd, const int32_t *positions,
                                      const struct rope_turns *turns, struct rope_shape shape,
                                      float *partials)
{
    const int tokens = tokens_of(shape);
    const int64_t blocks = norm_partial_rows(shape.N * shape.H);
    const bool wide = is_wide(shape.D, dx, dy, x, gain);
    if (shape.N == 0 || shape.H == 0 || shape.D == 0) return NULL;
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        bool done = wide && for_team(shape.D, [&](auto team) {
                        norm_rope_backward_kernel<T, team.value>
                            <<<blocks, THREADS, 0, (cudaStream_t)stream>>>(
                                (T *)dx, partials, (const T *)dy, (const T *)x, gain, rstd,
                                positions, *turns, shape, tokens);
                    });
        if (!done)
            norm_rope_backward_any_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>(
                (T *)dx, partials, (const T *)dy, (const T *)x, gain, rstd, positions, *turns,
                shape);
    });
    return launch_partials(stream, dgain, partials, blocks, shape.D);
}
