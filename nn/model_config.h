/* model_config.h: what a model is: the content of config.json as one plain struct.
 *
 * Read and written by io/model_file.c in the layouts of Hugging Face (model_type qwen3), of
 * flash-linear-attention (model_type parallax) and our own (model_type qwen3_parallax: Qwen-3's
 * fields, plus "mixer_types", one mixer name a layer, and the probe_* fields below). */
#ifndef NN_MODEL_CONFIG_H
#define NN_MODEL_CONFIG_H

#include "core/error.h"

enum { MODEL_MAX_LAYERS = 256 };

/* How W_R starts. Both zero starts make the first step's model equal to softmax bit for bit. */
enum probe_start {
    PROBE_START_NORMAL,     /* W_R ~ N(0, initializer_range), gain 1: the paper's code */
    PROBE_START_ZERO_GAIN,  /* W_R normal, r_norm gain 0: the gentle retrofit */
    PROBE_START_ZERO_WEIGHT /* W_R = 0; only gentle without r_norm */
};

struct mixer_kind;

struct layer_config {
    const struct mixer_kind *mixer; /* row of mixers/mixer.h's table */
    int64_t window;                 /* keys a token sees, its own included; 0: all */
};

struct model_config {
    int64_t vocab_size;        /* V */
    int64_t hidden_size;       /* E */
    int64_t intermediate_size; /* F */
    int64_t layers;            /* L */
    int64_t heads;             /* H */
    int64_t kv_heads;          /* G */
    int64_t head_dim;          /* D, independent of E / H */
    int64_t max_position;      /* longest context the model is meant for */
    double norm_eps;           /* block and final norms */
    double qk_norm_eps;        /* head norms */
    double rope_theta;
    double initializer_range;
    bool tie_embeddings;
    bool qk_norm;    /* per-head RMSNorm on q, k (and r) */
    bool fla_names;  /* tensors named as flash-linear-attention does */
    bool probe_norm; /* RMSNorm on r */
    bool probe_rope; /* RoPE on r, with q's positions */
    bool probe_gate; /* r *= sigmoid(W_g x), one gate a head, after the norm */
    enum probe_start probe_start;
    int64_t bos_id, eos_id; /* -1: none */
    struct layer_config layer[MODEL_MAX_LAYERS];
};

/* Defaults of the paper's recipe for everything but the sizes, which are 0. */
struct model_config model_config_default(void);
/* Every extent positive, kv_heads divides heads, head_dim even and 1..256, a mixer for every layer,
 * no product that overflows. Sentences begin with where ("config.json", "--heads", ...). */
plx_status model_config_check(const struct model_config *config, const char *where,
                              struct error *err);

#endif
