/* companions.h: the small files of a model folder that say nothing about its weights but how it is
 * used: the chat template, the tokenizer's settings for transformers, generation defaults. A run
 * that starts from a folder carries them through its checkpoints, byte for byte. */
#ifndef NN_COMPANIONS_H
#define NN_COMPANIONS_H

#include "core/error.h"

enum { COMPANIONS = 6 };

struct companions {
    struct companion {
        char *text; /* NULL: the folder has none; malloc'd */
        size_t size;
    } files[COMPANIONS];
};

/* The name of a file, in the order of files. */
const char *companion_name(int index);
/* What the folder holds; of a failure nothing is left to clear. */
plx_status companions_read(const char *folder, struct companions *companions, struct error *err);
plx_status companions_write(const struct companions *companions, const char *folder,
                            struct error *err);
void companions_clear(struct companions *companions);

#endif
