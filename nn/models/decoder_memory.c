/* decoder_memory.c: how much memory a batch takes, found by doing everything but the arithmetic.
 *
 * Activations: per block its input and its record (layers/block.h), the final norm's output. Four
 * plans:
 *
 *     backward, no recomputation    L + 1 inputs, L records
 *     selective recomputation       L + 1 inputs, the kept part of L records, one cheap part shared
 *     full recomputation            L + 1 inputs, one record shared by all blocks
 *     forward only                  two inputs in turn, one shared record
 *
 * Scratch: whatever forward and backward push on be->scratch at most. A dry run over measuring
 * arenas finds both, running the same lines as the real one. Attention's workspace may depend on
 * how many sequences a batch is cut into, and need not grow with it, so a batch of a new shape is
 * measured before it runs: microseconds against milliseconds, and the answer is a sentence where
 * the reservation does not cover it. */
#include "models/decoder.h"

#include <stdlib.h>

bool activations_create(struct activations *activations, const struct block *blocks, int64_t layers)
{
    activations->x = calloc((size_t)layers + 1, sizeof *activations->x);
    activations->records = calloc((size_t)layers, sizeof *activations->records);
    if (activations->x == NULL || activations->records == NULL) return false;
    for (int64_t l = 0; l < layers; l++) {
        activations->records[l].mixer = calloc(1, blocks[l].kind->record_size);
        if (activations->records[l].mixer == NULL) return false;
    }
    return true;
}

void activations_destroy(struct activations *activations, int64_t layers)
{
    for (int64_t l = 0; activations->records != NULL && l < layers; l++)
        free(activations->records[l].mixer);
    free(activations->records);
    free(activations->x);
    arena_destroy(&activations->arena);
    *activations = (struct activations){0};
}

void batch_inputs_carve(struct batch_inputs *inputs, int64_t tokens, int64_t sequences)
{
    const int64_t offsets = sequences + 1, one = 1;
    if (inputs->batch == 0) {
        inputs->loss = arena_tensor(&inputs->arena, PLX_F64, 1, &one);
        inputs->batch = arena_mark(&inputs->arena);
    }
    arena_release(&inputs->arena, inputs->batch);
    inputs->scale = arena_tensor(&inputs->arena, PLX_F64, 1, &one);
    inputs->ids = arena_tensor(&inputs->arena, PLX_I32, 1, &tokens);
    inputs->targets = arena_tensor(&inputs->arena, PLX_I32, 1, &tokens);
    inputs->positions = arena_tensor(&inputs->arena, PLX_I32, 1, &tokens);
    inputs->offsets = arena_tensor(&inputs->arena, PLX_I32, 1, &offsets);
    arena_join(&inputs->arena); /* a batch is one copy */
}

void batch_keys_carve(struct batch_keys *keys, const struct batch_shape *shape)
{
    const int64_t offsets = shape->sequences + 1;
    if (shape->keys == 0) return;
    keys->keys = arena_tensor(&keys->arena, PLX_I32, 1, &shape->keys);
    keys->offsets = arena_tensor(&keys->arena, PLX_I32, 1, &offsets);
}

void activations_carve(struct model *model, int64_t tokens)
{
    struct activations *kept = &model->activations;
    const plx_dtype dtype = model->be->activation;
    const int64_t L = model->config.layers;
    const int64_t shape[2] = {tokens, model->config.hidden_size};
    arena_release(&kept->arena, 0);
    for (int64_t l = 0; l <= L; l++)
        kept->x[l] = kept->keep_inputs || l < 2 ? arena_tensor(&kept->arena, dtype, 2, shape)
                                                : kept->x[l - 2];
    kept->final = arena_tensor(&kept->arena, dtype, 2, shape);
    kept->final_rstd = arena_tensor(&kept->arena, model->be->storage, 1, shape);
    for (int64_t l = 0; kept->keep != 0 && l < L; l++)
        block_carve(&model->blocks[l], tokens, kept->keep, &kept->arena, &kept->records[l]);
    kept->shared = arena_mark(&kept->arena);
}

const struct block_record *activations_record(struct model *model, int64_t l)
{
    struct activations *kept = &model->activations;
    const int others = RECORD_ALL & ~kept->keep;
    if (others != 0) {
        arena_release(&kept->arena, kept->shared);
        block_carve(&model->blocks[l], kept->x[l].shape[0], others, &kept->arena,
                    &kept->records[l]);
    }
    return &kept->records[l];
}

