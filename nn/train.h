/* train.h: the training loop, and evaluation on held-out text.
 *
 * struct train_options is the whole of a run's configuration. cli/train_options.c maps it to flags,
 * JSON keys, help lines and the record in checkpoints by one table; this layer only reads the
 * struct.
 *
 * A real option that was left to its default by the optimiser is NaN. Reading order: train_config.c
 * (options to the configurations of the parts), train_from.c (starting from a model folder),
 * train_session.c (building and sizing the parts), train.c (the loop), train_meter.c (rates),
 * eval.c, run_log.c. */
#ifndef NN_TRAIN_H
#define NN_TRAIN_H

#include "comm/comm.h"
#include "io/checkpoint.h"
#include "sample.h"

/* ---- Evaluation ---- */

struct eval_result {
    double loss;          /* nats a token */
    double perplexity;    /* exp(loss) */
    double bits_per_byte; /* NaN where the corpus does not know its bytes */
    int64_t tokens;       /* scored */
    int64_t bytes;        /* of source text they stand for, by the corpus's bytes per token */
    double seconds;
};

struct eval_options {
    int64_t rows, context; /* of one batch */
    int64_t max_tokens;    /* stop after the batch that reaches it; 0: the whole corpus */
    bool mask_documents;
    struct comm *comm; /* ranks that share the batches, all of which call; NULL: alone */
};

/* Called after every batch with what is scored so far and about how many there are in all. */
typedef void (*eval_progress)(void *user, int64_t tokens, int64_t total);

/* Sequences of the largest batch that eval_run would pass to the model: what model_reserve must be
 * told. */
plx_status eval_max_sequences(const struct corpus *corpus, const struct eval_options *options,
                              int64_t *sequences, struct error *err);
/* Scores every token of the corpus once, in order (under mask_documents a document's first token
 * has no context and is not scored). The model must be reserved for rows * context tokens. */
plx_status eval_run(struct model *model, const struct corpus *corpus,
                    const struct eval_options *options, eval_progress progress, void *user,
                    struct eval_result *result, struct error *err);

/* ---- Training ---- */

struct text_list {
    char **items;
    int count;
};

/* tokenizer's word for the one in the folder of from. */
#define TRAIN_TOKENIZER_OF_MODEL "model"

struct train_options {
    /* data */
    struct text_list data;     /* files or folders */
    struct text_list val_data; /* instead of a fraction */
    double val_fraction;
    char *tokenizer; /* "bytes", "none" (shards only), "model" (of from), or a tokenizer.json or
                        .model */
    char *jsonl_field;
    char *chat_template; /* of JSONL lines with chat "messages"; "": they are refused */
    int64_t vocab_size;  /* 0: the tokenizer's */
    int64_t separator;   /* end-of-text id of shards; -1: the tokenizer's */
    int64_t max_data_bytes;
    bool mask_documents, shuffle;
    /* fine-tuning */
    char *from;         /* model folder or run whose weights are the start; "": fresh weights */
    char *train;        /* which weights: all, probe, lora, lora+probe */
    int64_t lora_rank;  /* 0: 8 */
    double lora_alpha;  /* NaN: twice the rank */
    char *lora_targets; /* "": all projections that are not trained themselves */
    /* model */
    char *mixer;  /* one name, or a comma list, one a layer, repeated as needed */
    char *window; /* likewise: 0 or keys */
    int64_t hidden_size, intermediate_size, layers, heads, kv_heads, head_dim;
    bool tie_embeddings, qk_norm, probe_norm, probe_rope, probe_gate;
    char *probe_start; /* normal, zero-gain, zero-weight */
    double rope_theta, norm_eps, initializer_range;
    /* optimisation */
    char *optimizer, *schedule, *decay_shape, *muon_scale, *muon_coefficients;
    double lr, weight_decay, weight_decay_gamma, beta1, beta2, eps, momentum, clip;
    double embedding_lr, head_lr, norm_lr, other_lr;
    int64_t steps, warmup, batch, context, accumulate;
    double decay_ratio, min_lr;
    char *recompute; /* none, selective, full */
    char *moments;   /* f32, bf16: of the optimiser's state */
    int64_t seed;
    /* running */
    char *out;           /* run folder */
    char *resume;        /* "", or the checkpoint folder that train_find_checkpoint named */
    char *device;        /* auto, cpu, cuda, cuda:N */
    char *dtype;         /* f32, bf16, fp8; "": the device's default */
    char *kernel;        /* forced, or "" */
    bool portable;       /* portable kernels only, for comparison */
    bool deterministic;  /* the same bits on every run of a GPU */
    bool cuda_graphs;    /* steps are launched as graphs where they can be */
    int64_t gpus, ranks; /* processes to start (cli/launch.h); nothing here reads them */
    int64_t threads, eval_every, eval_tokens, checkpoint_every, keep, log_every, sample_every;
    int64_t sample_tokens;
    double sample_temperature;
    char *sample_prompt;
    double max_seconds; /* stop (with a checkpoint) after so long; 0: never */
    bool tensorboard;   /* event files beside the log */
    double peak_tflops; /* of one device, for utilisation; NaN: the data sheet's where known */
};

