/* attention_decode_sm90_tile.cuh: a tile of keys and values in shared memory, through the tensor
 * cores, by one warp.
 *
 * Products have 16 rows: query rows are 0..7 and their probes 8..15, so that the score and the u of
 * a key meet in one lane. Without the probe the lower half carries what the rounding of the weights
 * left. With it weights enter as two numbers, high and low part, in two products: their rounding
 * costs 2^-17 in bf16. Lane 4 g + t holds row g.
 *
 * A tile is boxes of 128 bytes a key, or of 64 where a head has no more, first of the keys, then of
 * the values: chunk c (16 bytes) of row i lies at place c ^ i % 8, or c ^ i / 2 % 4, so that eight
 * rows have a chunk in eight different places of 128 bytes. */
#ifndef PLX_ATTENTION_DECODE_SM90_TILE_CUH
#define PLX_ATTENTION_DECODE_SM90_TILE_CUH

#include "attention/attention_decode_sm90_element.cuh"
#include "attention/attention_decode_sm90_list.cuh"

/* HEADS: key/value heads side by side in a tile; SIZE: bytes of an element; DEEP: layers of
 * eight rows of each head, which multiply a tile one after the other; SETS: those of all heads;
 * BLOCK_ROWS: of each head. */
template <int D_, int HEADS_, int SIZE_, int WARPS_, int DEEP_> struct decode_shape {
    static constexpr int D = D_, HEADS = HEADS_, SIZE = SIZE_, ROW = D * HEADS * SIZE;
    static constexpr int DEEP = DEEP_, SETS = HEADS * DEEP, BLOCK_ROWS = DEEP * DECODE_ROWS;
    static constexpr bool F8 = SIZE == 1;
    static constexpr int WARPS = WARPS_, KEYS = DECODE_KEYS(ROW), UNIT = WARPS * KEYS;
    static constexpr int PITCH = D * SIZE < 128 ? D * SIZE : 128; /* bytes of a row of a box */
    static constexpr int BOX = KEYS * PITCH, BOXES = ROW / PITCH; /* of the keys of a tile */
    static constexpr int HEAD = BOXES / HEADS * BOX;              /* bytes of a head of them */
};

/* What a warp, a block or several blocks know of a row, in units of log 2: maximum, sum of w, sum
 * of w (u - c). */
struct __align__(16) decode_state
{
    float maximum, sum, shift, c;
};

/* A warp's running result; column 2t + h of product j is channel 8j + 2t + h. */
template <int D> struct decode_sums {
    float a[D / 8][4]; /* [A1; A2], or without the probe [high; low] of A1 */
    struct decode_state state;
};

/* Scores and u: entry [n][h] is key 8n + 2t + h. */
template <class SHAPE> struct decode_scores {
    float s[SHAPE::KEYS / 8][2], u[SHAPE::KEYS / 8][2];
};

/* Address of chunk `even` + odd of a row, where even is an even constant. */
template <class SHAPE>
static __device__ __forceinline__ uint32_t decode_chunk(uint32_t boxes, int row, int even, int odd)
{
    constexpr int PITCH = SHAPE::PITCH, CHUNKS = PITCH / 16;
    uint32_t place = boxes + row * PITCH + (odd ^ row / (128 / PITCH) % CHUNKS) * 16;
    return (place ^ even % CHUNKS * 16) + even / CHUNKS * SHAPE::BOX;
}

/* Where this lane reads its first row of a tile's keys, and of its values, from where they begin.
 * Found once and kept: the assembler would find it again for every tile, when that has come. */
struct decode_lane {
    int keys, values;
};

template <class SHAPE> static __device__ __forceinline__ struct decode_lane decode_lane_of()
{
    int lane = threadIdx.x % 32;
    struct decode_lane own = {
        (int)decode_chunk<SHAPE>(0, lane / 16 * 8 + lane % 8, 0, lane / 8 % 2),
        (int)decode_chunk<SHAPE>(0, lane % 16, 0, lane / 16)};
    computed_here(own.keys), computed_here(own.values);
    return own;
}

/* Address of chunk `even` more of a row, a multiple of 8 further down. */
template <class SHAPE>
static __device__ __forceinline__ uint32_t decode_chunk_from(uint32_t first, int rows, int even)
{
    constexpr int CHUNKS = SHAPE::PITCH / 16;
    return (first + rows * SHAPE::PITCH ^ even % CHUNKS * 16) + even / CHUNKS * SHAPE::BOX;
}

/* first: of this lane; q: [q; r] as left operands of D / 16 products. */
template <class E, class SHAPE>
static __device__ __forceinline__ void decode_multiply_keys(uint32_t first,
                                                            const uint32_t (&q)[SHAPE::D / 16][4],
                                                            struct decode_scores<SHAPE> &x)
{
#pragma unroll
    for (int n = 0; n < SHAPE::KEYS / 8; n += 2) {
        float c[2][2][4] = {}; /* two chains a half: shorter waits, and shorter sums */
#pragma unroll
        for (int i = 0; i < SHAPE::D / 16; i++) {
            uint32_t k[4];
            load_matrices(decode_chunk_from<SHAPE>(first, 8 * n, 2 * i), k);
            E::multiply(c[0][i % 2], q[i], k[0], k[1]);
            E::multiply(c[1][i % 2], q[i], k[2], k[3]);
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                x.s[n + half][h] = c[half][0][h] + c[half][1][h];
                x.u[n + half][h] = c[half][0][2 + h] + c[half][1][2 + h];
            }
    }
}

