/* attention_decode_sm90_join.cuh: from the sums of warps to outputs.
 *
 * The warps of a block join in shared memory, and so do up to sixteen blocks of a cluster: every
 * block has some of the channels, which the others store in its memory, where a barrier counts the
 * bytes; a lane for each block and channel joins them. If the cluster has seen all keys of the
 * pair, that is the result; otherwise it leaves a partial result in the workspace, and the block
 * that arrives last joins them, in the order of the keys whoever is last: results repeat bit for
 * bit. */
#ifndef PLX_ATTENTION_DECODE_SM90_JOIN_CUH
#define PLX_ATTENTION_DECODE_SM90_JOIN_CUH

#include "attention/attention_decode_sm90_tile.cuh"
#include "cuda/counter.cuh"
#include "cuda/ptx_sm90.cuh"

/* A row of a partial result: state, A1, A2. */
template <int D> struct decode_partial {
    struct decode_state state;
    float a[2][D];
};

/* What a warp leaves for the block, ROWS rows at a time; padded, so that rows begin in different
 * banks. */
template <int D, int ROWS> struct decode_left {
    struct decode_state state[ROWS];
    float a[ROWS][2 * D + 8]; /* A1, A2 */
};

/* What a block of a cluster gets of a row: the state of each block, and of each of its own channels
 * A1 and A2 of each block. */
template <int D> struct decode_brought {
    struct decode_state state[1 << DECODE_MAX_CLUSTER];
    float2 a[D];
};

/* N channels of one row. */
template <int N> struct decode_channels {
    struct decode_state state;
    float a1[N], a2[N];
};

/* The most lanes that join partial results together. */
enum { DECODE_JOINING = 8 };

template <class E>
static __device__ __forceinline__ void decode_store(const struct decode_view &view, int64_t batch,
                                                    int64_t time, int64_t head, int d, float value)
{
    int64_t index = batch * view.batch + time * view.time + head * view.head + d;
    if (view.is_f32)
        ((float *)view.data)[index] = value;
    else
        ((uint16_t *)view.data)[index] = (uint16_t)E::pack(value, 0.0f);
}

template <class E, bool PROBE>
static __device__ __forceinline__ void decode_write(const struct decode_arguments &p, int batch,
                                                    const struct decode_row &row, int d,
                                                    const struct decode_channels<1> &x)
{
    bool seen = x.state.sum != 0.0f;
    float inverse = seen ? 1.0f / x.state.sum : 0.0f;
    float mean = x.a1[0] * inverse, shift = x.state.shift * inverse;
    decode_store<E>(p.o, batch, row.time, row.head, d,
                    PROBE ? mean * (1.0f + shift) - x.a2[0] * inverse : mean);
    if (PROBE && p.value_mean.data != NULL)
        decode_store<E>(p.value_mean, batch, row.time, row.head, d, mean);
    if (d != 0) return;
    if (p.lse.data != NULL)
        decode_store<E>(p.lse, batch, row.time, row.head, 0,
                        seen ? (x.state.maximum + log2f(x.state.sum)) * 0.6931471805599453f
                             : -INFINITY);
    if (PROBE && p.probe_mean.data != NULL)
        decode_store<E>(p.probe_mean, batch, row.time, row.head, 0,
                        seen ? x.state.c + shift : 0.0f);
}

/* ---- Between warps --------------------------------------------------------------------------- */

/* A part's weight against the largest maximum; none of a part without keys, NaN of one with a NaN.
 */
static __device__ __forceinline__ float decode_weight(const struct decode_state &part,
                                                      float maximum)
{
    return part.sum == 0.0f ? 0.0f : power_of_two(part.maximum - maximum);
}

/* Two channels of a row, in units of what products were multiplied with. */
template <class E, bool PROBE>
static __device__ __forceinline__ void decode_leave_two(float *a1, float *a2, float2 x, float2 y,
                                                        float scale)
{
    if (!PROBE) x.x += y.x, x.y += y.y;
    *(float2 *)a1 = {x.x * scale, x.y * scale};
    scale *= 1.0f / E::probe_unit;
    if (PROBE) *(float2 *)a2 = {y.x * scale, y.y * scale};
}

