/* card.h: what the data sheets of known GPUs promise, for stating a measured rate as a share of it.
 */
#ifndef NN_CARD_H
#define NN_CARD_H

struct card {
    const char *name; /* the driver's name begins so: "NVIDIA H200" */
    double tflops;    /* dense bf16 products with f32 sums */
    double tb_s;      /* reading and writing memory */
};

/* The card of a name as device_facts gives it; NULL for one that is not in the table. */
const struct card *card_named(const char *name);

#endif
