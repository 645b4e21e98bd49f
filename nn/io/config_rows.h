/* config_rows.h: which member of config.json is which member of struct model_config, once for
 * reading and writing.
 *
 * Members that are copied as they are stand in these tables; those that need thought (rope,
 * windows, mixers) have functions in config_read.c and config_write.c. */
#ifndef NN_CONFIG_ROWS_H
#define NN_CONFIG_ROWS_H

#include "model_config.h"

enum row_kind { ROW_EXTENT, ROW_REAL, ROW_BOOL, ROW_ID };

struct config_row {
    const char *key;
    enum row_kind kind;
    size_t offset; /* in struct model_config */
    bool required;
    unsigned families; /* bit 1 << model_family: where the row belongs */
};

extern const struct config_row config_rows[];
extern const int config_row_count;

/* Members of rope_parameters where rope_type is "llama3"; offsets in struct rope. */
struct rope_row {
    const char *key;
    size_t offset;
};
extern const struct rope_row rope_rows[];
extern const int rope_row_count;
/* The norms on q, k and r in flash-linear-attention's layer, whatever its norm_eps says. */
extern const double config_fla_qk_norm_eps;
extern const char *const config_probe_starts[3];

#endif
