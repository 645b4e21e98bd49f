/* decoder_batch.c: a batch from the host's plain arrays to the device: checked, laid out for its
 * shape, and brought there by one copy. */
#include <string.h>

#include "layers/view.h"
#include "models/decoder.h"

/* ---- Checks ---- */

/* Ids index tables, so a wrong one must never pass; offsets are checked by attention, but only
 * after earlier layers have run. */
plx_status decoder_check_batch(const struct model *model, const struct batch *batch, bool scored)
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
plx_status decoder_check_keys(const struct model *model, const struct batch *batch)
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

/* ---- On the device ---- */

struct decoder_run decoder_run_make(const struct model *model, const struct batch_inputs *inputs,
                                    const struct batch_keys *keys, enum decoder_task task,
                                    const struct batch_shape *shape)
{
    const int64_t N = shape->tokens, logits[2] = {N, model->config.vocab_size};
    struct decoder_run run = {.task = task,
                              .shape = *shape,
                              .view = {.tokens = N,
                                       .positions = inputs->positions,
                                       .rows = shape->equal ? shape->sequences : 0,
                                       .offsets = inputs->offsets},
                              .ids = inputs->ids,
                              .targets = inputs->targets,
                              .scale = inputs->scale,
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

/* Writes what is to arrive at a tensor; from: where what arrives at begin is written. */
static void stage(unsigned char *from, const void *begin, const struct plx_tensor *to,
                  const void *numbers)
{
    if (numbers == NULL) return;
    from += (const unsigned char *)to->data - (const unsigned char *)begin;
    memcpy(from, numbers, (size_t)plx_tensor_count(to) * plx_dtype_size(to->dtype));
}

/* The batch on the device. Arrays that a task does not read may be NULL. */
static plx_status upload_batch(struct model *model, const struct decoder_run *run,
                               const struct batch *batch, double scale)
{
    const struct backend *be = model->be;
    struct batch_inputs *inputs = &model->inputs;
    unsigned char *begin = inputs->scale.data, *end = inputs->arena.base + inputs->arena.used;
    void *from;
    TRY(staging_open(&inputs->staging, &from, be->err));
    stage(from, begin, &inputs->scale, &scale);
    stage(from, begin, &inputs->ids, batch->ids);
    stage(from, begin, &inputs->targets, batch->targets);
    stage(from, begin, &inputs->positions, batch->positions);
    stage(from, begin, &inputs->offsets, batch->offsets);
    TRY(staging_send(&inputs->staging, begin, (size_t)(end - begin), be->err));
    if (batch->keys == NULL) return PLX_OK;
    TRY(upload(be, &run->view.keys, batch->keys));
    return upload(be, &run->view.key_offsets, batch->key_offsets);
}

bool batch_is_even(const struct batch *batch)
{
    const int64_t length = batch->offsets[1];
    for (int64_t s = 0; s < batch->sequences; s++)
        if (batch->offsets[s + 1] != (s + 1) * length) return false;
    return !batch->uneven;
}

plx_status decoder_place(struct model *model, enum decoder_task task, const struct batch *batch,
                         double scale, struct decoder_run *run)
{
    struct batch_shape shape = {batch->tokens, batch->sequences, batch_is_even(batch), 0};
    if (batch->keys != NULL) {
        shape.equal = false;
        shape.keys = batch->key_offsets[batch->sequences];
    }
    TRY(decoder_prepare(model, task, &shape));
    batch_inputs_carve(&model->inputs, shape.tokens, shape.sequences);
    *run = decoder_run_make(model, &model->inputs, &model->keys, task, &shape);
    return upload_batch(model, run, batch, scale);
}
