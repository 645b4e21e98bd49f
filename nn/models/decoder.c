/* decoder.c: the decoder in the shape of Qwen-3, forward and backward.
 *
 *     x[0] = table[ids]     x[l+1] = block_l(x[l])     final = norm(x[L])     loss = head(final)
 *
 * The array of blocks is the tape: backward walks it from the end, with one gradient [N,E] that
 * each block turns from that of its output into that of its input. Whether a block's record was
 * kept or is filled again is decided in decoder_memory.c and invisible here but for one call.
 * Batches come in as plain arrays and are checked once. */
#include "models/decoder.h"

#include <stdlib.h>

#include "layers/view.h"

/* ---- Building ---- */

/* In the order in which checkpoints list them: embedding, blocks, final norm, head. */
static bool create_layers(struct model *model, struct precision precision)
{
    const plx_dtype dtype = precision.storage;
    const struct model_config *config = &model->config;
    const int64_t V = config->vocab_size, E = config->hidden_size, L = config->layers;
    const double std = config->initializer_range;
    struct param_list *params = &model->params;
    params->lora = config->lora;
    model->blocks = calloc((size_t)L, sizeof *model->blocks);
    model->table =
        embedding_add(params, dtype, V, E, std, model_tensor_names(config->family)->embedding);
    if (model->blocks == NULL || model->table < 0) return false;
    for (int l = 0; l < L; l++)
        if (!block_create(&model->blocks[l], config, l, precision, params)) return false;
    if (!rmsnorm_create(&model->norm, params, dtype, E, config->norm_eps, PARAM_INIT_ONE, "model",
                        "norm"))
        return false;
    model->head = model->table;
    if (!config->tie_embeddings)
        model->head = param_add(params, dtype, 2, (int64_t[]){V, E}, PARAM_INIT_NORMAL, std,
                                PARAM_HEAD, "lm_head.weight");
    return model->head >= 0 && activations_create(&model->activations, model->blocks, L);
}

static void carve_params(struct model *model, struct arena *arena)
{
    param_list_carve_values(&model->params, arena);
    model->value_bytes = arena->used;
    param_list_carve_active(&model->params, model->be->activation, arena);
}

static plx_status build(struct model *model, bool with_values)
{
    struct error *err = model->be->err;
    REQUIRE(err, create_layers(model, backend_precision(model->be)), PLX_OUT_OF_MEMORY,
            "out of memory for the tables of a model of %lld layers",
            (long long)model->config.layers);
    param_list_pack(&model->params, model->be->packing);
    struct arena measuring = arena_measuring(model->be->device);
    carve_params(model, &measuring);
    if (!with_values) return PLX_OK;
    TRY(backend_arena(model->be, measuring.used, &model->values));
    carve_params(model, &model->values);
    return PLX_OK;
}

plx_status decoder_create(struct backend *be, const struct model_config *config, bool with_values,
                          struct model **model)
{
    *model = NULL;
    TRY(model_config_check(config, "model", be->err));
    struct model *made = calloc(1, sizeof *made);
    REQUIRE(be->err, made != NULL, PLX_OUT_OF_MEMORY, "out of memory for a model");
    made->be = be;
    made->config = *config;
    plx_status status = build(made, with_values);
    if (status == PLX_OK)
        *model = made;
    else
        model_destroy(made);
    return status;
}

plx_status model_create(struct backend *be, const struct model_config *config, struct model **model)
{
    return decoder_create(be, config, true, model);
}

plx_status model_describe(const struct model_config *config, struct param_list *params,
                          struct error *err)
{
    *params = (struct param_list){0};
    TRY(model_config_check(config, "model", err));
    struct model *made = calloc(1, sizeof *made);
    if (made != NULL) made->config = *config;
    bool complete = made != NULL && create_layers(made, (struct precision){PLX_F32, PLX_F32});
    if (complete) {
        *params = made->params;
        made->params = (struct param_list){0};
    }
    model_destroy(made);
    REQUIRE(err, complete, PLX_OUT_OF_MEMORY,
            "out of memory for the table of a model's parameters");
    return PLX_OK;
}

