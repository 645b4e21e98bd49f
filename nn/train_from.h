/* train_from.h: training that starts from a model folder: its weights, shape and tokenizer. */
#ifndef NN_TRAIN_FROM_H
#define NN_TRAIN_FROM_H

#include "train.h"

/* The folder that from means: itself, or the newest sound checkpoint of a run. */
plx_status train_from_find(const char *from, const struct train_hooks *hooks, char *folder,
                           size_t size, struct error *err);
/* Gives the options of the model, and the tokenizer, what the folder says, so that a run's record
 * is true and complete; a configuration file and flags come on top. */
plx_status train_from_adopt(const char *from, const struct train_hooks *hooks,
                            struct train_options *options, struct error *err);
/* Gives config, that of folder, the adapters that the options ask for. */
plx_status train_from_adapt(const struct train_options *options, const char *folder,
                            struct model_config *config, struct error *err);
/* Refuses options that say something else than config, which is that of folder. vocab_size is what
 * the options and the tokenizer come to. */
plx_status train_from_check(const struct train_options *options, int64_t vocab_size,
                            const struct model_config *config, const char *folder,
                            struct error *err);

#endif
