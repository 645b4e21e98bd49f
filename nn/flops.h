/* flops.h: model FLOPs: the floating-point operations that a token of training costs by the model's
 * definition, whatever an implementation recomputes or skips. Divided by time and by the device's
 * peak they are model FLOPs utilisation (MFU). */
#ifndef NN_FLOPS_H
#define NN_FLOPS_H

#include "core/param.h"
#include "model_config.h"

/* Of one token, forward and backward. */
struct flops {
    double linear;    /* products with weights, the output head included */
    double attention; /* products of queries, probes, keys and values, causal */
    double total;
};

/* For rows of context tokens, every one of which sees all before it within its layer's window:
 *
 *     linear = sum over weights W [out,in] of (4 + 2 where W is trained) out in
 *     attention = sum over layers of products * 2 H D * (mean number of keys a query sees)
 *
 * products is 2 + 4 for softmax attention and 4 + 6 for Parallax (mixers/mixer.h); the mean number
 * of keys is context / 2, or W (1 - W / (2 context)) in a window of W. An embedding is looked up,
 * not multiplied, and counts only where it is the head too. params are those of the model. */
struct flops flops_per_token(const struct model_config *config, const struct param_list *params,
                             int64_t context);

#endif
