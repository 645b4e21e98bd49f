/* lora.h: low-rank adapters (Hu et al., arXiv 2106.09685) on the projections of a model.
 *
 *     y = x W^T + (alpha / rank) (x A^T) B^T        A [rank,in], B [out,rank]
 *
 * B starts at zero, so that an adapted model begins as the model it adapts. W is not trained. A
 * model file may hold adapters beside the weights (a run's checkpoint does), and then they are
 * named after the weight: X.weight has X.lora_A.weight and X.lora_B.weight. */
#ifndef NN_LORA_H
#define NN_LORA_H

#include <stdint.h>

#include "core/error.h"

struct lora {
    int64_t rank;     /* 0: no adapters */
    double alpha;     /* with rank, the scale */
    unsigned targets; /* bit 1 << i: projection i of lora_target */
};

enum { LORA_TARGETS = 8, LORA_ALL = (1 << LORA_TARGETS) - 1, LORA_TEXT = 128 };

/* "q_proj" and so on: the projections that may have adapters, in the order of their bits. */
const char *lora_target(int index);
/* The bit of a projection's name, 0 where it is none. */
unsigned lora_target_bit(const char *name, size_t length);
/* "q_proj,v_proj", or "all" for every one; what is wrong is said about flag. */
plx_status lora_targets_parse(const char *text, const char *flag, unsigned *targets,
                              struct error *err);
/* The same on the way back. */
void lora_targets_print(unsigned targets, char text[LORA_TEXT]);
/* What (x A^T) B^T is multiplied by. */
double lora_scale(const struct lora *lora);
/* Rows first .. first + count - 1 of W + scale B A into values [count,columns], which hold those of
 * W. up is B [.., rank], down A [rank, columns]. Sums are made in double and rounded once. */
void lora_merge(const struct lora *lora, const float *up, const float *down, int64_t first,
                int64_t count, int64_t columns, float *values);

#endif
