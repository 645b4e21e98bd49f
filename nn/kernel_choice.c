/* kernel_choice.c: see kernel_choice.h. */
#include "kernel_choice.h"

plx_status kernel_choice(plx_context *context, const struct kernel_question *question,
                         const char **name)
{
    const struct kernel_question *x = question;
    const plx_dtype saved = x->dtype == PLX_F64 ? PLX_F64 : PLX_F32;
    const int64_t T = x->queries, S = x->keys, H = x->heads, G = x->kv_heads, D = x->head_dim;
    const int64_t one = 1, pages = x->page > 0 ? (S + x->page - 1) / x->page : 0;
    struct plx_tensor q = plx_tensor_4d(NULL, x->dtype, 1, T, H, D);
    struct plx_tensor k = plx_tensor_4d(NULL, x->dtype, 1, S, G, D);
    struct plx_tensor row = plx_tensor_dense(NULL, saved, 3, (int64_t[]){1, T, H});
    struct plx_attention attention = {.causal = true, .window = x->window};
    if (x->sequences > 0)
        attention.q_offsets = plx_tensor_dense(NULL, PLX_I32, 1, (int64_t[]){x->sequences + 1});
    if (x->page > 0) {
        k = plx_tensor_4d(NULL, x->dtype, pages, x->page, G, D);
        attention.k_lengths = plx_tensor_dense(NULL, PLX_I32, 1, &one);
        attention.k_pages = plx_tensor_dense(NULL, PLX_I32, 2, (int64_t[]){1, pages});
    }
    q.device = k.device = row.device = attention.q_offsets.device = x->device;
    attention.k_lengths.device = attention.k_pages.device = x->device;
    if (x->mechanism == PLX_PARALLAX) {
        struct plx_parallax_args args = {.q = q,
                                         .r = q,
                                         .k = k,
                                         .v = k,
                                         .o = q,
                                         .lse = row,
                                         .probe_mean = row,
                                         .value_mean = q,
                                         .d_o = q,
                                         .dq = q,
                                         .dr = q,
                                         .dk = k,
                                         .dv = k};
        return plx_parallax_kernel(context, &attention, x->pass, &args, name);
    }
    struct plx_softmax_args args = {
        .q = q, .k = k, .v = k, .o = q, .lse = row, .d_o = q, .dq = q, .dk = k, .dv = k};
    return plx_softmax_kernel(context, &attention, x->pass, &args, name);
}
