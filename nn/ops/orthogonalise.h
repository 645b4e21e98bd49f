/* orthogonalise.h: the operation orthogonalise in terms of others of the same table. */
#ifndef NN_OPS_ORTHOGONALISE_H
#define NN_OPS_ORTHOGONALISE_H

#include "op.h"

/* By normalise and gemm. Scratch: n (2 min(A,B)^2 + A B) elements, and what those take. */
plx_status orthogonalise_by_products(struct backend *be, const struct orthogonalise *call);

#endif
