/* softmax_avx512.c: softmax attention for AVX-512, in f32 and bf16. Inputs of bf16 are widened
 * while tiles are packed, so both dtypes run the same code and accumulate in f32.
 *
 * The kernels are the bodies of lib/attention in the words of cpu/avx512.h; parallax/NOTES.md
 * derives them. */
#include "cpu/avx512.h"

enum { ATTENTION_PROBE = 0 };
#include "attention/attention_backward_body.h"
#include "attention/attention_decode_body.h"
#include "attention/attention_forward_body.h"

#include "attention/attention_rows.h"
#include "softmax/softmax_impl.h"

static const char *refuse_f32(const void *problem, const plx_context *context)
{
    return attention_refuse_avx512(problem, context, PLX_F32);
}

static const char *refuse_bf16(const void *problem, const plx_context *context)
{
    return attention_refuse_avx512(problem, context, PLX_BF16);
}

const struct kernel_row softmax_forward_avx512_f32 = {
    "avx512_f32", refuse_f32, attention_forward_workspace, attention_forward};
const struct kernel_row softmax_forward_avx512_bf16 = {
    "avx512_bf16", refuse_bf16, attention_forward_workspace, attention_forward};
const struct kernel_row softmax_backward_avx512_f32 = {
    "avx512_f32", refuse_f32, attention_backward_workspace, attention_backward};
const struct kernel_row softmax_backward_avx512_bf16 = {
    "avx512_bf16", refuse_bf16, attention_backward_workspace, attention_backward};
const struct kernel_row softmax_decode_avx512_f32 = {"avx512_f32", refuse_f32,
                                                     attention_decode_workspace, attention_decode};
const struct kernel_row softmax_decode_avx512_bf16 = {"avx512_bf16", refuse_bf16,
                                                      attention_decode_workspace, attention_decode};
