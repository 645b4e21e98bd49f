/* update.h: what optim.c and the update rules agree on; internal to this folder.
 *
 * An update rule turns one parameter's gradient into its next value. It says which tensors of state
 * it keeps, all of the parameter's shape and dtype, and optim.c allocates, names and enumerates
 * them. A new rule is one file with one const struct, and a mention in a row of optim.c's table. */
#ifndef NN_OPTIM_UPDATE_H
#define NN_OPTIM_UPDATE_H

#include "optim/optim.h"

enum { UPDATE_MAX_STATES = 2 };

/* One parameter's update in one step: rates have their schedule and group multipliers applied. */
struct update_call {
    const struct optim_config *config;
    const struct param *param;
    const struct plx_tensor *states; /* as many as the rule keeps */
    double lr, weight_decay;
    int64_t step; /* 1-based */
};

struct update_rule {
    int states;
    const char *state_names[UPDATE_MAX_STATES];
    /* Uses be->scratch and leaves it as it was. Called once with a measuring backend at creation.
     */
    plx_status (*step)(struct backend *be, const struct update_call *call);
};

extern const struct update_rule adamw_rule, muon_rule;

/* Global norm of all gradients but those of frozen parameters in *norm, and PLX_BAD_DATA naming the
 * parameter where it stops being finite. Then, where clip is positive and smaller than the norm,
 * every gradient is scaled by clip / norm. */
plx_status clip_gradients(struct backend *be, struct param_list *params, double clip, double *norm);

#endif
