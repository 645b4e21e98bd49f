/* attention_avx512.h: the kernels and table rows of a mechanism for AVX-512, in f32, bf16 and f16.
 * Narrow inputs are widened while tiles are packed, so all dtypes run the same code and accumulate
 * in f32.
 *
 * parallax_avx512.c and softmax_avx512.c include it after the constant ATTENTION_PROBE. The kernels
 * are the bodies of this folder in the words of cpu/avx512.h; parallax/NOTES.md derives them. */
#ifndef PLX_ATTENTION_AVX512_H
#define PLX_ATTENTION_AVX512_H

#include "cpu/avx512.h"

#include "attention/attention_backward_body.h"
#include "attention/attention_decode_body.h"
#include "attention/attention_forward_body.h"

#include "attention/attention_rows.h"

static const char *refuse_f32(const void *problem, const plx_context *context)
{
    return attention_refuse_avx512(problem, context, PLX_F32, "it takes f32 only");
}

static const char *refuse_bf16(const void *problem, const plx_context *context)
{
    return attention_refuse_avx512(problem, context, PLX_BF16, "it takes bf16 only");
}

static const char *refuse_f16(const void *problem, const plx_context *context)
{
    return attention_refuse_avx512(problem, context, PLX_F16, "it takes f16 only");
}

#define ATTENTION_AVX512_ROW(mechanism, pass, dtype)                                               \
    const struct kernel_row mechanism##_##pass##_avx512_##dtype = {                                \
        "avx512_" #dtype, refuse_##dtype, attention_##pass##_workspace, attention_##pass}

#define ATTENTION_AVX512_ROWS(mechanism, pass)                                                     \
    ATTENTION_AVX512_ROW(mechanism, pass, f32);                                                    \
    ATTENTION_AVX512_ROW(mechanism, pass, bf16);                                                   \
    ATTENTION_AVX512_ROW(mechanism, pass, f16)

#endif
