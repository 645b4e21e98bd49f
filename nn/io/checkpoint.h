/* checkpoint.h: states of a run that survive crashes.
 *
 *     RUN/checkpoints/step-00000100/
 *         config.json, model.safetensors, tokenizer.json    which make it a model folder
 *         tokenizer_config.json and the like                as companions.h
 *         optimizer.safetensors, state.json                 what resuming needs besides
 *         manifest.json                                     size and XXH64 of each; written last
 *
 * A checkpoint is written into step-N.partial, each file and the folder fsynced, manifest last,
 * then renamed. So a folder without .partial is complete unless the disk damaged it, and the
 * manifest's hashes tell that. */
#ifndef NN_CHECKPOINT_H
#define NN_CHECKPOINT_H

#include "io/companions.h"
#include "io/model_file.h"
#include "optim/optim.h"

/* What a run needs besides weights and optimiser state. */
struct train_state {
    int64_t step;   /* completed optimiser steps */
    int64_t tokens; /* trained on */
    struct loader_position position;
    struct rng rng; /* sampling during training and whatever else draws */
    uint64_t corpus_fingerprint;
    char *options_json; /* the run's options, malloc'd; owned by the struct's user */
};

/* Writes RUN/checkpoints/step-N, replacing one of the same step, and then removes all but the
 * newest keep of those up to step N (0: keep all). A failure leaves what was there before.
 * tokenizer and companions may be NULL. */
plx_status checkpoint_save(const char *run, struct model *model, struct optim *optim,
                           const struct tokenizer *tokenizer, const struct companions *companions,
                           const struct train_state *state, int keep, struct error *err);
/* Checks manifest, sizes and hashes of one checkpoint folder. */
plx_status checkpoint_verify(const char *folder, struct error *err);
/* Newest sound checkpoint of a run into path. Damaged ones met on the way are reported to note (one
 * sentence each; may be NULL) and left alone. *found is false where there is none at all; where all
 * are damaged, that is an error. */
typedef void (*checkpoint_note)(void *user, const char *sentence);
plx_status checkpoint_latest(const char *run, char *path, size_t size, bool *found,
                             checkpoint_note note, void *user, struct error *err);
/* The state alone (to read options before building the model). */
plx_status checkpoint_load_state(const char *folder, struct train_state *state, struct error *err);
/* state.json from memory; the fuzz target calls this. */
plx_status checkpoint_parse_state(const char *json, size_t size, const char *name,
                                  struct train_state *state, struct error *err);
/* Weights and optimiser state into existing objects; a checkpoint of another model is refused by
 * tensor and shapes. */
plx_status checkpoint_load(const char *folder, struct model *model, struct optim *optim,
                           struct error *err);
void train_state_clear(struct train_state *state);

#endif
