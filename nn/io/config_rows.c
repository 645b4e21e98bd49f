/* config_rows.c: the table of config.json; see config_rows.h. */
#include "io/config_rows.h"

#include <stddef.h>

enum {
    FLA = 1 << FAMILY_FLA,
    OURS = 1 << FAMILY_OURS,
    EVERY = (1 << MODEL_FAMILIES) - 1,
    HF = EVERY & ~FLA /* keys as in transformers */
};

#define MEMBER(name) offsetof(struct model_config, name)

const struct config_row config_rows[] = {
    {"vocab_size", ROW_EXTENT, MEMBER(vocab_size), true, EVERY},
    {"hidden_size", ROW_EXTENT, MEMBER(hidden_size), true, EVERY},
    {"intermediate_size", ROW_EXTENT, MEMBER(intermediate_size), true, HF},
    {"intermediate_size", ROW_EXTENT, MEMBER(intermediate_size), false, FLA},
    {"num_hidden_layers", ROW_EXTENT, MEMBER(layers), true, EVERY},
    {"num_attention_heads", ROW_EXTENT, MEMBER(heads), true, HF},
    {"num_heads", ROW_EXTENT, MEMBER(heads), true, FLA},
    {"num_key_value_heads", ROW_EXTENT, MEMBER(kv_heads), false, HF},
    {"num_kv_heads", ROW_EXTENT, MEMBER(kv_heads), false, FLA},
    {"head_dim", ROW_EXTENT, MEMBER(head_dim), false, HF},
    {"max_position_embeddings", ROW_EXTENT, MEMBER(max_position), false, EVERY},
    {"rms_norm_eps", ROW_REAL, MEMBER(norm_eps), false, HF},
    {"norm_eps", ROW_REAL, MEMBER(norm_eps), false, FLA},
    {"rope_theta", ROW_REAL, MEMBER(rope.theta), false, EVERY},
    {"initializer_range", ROW_REAL, MEMBER(initializer_range), false, EVERY},
    {"tie_word_embeddings", ROW_BOOL, MEMBER(tie_embeddings), false, EVERY},
    {"qkv_bias", ROW_BOOL, MEMBER(qkv_bias), false, FLA | OURS},
    {"qk_norm", ROW_BOOL, MEMBER(qk_norm), false, FLA | OURS},
    {"qk_norm_eps", ROW_REAL, MEMBER(qk_norm_eps), false, OURS},
    {"probe_norm", ROW_BOOL, MEMBER(probe_norm), false, OURS},
    {"probe_rope", ROW_BOOL, MEMBER(probe_rope), false, OURS},
    {"probe_gate", ROW_BOOL, MEMBER(probe_gate), false, OURS},
    {"bos_token_id", ROW_ID, MEMBER(bos_id), false, EVERY},
};
const int config_row_count = sizeof config_rows / sizeof *config_rows;

const struct rope_row rope_rows[] = {
    {"factor", offsetof(struct rope, factor)},
    {"low_freq_factor", offsetof(struct rope, low_freq_factor)},
    {"high_freq_factor", offsetof(struct rope, high_freq_factor)},
    {"original_max_position_embeddings", offsetof(struct rope, original_positions)},
};
const int rope_row_count = sizeof rope_rows / sizeof *rope_rows;

const double config_fla_qk_norm_eps = 1e-5;
const char *const config_probe_starts[3] = {[PROBE_START_NORMAL] = "normal",
                                            [PROBE_START_ZERO_GAIN] = "zero-gain",
                                            [PROBE_START_ZERO_WEIGHT] = "zero-weight"};