/* Leaves a warp's sums of those rows of a layer that are first .. first + rows - 1; scale: of the
 * values. */
template <class E, class KIND, bool PROBE>
static __device__ __forceinline__ void decode_leave(struct decode_left<KIND::D, KIND::ROWS> *left,
                                                    const struct decode_sums<KIND::D> &sums,
                                                    float scale, int layer, int first, int rows)
{
    constexpr int D = KIND::D;
    int row = decode_own_row(layer) - first, t = threadIdx.x % 4;
    if (row < 0 || row >= rows) return;
    if (t == 0) left->state[row] = sums.state;
    float *a = left->a[row];
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
        int channel = 8 * j + 2 * t;
        float2 x = {sums.a[j][0], sums.a[j][1]}, y = {sums.a[j][2], sums.a[j][3]};
        if (KIND::F8) { /* see decode_multiply_values_f8 */
            const float(&even)[4] = sums.a[j / 2 * 2], (&odd)[4] = sums.a[j / 2 * 2 + 1];
            channel = j / 2 * 16 + 4 * t + j % 2 * 2;
            x = {even[j % 2], odd[j % 2]}, y = {even[2 + j % 2], odd[2 + j % 2]};
        }
        decode_leave_two<E, PROBE>(a + channel, a + D + channel, x, y, scale);
    }
}

/* The block's sum of a channel over its warps, with the c of the first that has keys; what they
 * left lies `apart` bytes apart. */
template <class KIND, bool PROBE>
static __device__ __forceinline__ struct decode_channels<1>
decode_join_warps(const unsigned char *left, int apart, int row, int d) {
    constexpr int D = KIND::D, ROWS = KIND::ROWS;
    struct decode_state part[KIND::WARPS];
    struct decode_channels<1> x = {
        {-INFINITY, 0.0f, 0.0f, 0.0f}, {0.0f},
        {
            0.0f
        }
    };
#pragma unroll
    for (int w = KIND::WARPS - 1; w >= 0; w--) {
        part[w] = ((const struct decode_left<D, ROWS> *)(left + w * apart))->state[row];
        x.state.maximum = fmaxf(x.state.maximum, part[w].maximum);
        x.state.c = part[w].sum != 0.0f ? part[w].c : x.state.c;
    }
#pragma unroll
    for (int w = 0; w < KIND::WARPS; w++) {
        const struct decode_left<D, ROWS> *from =
            (const struct decode_left<D, ROWS> *)(left + w * apart);
        float weight = decode_weight(part[w], x.state.maximum), dc = part[w].c - x.state.c;
        x.state.sum += weight * part[w].sum;
        x.state.shift += weight * (part[w].shift + dc * part[w].sum);
        x.a1[0] += weight * from->a[row][d];
        if (PROBE) x.a2[0] += weight * (from->a[row][D + d] + dc * from->a[row][d]);
    }
    return x;
}

/* ---- Between blocks of a cluster ------------------------------------------------------------- */

/* The sum of two parts, with the c of that which has the earlier keys, unless it has none. Sums do
 * not depend on which is which: both lanes get the same bits. */
template <bool PROBE, int N>
static __device__ __forceinline__ struct decode_channels<N>
decode_join_two(const struct decode_channels<N> &x, const struct decode_channels<N> &y,
                bool y_is_earlier) {
    float maximum = fmaxf(x.state.maximum, y.state.maximum);
    bool take_y = y_is_earlier ? y.state.sum != 0.0f : x.state.sum == 0.0f;
    float c = take_y ? y.state.c : x.state.c;
    float a = decode_weight(x.state, maximum), da = x.state.c - c;
    float b = decode_weight(y.state, maximum), db = y.state.c - c;
    struct decode_channels<N> z;
    z.state.maximum = maximum, z.state.c = c;
    z.state.sum = __fmul_rn(a, x.state.sum) + __fmul_rn(b, y.state.sum);
    z.state.shift = __fmul_rn(a, x.state.shift + da * x.state.sum) +
                    __fmul_rn(b, y.state.shift + db * y.state.sum);
#pragma unroll
    for (int n = 0; n < N; n++) {
        z.a1[n] = __fmul_rn(a, x.a1[n]) + __fmul_rn(b, y.a1[n]);
        z.a2[n] = 0.0f;
        if (PROBE)
            z.a2[n] = __fmul_rn(a, x.a2[n] + da * x.a1[n]) + __fmul_rn(b, y.a2[n] + db * y.a1[n]);
    }
    return z;
}

