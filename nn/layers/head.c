/* head.c: from final hidden states to logits and loss, without [N,V] logits.
 *
 * With a vocabulary of 150 thousand, logits of a batch would be its largest tensor by far. So
 * tokens go through in chunks: logits of the chunk, their loss, their gradient in place, and from
 * it the chunk of dx and a share of dW, before the next chunk overwrites them. Loss and gradient
 * come from one pass because both need the same logits. */
#include "layers/layers.h"

#include <stdlib.h>

#include "core/transfer.h"
#include "layers/view.h"
#include "model.h"

/* Bytes that a chunk's logits may fill, on a CPU and on a GPU: near the second-level caches of two
 * cores; and so many that the gradient of W, which every chunk reads and writes as a whole, costs
 * little beside the products. Fewer tokens than the minimum are not worth reading a large W. */
static const size_t CHUNK_BYTES_CPU = (size_t)4 << 20, CHUNK_BYTES_GPU = (size_t)5 << 28;
enum { CHUNK_TOKENS_MIN = 256, CHUNK_TOKENS_UNIT = 128 };

int64_t head_chunk(const struct backend *be, plx_dtype logits, int64_t vocab, int64_t tokens)
{
    const bool cpu = be->device->kind == PLX_CPU;
    size_t bytes = cpu ? CHUNK_BYTES_CPU : CHUNK_BYTES_GPU;
    int64_t most = (int64_t)(bytes / plx_dtype_size(logits)) / vocab;
    if (most < CHUNK_TOKENS_MIN) most = CHUNK_TOKENS_MIN;
    if (cpu || most >= tokens) return most < tokens ? most : tokens;
    /* As many chunks, but all of about one size. */
    int64_t chunks = (tokens + most - 1) / most, even = (tokens + chunks - 1) / chunks;
    return (even + CHUNK_TOKENS_UNIT - 1) / CHUNK_TOKENS_UNIT * CHUNK_TOKENS_UNIT;
}