/* What a step reports: a progress line on a terminal, one JSON object in RUN/log.jsonl. */
struct train_progress {
    int64_t step, steps, tokens;
    double loss, val_loss, val_bits_per_byte; /* the last two NaN where not measured in this step */
    double grad_norm, lr;
    double seconds; /* of this step, evaluation and checkpoint not included */
    double seconds_total, seconds_left;
    double data_seconds;                                /* of this step, spent fetching batches */
    double tokens_per_second, device_tokens_per_second; /* of all devices, and of each */
    double device_tflops;           /* model FLOPs (flops.h) of each device, in 1e12 a second */
    double mfu;                     /* the same as a share of the peak; NaN where that is unknown */
    size_t memory_now, memory_peak; /* that this process holds of the device, in bytes */
};

struct train_hooks {
    void (*message)(void *user,
                    const char *sentence); /* once-only news: sizes, resumes, warnings */
    void (*progress)(void *user, const struct train_progress *progress);
    void (*sample)(void *user, int64_t step, const char *text, size_t size);
    bool (*stop)(void *user); /* asked every step: checkpoint and end */
    void *user;
};

struct train_result {
    int64_t step, parameters, tokens;
    double loss, seconds;     /* loss of the last step; NaN where no step ran */
    double tokens_per_second; /* over all steps of this process, steps only */
    size_t memory_peak;       /* of the device, in bytes; 0 where no step ran */
    bool stopped_early;
    struct eval_result val; /* of the final weights; tokens 0 without held-out text */
    char checkpoint[4096];  /* last one written or resumed from */
};

/* Which checkpoint a run continues from. resume "auto" means the newest sound one of run (damaged
 * ones are reported through message; none at all leaves *path empty and says so), "" means none,
 * anything else is a checkpoint folder, which is verified. A run folder that already holds a run is
 * refused with resume "". */
plx_status train_find_checkpoint(const char *run, const char *resume,
                                 const struct train_hooks *hooks, char *path, size_t size,
                                 struct error *err);
/* Trains until options->steps, from options->resume where that is not empty. options_json is what
 * the checkpoints and the log record. Where several ranks train together (comm is not NULL), each
 * calls this with the same options; rank 0 alone writes files and calls the hooks but stop. */
plx_status train_run(const struct train_options *options, const char *options_json,
                     struct comm *comm, const struct train_hooks *hooks,
                     struct train_result *result, struct error *err);

/* ---- From options to the parts (also used by `parallax bench step`) ---- */

plx_status train_model_config(const struct train_options *options, int64_t vocab_size,
                              int32_t end_of_text, struct model_config *config, struct error *err);
/* The adapters that options->train asks for; rank 0: none. */
plx_status train_lora_config(const struct train_options *options, struct lora *lora,
                             struct error *err);
plx_status train_optim_config(const struct train_options *options, struct optim_config *config,
                              struct error *err);
plx_status train_schedule_config(const struct train_options *options,
                                 struct schedule_config *config, struct error *err);
plx_status train_backend_config(const struct train_options *options, struct backend_config *config,
                                struct error *err);
/* Replaces an open dtype by the device's default, so that what is recorded says what was run. */
plx_status train_settle_dtype(struct train_options *options, struct error *err);
plx_status train_recompute(const struct train_options *options, enum recompute *recompute,
                           struct error *err);
const char *train_recompute_name(enum recompute recompute);
/* Freezes what options->train leaves out. */
plx_status train_freeze(const struct train_options *options, struct param_list *params,
                        struct error *err);

#endif