/* The neighbour's, at the distance of `step` lanes. */
template <bool PROBE, int N>
static __device__ __forceinline__ struct decode_channels<N>
decode_exchange(const struct decode_channels<N> &x, int step) {
    struct decode_channels<N> y;
    y.state.maximum = __shfl_xor_sync(0xffffffffu, x.state.maximum, step);
    y.state.sum = __shfl_xor_sync(0xffffffffu, x.state.sum, step);
    y.state.shift = __shfl_xor_sync(0xffffffffu, x.state.shift, step);
    y.state.c = __shfl_xor_sync(0xffffffffu, x.state.c, step);
#pragma unroll
    for (int n = 0; n < N; n++) {
        y.a1[n] = __shfl_xor_sync(0xffffffffu, x.a1[n], step);
        y.a2[n] = PROBE ? __shfl_xor_sync(0xffffffffu, x.a2[n], step) : 0.0f;
    }
    return y;
}

/* The sum over `lanes` lanes in a row, a power of two; the earlier lane has the earlier keys. */
template <bool PROBE, int N>
static __device__ __forceinline__ struct decode_channels<N>
decode_join_lanes(struct decode_channels<N> x, int lanes) {
#pragma unroll 1
    for (int step = 1; step < lanes; step *= 2) {
        struct decode_channels<N> other = decode_exchange<PROBE>(x, step);
        x = decode_join_two<PROBE>(x, other, threadIdx.x & step);
    }
    return x;
}

/* The block's place in its cluster. */
static __device__ __forceinline__ int
decode_rank(const struct decode_arguments &p)
{
    return (int)blockIdx.y & (1 << p.cluster) - 1;
}

/* Logarithm of how many channels a block of a cluster joins. */
template <class KIND>
static __device__ __forceinline__ int decode_own_channels(const struct decode_arguments &p)
{
    return (KIND::D == 128 ? 7 : 6) - p.cluster;
}

/* Other blocks of the cluster may store here as soon as all have arrived. */
template <class KIND>
static __device__ __forceinline__ void decode_cluster_begin(const struct decode_arguments &p,
                                                            uint64_t *brought)
{
    if (p.cluster == 0) return;
    if (threadIdx.x == 0) {
        int row = (int)sizeof(struct decode_state) << p.cluster, channels = KIND::D * 8;
        mbarrier_init(shared_address(brought), 1);
        mbarrier_expect(shared_address(brought),
                        KIND::HEADS * decode_rows_of<KIND>(p) * (row + channels));
        mbarrier_init_fence();
    }
    cluster_arrive();
}

/* Stores a channel of a row, and with its first the state, in the block that joins it. */
template <class KIND>
static __device__ __forceinline__ void
decode_bring(const struct decode_arguments &p, struct decode_brought<KIND::D> *to,
             uint64_t *brought, int d, const struct decode_channels<1> &x)
{
    int owner = d >> decode_own_channels<KIND>(p), rank = decode_rank(p);
    int own = d - (owner << decode_own_channels<KIND>(p));
    uint32_t barrier = cluster_address(shared_address(brought), owner);
    cluster_store(cluster_address(shared_address(&to->a[(own << p.cluster) + rank]), owner),
                  float2{x.a1[0], x.a2[0]}, barrier);
    if (own == 0)
        cluster_store(cluster_address(shared_address(&to->state[rank]), owner),
                      float4{x.state.maximum, x.state.sum, x.state.shift, x.state.c}, barrier);
}

