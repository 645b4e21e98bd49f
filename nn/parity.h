/* parity.h: a model against recorded results of another implementation of it.
 *
 * The reference is a safetensors file that holds, for one batch of B rows of T tokens:
 *     input_ids [B,T]          required; targets are the same ids shifted by one, inside each row
 *     logits [B,T,V]           of every token
 *     loss [1]                 mean cross-entropy over the B (T - 1) predicted tokens
 *     grad.NAME                gradient of that loss, for parameters by name
 *     greedy_from_P [B,M]      the first P ids of every row and M - P tokens that greedy decoding
 * adds All but the first may be missing: what is missing is reported as not compared. `parallax
 * parity` and the golden tests are this function. */
#ifndef NN_PARITY_H
#define NN_PARITY_H

#include <stdio.h>

#include "model.h"

struct parity_result {
    int compared; /* tensors: loss, logits, gradients */
    int missing;  /* tensors that the file could have held */
    double worst; /* largest error of any, relative to its tensor's largest value */
    char worst_name[PARAM_NAME_MAX];
    int64_t greedy_tokens, greedy_mismatches;
};

/* Runs the model on the reference's batch (reserving memory for it) and compares. Prints a line a
 * tensor to out, the worst first; out may be NULL. Fails with PLX_BAD_DATA where an error is above
 * tolerance, a greedy token differs, or the file holds a name or shape that the model does not
 * have; *result is filled in as far as it got. Sentences of the model's
 * own failures go to its backend's err, so pass that as err. */
plx_status parity_run(struct model *model, const char *reference_path, double tolerance, FILE *out,
                      struct parity_result *result, struct error *err);

#endif
