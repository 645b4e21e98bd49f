/* decoder.h: what the five files of the decoder share: decoder.c (building, loss, gradients),
 * decoder_batch.c (batches), decoder_memory.c (activations, dry runs), decoder_decode.c (cache,
 * generation) and decoder_stream.c (models larger than memory). The public face is nn/model.h. */
#ifndef NN_DECODER_H
#define NN_DECODER_H

#include "core/staging.h"
#include "layers/block.h"
#include "model.h"
#include "ops/replay.h"

/* Activations of one batch, carved anew for every batch from one arena sized for the largest: so a
 * shorter batch is dense too. What need not be kept of records has one space that blocks share,
 * carved as a block begins. */
struct activations {
    struct arena arena;
    bool keep_inputs;     /* x[l] of every block: whenever backward will follow */
    int keep;             /* parts of every block's record that are kept (record_parts); 0: none */
    size_t shared;        /* where in the arena begins what blocks share: the other parts */
    struct plx_tensor *x; /* [L + 1] tensors [N,E]: inputs of the blocks, input of the final norm */
    struct block_record *records; /* [L] */
    struct plx_tensor final;      /* [N,E] normed hidden states that the head reads */
    struct plx_tensor final_rstd; /* [N] */
};

/* The sum of losses that runs add to, and a batch, carved for its size from memory for the largest:
 * so all of a batch lies together and comes to the device by one copy. */
struct batch_inputs {
    struct arena arena;
    struct staging staging;
    size_t batch;                              /* where the batch begins in the arena */
    struct plx_tensor loss;                    /* f64 [1]; stays while batches come and go */
    struct plx_tensor scale;                   /* f64 [1]: of the loss's gradient */
    struct plx_tensor ids, targets, positions; /* i32 [N] */
    struct plx_tensor offsets;                 /* i32 [sequences + 1] */
};

/* How a batch is cut: equal sequences need no offsets. keys 0: each sees its own tokens. */
struct batch_shape {
    int64_t tokens, sequences;
    bool equal;
    int64_t keys;
};

/* Forward and backward of a batch of one shape, as a graph. Once there are BATCH_REPLAYS, a new
 * shape takes the place of the oldest. */
struct batch_replay {
    struct batch_shape shape;
    bool telling; /* of its gradients */
    struct replay replay;
};
enum { BATCH_REPLAYS = 8 };

/* What sequences see that share what they begin with. */
struct batch_keys {
    struct arena arena;
    struct plx_tensor keys;    /* i32 [K] */
    struct plx_tensor offsets; /* i32 [sequences + 1] */
};

struct model {
    struct backend *be;
    struct model_config config;
    struct param_list params;
    struct arena values, grads; /* values, then their active copies */
    size_t value_bytes;         /* of the values alone */
    struct batch_inputs inputs;
    struct batch_keys keys;
    bool has_grads;
    int table, head; /* parameter indices; equal where embeddings are tied */
    struct rmsnorm norm;
    struct block *blocks; /* [L] */
    struct activations activations;
    model_gradients_queued queued; /* told by backward; NULL: nobody */
    void *queued_user;
    bool replaying; /* model_replay */
    struct batch_replay replays[BATCH_REPLAYS];
    int replay_count;                            /* that there ever were */
    int64_t max_tokens, max_sequences, max_keys; /* 0: nothing reserved */
    struct batch_shape sized; /* the shape and task that a dry run last found to fit the scratch */
    int sized_task;
};

/* What to do with a batch. */
enum decoder_task { DECODER_LOSS, DECODER_LOSS_BACKWARD, DECODER_LOGITS, DECODER_SCORES };

struct decoder_run {
    enum decoder_task task;
    struct batch_shape shape;
    struct batch_view view;
    struct plx_tensor ids, targets;    /* i32 [N] */
    struct plx_tensor scale;           /* f64 [1]: of the gradient */
    bool telling;                      /* of gradients, as a dry run does not */
    struct plx_tensor loss;            /* f64 [1], added to */
    struct plx_tensor logits;          /* [N,V] of the host, DECODER_LOGITS only */
    const struct score_query *queries; /* DECODER_SCORES only, as the next two; NULL: a dry run */
    int64_t query_count;
    struct score *scores; /* written */
};

/* Runs the task on activations that have been carved for the run's tokens. */
plx_status decoder_run(struct model *model, struct backend *be, struct decoder_run *run);

/* ---- decoder_batch.c ---- */

/* scored: its targets are read. */
plx_status decoder_check_batch(const struct model *model, const struct batch *batch, bool scored);
/* Of a batch whose sequences share tokens. */
plx_status decoder_check_keys(const struct model *model, const struct batch *batch);
/* A run over inputs and keys carved for the shape, which may be without data for a dry run. */
struct decoder_run decoder_run_make(const struct model *model, const struct batch_inputs *inputs,
                                    const struct batch_keys *keys, enum decoder_task task,
                                    const struct batch_shape *shape);
/* Prepares a task on a batch that has been checked and queues its copy to the device; scale: of the
 * loss's gradient. */
plx_status decoder_place(struct model *model, enum decoder_task task, const struct batch *batch,
                         double scale, struct decoder_run *run);

/* model_create, or a model whose parameters have no memory. */
plx_status decoder_create(struct backend *be, const struct model_config *config, bool with_values,
                          struct model **model);
/* Checks what model_logits is given and, where there are tokens, prepares the run. */
plx_status decoder_begin_logits(struct model *model, const struct batch *batch,
                                const struct plx_tensor *logits, struct decoder_run *run);

/* ---- decoder_memory.c ---- */

/* Arrays of L + 1 inputs and L records, and the mixers' records; false when out of memory. */
bool activations_create(struct activations *activations, const struct block *blocks,
                        int64_t layers);
void activations_destroy(struct activations *activations, int64_t layers);
/* Carves inputs for so many tokens and sequences from the start of their arena. */
void batch_inputs_carve(struct batch_inputs *inputs, int64_t tokens, int64_t sequences);
void batch_keys_carve(struct batch_keys *keys, const struct batch_shape *shape);
/* Carves everything for a batch of so many tokens, from the start of the arena. */
void activations_carve(struct model *model, int64_t tokens);
/* The record of block l, ready to be filled by its forward (shared) or as forward left it (kept).
 */
const struct block_record *activations_record(struct model *model, int64_t l);
/* A batch within the reservation: checks that scratch suffices for its shape, and carves
 * activations. */
plx_status decoder_prepare(struct model *model, enum decoder_task task,
                           const struct batch_shape *shape);

#endif
