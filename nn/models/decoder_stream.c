/* decoder_stream.c: logits of a model that need not fit memory.
 *
 *     table, some rows at a time     x[0] = the rows of the tokens
 *     block after block              x[l+1] = block_l(x[l])
 *     final norm
 *     head, some rows at a time      these columns of the logits
 *
 * The hidden states of a prompt are small, so all that takes memory is the values in use. They
 * share one arena, as large as the largest block: a block is carved anew in it before it runs, and
 * tables go through it some rows at a time. How many depends on their width alone: a matrix product
 * cut elsewhere may round elsewhere, and models that differ in their blocks must be comparable. */
#include "models/decoder.h"

#include <string.h>

/* Numbers of a table that are read at once, or one row: few enough to stay in the cache. */
enum { TABLE_NUMBERS = 1 << 20 };

struct streaming {
    struct model *model; /* without values */
    struct decoder_run run;
    int64_t table_rows; /* that are read at once */
    model_read_rows read;
    void *user;
};

/* ---- Memory ---- */

/* Rows first .. first + count - 1 of the parameter table, as a list of their own that shares them.
 */
static struct param_list part_of(const struct model *model, int first, int count)
{
    return (struct param_list){.items = model->params.items + first, .count = count};
}

static struct param_list block_part(const struct model *model, int64_t l)
{
    return part_of(model, model->blocks[l].first_param, model->blocks[l].param_count);
}

static void carve_part(const struct model *model, struct param_list *part, struct arena *arena)
{
    arena_release(arena, 0);
    param_list_carve_values(part, arena);
    param_list_carve_active(part, backend_precision(model->be), arena);
}

static struct plx_tensor carve_rows(const struct model *model, int64_t count, struct arena *arena)
{
    arena_release(arena, 0);
    return arena_tensor(arena, model->be->storage, 2,
                        (int64_t[]){count, model->config.hidden_size});
}

static plx_status reserve(struct streaming *streaming, const struct batch *batch)
{
    struct model *model = streaming->model;
    struct arena measuring = arena_measuring(model->be->device);
    streaming->table_rows = 1 + (TABLE_NUMBERS - 1) / model->config.hidden_size;
    for (int64_t l = 0; l < model->config.layers; l++) {
        struct param_list part = block_part(model, l);
        carve_part(model, &part, &measuring);
    }
    carve_rows(model, streaming->table_rows, &measuring);
    TRY(backend_arena(model->be, measuring.peak, &model->values));
    return model_reserve(model, batch->tokens, batch->sequences, false, RECOMPUTE_NONE, NULL);
}

/* ---- Reading ---- */

static plx_status read_part(const struct streaming *streaming, struct param_list part)
{
    carve_part(streaming->model, &part, &streaming->model->values);
    for (int i = 0; i < part.count; i++)
        TRY(streaming->read(streaming->user, &part.items[i], 0, part.items[i].value.shape[0],
                            part.items[i].value.data));
    return PLX_OK;
}

/* As many rows of a table as go at once, from first on. */
static plx_status read_rows(const struct streaming *streaming, int table, int64_t first,
                            struct plx_tensor *rows)
{
    struct model *model = streaming->model;
    const struct param *param = &model->params.items[table];
    const int64_t left = param->value.shape[0] - first;
    *rows = carve_rows(model, left < streaming->table_rows ? left : streaming->table_rows,
                       &model->values);
    return streaming->read(streaming->user, param, first, rows->shape[0], rows->data);
}

/* ---- Running ---- */

static plx_status run_embedding(const struct streaming *streaming, const struct batch *batch)
{
    const struct plx_tensor *x = &streaming->model->activations.x[0];
    const size_t row_bytes = (size_t)x->shape[1] * plx_dtype_size(x->dtype);
    struct plx_tensor rows;
    for (int64_t first = 0; first < streaming->model->config.vocab_size; first += rows.shape[0]) {
        TRY(read_rows(streaming, streaming->model->table, first, &rows));
        for (int64_t n = 0; n < batch->tokens; n++) {
            const int64_t row = batch->ids[n] - first;
            if (row < 0 || row >= rows.shape[0]) continue;
            memcpy((char *)x->data + (size_t)n * row_bytes,
                   (const char *)rows.data + (size_t)row * row_bytes, row_bytes);
        }
    }
    return PLX_OK;
}

static plx_status run_blocks(const struct streaming *streaming)
{
    struct model *model = streaming->model;
    const struct activations *kept = &model->activations;
    for (int64_t l = 0; l < model->config.layers; l++) {
        TRY(read_part(streaming, block_part(model, l)));
        TRY(block_forward(model->be, &model->blocks[l], &model->params, &streaming->run.view,
                          &kept->x[l], activations_record(model, l), &kept->x[l + 1]));
    }
    return PLX_OK;
}

static plx_status run_norm(const struct streaming *streaming)
{
    struct model *model = streaming->model;
    const struct activations *kept = &model->activations;
    TRY(read_part(streaming, part_of(model, model->norm.gain, 1)));
    return rmsnorm_forward(model->be, &model->norm, &model->params, &kept->x[model->config.layers],
                           &kept->final, &kept->final_rstd);
}

static plx_status run_head(const struct streaming *streaming)
{
    struct backend *be = streaming->model->be;
    struct plx_tensor rows, columns = streaming->run.logits;
    const int64_t V = columns.shape[1];
    for (int64_t first = 0; first < V; first += rows.shape[0]) {
        TRY(read_rows(streaming, streaming->model->head, first, &rows));
        columns.shape[1] = rows.shape[0];
        columns.data =
            (char *)streaming->run.logits.data + (size_t)first * plx_dtype_size(columns.dtype);
        const struct gemm product = {.a = &streaming->model->activations.final,
                                     .b = &rows,
                                     .c = &columns,
                                     .transpose_b = true,
                                     .alpha = 1};
        TRY(be->ops->gemm(be, &product));
    }
    return PLX_OK;
}

static plx_status run_model(struct streaming *streaming, const struct batch *batch,
                            const struct plx_tensor *logits)
{
    TRY(reserve(streaming, batch));
    TRY(decoder_begin_logits(streaming->model, batch, logits, &streaming->run));
    TRY(run_embedding(streaming, batch));
    TRY(run_blocks(streaming));
    TRY(run_norm(streaming));
    return run_head(streaming);
}

plx_status model_stream_logits(struct backend *be, const struct model_config *config,
                               const struct batch *batch, model_read_rows read, void *user,
                               const struct plx_tensor *logits)
{
    struct streaming streaming = {.read = read, .user = user};
    REQUIRE(be->err, be->device->kind == PLX_CPU && be->packing == PACKING_NONE, PLX_UNSUPPORTED,
            "a model is streamed on the CPU and unpacked, not on %s in %s", be->ops->name,
            packing_name(be->packing));
    TRY(decoder_create(be, config, false, &streaming.model));
    plx_status status = run_model(&streaming, batch, logits);
    model_destroy(streaming.model);
    return status;
}
