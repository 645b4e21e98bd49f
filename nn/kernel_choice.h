/* kernel_choice.h: which kernel of the library attention of some shape would take, asked with the
 * shapes alone and no memory behind them, which is all that the choice looks at. */
#ifndef NN_KERNEL_CHOICE_H
#define NN_KERNEL_CHOICE_H

#include "parallax/parallax.h"

/* One causal call over a batch of one, with all that backward needs saved. */
struct kernel_question {
    plx_device device;
    plx_mechanism mechanism;
    plx_pass pass;
    plx_dtype dtype;
    int64_t queries, keys, heads, kv_heads, head_dim;
    int64_t window;    /* 0: all keys */
    int64_t sequences; /* packed by offsets; 0: dense */
    int64_t page;      /* rows of a page of a paged cache; 0: contiguous */
};

/* *name becomes the kernel; otherwise plx_error says why there is none. */
plx_status kernel_choice(plx_context *context, const struct kernel_question *question,
                         const char **name);

#endif
