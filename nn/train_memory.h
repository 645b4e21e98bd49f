/* train_memory.h: what computes a step, model and optimiser, and what it takes before it is there.
 * Internal to train_*.c and used by `parallax bench step`. */
#ifndef NN_TRAIN_MEMORY_H
#define NN_TRAIN_MEMORY_H

#include "comm/sharding.h"
#include "train.h"

/* All that sizes depend on. */
struct train_shape {
    struct model_config model;
    struct optim_config optim;
    enum recompute recompute;
    int64_t batch;     /* rows of a micro-batch of options->context tokens */
    int64_t sequences; /* at most, in one of them */
};

struct train_parts {
    struct model *model;
    struct sharding sharding;
    struct optim *optim;
};

struct train_memory {          /* bytes */
    struct model_memory model; /* but its scratch, which is the model's alone */
    size_t optimiser;
    size_t scratch; /* the largest that the model or the optimiser needs */
    size_t total;
};

/* The shape that the options describe, of a model that is known already. */
plx_status train_shape_make(const struct train_options *options, const struct model_config *model,
                            int64_t sequences, struct train_shape *shape, struct error *err);

/* Builds them, with everything reserved that a step needs and options->train frozen; the weights
 * are zero. comm: the ranks that share the work, NULL alone. On a backend that measures
 * (backend_dry) nothing is allocated. */
plx_status train_parts_create(struct backend *be, const struct train_options *options,
                              struct comm *comm, const struct train_shape *shape,
                              struct train_parts *parts, struct train_memory *memory);
void train_parts_destroy(struct train_parts *parts);

/* What they would take, by building them on a backend that measures. */
plx_status train_memory_measure(const struct backend *be, const struct train_options *options,
                                struct comm *comm, const struct train_shape *shape,
                                struct train_memory *memory);
/* Refuses what is larger than available (0: unknown, anything goes) with a sentence that names the
 * settings with which it would fit. */
plx_status train_memory_check(const struct backend *be, const struct train_options *options,
                              struct comm *comm, const struct train_shape *shape,
                              const struct train_memory *memory, size_t available);
/* "0.6 GiB: parameters 0.1, ..." in the given memory. */
const char *train_memory_text(const struct train_memory *memory, char *text, size_t size);

#endif