void model_destroy(struct model *model)
{
    if (model == NULL) return;
    activations_destroy(&model->activations, model->config.layers);
    for (int64_t l = 0; model->blocks != NULL && l < model->config.layers; l++)
        block_destroy(&model->blocks[l]);
    free(model->blocks);
    arena_destroy(&model->values);
    arena_destroy(&model->grads);
    arena_destroy(&model->inputs.arena);
    arena_destroy(&model->keys.arena);
    param_list_destroy(&model->params);
    free(model);
}

const struct model_config *model_get_config(const struct model *model)
{
    return &model->config;
}

struct param_list *model_params(struct model *model)
{
    return &model->params;
}

struct backend *model_backend(const struct model *model)
{
    return model->be;
}

plx_status model_init(struct model *model, uint64_t seed)
{
    struct backend *be = model->be;
    TRY(param_list_init(&model->params, seed, be->device, be->stream, be->err));
    return backend_refresh(be, &model->params);
}

plx_status model_zero_grads(struct model *model)
{
    REQUIRE(model->be->err, model->has_grads, PLX_INVALID_ARGUMENT,
            "the model has no gradients reserved");
    for (int i = 0; i < model->params.count; i++)
        if (param_has_grad(&model->params.items[i]))
            TRY(model->be->ops->zero(model->be, &model->params.items[i].grad));
    return PLX_OK;
}

/* ---- Batches ---- */

struct decoder_run decoder_run_make(const struct model *model, const struct batch_inputs *inputs,
                                    const struct batch_keys *keys, enum decoder_task task,
                                    const struct batch_shape *shape)
{
    const int64_t N = shape->tokens, logits[2] = {N, model->config.vocab_size};
    struct decoder_run run = {
        .task = task,
        .view = {.tokens = N,
                 .positions = view_rows(&inputs->positions, 0, N),
                 .rows = shape->equal ? shape->sequences : 0,
                 .offsets = view_rows(&inputs->offsets, 0, shape->sequences + 1)},
        .ids = view_rows(&inputs->ids, 0, N),
        .targets = view_rows(&inputs->targets, 0, N),
        .loss = inputs->loss,
        .logits = plx_tensor_dense(NULL, model->be->storage, 2, logits)};
    if (shape->keys == 0) return run;
    run.view.keys = view_rows(&keys->keys, 0, shape->keys);
    run.view.key_offsets = view_rows(&keys->offsets, 0, shape->sequences + 1);
    return run;
}

static plx_status upload(const struct backend *be, const struct plx_tensor *to, const int32_t *from)
{
    return be->device->upload(to->data, from, (size_t)plx_tensor_count(to) * sizeof *from,
                              be->stream, be->err);
}

/* The batch on the device. Arrays that a task does not read may be NULL. */
static plx_status upload_batch(const struct backend *be, const struct decoder_run *run,
                               const struct batch *batch)
{
    TRY(upload(be, &run->ids, batch->ids));
    TRY(upload(be, &run->view.positions, batch->positions));
    if (batch->targets != NULL) TRY(upload(be, &run->targets, batch->targets));
    if (batch->keys != NULL) {
        TRY(upload(be, &run->view.keys, batch->keys));
        TRY(upload(be, &run->view.key_offsets, batch->key_offsets));
    }
    return upload(be, &run->view.offsets, batch->offsets);
}

/* Whether all sequences have the same length. */
static bool is_equal(const struct batch *batch)
{
    const int64_t length = batch->offsets[1];
    for (int64_t s = 0; s < batch->sequences; s++)
        if (batch->offsets[s + 1] != (s + 1) * length) return false;
    return true;
}

/* Prepares a task on a batch that has been checked. */
static plx_status prepare_run(struct model *model, enum decoder_task task,
                              const struct batch *batch, struct decoder_run *run)
{
    struct batch_shape shape = {batch->tokens, batch->sequences, is_equal(batch), 0};
    if (batch->keys != NULL) {
        shape.equal = false;
        shape.keys = batch->key_offsets[batch->sequences];
    }
    TRY(decoder_prepare(model, task, &shape));
    *run = decoder_run_make(model, &model->inputs, &model->keys, task, &shape);
    return upload_batch(model->be, run, batch);
}

/* Ids index tables, so a wrong one must never pass; offsets are checked by attention, but only
 * after earlier layers have run. */
