/* timed_ops.h: a table of operations with a clock around every call, so that a training step's time
 * can be divided. */
#ifndef CLI_TIMED_OPS_H
#define CLI_TIMED_OPS_H

#include "op.h"

enum timed_phase {
    TIMED_GEMM, /* matrix products of the model */
    TIMED_ATTENTION,
    TIMED_OTHER,          /* the model's other operations */
    TIMED_OPTIMISER_GEMM, /* Muon's orthogonalisation */
    TIMED_OPTIMISER_OTHER,
    TIMED_PHASES
};

/* The table, timed; one at a time. Every operation is waited for. */
const struct ops *timed_ops(const struct ops *inner);

/* Empties the books. */
void timed_ops_start(void);
/* From here on (true) calls belong to the optimiser, or (false) to the model again. */
void timed_ops_optimiser(bool begins);
double timed_ops_seconds(enum timed_phase phase);

#endif
