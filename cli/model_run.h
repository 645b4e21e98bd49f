/* model_run.h: what every command that runs a finished model shares: how to compute, and opening
 * the model and its tokenizer. */
#ifndef CLI_MODEL_RUN_H
#define CLI_MODEL_RUN_H

#include "io/model_file.h"

struct model_run_options {
    char *device;  /* auto, cpu, cuda, cuda:N */
    char *dtype;   /* f32, bf16; "": the device's default */
    char *weights; /* f32, bf16, int8: how they are held; NULL: f32 */
    char *kernel;  /* forced, or "" */
    bool portable;
    int64_t threads;
};

struct model_run {
    char folder[4096]; /* the model folder that was found */
    struct backend backend;
    bool backend_exists;
    struct model *model;
    struct tokenizer *tokenizer; /* NULL where the folder holds none */
};

/* What --portable means besides the context's features: oneDNN, which picks its own instructions,
 * is held to the least it has (SSE 4.1). Only before the process's first matrix product. */
void model_run_hold_portable(void);

/* path is a model folder, or a run folder, whose newest sound checkpoint is taken. */
plx_status model_run_open(struct model_run *run, const char *path,
                          const struct model_run_options *options, struct error *err);
void model_run_close(struct model_run *run);
/* The tokenizer alone: of a model folder, of a run folder, or a file. */
plx_status model_run_open_tokenizer(const char *path, struct tokenizer **tokenizer,
                                    struct error *err);

#endif
