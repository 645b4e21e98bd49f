/* update.h: what optim.c and the update rules agree on; internal to this folder.
 *
 * An update rule turns the gradients of a batch of parameters into their next values. It says which
 * tensors of state it keeps for each, all of the parameter's shape, and optim.c allocates, names
 * and enumerates them. A new rule is one file with one const struct, and a mention in a row of
 * optim.c's table. */
#ifndef NN_OPTIM_UPDATE_H
#define NN_OPTIM_UPDATE_H

#include "optim/optim.h"

enum { UPDATE_MAX_STATES = 2 };

/* A batch's update in one step. */
struct update_call {
    const struct optim_config *config;
    const struct update_item *items;
    int count;
    const struct plx_tensor *factor, *numbers; /* as the operations take them */
};

struct update_rule {
    int states; /* an item's m, and v where there are two */
    const char *state_names[UPDATE_MAX_STATES];
    /* How many parameters of value's shape make a batch; NULL: all of the rule, whatever shape. */
    int64_t (*most)(const struct backend *be, const struct plx_tensor *value);
    /* Uses be->scratch and leaves it as it was. Called once with a measuring backend at creation.
     */
    plx_status (*step)(struct backend *be, const struct update_call *call);
};

extern const struct update_rule adamw_rule, muon_rule;

#endif
