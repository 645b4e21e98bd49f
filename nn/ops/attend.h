/* attend.h: attention through the public verbs of libparallax, for every table. */
#ifndef NN_OPS_ATTEND_H
#define NN_OPS_ATTEND_H

#include "op.h"

/* Runs one pass of one mechanism with workspace from be->scratch. On a measuring arena the
 * workspace is only counted: that is all there is to the dry table's attention. */
plx_status attend_forward(struct backend *be, const struct attend *attend);
plx_status attend_backward(struct backend *be, const struct attend *attend);
/* Nothing on a measuring arena: an append needs no workspace. */
plx_status attend_append(struct backend *be, const struct append *append);
plx_status attend_decode(struct backend *be, const struct attend *attend);

#endif
