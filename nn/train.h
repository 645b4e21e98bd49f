/* train.h: the training loop, and evaluation on held-out text.
 *
 * train_options is the whole of a run's configuration: cli/options.c maps it to flags, JSON keys, help lines and the record in
 * checkpoints by one table. */
#ifndef NN_TRAIN_H
#define NN_TRAIN_H

#include "io/checkpoint.h"
#include "sample.h"

struct eval_result {
    double loss;             /* nats a token */
    double perplexity;
    double bits_per_byte;    /* NaN where the corpus does not know its bytes */
    int64_t tokens;          /* scored */
    int64_t bytes;           /* of source text they stand for */
    double seconds;
};

struct eval_options {
    int64_t rows, context;   /* of one batch */
    int64_t max_tokens;      /* 0: the whole corpus */
    bool mask_documents;
};
/* Called after every batch with what is scored so far and the total expected. */
typedef void (*eval_progress)(void *user, int64_t tokens, int64_t total);
/* Every token of the corpus is scored once (a document's first has no context and is not scored). */
plx_status eval_run(struct model *model, const struct corpus *corpus, const struct eval_options *options,
                    eval_progress progress, void *user, struct eval_result *result, struct error *err);

struct train_options {
    /* data */
    char **data; int data_count;          /* files or folders */
    char **val_data; int val_data_count;  /* instead of a fraction */
    double val_fraction;
    char *tokenizer;                      /* "bytes", or a tokenizer.json */
    int64_t max_data_bytes;
    bool mask_documents, shuffle;
    /* model */
    char *mixer;                          /* one name, or a comma list, one a layer, repeated as needed */
    char *window;                         /* likewise: 0 or keys */
    int64_t hidden_size, intermediate_size, layers, heads, kv_heads, head_dim;
    bool tie_embeddings, qk_norm, probe_norm, probe_rope, probe_gate;
    char *probe_start;                    /* normal, zero-gain, zero-weight */
    double rope_theta, norm_eps, initializer_range;
    /* optimisation */
    char *optimizer, *schedule, *decay_shape, *muon_scale, *muon_coefficients;
    double lr, weight_decay, weight_decay_gamma, beta1, beta2, eps, momentum, clip;
    double embedding_lr, head_lr, norm_lr;
    int64_t steps, warmup, batch, context, accumulate;
    double decay_ratio, min_lr;
    char *recompute;                      /* none, full */
    uint64_t seed;
    /* running */
    char *out;                            /* run folder */
    char *resume;                         /* "", "auto" or a checkpoint */
    char *dtype;                          /* f32, bf16: of matrix products */
    char *kernel;                         /* forced, or "" */
    bool portable;                        /* portable kernels only, for comparison */
    int64_t threads, eval_every, eval_tokens, checkpoint_every, keep, log_every, sample_every;
    int64_t sample_tokens;
    char *sample_prompt;
    double max_seconds;                   /* stop (with a checkpoint) after so long; 0: never */
};

/* What a step reports: a progress line on a terminal, one JSON object in RUN/log.jsonl. */
struct train_progress {
    int64_t step, steps, tokens;
    double loss, val_loss, val_bits_per_byte;   /* NaN where not measured in this step */
    double grad_norm, lr, tokens_per_second, seconds, seconds_left, data_seconds;
    size_t memory_now, memory_peak;             /* resident bytes */
};
struct train_hooks {
    void (*message)(void *user, const char *sentence);   /* once-only news: sizes, resumes, warnings */
    void (*progress)(void *user, const struct train_progress *progress);
    void (*sample)(void *user, int64_t step, const char *text, size_t size);
    bool (*stop)(void *user);                            /* asked every step: checkpoint and end (signals) */
    void *user;
};

struct train_result {
    int64_t step, parameters, tokens;
    double loss, seconds;
    bool stopped_early;
    struct eval_result val;                     /* of the final weights; tokens 0 without held-out text */
    char checkpoint[4096];                      /* last one written */
};

/* Trains until options->steps, resuming as asked. options_json is what the checkpoint records. */
plx_status train_run(const struct train_options *options, const char *options_json,
                     const struct train_hooks *hooks, struct train_result *result, struct error *err);

#endif
