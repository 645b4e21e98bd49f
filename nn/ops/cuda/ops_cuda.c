/* ops_cuda.c: the table ops_cuda: every operation on tensors in a GPU's memory.
 *
 * Parameters and statistics are f32, activations f32 or bf16; sums are in float or double, never
 * in bf16. Host files (*.c) check arguments and choose, kernels stand in *.cu behind launch.h.
 * Nothing waits for the GPU. Reading order: cuda_state.h, launch.h, vector_cuda.c, layer_cuda.c,
 * update_cuda.c, gemm_library.h, gemm_cuda.c. */
#include "ops/attend.h"
#include "ops/cuda/cuda_state.h"
#include "ops/scratch.h"

#include <stdlib.h>

plx_status cuda_launched(struct backend *be, const char *op, const char *failure)
{
    REQUIRE(be->err, failure == NULL, PLX_DEVICE_ERROR, "%s: cuda: %s", op, failure);
    return PLX_OK;
}

static void cuda_destroy(struct backend *be)
{
    struct cuda_state *state = be->ops_state;
    if (state == NULL) return;
    gemm_library_destroy(state->products);
    free(state);
    be->ops_state = NULL;
}

static plx_status cuda_create(struct backend *be)
{
    bool same = be->compute == be->activation;
    REQUIRE(be->err, be->storage == PLX_F32 && same, PLX_UNSUPPORTED,
            "the cuda operations have no %s products of %s activations over %s storage; they have "
            "f32 of f32 and bf16 of bf16, over f32",
            plx_dtype_name(be->compute), plx_dtype_name(be->activation),
            plx_dtype_name(be->storage));
    struct cuda_state *state = calloc(1, sizeof *state);
    REQUIRE(be->err, state != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the state of operations");
    be->ops_state = state;
    plx_status status = gemm_library_create(&state->products, be->err);
    if (status == PLX_OK && be->fp8_linear) status = cuda_gemm_has_fp8(be);
    if (status != PLX_OK) cuda_destroy(be);
    return status;
}

static const struct ops_scratch cuda_scratch = {
    .gemm = cuda_gemm_scratch,
    .quantise = cuda_quantise_scratch,
    .sum_squares = cuda_sum_squares_scratch,
    .normalise = cuda_normalise_scratch,
    .orthogonalise = cuda_orthogonalise_scratch,
    .rmsnorm_backward = cuda_row_partials,
    .bias_backward = cuda_row_partials,
    .embed_backward = cuda_embed_backward_scratch,
    .project = cuda_project_scratch,
};

const struct ops ops_cuda = {
    .name = "cuda",
    .device = &device_cuda,
    .scratch = &cuda_scratch,
    .create = cuda_create,
    .destroy = cuda_destroy,
    .zero = cuda_zero,
    .copy = cuda_copy,
    .add = cuda_add,
    .sum = cuda_sum,
    .sum_squares = cuda_sum_squares,
    .gemm = cuda_gemm,
    .quantise = cuda_quantise,
    .rmsnorm = cuda_rmsnorm,
    .rmsnorm_backward = cuda_rmsnorm_backward,
    .project = cuda_project,
    .unpack = cuda_unpack,
    .bias = cuda_bias,
    .bias_backward = cuda_bias_backward,
    .rope = cuda_rope,
    .norm_rope = cuda_norm_rope,
    .norm_rope_backward = cuda_norm_rope_backward,
    .swiglu = cuda_swiglu,
    .swiglu_backward = cuda_swiglu_backward,
    .gate = cuda_gate,
    .gate_backward = cuda_gate_backward,
    .embed = cuda_embed,
    .embed_backward = cuda_embed_backward,
    .cross_entropy = cuda_cross_entropy,
    .argmax = cuda_argmax,
    .penalise = cuda_penalise,
    .draw = cuda_draw,
    .clip = cuda_clip,
    .adamw = cuda_adamw,
    .momentum = cuda_momentum,
    .normalise = cuda_normalise,
    .orthogonalise = cuda_orthogonalise,
    .apply = cuda_apply,
    .attend_forward = attend_forward,
    .attend_backward = attend_backward,
    .attend_append = attend_append,
    .attend_decode = attend_decode,
};