/* ---- Dry runs ---- */

/* Bytes of activations and scratch that a task takes; the model's arena is set aside for a
 * measuring one. */
static plx_status measure(struct model *model, enum decoder_task task,
                          const struct batch_shape *shape, size_t *activations, size_t *scratch)
{
    struct backend dry = backend_dry(model->be);
    struct batch_inputs inputs = {.arena = arena_measuring(dry.device)};
    struct batch_keys keys = {.arena = arena_measuring(dry.device)};
    batch_inputs_carve(&inputs, shape->tokens, shape->sequences);
    batch_keys_carve(&keys, shape);
    struct decoder_run run = decoder_run_make(model, &inputs, &keys, task, shape);
    struct arena real = model->activations.arena;
    model->activations.arena = arena_measuring(dry.device);
    activations_carve(model, shape->tokens);
    plx_status status = decoder_run(model, &dry, &run);
    *activations = model->activations.arena.peak;
    *scratch = dry.scratch.peak;
    model->activations.arena = real;
    return status;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The largest need of every task that the reservation is for in batches of one shape. */
static plx_status measure_tasks(struct model *model, const struct batch_shape *shape,
                                bool with_grads, struct model_memory *need)
{
    const enum decoder_task tasks[] = {DECODER_LOSS, DECODER_LOGITS, DECODER_SCORES,
                                       DECODER_LOSS_BACKWARD};
    for (int t = 0; t < (with_grads ? 4 : 3); t++) {
        size_t activations, scratch;
        TRY(measure(model, tasks[t], shape, &activations, &scratch));
        need->activations = larger(need->activations, activations);
        need->scratch = larger(need->scratch, scratch);
    }
    return PLX_OK;
}

/* The same over few and many sequences, packed and, where they divide the tokens, equal ones. */
static plx_status measure_reservation(struct model *model, int64_t tokens, int64_t sequences,
                                      bool with_grads, struct model_memory *need)
{
    for (int64_t cut = 1;; cut = 2 * cut < sequences ? 2 * cut : sequences) {
        struct batch_shape shape = {.tokens = tokens, .sequences = cut};
        TRY(measure_tasks(model, &shape, with_grads, need));
        shape.equal = true;
        if (tokens % cut == 0) TRY(measure_tasks(model, &shape, with_grads, need));
        if (cut == sequences) return PLX_OK;
    }
}

/* Gradients stay once they are there: an optimiser may hold on to them. */
static plx_status reserve_grads(struct model *model)
{
    if (model->has_grads) return PLX_OK;
    const struct backend *be = model->be;
    struct arena measuring = arena_measuring(be->device);
    param_list_carve_grads(&model->params, &measuring);
    TRY(backend_arena(be, measuring.used, &model->grads));
    param_list_carve_grads(&model->params, &model->grads);
    model->has_grads = true;
    return PLX_OK;
}

static plx_status reserve_inputs(struct model *model, int64_t tokens, int64_t sequences)
{
    const struct backend *be = model->be;
    struct batch_inputs *inputs = &model->inputs;
    struct batch_inputs measured = {.arena = arena_measuring(be->device)};
    batch_inputs_carve(&measured, tokens, sequences);
    staging_destroy(&inputs->staging);
    arena_destroy(&inputs->arena);
    inputs->batch = 0;
    TRY(backend_arena(be, measured.arena.used, &inputs->arena));
    batch_inputs_carve(inputs, tokens, sequences);
    if (arena_is_measuring(&inputs->arena)) return PLX_OK;
    return staging_create(&inputs->staging, be->device, be->stream, measured.arena.used, be->err);
}

static const int kept_parts[] = {
    [RECOMPUTE_NONE] = RECORD_ALL, [RECOMPUTE_SELECTIVE] = RECORD_KEPT, [RECOMPUTE_FULL] = 0};

plx_status model_reserve(struct model *model, int64_t tokens, int64_t sequences, bool with_grads,
                         enum recompute recompute, struct model_memory *memory)
{
    struct error *err = model->be->err;
    struct activations *kept = &model->activations;
    const int64_t tokens_max = INT32_MAX / 256; /* D is at most 256, F and E checked below */
    REQUIRE(err, tokens >= 1 && tokens <= tokens_max, PLX_INVALID_ARGUMENT,
            "a batch of %lld tokens: must be from 1 to %lld", (long long)tokens,
            (long long)tokens_max);
    REQUIRE(err, sequences >= 1 && sequences <= INT32_MAX, PLX_INVALID_ARGUMENT,
            "a batch of %lld sequences: must be from 1 to %d", (long long)sequences, INT32_MAX);
    REQUIRE(err, !with_grads || model->be->packing == PACKING_NONE, PLX_INVALID_ARGUMENT,
            "a model whose weights are packed in %s has no gradients",
            packing_name(model->be->packing));
    model->max_tokens = model->max_sequences = model->max_keys = model->sized.tokens = 0;
    model_forget_graphs(model);
    arena_destroy(&kept->arena);
    kept->keep_inputs = with_grads;
    kept->keep = with_grads ? kept_parts[recompute] : 0;
    struct model_memory need = {.params = model->value_bytes,
                                .active = model->values.used - model->value_bytes};
    TRY(measure_reservation(model, tokens, sequences, with_grads, &need));
    if (with_grads) TRY(reserve_grads(model));
    need.grads = model->grads.used;
    TRY(reserve_inputs(model, tokens, sequences));
    need.inputs = model->inputs.arena.used;
    TRY(backend_arena(model->be, need.activations, &kept->arena));
    TRY(backend_reserve(model->be, need.scratch));
    model->max_tokens = tokens;
    model->max_sequences = sequences;
    if (memory != NULL) *memory = need;
    return PLX_OK;
}

plx_status model_reserve_keys(struct model *model, int64_t keys)
{
    struct backend *be = model->be;
    size_t scratch = 0;
    REQUIRE(be->err, model->max_tokens > 0 && keys >= 1 && keys <= INT32_MAX / 256,
            PLX_INVALID_ARGUMENT,
            "%lld keys of a batch of %lld tokens: must be from 1 to %d, and the batch be reserved",
            (long long)keys, (long long)model->max_tokens, INT32_MAX / 256);
    for (int64_t cut = 1;; cut = 2 * cut < model->max_sequences ? 2 * cut : model->max_sequences) {
        const struct batch_shape shape = {model->max_tokens, cut, false, keys};
        size_t activations, bytes;
        TRY(measure(model, DECODER_SCORES, &shape, &activations, &bytes));
        scratch = larger(scratch, bytes);
        if (cut == model->max_sequences) break;
    }
    const struct batch_shape most = {model->max_tokens, model->max_sequences, false, keys};
    struct batch_keys measured = {.arena = arena_measuring(be->device)};
    batch_keys_carve(&measured, &most);
    arena_destroy(&model->keys.arena);
    TRY(backend_arena(be, measured.arena.used, &model->keys.arena));
    batch_keys_carve(&model->keys, &most);
    TRY(backend_reserve(be, scratch));
    model->max_keys = keys;
    return PLX_OK;
}

static bool is_sized(const struct model *model, enum decoder_task task,
                     const struct batch_shape *shape)
{
    return model->sized.tokens == shape->tokens && model->sized.sequences == shape->sequences &&
           model->sized.equal == shape->equal && model->sized.keys == shape->keys &&
           model->sized_task == (int)task;
}

plx_status decoder_prepare(struct model *model, enum decoder_task task,
                           const struct batch_shape *shape)
{
    struct backend *be = model->be;
    const long long tokens = shape->tokens, sequences = shape->sequences;
    REQUIRE(be->err, tokens <= model->max_tokens && sequences <= model->max_sequences,
            PLX_INVALID_ARGUMENT,
            "a batch of %lld tokens in %lld sequences exceeds the %lld tokens in %lld sequences "
            "reserved",
            tokens, sequences, (long long)model->max_tokens, (long long)model->max_sequences);
    if (!is_sized(model, task, shape)) {
        size_t activations, scratch, left = be->scratch.capacity - be->scratch.used;
        TRY(measure(model, task, shape, &activations, &scratch));
        REQUIRE(be->err, scratch <= left && activations <= model->activations.arena.capacity,
                PLX_OUT_OF_MEMORY,
                "a batch of %lld tokens in %lld sequences needs %zu bytes of scratch and %zu of "
                "activations, but %zu and %zu are reserved",
                tokens, sequences, scratch, activations, left, model->activations.arena.capacity);
        model->sized = *shape;
        model->sized_task = (int)task;
    }
    activations_carve(model, tokens);
    return PLX_OK;
}
