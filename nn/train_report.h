/* train_report.h: what a run says before its first step. Internal to train_*.c. */
#ifndef NN_TRAIN_REPORT_H
#define NN_TRAIN_REPORT_H

#include "train_session.h"

/* Model, memory plan, data and kernels, one message each. */
void train_report_plan(const struct train_session *session);

#endif