plx_status head_loss(struct backend *be, int weight, const struct param_list *params,
                     const struct plx_tensor *x, const struct plx_tensor *targets,
                     const struct plx_tensor *scale, const struct plx_tensor *dx,
                     const struct plx_tensor *sum)
{
    int64_t N = x->shape[0], V = params->items[weight].value.shape[0];
    int64_t chunk = head_chunk(be, x->dtype, V, N);
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

/* ---- Logits ---- */

plx_status head_logits(struct backend *be, int weight, const struct param_list *params,
                       const struct plx_tensor *x, const struct plx_tensor *host)
{
    const int64_t N = x->shape[0], V = params->items[weight].value.shape[0];
    const int64_t chunk = head_chunk(be, be->storage, V, N);
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor all = arena_tensor(&be->scratch, be->storage, 2, (int64_t[]){chunk, V});
    for (int64_t first = 0; first < N; first += chunk) {
        const int64_t count = N - first < chunk ? N - first : chunk;
        struct plx_tensor logits = view_rows(&all, 0, count), rows = view_rows(host, first, count),
                          x_chunk = view_rows(x, first, count);
        TRY(linear_forward(be, weight, params, &x_chunk, &logits));
        if (rows.data == NULL) continue; /* a dry run */
        TRY(transfer_download(be->device, be->stream, &logits, rows.data, be->err));
    }
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

/* ---- Scores of single tokens ---- */

/* What a chunk of C queries works on, each query with a row of its own. */
struct score_chunk {
    struct plx_tensor numbers; /* i32 [2,C]: where the queries look, and the tokens they ask for */
    struct plx_tensor x, logits; /* [C,E], [C,V] */
    struct plx_tensor losses;    /* [C] */
    struct plx_tensor likeliest; /* i32 [C] */
};

static struct score_chunk score_chunk_carve(struct backend *be, int64_t C, int64_t E, int64_t V)
{
    struct arena *arena = &be->scratch;
    return (struct score_chunk){.numbers = arena_tensor(arena, PLX_I32, 2, (int64_t[]){2, C}),
                                .x = arena_tensor(arena, be->activation, 2, (int64_t[]){C, E}),
                                .logits = arena_tensor(arena, be->storage, 2, (int64_t[]){C, V}),
                                .losses = arena_tensor(arena, be->storage, 1, &C),
                                .likeliest = arena_tensor(arena, PLX_I32, 1, &C)};
}

/* One chunk on the device; at and token are those of its queries. */
static plx_status score_chunk_run(struct backend *be, int weight, const struct param_list *params,
                                  const struct plx_tensor *x, const struct score_chunk *chunk)
{
    const struct plx_tensor absent = {0};
    const int64_t C = chunk->x.shape[0];
    struct plx_tensor at = view_rows(&chunk->numbers, 0, 1),
                      tokens = view_rows(&chunk->numbers, 1, 1);
    at = view_shaped(&at, 1, &C);
    tokens = view_shaped(&tokens, 1, &C);
    TRY(be->ops->embed(be, &chunk->x, x, &at));
    TRY(linear_forward(be, weight, params, &chunk->x, &chunk->logits));
    TRY(be->ops->argmax(be, &chunk->likeliest, &chunk->logits));
    return be->ops->cross_entropy(be, &chunk->losses, &absent, &chunk->logits, &tokens, NULL);
}

/* The host's side of a chunk. */
struct score_host {
    int32_t *numbers, *likeliest; /* [2,C], [C] */
    void *losses;                 /* [C] */
};

static plx_status score_host_create(struct backend *be, int64_t C, struct score_host *host)
{
    *host = (struct score_host){.numbers = calloc((size_t)(3 * C), sizeof *host->numbers),
                                .losses = calloc((size_t)C, plx_dtype_size(be->storage))};
    host->likeliest = host->numbers + 2 * C;
    if (host->numbers != NULL && host->losses != NULL) return PLX_OK;
    free(host->numbers);
    free(host->losses);
    return error_set(be->err, PLX_OUT_OF_MEMORY, "no memory for %lld queries", (long long)C);
}

/* Puts the chunk's queries on the device, runs it and reads what came out. */
static plx_status score_queries(struct backend *be, int weight, const struct param_list *params,
                                const struct plx_tensor *x, const struct score_chunk *chunk,
                                const struct score_host *host, const struct score_query *queries,
                                struct score *scores)
{
    const int64_t C = chunk->x.shape[0];
    for (int64_t c = 0; c < C; c++) {
        host->numbers[c] = queries[c].at;
        host->numbers[C + c] = queries[c].token;
    }
    TRY(transfer_upload(be->device, be->stream, &chunk->numbers, host->numbers, be->err));
    TRY(score_chunk_run(be, weight, params, x, chunk));
    TRY(transfer_download(be->device, be->stream, &chunk->losses, host->losses, be->err));
    TRY(transfer_download(be->device, be->stream, &chunk->likeliest, host->likeliest, be->err));
    for (int64_t c = 0; c < C; c++) {
        double loss = be->storage == PLX_F64 ? ((const double *)host->losses)[c]
                                             : ((const float *)host->losses)[c];
        scores[c] = (struct score){-loss, host->likeliest[c] == queries[c].token};
    }
    return PLX_OK;
}

/* The same for any number of queries, of which a chunk takes as many as it has rows. */
static plx_status score_chunks(struct backend *be, int weight, const struct param_list *params,
                               const struct plx_tensor *x, int64_t rows,
                               const struct score_query *queries, int64_t count,
                               struct score *scores)
{
    const int64_t V = params->items[weight].value.shape[0], E = x->shape[1];
    struct score_host host;
    TRY(score_host_create(be, rows, &host));
    plx_status status = PLX_OK;
    size_t mark = arena_mark(&be->scratch);
    for (int64_t first = 0; status == PLX_OK && first < count; first += rows) {
        const int64_t some = count - first < rows ? count - first : rows;
        const struct score_chunk chunk = score_chunk_carve(be, some, E, V);
        status =
            score_queries(be, weight, params, x, &chunk, &host, queries + first, scores + first);
        arena_release(&be->scratch, mark);
    }
    free(host.numbers);
    free(host.losses);
    return status;
}

plx_status head_scores(struct backend *be, int weight, const struct param_list *params,
                       const struct plx_tensor *x, const struct score_query *queries, int64_t count,
                       struct score *scores)
{
    const int64_t V = params->items[weight].value.shape[0];
    const int64_t rows = head_chunk(be, be->storage, V, x->shape[0]);
    if (queries != NULL) return score_chunks(be, weight, params, x, rows, queries, count, scores);
    size_t mark = arena_mark(&be->scratch);
    const struct score_chunk chunk = score_chunk_carve(be, rows, x->shape[1], V);
    plx_status status = score_chunk_run(be, weight, params, x, &chunk);
    arena_release(&be->scratch, mark);
    return status;
}
