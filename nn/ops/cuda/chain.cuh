/* chain.cuh: launches that overlap. Where a token at a time goes through a model, kernels are so
 * short that starting one costs as much as running it. On Hopper and later a kernel of a chain lets
 * the next one start as soon as all of its own blocks have; each waits by itself for those before
 * it, and may do before that what depends on none of them: read weights, turn positions to angles.
 *
 * A kernel of a chain calls dependency_release, and dependency_wait in every thread before it
 * touches what an earlier kernel writes or reads: so that when it has finished, all before it have.
 */
#ifndef NN_OPS_CUDA_CHAIN_CUH
#define NN_OPS_CUDA_CHAIN_CUH

#include "ops/cuda/numbers.cuh"

/* With bytes of dynamic shared memory. */
template <class... Parameters, class... Arguments>
static inline void launch_chained_with(size_t shared, void (*kernel)(Parameters...), int64_t blocks,
                                       int threads, plx_stream stream, Arguments... arguments)
{
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = shared;
    config.stream = (cudaStream_t)stream;
    config.attrs = &overlap;
    config.numAttrs = is_hopper() ? 1 : 0; /* older GPUs run one after the other */
    if (shared == 0 || cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            (int)shared) == cudaSuccess)
        cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <class... Parameters, class... Arguments>
static inline void launch_chained(void (*kernel)(Parameters...), int64_t blocks, int threads,
                                  plx_stream stream, Arguments... arguments)
{
    launch_chained_with(0, kernel, blocks, threads, stream, arguments...);
}

#endif
