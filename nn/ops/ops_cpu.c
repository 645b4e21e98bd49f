/* ops_cpu.c: the table ops_cpu: fast operations on f32 tensors, with f32 or bf16 products.
 *
 * Which instruction set serves is decided once, at creation: start from the portable loops and let
 * every later row of cpu_isas override them where the context has its feature. Matrix products are
 * oneDNN's (gemm_cpu.c), which looks at the processor by itself. Reading order: cpu_state.h,
 * rows.h, vector_cpu.c, update_cpu.c, layer_cpu.c, gemm_cpu.c, quantise_cpu.c. */
#include "ops/attend.h"
#include "ops/cpu_state.h"
#include "ops/orthogonalise.h"
#include "ops/scratch.h"

#include <stdlib.h>

static const struct cpu_isa {
    uint32_t features; /* all of these plx_feature bits are needed */
    const struct rows *rows;
} cpu_isas[] = {
    {0, &rows_portable},
#ifdef __x86_64__
    {PLX_FEATURE_AVX512, &rows_avx512},
    {PLX_FEATURE_AVX512 | PLX_FEATURE_AVX512_VNNI, &rows_vnni},
#endif
};

static void cpu_destroy(struct backend *be)
{
    struct cpu_state *state = be->ops_state;
    if (state == NULL) return;
    gemm_cache_destroy(state->gemms);
    free(state);
    be->ops_state = NULL;
}

static plx_status cpu_create(struct backend *be)
{
    REQUIRE(
        be->err, be->storage == PLX_F32 && (be->compute == PLX_F32 || be->compute == PLX_BF16),
        PLX_UNSUPPORTED,
        "the cpu operations have no %s products over %s storage; they have f32 and bf16 over f32",
        plx_dtype_name(be->compute), plx_dtype_name(be->storage));
    struct cpu_state *state = calloc(1, sizeof *state);
    REQUIRE(be->err, state != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the state of operations");
    be->ops_state = state;
    uint32_t features = plx_context_features(be->context);
    for (size_t i = 0; i < sizeof cpu_isas / sizeof *cpu_isas; i++)
        if ((cpu_isas[i].features & ~features) == 0) state->rows = cpu_isas[i].rows;
    plx_status status = gemm_cache_create(&state->gemms, be->err);
    if (status == PLX_OK) status = gemm_supported(state->gemms, be->compute, be->err);
    if (status != PLX_OK) cpu_destroy(be);
    return status;
}

const struct ops_scratch ops_cpu_scratch = {
    .gemm = cpu_gemm_scratch,
    .rmsnorm_backward = scratch_row_partials,
    .bias_backward = scratch_row_partials,
    .rope = scratch_rope,
    .project = project_scratch,
    .draw = cpu_draw_scratch,
};

const struct ops ops_cpu = {
    .name = "cpu",
    .device = &device_cpu,
    .scratch = &ops_cpu_scratch,
    .create = cpu_create,
    .destroy = cpu_destroy,
    .zero = cpu_zero,
    .copy = cpu_copy,
    .add = cpu_add,
    .sum = cpu_sum,
    .sum_squares = cpu_sum_squares,
    .gemm = cpu_gemm,
    .quantise = cpu_quantise,
    .rmsnorm = cpu_rmsnorm,
    .rmsnorm_backward = cpu_rmsnorm_backward,
    .project = cpu_project,
    .unpack = cpu_unpack,
    .bias = cpu_bias,
    .bias_backward = cpu_bias_backward,
    .rope = cpu_rope,
    .norm_rope = cpu_norm_rope,
    .norm_rope_backward = cpu_norm_rope_backward,
    .swiglu = cpu_swiglu,
    .swiglu_backward = cpu_swiglu_backward,
    .gate = cpu_gate,
    .gate_backward = cpu_gate_backward,
    .embed = cpu_embed,
    .embed_backward = cpu_embed_backward,
    .cross_entropy = cpu_cross_entropy,
    .argmax = cpu_argmax,
    .penalise = cpu_penalise,
    .draw = cpu_draw,
    .clip = cpu_clip,
    .adamw = cpu_adamw,
    .momentum = cpu_momentum,
    .normalise = cpu_normalise,
    .orthogonalise = orthogonalise_by_products,
    .apply = cpu_apply,
    .attend_forward = attend_forward,
    .attend_backward = attend_backward,
    .attend_append = attend_append,
    .attend_decode = attend_decode,
};
