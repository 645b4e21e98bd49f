/* head.c: from final hidden states to logits and loss, without [N,V] logits.
 *
 * With a vocabulary of 150 thousand, logits of a batch would be its largest tensor by far. So
 * tokens go through in chunks: logits of the chunk, their loss, their gradient in place, and from
 * it the chunk of dx and a share of dW, before the next chunk overwrites them. Loss and gradient
 * come from one pass because both need the same logits. */
#include "layers/layers.h"
#include "layers/view.h"

/* A chunk's logits fill about 4 MiB in f32, near the second-level caches of two cores, but a chunk
 * has at least 256 tokens, so that reading a large W once a chunk is repaid by enough arithmetic.
 */
enum { CHUNK_LOGITS = 1 << 20, CHUNK_TOKENS_MIN = 256 };

int64_t head_chunk(int64_t vocab, int64_t tokens)
{
    int64_t chunk = CHUNK_LOGITS / vocab;
    if (chunk < CHUNK_TOKENS_MIN) chunk = CHUNK_TOKENS_MIN;
    return chunk < tokens ? chunk : tokens;
}

/* Losses in order; a dry run has none. */
static double sum_losses(const struct plx_tensor *losses)
{
    double sum = 0;
    if (losses->data == NULL) return 0;
    for (int64_t n = 0; n < losses->shape[0]; n++)
        sum += losses->dtype == PLX_F64 ? ((const double *)losses->data)[n]
                                        : ((const float *)losses->data)[n];
    return sum;
}

plx_status head_loss(struct backend *be, int weight, const struct param_list *params,
                     const struct plx_tensor *x, const struct plx_tensor *targets, double scale,
                     const struct plx_tensor *dx, double *sum)
{
    int64_t N = x->shape[0], V = params->items[weight].value.shape[0];
    int64_t chunk = head_chunk(V, N);
    const struct plx_tensor absent = {0};
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor all_logits = arena_tensor(&be->scratch, x->dtype, 2, (int64_t[]){chunk, V}),
                      all_losses = arena_tensor(&be->scratch, x->dtype, 1, &chunk);
    *sum = 0;
    for (int64_t first = 0; first < N; first += chunk) {
        int64_t count = N - first < chunk ? N - first : chunk;
        struct plx_tensor logits = view_rows(&all_logits, 0, count),
                          losses = view_rows(&all_losses, 0, count),
                          x_chunk = view_rows(x, first, count),
                          target_chunk = view_rows(targets, first, count);
        TRY(linear_forward(be, weight, params, &x_chunk, &logits));
        TRY(be->ops->cross_entropy(be, &losses, dx != NULL ? &logits : &absent, &logits,
                                   &target_chunk, scale));
        *sum += sum_losses(&losses);
        if (dx == NULL) continue;
        struct plx_tensor dx_chunk = view_rows(dx, first, count);
        TRY(linear_backward(be, weight, params, &logits, &x_chunk, &dx_chunk, false));
    }
    arena_release(&be->scratch, mark);
    return PLX_OK;
}
