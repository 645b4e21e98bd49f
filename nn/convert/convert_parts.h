/* convert_parts.h: what the files of a conversion share. In order: convert_config.c decides what
 * the target is, convert_plan.c where each of its tensors comes from, convert_merge.c takes
 * adapters into their weights, convert_write.c writes the folder, convert_prove.c compares it with
 * the source, and convert.c runs these. */
#ifndef NN_CONVERT_PARTS_H
#define NN_CONVERT_PARTS_H

#include "convert/convert.h"
#include "core/param.h"
#include "io/weights.h"

/* ---- convert_config.c ---- */

plx_status convert_target_config(const struct model_config *source, const char *where,
                                 const struct convert_options *options, struct model_config *target,
                                 struct error *err);

/* ---- convert_plan.c ---- */

/* One tensor of the target: copied from the source, perhaps into another type or with its adapter
 * merged into it, or made of its start values. */
struct convert_tensor {
    struct safetensors_spec spec;
    const struct weights_row *source;    /* NULL: start values */
    const struct weights_row *down, *up; /* A and B of the adapter; NULL: none */
    struct lora lora;
    const struct param *param;
    uint64_t sum; /* XXH64 of what was written */
};

struct convert_plan {
    struct param_list params;       /* of the target; owns the names */
    struct convert_tensor *tensors; /* in the order of the files */
    int count;
    int *first; /* [shards + 1] index of the first tensor of each file */
    int shards;
    size_t bytes;
    int64_t added, dropped; /* numbers without source, and numbers of the source left out */
    int64_t merged;         /* numbers of adapters */
    bool exact;             /* no copied number is rounded, and nothing is merged */
};

/* weights NULL: every tensor is made of its start values. */
plx_status convert_plan_make(const struct model_config *source, const struct model_config *target,
                             const struct weights *weights, const struct convert_options *options,
                             struct convert_plan *plan, struct error *err);
void convert_plan_clear(struct convert_plan *plan);

/* Hands the bytes of a tensor to sink in pieces; a copy without change comes straight from the
 * mapped source. */
typedef plx_status convert_sink(void *user, const void *data, size_t bytes, struct error *err);
plx_status convert_stream(const struct convert_tensor *tensor, uint64_t seed, convert_sink *sink,
                          void *user, struct error *err);

/* ---- convert_merge.c ---- */

/* The same for a tensor with an adapter. */
plx_status convert_stream_merged(const struct convert_tensor *tensor, convert_sink *sink,
                                 void *user, struct error *err);

/* ---- convert_write.c ---- */

/* Everything that the target folder holds; source NULL: no tokenizer to copy. Sums are set. */
plx_status convert_write(struct convert_plan *plan, const struct model_config *config,
                         const char *source, const char *folder,
                         const struct convert_options *options, struct error *err);

/* ---- convert_prove.c ---- */

/* Fails where the target is not what was written, or computes something else than it should. */
plx_status convert_prove(const struct convert_plan *plan, const char *source, const char *folder,
                         const struct convert_options *options, struct convert_report *report,
                         struct error *err);

#endif
