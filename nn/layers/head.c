/* head.c: from final hidden states to logits and loss, without [N,V] logits.
 *
 * With a vocabulary of 150 thousand, logits of a batch would be its largest tensor by far. So
 * tokens go through in chunks: logits of the chunk, their loss, their gradient in place, and from
 * it the chunk of dx and a share of dW, before the next chunk overwrites them. Loss and gradient
 * come from one pass because both need the same logits. */
#include "layers/layers.h"
#include "layers/view.h"
#include "model.h"

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

static double value_at(const struct plx_tensor *tensor, int64_t i)
{
    return tensor->dtype == PLX_F64 ? ((const double *)tensor->data)[i]
                                    : ((const float *)tensor->data)[i];
}

plx_status head_loss(struct backend *be, int weight, const struct param_list *params,
                     const struct plx_tensor *x, const struct plx_tensor *targets, double scale,
                     const struct plx_tensor *dx, const struct plx_tensor *sum)
{
    int64_t N = x->shape[0], V = params->items[weight].value.shape[0];
    int64_t chunk = head_chunk(V, N);
    const struct plx_tensor absent = {0};
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor all_logits = arena_tensor(&be->scratch, x->dtype, 2, (int64_t[]){chunk, V}),
                      all_losses = arena_tensor(&be->scratch, be->storage, 1, &chunk);
    for (int64_t first = 0; first < N; first += chunk) {
        int64_t count = N - first < chunk ? N - first : chunk;
        struct plx_tensor logits = view_rows(&all_logits, 0, count),
                          losses = view_rows(&all_losses, 0, count),
                          x_chunk = view_rows(x, first, count),
                          target_chunk = view_rows(targets, first, count);
        TRY(linear_forward(be, weight, params, &x_chunk, &logits));
        TRY(be->ops->cross_entropy(be, &losses, dx != NULL ? &logits : &absent, &logits,
                                   &target_chunk, scale));
        TRY(be->ops->sum(be, sum, &losses));
        if (dx == NULL) continue;
        struct plx_tensor dx_chunk = view_rows(dx, first, count);
        TRY(linear_backward(be, weight, params, &logits, &x_chunk, &dx_chunk, false));
    }
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

/* ---- Scores of single tokens ---- */

static bool is_greedy(const struct plx_tensor *logits, int64_t row, int32_t token)
{
    const int64_t V = logits->shape[1];
    const double chosen = value_at(logits, row * V + token);
    for (int64_t v = 0; v < V; v++) {
        double logit = value_at(logits, row * V + v);
        if (logit > chosen || (logit == chosen && v < token)) return false;
    }
    return true;
}

/* What a chunk of queries works on, each query with a row of its own. */
struct score_chunk {
    struct plx_tensor x, logits, losses, targets; /* [C,E], [C,V], [C], i32 [C] */
};

static plx_status gather_queries(struct backend *be, const struct plx_tensor *x,
                                 const struct score_query *queries, const struct score_chunk *chunk)
{
    for (int64_t c = 0; queries != NULL && c < chunk->x.shape[0]; c++) {
        struct plx_tensor source = view_rows(x, queries[c].at, 1), row = view_rows(&chunk->x, c, 1);
        TRY(be->ops->copy(be, &row, &source));
        ((int32_t *)chunk->targets.data)[c] = queries[c].token;
    }
    return PLX_OK;
}

static void read_scores(const struct score_chunk *chunk, const struct score_query *queries,
                        struct score *scores)
{
    for (int64_t c = 0; queries != NULL && c < chunk->x.shape[0]; c++)
        scores[c] = (struct score){.logprob = -value_at(&chunk->losses, c),
                                   .greedy = is_greedy(&chunk->logits, c, queries[c].token)};
}

plx_status head_scores(struct backend *be, int weight, const struct param_list *params,
                       const struct plx_tensor *x, const struct score_query *queries, int64_t count,
                       struct score *scores)
{
    const int64_t V = params->items[weight].value.shape[0], E = x->shape[1];
    const int64_t rows = head_chunk(V, x->shape[0]);
    const struct plx_tensor absent = {0};
    size_t mark = arena_mark(&be->scratch);
    const struct score_chunk all = {
        .x = arena_tensor(&be->scratch, x->dtype, 2, (int64_t[]){rows, E}),
        .logits = arena_tensor(&be->scratch, x->dtype, 2, (int64_t[]){rows, V}),
        .losses = arena_tensor(&be->scratch, be->storage, 1, &rows),
        .targets = arena_tensor(&be->scratch, PLX_I32, 1, &rows)};
    if (queries == NULL) count = rows;
    for (int64_t first = 0; first < count; first += rows) {
        const int64_t some = count - first < rows ? count - first : rows;
        const struct score_query *asked = queries != NULL ? queries + first : NULL;
        const struct score_chunk chunk = {.x = view_rows(&all.x, 0, some),
                                          .logits = view_rows(&all.logits, 0, some),
                                          .losses = view_rows(&all.losses, 0, some),
                                          .targets = view_rows(&all.targets, 0, some)};
        TRY(gather_queries(be, x, asked, &chunk));
        TRY(linear_forward(be, weight, params, &chunk.x, &chunk.logits));
        TRY(be->ops->cross_entropy(be, &chunk.losses, &absent, &chunk.logits, &chunk.targets, 0));
        read_scores(&chunk, asked, scores + first);
    }
    arena_release(&be->scratch, mark);
    return PLX_OK;
}
