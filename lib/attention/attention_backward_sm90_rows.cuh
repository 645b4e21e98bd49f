/* attention_backward_sm90_rows.cuh: what happens to single rows before and after the backward
 * kernels for Hopper: their scalars from the saved statistics, and sums in f32 to gradients. */
#ifndef PLX_ATTENTION_BACKWARD_SM90_ROWS_CUH
#define PLX_ATTENTION_BACKWARD_SM90_ROWS_CUH

#include "attention/attention_backward_sm90_tile.cuh"

enum { BACKWARD_ROWS_THREADS = 256 };

/* Eight channels of a row, in the format of the products or in f32. */
template <int FORMAT>
PTX_INLINE void backward_eight(float (&values)[8], const struct plx_tensor &tensor, int64_t place)
{
    if (tensor.dtype != PLX_F32) {
        uint4 words = ((const uint4 *)tensor.data)[place / 8];
        uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int n = 0; n < 4; n++) {
            values[2 * n] = pair_low<FORMAT>(pairs[n]);
            values[2 * n + 1] = pair_high<FORMAT>(pairs[n]);
        }
        return;
    }
#pragma unroll
    for (int n = 0; n < 2; n++) {
        float4 four = ((const float4 *)tensor.data)[place / 4 + n];
        values[4 * n] = four.x, values[4 * n + 1] = four.y;
        values[4 * n + 2] = four.z, values[4 * n + 3] = four.w;
    }
}

PTX_INLINE float backward_dot(const float (&a)[8], const float (&b)[8])
{
    float dot = 0.0f;
#pragma unroll
    for (int n = 0; n < 8; n++) dot = fmaf(a[n], b[n], dot);
    return dot;
}

/* The scalars of one row; a row with NaN anywhere gets an lse of NaN and zeros, so that hidden
 * weights, which are set to zero, have nothing left to become NaN by. */
template <bool PROBE, int FORMAT>
PTX_INLINE void backward_write(float *to, float lse, float t, float b, float c, float scale)
{
    bool sound = lse == lse && t == t && b == b && c == c;
    float origin = lse * 1.4426950408889634f - backward_bits(FORMAT);
    if (lse == -INFINITY) origin = INFINITY; /* sees no key */
    to[BACKWARD_LSE * 64] = sound ? origin : NAN;
    to[BACKWARD_B * 64] = sound ? (PROBE ? b : c) : 0.0f;
    if (!PROBE) return;
    to[BACKWARD_X * 64] = sound ? -scale * (1.0f + t) : 0.0f;
    to[BACKWARD_Y * 64] = sound ? scale * (b - c) : 0.0f;
}

/* The slot of a tile of 64 queries in the workspace. */
PTX_INLINE size_t backward_slot(const struct backward_sm90_args &args, const struct any_tile &tile,
                                int head)
{
    const struct attention_sequence &s = tile.sequence;
    int64_t slot = tile.first / BACKWARD_SM90_SLOT;
    if (args.problem.q_offsets.data != NULL) slot += s.q_start / BACKWARD_SM90_SLOT + tile.number;
    return (size_t)((s.q_batch * args.problem.H + head) * args.plan.slots + slot);
}

/* A block is a slot of 64 rows: grid (slots of all batch entries, heads). Sums become zero. */
template <int CHANNELS, bool PROBE, int FORMAT>
__global__ void __launch_bounds__(BACKWARD_ROWS_THREADS)
    backward_sm90_before(const __grid_constant__ struct backward_sm90_args args)
{
    constexpr int LANES = CHANNELS / 8, ROWS = BACKWARD_ROWS_THREADS / LANES;
    const struct attention_problem &p = args.problem;
    struct any_tile tile = any_find(p, blockIdx.x, BACKWARD_SM90_SLOT, false);
    if (!tile.used || tile.first >= tile.sequence.T) return;
    int head = blockIdx.y, lane = threadIdx.x % LANES;
    const struct attention_sequence &s = tile.sequence;
    size_t slot = backward_slot(args, tile, head);
    float *scalars = args.scalars + slot * (args.plan.scalars * 64);
#pragma unroll
    for (int row = threadIdx.x / LANES; row < BACKWARD_SM90_SLOT; row += ROWS) {
        bool there = tile.first + row < s.T;
        int64_t time = s.q_start + tile.first + row;
        float c = 0.0f, b = 0.0f, lse = -INFINITY, t = 0.0f;
        if (there) {
            float dout[8], other[8];
            backward_eight<FORMAT>(dout, p.d_o,
                                   element_row(p.d_o, s.q_batch, time, head) + lane * 8);
            backward_eight<FORMAT>(other, p.o, element_row(p.o, s.q_batch, time, head) + lane * 8);
            c = backward_dot(dout, other);
            if (PROBE) {
                int64_t place = element_row(p.value_mean, s.q_batch, time, head) + lane * 8;
                backward_eight<FORMAT>(other, p.value_mean, place);
                b = backward_dot(dout, other);
                t = element_load(p.probe_mean, element_row(p.probe_mean, s.q_batch, time, head));
            }
            lse = element_load(p.lse, element_row(p.lse, s.q_batch, time, head));
        }
#pragma unroll
        for (int step = LANES / 2; step > 0; step /= 2) {
            c += __shfl_xor_sync(0xffffffffu, c, step);
            if (PROBE) b += __shfl_xor_sync(0xffffffffu, b, step);
        }
        if (lane == 0) backward_write<PROBE, FORMAT>(scalars + row, lse, t, b, c, args.scale);
    }
    if (!args.plan.fused) return;
#pragma unroll
    for (int tensor = 0; tensor < (PROBE ? 2 : 1); tensor++) {
        float4 *sums = (float4 *)(args.sums[tensor] + slot * (64 * CHANNELS));
        for (int n = threadIdx.x; n < 16 * CHANNELS; n += BACKWARD_ROWS_THREADS)
            sums[n] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

/* Sums, which lie in the order of fragments, to dq (blockIdx.z 0) and dr (1); a warpgroup a slot.
 */
template <int CHANNELS, bool PROBE, int FORMAT>
__global__ void __launch_bounds__(FORWARD_GROUP)
    backward_sm90_after(const __grid_constant__ struct backward_sm90_args args)
{
    const struct attention_problem &p = args.problem;
    struct any_tile tile = any_find(p, blockIdx.x, BACKWARD_SM90_SLOT, false);
    if (!tile.used) return;
    int head = blockIdx.y;
    const struct attention_sequence &s = tile.sequence;
    size_t slot = backward_slot(args, tile, head);
    const float *from = args.sums[blockIdx.z] + slot * (64 * CHANNELS);
    float sums[CHANNELS / 2], unit = exp2f(-backward_bits(FORMAT));
    bool live = tile.first < s.T;
#pragma unroll
    for (int x = 0; x < CHANNELS / 8; x++) {
        float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (live) four = *(const float4 *)(from + backward_place(x));
        sums[4 * x] = four.x, sums[4 * x + 1] = four.y;
        sums[4 * x + 2] = four.z, sums[4 * x + 3] = four.w;
    }
    float factor = PROBE ? unit : args.scale * unit;
    const struct plx_tensor &tensor = blockIdx.z == 0 ? p.dq : p.dr;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int64_t row = tile.first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * half;
#pragma unroll
        for (int n = 0; n < CHANNELS / 2; n++)
            if (n / 2 % 2 == half) sums[n] = row < s.T ? sums[n] * factor : 0.0f;
        forward_store(tensor, element_row(tensor, s.q_batch, s.q_start + row, head), sums, half,
                      row < tile.row_end);
    }
}

#endif
