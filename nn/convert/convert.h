/* convert.h: a model folder from another one, or from a configuration alone.
 *
 * A conversion may change the layout (config.json and the names of tensors), the type that weights
 * are stored in, and the attention: adding Parallax's probe to a softmax model, or taking it away.
 * Adapters are merged into their weights: W + (alpha / rank) B A, summed in double, rounded to f32
 * once and from there to the type stored.
 * Weights go through tensor by tensor, and the proof runs both models layer by layer, so neither
 * need fit memory. The target folder appears whole or not at all: it is written as TARGET.partial,
 * flushed, proven and renamed. */
#ifndef NN_CONVERT_H
#define NN_CONVERT_H

#include "model_config.h"

enum convert_attention { CONVERT_KEEP, CONVERT_TO_PARALLAX, CONVERT_TO_SOFTMAX };

/* How an added probe starts. The first two leave what the model computes as it was, bit for bit. */
enum convert_probe {
    CONVERT_ZERO_GAIN,   /* W_R small random numbers, the gain of r's norm 0 */
    CONVERT_ZERO_WEIGHT, /* W_R 0, and no norm on r */
    CONVERT_COPY_Q       /* r starts as q: W_R, its bias and norm are copies */
};

struct convert_options {
    enum convert_attention attention;
    enum convert_probe probe;
    bool drop_probe; /* agrees that what the probe has learned is lost */
    bool to_family;  /* the target must have this family's layout */
    enum model_family family;
    const char *dtype;  /* "F32", "BF16", "F16" of every tensor; NULL: as in the source */
    size_t shard_bytes; /* most of a file, one tensor at least; 0: one file */
    uint64_t seed;      /* of random numbers */
    /* Hears how many bytes of tensors are done; may be NULL. */
    void (*progress)(void *user, const char *what, size_t done, size_t total);
    void *user;
};

/* What is known of the target once it is written. */
enum convert_proof {
    CONVERT_LOGITS_EQUAL,  /* the logits of a prompt are the source's, bit for bit */
    CONVERT_LOGITS_DIFFER, /* they need not be, and logit_difference says by how much they differ */
    CONVERT_NOTHING_TO_COMPARE /* there is no source */
};

struct convert_report {
    struct model_config config;
    int64_t parameters, added, dropped, merged;
    int files;
    size_t bytes;   /* of tensors */
    double seconds; /* of writing */
    enum convert_proof proof;
    int64_t prompt_tokens;
    double logit_difference; /* largest, relative to the source's largest logit */
    double proof_seconds;
};

/* Fails with a sentence, leaving no target, where anything does, the proof included. */
plx_status convert_folder(const char *source, const char *target,
                          const struct convert_options *options, struct convert_report *report,
                          struct error *err);
/* A folder of freshly initialised weights. */
plx_status convert_init(const struct model_config *config, const char *target,
                        const struct convert_options *options, struct convert_report *report,
                        struct error *err);

#endif
