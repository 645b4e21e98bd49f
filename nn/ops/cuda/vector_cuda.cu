/* vector_cuda.cu: kernels over plain lists of numbers; see launch.h. */
#include "ops/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256 };

/* ---- Sums of two ----------------------------------------------------------------------------- */

template <class T, int W>
__global__ void __launch_bounds__(THREADS) add_kernel(T *y, const T *a, const T *b, int64_t groups)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x);
    if (i >= groups) return;
    float left[W], right[W];
    read_numbers(left, a + i * W);
    read_numbers(right, b + i * W);
#pragma unroll
    for (int w = 0; w < W; w++) left[w] += right[w];
    write_numbers(y + i * W, left);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

/* Between any two of f32, bf16 and f64, by way of the type that holds both. */
template <class Y, class X> struct cast {
    static __device__ __forceinline__ Y of(X x)
    {
        return (Y)x;
    }
};

template <> struct cast<bf16, float> {
    static __device__ __forceinline__ bf16 of(float x)
    {
        return rounded<bf16>(x);
    }
};

template <> struct cast<bf16, double> {
    static __device__ __forceinline__ bf16 of(double x)
    {
        return __double2bfloat16(x);
    }
};

template <> struct cast<float, bf16> {
    static __device__ __forceinline__ float of(bf16 x)
    {
        return number(x);
    }
};

template <> struct cast<double, bf16> {
    static __device__ __forceinline__ double of(bf16 x)
    {
        return (double)number(x);
    }
};

/* Dense f32 and bf16, either way: the refresh of weights. */
template <class Y, class X>
__global__ void __launch_bounds__(THREADS) cast_kernel(Y *y, const X *x, int64_t groups)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= groups) return;
    float v[8];
    read_numbers(v, x + i * 8);
    write_numbers(y + i * 8, v);
}

struct strided {
    int rank;
    int64_t shape[PLX_MAX_RANK], y[PLX_MAX_RANK], x[PLX_MAX_RANK];
};

template <class Y, class X>
__global__ void __launch_bounds__(THREADS)
    copy_kernel(Y *y, const X *x, const __grid_constant__ struct strided walk, int64_t count)
{
    int64_t rest = (int64_t)blockIdx.x * THREADS + threadIdx.x, to = 0, from = 0;
    if (rest >= count) return;
    for (int axis = walk.rank - 1; axis >= 0; axis--) {
        int64_t at = rest % walk.shape[axis];
        rest /= walk.shape[axis];
        to += at * walk.y[axis];
        from += at * walk.x[axis];
    }
    y[to] = cast<Y, X>::of(x[from]);
}

template <class Work> void for_any_dtype(plx_dtype dtype, const Work &work)
{
    if (dtype == PLX_F64)
        work(double());
    else
        for_dtype(dtype, work);
}

/* ---- A sum in double ------------------------------------------------------------------------- */

enum { SUM_THREADS = 1024 };

/* One block: what is summed here is the losses of a batch. */
template <class T>
__global__ void __launch_bounds__(SUM_THREADS) sum_kernel(double *sum, const T *x, int64_t count)
{
    double mine = 0;
    for (int64_t i = threadIdx.x; i < count; i += SUM_THREADS) mine += (double)number(x[i]);
    mine = team_sum<SUM_THREADS>(mine);
    if (threadIdx.x == 0) *sum += mine;
}

} // namespace

/* ---- Launchers ------------------------------------------------------------------------------- */

const char *launch_copy(plx_stream stream, const struct plx_tensor *y, const struct plx_tensor *x)
{
    int64_t count = plx_tensor_count(y);
    struct strided walk = {.rank = y->rank};
    for (int axis = 0; axis < y->rank; axis++) {
        walk.shape[axis] = y->shape[axis];
        walk.y[axis] = y->stride[axis];
        walk.x[axis] = x->stride[axis];
    }
    if (count == 0) return NULL;
    for_any_dtype(y->dtype, [&](auto to) {
        for_any_dtype(x->dtype, [&](auto from) {
            typedef decltype(to) Y;
            typedef decltype(from) X;
            copy_kernel<<<blocks_for(count, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
                (Y *)y->data, (const X *)x->data, walk, count);
        });
    });
    return launched();
}

const char *launch_cast(plx_stream stream, plx_dtype to, void *y, const void *x, int64_t groups)
{
    unsigned blocks = blocks_for(groups, THREADS);
    if (groups == 0) return NULL;
    if (to == PLX_BF16)
        cast_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>((bf16 *)y, (const float *)x,
                                                                  groups);
    else
        cast_kernel<<<blocks, THREADS, 0, (cudaStream_t)stream>>>((float *)y, (const bf16 *)x,
                                                                  groups);
    return launched();
}

const char *launch_add(plx_stream stream, plx_dtype dtype, void *y, const void *a, const void *b,
                       int64_t count)
{
    if (count == 0) return NULL;
    for_groups(dtype, is_wide(count, y, a, b), [&](auto zero, auto w) {
        typedef decltype(zero) T;
        const int64_t groups = count / w.value;
        add_kernel<T, w.value><<<blocks_for(groups, THREADS), THREADS, 0, (cudaStream_t)stream>>>(
            (T *)y, (const T *)a, (const T *)b, groups);
    });
    return launched();
}

const char *launch_sum(plx_stream stream, plx_dtype dtype, double *sum, const void *x,
                       int64_t count)
{
    for_dtype(dtype, [&](auto zero) {
        typedef decltype(zero) T;
        sum_kernel<<<1, SUM_THREADS, 0, (cudaStream_t)stream>>>(sum, (const T *)x, count);
    });
    return launched();
}
