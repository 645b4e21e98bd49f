/* train_session.h: everything that a run in progress holds. Internal to train_session.c (which
 * builds and frees it) and train.c (which runs it). */
#ifndef NN_TRAIN_SESSION_H
#define NN_TRAIN_SESSION_H

#include "run_log.h"
#include "train_memory.h"
#include "train_readings.h"
#include "train_step.h"

/* One micro-batch in memory of its own: a loader's arrays hold only until its next call, and a step
 * looks at all of its micro-batches (to count scored tokens) before the first is computed. */
struct micro_batch {
    struct batch batch;
    int32_t *ids, *targets, *positions; /* [rows * context] */
    int32_t *offsets;                   /* [max_sequences + 1] */
};

/* What all ranks draw for a step, together. */
struct step_count {
    int64_t tokens, scored; /* scored: tokens that have a target */
    int64_t first;          /* tokens of the first micro-batch */
    int64_t sequences;      /* of the micro-batch that has most */
    bool alike;             /* all have as many tokens, which an epoch's last row may lack */
    bool even;              /* and are as many rows of one length */
};

struct train_session {
    const struct train_options *options;
    const struct train_hooks *hooks;
    struct comm *comm; /* NULL: this process is all of the run */
    struct error *err;

    char model_folder[4096];      /* with --from: whose configuration and tokenizer hold; else "" */
    struct tokenizer *tokenizer;  /* NULL where --tokenizer is none */
    struct companions companions; /* of that folder */
    int64_t vocab_size;
    int32_t end_of_text;
    struct corpus *corpus, *held_out; /* held_out may be NULL */
    struct loader *loader;
    int64_t max_sequences;
    struct micro_batch *micro; /* [accumulate], of this rank */
    struct step_count count;   /* of the step that was fetched last */

    bool backend_exists;
    struct backend backend;
    struct model *model;
    struct train_memory memory; /* planned */
    size_t available;           /* of the device, before; 0: unknown */
    struct schedule_config schedule;
    double peak_lr;
    struct sharding sharding;
    struct train_readings readings; /* of steps that are queued */
    struct optim *optim;
    struct train_step step;
    struct eval_options eval;
    struct train_meter meter;

    struct train_state state;     /* state.step counts completed steps */
    struct run_log log;           /* rank 0's; closed elsewhere */
    char last_checkpoint[4096];   /* "" until there is one */
    int64_t last_checkpoint_step; /* -1 until there is one */
};

/* Loads the data, builds and sizes every part, resumes where asked, opens the log and says what
 * there is. On failure the session is closed. */
plx_status train_session_open(struct train_session *session, const struct train_options *options,
                              const char *options_json, struct comm *comm,
                              const struct train_hooks *hooks, struct error *err);
/* orderly: the run has not failed, so no rank waits for another that is gone. */
void train_session_close(struct train_session *session, bool orderly);
/* Passes one sentence to the message hook. */
void train_session_say(const struct train_hooks *hooks, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same as the note of a search for checkpoints; user is the hooks. */
void train_session_note(void *user, const char *sentence);
/* Draws the next step's micro-batches and counts what is in those of all ranks. */
plx_status train_session_fetch(struct train_session *session);

#endif