static plx_status check_batch(const struct model *model, const struct batch *batch, bool scored)
{
    struct error *err = model->be->err;
    const long long V = model->config.vocab_size;
    REQUIRE(err, batch->tokens >= 0 && batch->sequences >= 0, PLX_INVALID_ARGUMENT,
            "a batch of %lld tokens in %lld sequences", (long long)batch->tokens,
            (long long)batch->sequences);
    for (int64_t n = 0; n < batch->tokens; n++) {
        REQUIRE(err, batch->ids[n] >= 0 && batch->ids[n] < V, PLX_INVALID_ARGUMENT,
                "token %lld of the batch is %d but must be from 0 to %lld", (long long)n,
                batch->ids[n], V - 1);
        REQUIRE(err, !scored || batch->targets[n] < V, PLX_INVALID_ARGUMENT,
                "target %lld of the batch is %d but must be at most %lld", (long long)n,
                batch->targets[n], V - 1);
    }
    if (batch->tokens == 0) return PLX_OK;
    const int64_t N = batch->sequences;
    for (int64_t s = 0; s < N; s++)
        REQUIRE(err, batch->offsets[s] <= batch->offsets[s + 1], PLX_INVALID_ARGUMENT,
                "sequence %lld of the batch begins at %d but ends at %d", (long long)s,
                batch->offsets[s], batch->offsets[s + 1]);
    REQUIRE(err, N > 0 && batch->offsets[0] == 0 && batch->offsets[N] == batch->tokens,
            PLX_INVALID_ARGUMENT, "the offsets of a batch of %lld tokens run from %d to %d",
            (long long)batch->tokens, N > 0 ? batch->offsets[0] : 0, N > 0 ? batch->offsets[N] : 0);
    return PLX_OK;
}

/* Keys are rows of a table too, and a sequence must see its own tokens last. */
static plx_status check_keys(const struct model *model, const struct batch *batch)
{
    struct error *err = model->be->err;
    REQUIRE(err, batch->key_offsets[0] == 0, PLX_INVALID_ARGUMENT,
            "the keys of a batch begin at %d", batch->key_offsets[0]);
    for (int64_t s = 0; s < batch->sequences; s++) {
        const int64_t own = batch->offsets[s + 1] - batch->offsets[s],
                      end = batch->key_offsets[s + 1];
        REQUIRE(err, end - own >= batch->key_offsets[s] && end <= model->max_keys,
                PLX_INVALID_ARGUMENT,
                "the keys of sequence %lld are %d to %lld, but it has %lld tokens of its own and "
                "%lld keys are reserved",
                (long long)s, batch->key_offsets[s], (long long)end, (long long)own,
                (long long)model->max_keys);
        for (int64_t k = batch->key_offsets[s]; k < end; k++) {
            const int64_t token = k - (end - own) + batch->offsets[s];
            const bool fits = k < end - own ? batch->keys[k] >= 0 && batch->keys[k] < batch->tokens
                                            : batch->keys[k] == token;
            REQUIRE(err, fits, PLX_INVALID_ARGUMENT,
                    "key %lld of the batch, for sequence %lld, is token %d", (long long)k,
                    (long long)s, batch->keys[k]);
        }
    }
    return PLX_OK;
}

/* ---- Forward and backward ---- */

static plx_status forward(struct model *model, struct backend *be, const struct decoder_run *run)
{
    const struct activations *kept = &model->activations;
    const int64_t L = model->config.layers;
    TRY(embedding_forward(be, model->table, &model->params, &run->ids, &kept->x[0]));
    for (int64_t l = 0; l < L; l++)
        TRY(block_forward(be, &model->blocks[l], &model->params, &run->view, &kept->x[l],
                          activations_record(model, l), &kept->x[l + 1]));
    return rmsnorm_forward(be, &model->norm, &model->params, &kept->x[L], &kept->final,
                           &kept->final_rstd);
}

/* The gradients of parameters from first on are queued. */
static plx_status tell(struct model *model, const struct decoder_run *run, int first, int count)
{
    if (!run->telling || model->queued == NULL) return PLX_OK;
    return model->queued(model->queued_user, first, count);
}