/* ---- Between clusters ------------------------------------------------------------------------ */

/* Row `row` of head `head` of a partial result. */
template <class KIND>
static __device__ __forceinline__ struct decode_partial<KIND::D> *
decode_part(const struct decode_arguments &p, int slot, int head, int row) {
    int64_t rows = min(p.rows, KIND::BLOCK_ROWS);
    return (struct decode_partial<KIND::D> *)p.partials + (slot * KIND::HEADS + head) * rows + row;
}

/* Four numbers that lie side by side. */
static __device__ __forceinline__ void
decode_load_four(const float *from, float (&x)[4])
{
    float4 four = __ldcg((const float4 *)from);
    x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
}

/* The first part's state and channels d .. d + 3 of its row: nothing where there is no such part.
 */
template <class KIND, bool PROBE>
static __device__ __forceinline__ struct decode_channels<4>
decode_load_part(const struct decode_arguments &p, const struct decode_parts &parts, int n,
                 int head, int row, int d) {
    struct decode_channels<4> x = {
        {-INFINITY, 0.0f, 0.0f, 0.0f}, {},
        {
        }
    };
    if (n >= parts.count) return x;
    int slot = n == 0 ? parts.first : parts.second + (n - 1) * parts.step;
    const struct decode_partial<KIND::D> *from = decode_part<KIND>(p, slot, head, row);
    *(float4 *)&x.state = __ldcg((const float4 *)&from->state);
    decode_load_four(&from->a[0][d], x.a1);
    if (PROBE) decode_load_four(&from->a[1][d], x.a2);
    return x;
}

/* Four channels of a row of a pair's results. */
struct decode_item {
    int head, row, d;
};

template <class KIND>
static __device__ __forceinline__ struct decode_item decode_item_of(int i, int rows)
{
    int place = i / (KIND::D / 4), head = KIND::HEADS > 1 && place >= rows;
    return {head, place - head * rows, i % (KIND::D / 4) * 4};
}

/* Partial results of a lane, of 2 to `joining` lanes that join them. */
static __device__ __forceinline__ int decode_parts_each(const struct decode_parts &parts,
                                                        int joining)
{
    return (parts.count + (1 << joining) - 1) >> joining;
}

/* This lane's first. */
static __device__ __forceinline__ int decode_parts_own(const struct decode_parts &parts,
                                                       int joining)
{
    return (threadIdx.x & ((1 << joining) - 1)) * decode_parts_each(parts, joining);
}

/* The lane's first part of item i. */
template <class KIND, bool PROBE>
static __device__ __forceinline__ struct decode_channels<4>
decode_part_of(const struct decode_arguments &p, const struct decode_parts &parts, int joining,
               int i, int rows) {
    struct decode_item item = decode_item_of<KIND>(i, rows);
    int n = decode_parts_own(parts, joining);
    return decode_load_part<KIND, PROBE>(p, parts, n, item.head, item.row, item.d);
}

/* The sum of four channels over partial results, by some lanes, each of which has some that follow
 * each other, usually one, which is x. All lanes get it. */
template <class KIND, bool PROBE>
static __device__ __forceinline__ struct decode_channels<4>
decode_join_parts(const struct decode_arguments &p, const struct decode_parts &parts, int joining,
                  const struct decode_item &item, struct decode_channels<4> x) {
    int n = decode_parts_own(parts, joining);
    for (int end = n++ + decode_parts_each(parts, joining); n < end; n++)
        x = decode_join_two<PROBE>(
            x, decode_load_part<KIND, PROBE>(p, parts, n, item.head, item.row, item.d), false);
    return decode_join_lanes<PROBE>(x, 1 << joining);
}

static __device__ __forceinline__ float
decode_one_of(const float (&x)[4], int n)
{
    float low = n & 1 ? x[1] : x[0], high = n & 1 ? x[3] : x[2];
    return n & 2 ? high : low;
}

#endif
