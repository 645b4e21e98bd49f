/* attention_family.h: rows of the mixer table that are made of queries, keys, values and (Parallax)
 * probes. */
#ifndef NN_ATTENTION_FAMILY_H
#define NN_ATTENTION_FAMILY_H

#include "mixers/mixer.h"

extern const struct mixer_kind attention_softmax, attention_parallax;

#endif
