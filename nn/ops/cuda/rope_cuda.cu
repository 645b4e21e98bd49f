/* rope_cuda.cu: rotary positions; see launch.h.
 *
 * An angle is a position times a frequency, up to many thousands, so it is reduced in double; its
 * sine and cosine are then those of a float below one half turn. A block takes a few tokens: first
 * it computes the turns of each once, then all heads use them. */
#include "numbers.cuh"

namespace
{

enum { THREADS = 256, ITEMS = 1024 /* groups of pairs that a block is given */ };

/* Sine and cosine of half_turns * position * pi. */
static __device__ __forceinline__ float2 turn_of(double half_turns, int position, bool inverse)
{
    const double turns = half_turns * position, rest = turns - 2 * rint(turns / 2);
    float2 turn;
    sincospif((float)(inverse ? -rest : rest), &turn.y, &turn.x);
    return turn;
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    rope_kernel(T *y, const T *x, const int32_t *positions,
                const __grid_constant__ struct rope_turns turns, bool inverse, int64_t N, int H,
                int D, int tokens)
{
    extern __shared__ float2 turned[]; /* [tokens][D / 2]: cosine, sine */
    const int pairs = D / 2, groups = pairs / W;
    const int64_t first = (int64_t)blockIdx.x * tokens;
    const int count = (int)(N - first < tokens ? N - first : tokens);
    for (int i = threadIdx.x; i < count * pairs; i += THREADS)
        turned[i] = turn_of(turns.of[i % pairs], positions[first + i / pairs], inverse);
    __syncthreads();
    for (int i = threadIdx.x; i < count * H * groups; i += THREADS) {
        const int head = i / groups, pair = i % groups * W;
        const float2 *turn = turned + head / H * pairs + pair;
        const int64_t at = (first * H + head) * D + pair;
        float a[W], b[W];
        read_numbers(a, x + at);
        read_numbers(b, x + at + pairs);
#pragma unroll
        for (int w = 0; w < W; w++) {
            const float c = turn[w].x, s = turn[w].y, low = a[w], high = b[w];
            a[w] = low * c - high * s;
            b[w] = high * c + low * s;
        }
        write_numbers(y + at, a);
        write_numbers(y + at + pairs, b);
    }
}

} // namespace

const char *launch_rope(plx_stream stream, plx_dtype dtype, void *y, const void *x,
                        const int32_t *positions, const struct rope_turns *turns, bool inverse,
                        int64_t N, int64_t H, int64_t D)
{
    const int pairs = (int)D / 2;
    if (N == 0 || H == 0 || D == 0) return NULL;
    for_groups(dtype, is_wide(pairs, y, x), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const int64_t items = H * pairs / w.value;
        const int tokens = (int)(items < ITEMS / 8 ? 8 : items < ITEMS ? ITEMS / items : 1);
        const size_t shared = (size_t)tokens * pairs * sizeof(float2);
        rope_kernel<T, w.value><<<blocks_for(N, tokens), THREADS, shared, (cudaStream_t)stream>>>(
            (T *)y, (const T *)x, positions, *turns, inverse, N, (int)H, (int)D, tokens);
    });
    return launched();
}
