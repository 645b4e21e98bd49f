/* decoder.c: the decoder in the shape of Qwen-3, forward and backward.
 *
 *     x[0] = table[ids]     x[l+1] = block_l(x[l])     final = norm(x[L])     loss = head(final)
 *
 * The array of blocks is the tape: backward walks it from the end, with one gradient [N,E] that
 * each block turns from that of its output into that of its input. Whether a block's record was
 * kept or is filled again is decided in decoder_memory.c and invisible here but for one call.
 * Batches come in by decoder_batch.c. */
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
    param_list_carve_active(&model->params, backend_precision(model->be), arena);
}

static plx_status build(struct model *model, bool with_values)
{
    struct error *err = model->be->err;
    REQUIRE(err, create_layers(model, backend_precision(model->be)), PLX_OUT_OF_MEMORY,
            "out of memory for the tables of a model of %lld layers",
            (long long)model->config.layers);
    param_list_pack(&model->params, model->be->packing);
    TRY(param_list_check_precision(&model->params, backend_precision(model->be), err));
    struct arena measuring = arena_measuring(model->be->device);
    carve_params(model, &measuring);
    if (!with_values) return PLX_OK;
    TRY(backend_arena(model->be, measuring.used, &model->values));
    carve_params(model, &model->values);
    struct backend dry = backend_dry(model->be);
    TRY(backend_refresh(&dry, &model->params));
    return backend_reserve(model->be, dry.scratch.peak);
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
    const struct precision precision = {.storage = PLX_F32, .activation = PLX_F32};
    bool complete = made != NULL && create_layers(made, precision);
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
    model_forget_graphs(model);
    staging_destroy(&model->inputs.staging);
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
    struct backend *be = model->be;
    const struct arena *grads = &model->grads;
    REQUIRE(be->err, model->has_grads, PLX_INVALID_ARGUMENT, "the model has no gradients reserved");
    /* One launch on a GPU; the CPU's arenas may guard what lies between gradients. */
    if (be->device->kind != PLX_CPU)
        return be->device->fill(grads->base, 0, grads->used, be->stream, be->err);
    for (int i = 0; i < model->params.count; i++)
        if (param_has_grad(&model->params.items[i]))
            TRY(be->ops->zero(be, &model->params.items[i].grad));
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
    TRY(head_loss(be, model->head, &model->params, &kept->final, &run->targets, &run->scale,
                  &dfinal, &run->loss));
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
        return head_loss(be, model->head, &model->params, &kept->final, &run->targets, NULL, NULL,
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

/* ---- Graphs ---- */

void model_replay(struct model *model, bool replaying)
{
    model->replaying = replaying;
}

void model_forget_graphs(struct model *model)
{
    for (int r = 0; r < BATCH_REPLAYS; r++) replay_forget(&model->replays[r].replay, model->be);
}

/* The record of the run's shape, a new one where there is none. */
static struct batch_replay *replay_of(struct model *model, const struct decoder_run *run)
{
    const struct batch_shape *shape = &run->shape;
    const bool telling = model->queued != NULL;
    for (int r = 0; r < BATCH_REPLAYS && r < model->replay_count; r++) {
        struct batch_replay *known = &model->replays[r];
        if (known->shape.tokens == shape->tokens && known->shape.sequences == shape->sequences &&
            known->shape.equal == shape->equal && known->telling == telling)
            return known;
    }
    struct batch_replay *oldest = &model->replays[model->replay_count++ % BATCH_REPLAYS];
    replay_forget(&oldest->replay, model->be);
    *oldest = (struct batch_replay){.shape = *shape, .telling = telling};
    return oldest;
}

struct replayed_run {
    struct model *model;
    struct decoder_run *run;
};

static plx_status run_again(void *user)
{
    const struct replayed_run *replayed = user;
    return decoder_run(replayed->model, replayed->model->be, replayed->run);
}

static plx_status replay_batch(struct model *model, struct decoder_run *run)
{
    struct replayed_run replayed = {model, run};
    return replay_run(&replay_of(model, run)->replay, model->be, run_again, &replayed);
}

/* ---- The verbs of model.h ---- */

static plx_status run_loss(struct model *model, const struct batch *batch, enum decoder_task task,
                           double scale)
{
    TRY(decoder_check_batch(model, batch, true));
    REQUIRE(model->be->err, batch->keys == NULL, PLX_INVALID_ARGUMENT,
            "a batch whose sequences share tokens has no loss");
    if (batch->tokens == 0) return PLX_OK;
    struct decoder_run run;
    TRY(decoder_place(model, task, batch, scale, &run));
    run.telling = true;
    if (model->replaying && task == DECODER_LOSS_BACKWARD) return replay_batch(model, &run);
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
    TRY(decoder_check_batch(model, batch, false));
    REQUIRE(err, batch->keys == NULL, PLX_INVALID_ARGUMENT,
            "a batch whose sequences share tokens is only scored");
    REQUIRE(err,
            logits->rank == 2 && logits->shape[0] == N && logits->shape[1] == V &&
                logits->dtype == model->be->storage && logits->device == PLX_CPU,
            PLX_INVALID_ARGUMENT, "logits must be %s [%lld, %lld] in the host's memory",
            plx_dtype_name(model->be->storage), (long long)N, (long long)V);
    if (N > 0) TRY(decoder_place(model, DECODER_LOGITS, batch, 0, run));
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
    TRY(decoder_check_batch(model, batch, false));
    TRY(check_queries(model, batch, queries, count));
    if (count == 0) return PLX_OK;
    if (batch->keys != NULL) TRY(decoder_check_keys(model, batch));
    struct decoder_run run;
    TRY(decoder_place(model, DECODER_SCORES, batch, 0, &run));
    run.queries = queries;
    run.query_count = count;
    run.scores = scores;
    return decoder_run(model, model->be, &run);
}
