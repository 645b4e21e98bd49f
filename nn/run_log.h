/* run_log.h: what a run did, in two places that are only ever appended to: RUN/log.jsonl, one JSON
 * object a line, and (if asked for) RUN/tensorboard, its numbers as event files.
 *
 *     {"kind": "run", "version": ..., "parameters": ..., "options": {...}, ...}   first
 *     {"kind": "step", "step": 1, "loss": ..., ...}                               one a step
 *     {"kind": "resume", "after_step": 40, ...}                                   continued here
 *     {"kind": "result", "after_step": 200, ...}                                  at the end
 *
 * "run" and "resume" state what rates are measured against: the device and how many there are, the
 * model FLOPs of a token with their terms, and the peak with its source; "peak_tflops" and every
 * step's "mfu" are null where no peak is known. docs/training.md explains every field.
 * A resumed run removes the lines beyond the step it resumes from, and a last line that a crash cut
 * short, so every step is there once. */
#ifndef NN_RUN_LOG_H
#define NN_RUN_LOG_H

#include "io/tensorboard.h"
#include "train_meter.h"

struct run_log {
    struct append_file file;  /* log.jsonl */
    struct tensorboard board; /* closed: not asked for */
};

#define RUN_LOG_CLOSED ((struct run_log){.file.descriptor = -1, .board.file.descriptor = -1})

/* What the log records of a run besides its steps. */
struct run_log_facts {
    const char *options_json;
    int64_t parameters;
    const struct train_meter *meter;
    bool cuda_graphs; /* steps are launched as graphs */
    bool tensorboard;
};

/* Starts the log of a new run (replacing one that never reached a checkpoint). */
plx_status run_log_create(struct run_log *log, const char *run, const struct run_log_facts *facts,
                          struct error *err);
/* Continues the log of a run after a step; starts it where there is none. */
plx_status run_log_resume(struct run_log *log, const char *run, int64_t step,
                          const struct run_log_facts *facts, struct error *err);
plx_status run_log_step(struct run_log *log, const struct train_progress *progress,
                        struct error *err);
plx_status run_log_result(struct run_log *log, const struct train_result *result,
                          struct error *err);
/* Makes what was written durable; called before a checkpoint, so that no checkpoint is ahead of the
 * log. */
plx_status run_log_sync(struct run_log *log, struct error *err);
void run_log_close(struct run_log *log);

#endif