/* Forgets what the row does not see; key: of the tile. */
template <class SHAPE>
static __device__ __forceinline__ void decode_mask(struct decode_scores<SHAPE> &x, int key,
                                                   const struct decode_range &range, float masked)
{
#pragma unroll
    for (int n = 0; n < SHAPE::KEYS / 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int own = key + 8 * n + 2 * (threadIdx.x % 4) + h;
            bool seen = own >= range.first && own < range.end;
            x.s[n][h] = seen ? x.s[n][h] : masked;
            x.u[n][h] = seen ? x.u[n][h] : 0.0f;
        }
}

static __device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

static __device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* Weights may be as large as 2 to this: a maximum that grows by less stays as it is. */
static constexpr float DECODE_SLACK = 4.0f;

/* Raises the maximum to that of a tile and brings the sums along, if there are any. */
template <int D>
static __device__ __forceinline__ void decode_raise(struct decode_sums<D> &sums, float tile,
                                                    bool begun)
{
    struct decode_state &state = sums.state;
    float next = fmaxf(state.maximum, tile);
    float factor = next == state.maximum ? 1.0f : power_of_two(state.maximum - next);
    state.maximum = next;
    if (!begun) return;
    state.sum *= factor;
    state.shift *= factor;
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums.a[j][i] *= factor;
}

/* Scores become weights w, u becomes w (u - c), where c is the mean u of the first tile with a key.
 * Exponents come from one fused operation, not from rounded logits. */
template <class SHAPE, bool PROBE>
static __device__ __forceinline__ void decode_weigh(struct decode_scores<SHAPE> &x,
                                                    struct decode_sums<SHAPE::D> &sums, float scale)
{
    constexpr int N = SHAPE::KEYS / 8;
    struct decode_state &state = sums.state;
    float tile = -INFINITY, sum = 0.0f, moment = 0.0f;
    bool fresh = state.maximum == -INFINITY;
#pragma unroll
    for (int n = 0; n < N; n++) tile = fmaxf(tile, fmaxf(x.s[n][0] * scale, x.s[n][1] * scale));
    bool raise = __any_sync(0xffffffffu, tile > state.maximum + DECODE_SLACK);
    if (raise) decode_raise<SHAPE::D>(sums, quad_max(tile), __any_sync(0xffffffffu, !fresh));
    /* A row that has seen no key yet: all weights 0, or NaN where a score is. */
    float maximum = state.maximum == -INFINITY ? 0.0f : state.maximum;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            x.s[n][h] = power_of_two(fmaf(x.s[n][h], scale, -maximum));
            sum += x.s[n][h];
        }
    state.sum += sum;
    if (!PROBE) return;
    if (raise && __any_sync(0xffffffffu, fresh)) {
#pragma unroll
        for (int n = 0; n < N; n++) moment += x.s[n][0] * x.u[n][0] + x.s[n][1] * x.u[n][1];
        float whole = quad_sum(sum), mean = quad_sum(moment);
        if (fresh && whole > 0.0f) state.c = __fdividef(mean, whole);
    }
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            x.u[n][h] = x.s[n][h] * (x.u[n][h] - state.c);
            state.shift += x.u[n][h];
        }
}

/* Sixteen weights as left operands: [w; w (u - c)], or without the probe [high; low] of w. */
template <class E, bool PROBE>
static __device__ __forceinline__ void decode_split(const float (&w)[2], const float (&wu)[2],
                                                    uint32_t (&high)[4], uint32_t (&low)[4], int n)
{
    high[2 * n] = E::pack(w[0], w[1]);
    uint32_t rest = E::pack(w[0] - E::low(high[2 * n]), w[1] - E::high(high[2 * n]));
    if (!PROBE) {
        high[2 * n + 1] = rest;
        return;
    }
    float a = wu[0] * E::probe_unit, b = wu[1] * E::probe_unit;
    low[2 * n] = rest;
    high[2 * n + 1] = E::pack(a, b);
    low[2 * n + 1] = E::pack(a - E::low(high[2 * n + 1]), b - E::high(high[2 * n + 1]));
}

/* 16 keys of 64 channels of the values as right operands. */
struct decode_values {
    uint32_t of[4][4];
};

template <class SHAPE>
static __device__ __forceinline__ void decode_load_values(uint32_t first, int key, int channel,
                                                          struct decode_values &v)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        load_matrices_transposed(decode_chunk_from<SHAPE>(first, key, channel / 8 + 2 * i),
                                 v.of[i]);
}

/* Adds the values under their weights; first: of this lane, v: what is there. High parts of eight
 * columns before low ones, so that no product waits for the one before it. */
template <class E, class SHAPE, bool PROBE>
static __device__ __forceinline__ void
decode_multiply_values(uint32_t first, struct decode_values v, const struct decode_scores<SHAPE> &x,
                       struct decode_sums<SHAPE::D> &sums)
{
#pragma unroll
    for (int n = 0; n < SHAPE::KEYS / 8; n += 2) {
        uint32_t high[4], low[4];
        decode_split<E, PROBE>(x.s[n], x.u[n], high, low, 0);
        decode_split<E, PROBE>(x.s[n + 1], x.u[n + 1], high, low, 1);
#pragma unroll
        for (int j = 0; j < SHAPE::D / 8; j += 8) {
            if (!SHAPE::AHEAD || n + j > 0) decode_load_values<SHAPE>(first, 8 * n, 8 * j, v);
#pragma unroll
            for (int i = 0; i < 8; i++)
                E::multiply(sums.a[j + i], high, v.of[i / 2][i % 2 * 2],
                            v.of[i / 2][i % 2 * 2 + 1]);
            if (PROBE)
#pragma unroll
                for (int i = 0; i < 8; i++)
                    E::multiply(sums.a[j + i], low, v.of[i / 2][i % 2 * 2],
                                v.of[i / 2][i % 2 * 2 + 1]);
        }
    }
}

#endif
