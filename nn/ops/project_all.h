/* project_all.h: the operation project_all in terms of others of the same table. */
#ifndef NN_OPS_PROJECT_ALL_H
#define NN_OPS_PROJECT_ALL_H

#include "op.h"

/* By rmsnorm, project and swiglu, with what is between them in scratch. */
plx_status project_all_by_parts(struct backend *be, const struct project_all *call);

#endif