/* What of a block's record was not kept. */
static plx_status restore_record(struct model *model, struct backend *be,
                                 const struct decoder_run *run, int64_t l,
                                 const struct block_record *record)
{
    const struct activations *kept = &model->activations;
    const struct block *block = &model->blocks[l];
    if (kept->keep == RECORD_ALL) return PLX_OK;
    if (kept->keep == RECORD_KEPT)
        return block_recompute(be, block, &model->params, &run->view, record);
    return block_forward(be, block, &model->params, &run->view, &kept->x[l], record, NULL);
}

/* d [N,E] comes in as the gradient of x[L] and leaves as that of x[0]. */
static plx_status backward_blocks(struct model *model, struct backend *be,
                                  const struct decoder_run *run, const struct plx_tensor *d)
{
    const struct activations *kept = &model->activations;
    for (int64_t l = model->config.layers - 1; l >= 0; l--) {
        const struct block *block = &model->blocks[l];
        const struct block_record *record = activations_record(model, l);
        TRY(restore_record(model, be, run, l, record));
        TRY(block_backward(be, block, &model->params, &run->view, &kept->x[l], record, d));
        TRY(tell(model, run, block->first_param, block->param_count));
    }
    return PLX_OK;
}

static plx_status loss_backward(struct model *model, struct backend *be, struct decoder_run *run)
{
    const struct activations *kept = &model->activations;
    const struct plx_tensor *last = &kept->x[model->config.layers];
    struct plx_tensor d = arena_tensor(&be->scratch, be->activation, 2, last->shape); /* [N,E] */
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor dfinal = arena_tensor(&be->scratch, be->activation, 2, last->shape);
    TRY(head_loss(be, model->head, &model->params, &kept->final, &run->targets, run->scale, &dfinal,
                  &run->loss));
    TRY(rmsnorm_backward(be, &model->norm, &model->params, &dfinal, last, &kept->final_rstd, NULL,
                         &d));
    arena_release(&be->scratch, mark);
    /* Behind the blocks come the final norm and an untied head, before them the table. */
    const struct block *blocks = model->blocks, *end = &blocks[model->config.layers - 1];
    const int behind = end->first_param + end->param_count;
    TRY(tell(model, run, behind, model->params.count - behind));
    TRY(backward_blocks(model, be, run, &d));
    TRY(embedding_backward(be, model->table, &model->params, &run->ids, &d));
    return tell(model, run, 0, blocks[0].first_param);
}

static plx_status run_task(struct model *model, struct backend *be, struct decoder_run *run)
{
    const struct activations *kept = &model->activations;
    TRY(forward(model, be, run));
    switch (run->task) {
    case DECODER_LOSS:
        return head_loss(be, model->head, &model->params, &kept->final, &run->targets, 0, NULL,
                         &run->loss);
    case DECODER_LOSS_BACKWARD:
        return loss_backward(model, be, run);
    case DECODER_LOGITS:
        return head_logits(be, model->head, &model->params, &kept->final, &run->logits);
    case DECODER_SCORES:
        return head_scores(be, model->head, &model->params, &kept->final, run->queries,
                           run->query_count, run->scores);
    }
    return error_set(be->err, PLX_INTERNAL, "the decoder has no task %d", (int)run->task);
}

plx_status decoder_run(struct model *model, struct backend *be, struct decoder_run *run)
{
    size_t mark = arena_mark(&be->scratch);
    plx_status status = run_task(model, be, run);
    arena_release(&be->scratch, mark);
    return status;
}

/* ---- The verbs of model.h ---- */

static plx_status run_loss(struct model *model, const struct batch *batch, enum decoder_task task,
                           double scale)
{
    TRY(check_batch(model, batch, true));
    REQUIRE(model->be->err, batch->keys == NULL, PLX_INVALID_ARGUMENT,
            "a batch whose sequences share tokens has no loss");
    if (batch->tokens == 0) return PLX_OK;
    struct decoder_run run;
    TRY(prepare_run(model, task, batch, &run));
    run.scale = scale;
    run.telling = true;
    return decoder_run(model, model->be, &run);
}

static int64_t scored_tokens(const struct batch *batch)
{
    int64_t count = 0;
    for (int64_t n = 0; n < batch->tokens; n++) count += batch->targets[n] >= 0;
    return count;
}

plx_status model_loss(struct model *model, const struct batch *batch, struct model_loss *loss)
{
    *loss = (struct model_loss){0};
    TRY(run_loss(model, batch, DECODER_LOSS, 0));
    loss->count = scored_tokens(batch);
    return batch->tokens == 0 ? PLX_OK : model_loss_read(model, &loss->sum);
}

