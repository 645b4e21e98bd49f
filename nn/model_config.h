/* model_config.h: what a model is: the content of config.json as one plain struct.
 *
 * Read and written by io/model_file.c in the layouts of Hugging Face (model_type qwen3, qwen2,
 * llama, mistral), of flash-linear-attention (model_type parallax) and our own (model_type
 * qwen3_parallax: Qwen-3's fields, plus "mixer_types", one mixer name a layer, and the probe_*
 * fields below). */
#ifndef NN_MODEL_CONFIG_H
#define NN_MODEL_CONFIG_H

#include "core/error.h"
#include "core/lora.h"
#include "core/rope.h"

enum { MODEL_MAX_LAYERS = 256, MODEL_MAX_ENDS = 8 };

/* Whose layout of config.json a model is read and written in. A model that its family's layout
 * cannot say is written in the first that can, ours at the last. Only FAMILY_FLA names its tensors
 * in its own way, so that such a model is written as one or not at all. */
enum model_family {
    FAMILY_QWEN3,
    FAMILY_QWEN2,
    FAMILY_LLAMA,
    FAMILY_MISTRAL,
    FAMILY_FLA, /* flash-linear-attention */
    FAMILY_OURS,
    MODEL_FAMILIES
};

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
    struct rope rope;
    double initializer_range;
    enum model_family family;
    bool tie_embeddings;
    bool qkv_bias;   /* on the projections to q, k, v (and r) */
    bool qk_norm;    /* per-head RMSNorm on q, k (and r) */
    bool probe_norm; /* RMSNorm on r */
    bool probe_rope; /* RoPE on r, with q's positions */
    bool probe_gate; /* r *= sigmoid(W_g x), one gate a head, after the norm */
    enum probe_start probe_start;
    struct lora lora; /* adapters on the projections of every layer */
    int64_t bos_id;   /* -1: none */
    int end_count;
    int64_t end_ids[MODEL_MAX_ENDS]; /* tokens that end a text, eos_token_id */
    struct layer_config layer[MODEL_MAX_LAYERS];
};

/* "qwen3" and so on: model_type in config.json. */
const char *model_family_name(enum model_family family);

/* Defaults of the paper's recipe for everything but the sizes, which are 0. */
struct model_config model_config_default(void);
/* The first token that ends a text, -1 where there is none; and whether a token does. */
int64_t model_config_end(const struct model_config *config);
bool model_config_ends(const struct model_config *config, int64_t id);

/* How a family names its tensors: the table of embeddings as a whole, and of a layer the parts that
 * differ between families. */
struct tensor_names {
    const char *embedding;             /* "model.embed_tokens" */
    const char *mixer;                 /* "self_attn" */
    const char *mixer_norm, *mlp_norm; /* "input_layernorm", "post_attention_layernorm" */
};
const struct tensor_names *model_tensor_names(enum model_family family);

/* Every extent positive, kv_heads divides heads, head_dim even and 1..256, a mixer for every layer,
 * no product that overflows. Sentences begin with where ("config.json", "--heads", ...). */
plx_status model_config_check(const struct model_config *config, const char *where,
                              struct error *err);

#endif
