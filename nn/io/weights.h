/* weights.h: the tensors of a model folder, whether they lie in model.safetensors or in shards that
 * model.safetensors.index.json lists. */
#ifndef NN_WEIGHTS_H
#define NN_WEIGHTS_H

#include "io/safetensors.h"

/* The weight_map of an index: which file holds a tensor. Names are sorted. */
struct weight_index_row {
    const char *name, *file;
};
struct weight_index {
    struct weight_index_row *rows;
    int count;
    void *document; /* owns the texts */
};
/* Refuses file names that could leave the folder. where is for messages; the fuzz target calls
 * this. */
plx_status weight_index_parse(const char *json, size_t size, const char *where,
                              struct weight_index *index, struct error *err);
void weight_index_clear(struct weight_index *index);

/* One tensor, and the file it lies in (for messages). */
struct weights_row {
    const struct safetensors_entry *entry;
    const char *path;
};
struct weights;

/* Opens every file of the folder's weights. Shards and index must tell the same story: every tensor
 * of the map is in its shard, every tensor of a shard is in the map, none is in two. */
plx_status weights_open(const char *folder, struct weights **weights, struct error *err);
void weights_close(struct weights *weights);
int weights_count(const struct weights *weights);
const struct weights_row *weights_at(const struct weights *weights, int index);
/* NULL where absent. */
const struct weights_row *weights_find(const struct weights *weights, const char *name);
/* For messages: the file, or the index of the shards. */
const char *weights_path(const struct weights *weights);

#endif