plx_status model_loss_backward(struct model *model, const struct batch *batch, double scale,
                               struct model_loss *loss)
{
    REQUIRE(model->be->err, model->has_grads && model->activations.keep_inputs,
            PLX_INVALID_ARGUMENT, "the model was reserved without gradients");
    if (loss != NULL) *loss = (struct model_loss){0};
    TRY(run_loss(model, batch, DECODER_LOSS_BACKWARD, scale));
    if (loss == NULL) return PLX_OK;
    loss->count = scored_tokens(batch);
    return batch->tokens == 0 ? PLX_OK : model_loss_read(model, &loss->sum);
}

void model_tell_gradients(struct model *model, model_gradients_queued queued, void *user)
{
    model->queued = queued;
    model->queued_user = user;
}

plx_status model_loss_take(struct model *model, const struct plx_tensor *sum)
{
    const struct backend *be = model->be;
    const struct plx_tensor *loss = &model->inputs.loss;
    TRY(be->device->copy(sum->data, loss->data, sizeof(double), be->stream, be->err));
    return be->device->fill(loss->data, 0, sizeof(double), be->stream, be->err);
}

plx_status model_loss_read(struct model *model, double *sum)
{
    const struct backend *be = model->be;
    const struct plx_tensor *loss = &model->inputs.loss;
    TRY(be->device->download(sum, loss->data, sizeof *sum, be->stream, be->err));
    return be->device->fill(loss->data, 0, sizeof *sum, be->stream, be->err);
}

plx_status decoder_begin_logits(struct model *model, const struct batch *batch,
                                const struct plx_tensor *logits, struct decoder_run *run)
{
    struct error *err = model->be->err;
    const int64_t N = batch->tokens, V = model->config.vocab_size;
    TRY(check_batch(model, batch, false));
    REQUIRE(err, batch->keys == NULL, PLX_INVALID_ARGUMENT,
            "a batch whose sequences share tokens is only scored");
    REQUIRE(err,
            logits->rank == 2 && logits->shape[0] == N && logits->shape[1] == V &&
                logits->dtype == model->be->storage && logits->device == PLX_CPU,
            PLX_INVALID_ARGUMENT, "logits must be %s [%lld, %lld] in the host's memory",
            plx_dtype_name(model->be->storage), (long long)N, (long long)V);
    if (N > 0) TRY(prepare_run(model, DECODER_LOGITS, batch, run));
    run->logits = *logits;
    return PLX_OK;
}

plx_status model_logits(struct model *model, const struct batch *batch,
                        const struct plx_tensor *logits)
{
    struct decoder_run run;
    TRY(decoder_begin_logits(model, batch, logits, &run));
    return batch->tokens > 0 ? decoder_run(model, model->be, &run) : PLX_OK;
}

static plx_status check_queries(const struct model *model, const struct batch *batch,
                                const struct score_query *queries, int64_t count)
{
    const long long V = model->config.vocab_size;
    for (int64_t q = 0; q < count; q++) {
        REQUIRE(model->be->err, queries[q].at >= 0 && queries[q].at < batch->tokens,
                PLX_INVALID_ARGUMENT, "query %lld is about token %d of a batch of %lld",
                (long long)q, queries[q].at, (long long)batch->tokens);
        REQUIRE(model->be->err, queries[q].token >= 0 && queries[q].token < V, PLX_INVALID_ARGUMENT,
                "query %lld asks for token %d but must ask for one from 0 to %lld", (long long)q,
                queries[q].token, V - 1);
    }
    return PLX_OK;
}

plx_status model_score(struct model *model, const struct batch *batch,
                       const struct score_query *queries, int64_t count, struct score *scores)
{
    TRY(check_batch(model, batch, false));
    TRY(check_queries(model, batch, queries, count));
    if (count == 0) return PLX_OK;
    if (batch->keys != NULL) TRY(check_keys(model, batch));
    struct decoder_run run;
    TRY(prepare_run(model, DECODER_SCORES, batch, &run));
    run.queries = queries;
    run.query_count = count;
    run.scores = scores;
    return decoder_run(model, model->be, &run);
}
