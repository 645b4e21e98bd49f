/* tensorboard.h: scalars over steps as TensorBoard's event files, which its users look at with
 *
 *     tensorboard --logdir RUN
 *
 * A folder holds one file a start of the run; a start that goes back to an earlier step tells
 * TensorBoard to forget what earlier files say of the steps from there on. */
#ifndef NN_TENSORBOARD_H
#define NN_TENSORBOARD_H

#include "io/append.h"

struct tensorboard {
    struct append_file file;
};

struct tensorboard_scalar {
    const char *tag; /* "loss/train": the part before / groups charts */
    double value;    /* written as a float; NaN: not measured, left out */
};

/* Makes the folder and a new file in it, for events from first_step on. */
plx_status tensorboard_open(struct tensorboard *board, const char *folder, int64_t first_step,
                            struct error *err);
/* One event; tags and values may take some 4000 bytes in all. */
plx_status tensorboard_write(struct tensorboard *board, int64_t step,
                             const struct tensorboard_scalar *scalars, int count,
                             struct error *err);
void tensorboard_close(struct tensorboard *board);

#endif
