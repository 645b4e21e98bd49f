/* checksum_cuda.cu: whether two results have the same bits; see launch.h. */
#include "ops/cuda/numbers.cuh"

namespace
{

enum { THREADS = 256, BLOCKS = 1056 };

/* Every half word counts times an odd number of its place. Additions of whole numbers commute, so
 * the order in which blocks come does not matter. */
__global__ void __launch_bounds__(THREADS)
    checksum_kernel(unsigned long long *sum, const uint16_t *data, int64_t count)
{
    unsigned long long mine = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += BLOCKS * THREADS)
        mine += data[i] * (2 * (unsigned long long)i * 0x9e3779b97f4a7c15ull + 1);
    mine = team_sum<THREADS>(mine);
    if (threadIdx.x == 0) atomicAdd(sum, mine);
}

} // namespace

const char *launch_checksum(plx_stream stream, uint64_t *sum, const void *data, size_t bytes)
{
    checksum_kernel<<<BLOCKS, THREADS, 0, (cudaStream_t)stream>>>(
        (unsigned long long *)sum, (const uint16_t *)data, (int64_t)(bytes / 2));
    return launched();
}
