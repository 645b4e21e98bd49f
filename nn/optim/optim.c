/* optim.c: the table of optimisers, and the optimiser as an object: one slot a parameter, state in
 * one arena.
 *
 * An optimiser is a row: a name, its defaults, and which update rule each parameter group gets. A
 * step is clip_gradients over the whole list (which also refuses what is not finite), then every
 * slot's rule in the order of the list with the group's share of the rate. Read update.h next, then
 * adamw.c and muon.c. */
#include "optim/update.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

/* The rule of a frozen parameter, whatever its group: it keeps nothing and changes nothing. */
static plx_status leave(struct backend *be, const struct update_call *call)
{
    (void)be;
    (void)call;
    return PLX_OK;
}

static const struct update_rule frozen_rule = {.states = 0, .step = leave};

struct optim_kind {
    struct optim_config defaults;
    const struct update_rule *rules[PARAM_GROUPS];
};

static const struct optim_kind optim_kinds[] = {
    {{.name = "adamw",
      .lr = 3e-4,
      .weight_decay = 0.1,
      .beta1 = 0.9,
      .beta2 = 0.95,
      .eps = 1e-8,
      .embedding_lr = 1.0,
      .head_lr = 1.0,
      .norm_lr = 1.0,
      .other_lr = 1.0,
      .decay_norms = true,
      .clip = 1.0},
     {[PARAM_MATRIX] = &adamw_rule,
      [PARAM_THIN] = &adamw_rule,
      [PARAM_EMBEDDING] = &adamw_rule,
      [PARAM_HEAD] = &adamw_rule,
      [PARAM_NORM] = &adamw_rule,
      [PARAM_BIAS] = &adamw_rule}},
    {{.name = "muon",
      .lr = 5e-3,
      .weight_decay = 0.1,
      .beta1 = 0.8,
      .beta2 = 0.95,
      .eps = 1e-7,
      .momentum = 0.95,
      .nesterov = true,
      .momentum_ema = true,
      .scale = MUON_SCALE_KELLER,
      .coefficients = MUON_QUINTIC,
      .ns_steps = 5,
      .embedding_lr = 0.3,
      .head_lr = 0.3,
      .norm_lr = 0.015,
      .other_lr = 0.06,
      .decay_norms = true,
      .clip = 1.0},
     {[PARAM_MATRIX] = &muon_rule,
      [PARAM_THIN] = &adamw_rule,
      [PARAM_EMBEDDING] = &adamw_rule,
      [PARAM_HEAD] = &adamw_rule,
      [PARAM_NORM] = &adamw_rule,
      [PARAM_BIAS] = &adamw_rule}},
};

struct optim_slot {
    const struct update_rule *rule;
    struct plx_tensor states[UPDATE_MAX_STATES];
};

struct optim {
    struct backend *be;
    struct optim_config config;
    struct param_list *params;
    struct optim_slot *slots; /* one a parameter, in the list's order */
    int slot_count;
    struct arena state;
    int64_t steps;
};

static const struct optim_kind *optim_find(const char *name)
{
    for (size_t i = 0; i < sizeof optim_kinds / sizeof *optim_kinds; i++)
        if (name != NULL && strcmp(optim_kinds[i].defaults.name, name) == 0) return &optim_kinds[i];
    return NULL;
}

struct optim_config optim_config_default(const char *name)
{
    const struct optim_kind *kind = optim_find(name);
    return kind != NULL ? kind->defaults : (struct optim_config){.name = name};
}

/* ---- Configuration ---- */

static plx_status optim_check(const struct optim_config *config, struct error *err)
{
    const struct {
        const char *name;
        double value, limit; /* 0 <= value < limit */
    } ranges[] = {
        {"lr", config->lr, INFINITY},
        {"weight_decay", config->weight_decay, INFINITY},
        {"beta1", config->beta1, 1.0},
        {"beta2", config->beta2, 1.0},
        {"eps", config->eps, INFINITY},
        {"momentum", config->momentum, 1.0},
        {"embedding_lr", config->embedding_lr, INFINITY},
        {"head_lr", config->head_lr, INFINITY},
        {"norm_lr", config->norm_lr, INFINITY},
        {"other_lr", config->other_lr, INFINITY},
        {"clip", config->clip, INFINITY},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        REQUIRE(err, ranges[i].value >= 0.0 && ranges[i].value < ranges[i].limit,
                PLX_INVALID_ARGUMENT, "optimizer %s: %s is %g but must be at least 0 and below %g",
                config->name, ranges[i].name, ranges[i].value, ranges[i].limit);
    /* An embedding row that met no token has m = v = 0: without eps its update is 0 / 0. */
    REQUIRE(err, config->eps > 0.0, PLX_INVALID_ARGUMENT, "optimizer %s: eps must be above 0",
            config->name);
    REQUIRE(err, config->ns_steps >= 0 && config->ns_steps <= 100, PLX_INVALID_ARGUMENT,
            "optimizer %s: ns_steps is %d but must be 0 to 100", config->name, config->ns_steps);
    REQUIRE(err, config->scale >= MUON_SCALE_KELLER && config->scale <= MUON_SCALE_NONE,
            PLX_INVALID_ARGUMENT, "optimizer %s: no scale variant has number %d", config->name,
            (int)config->scale);
    REQUIRE(err, config->coefficients >= MUON_QUINTIC && config->coefficients <= MUON_OPT,
            PLX_INVALID_ARGUMENT, "optimizer %s: no coefficients have number %d", config->name,
            (int)config->coefficients);
    return PLX_OK;
}

static double optim_group_lr(const struct optim_config *config, enum param_group group)
{
    switch (group) {
    case PARAM_MATRIX:
        return 1.0;
    case PARAM_EMBEDDING:
        return config->embedding_lr;
    case PARAM_HEAD:
        return config->head_lr;
    case PARAM_NORM:
        return config->norm_lr;
    case PARAM_THIN:
    case PARAM_BIAS:
    case PARAM_GROUPS:
        break;
    }
    return config->other_lr;
}

static bool optim_group_decays(const struct optim_config *config, enum param_group group)
{
    bool always = group == PARAM_MATRIX || group == PARAM_THIN || group == PARAM_HEAD;
    return always || config->decay_norms;
}

/* ---- Creation ---- */

static plx_status optim_assign_rules(struct optim *optim, const struct optim_kind *kind)
{
    for (int i = 0; i < optim->slot_count; i++) {
        const struct param *param = &optim->params->items[i];
        const struct update_rule *rule = param->frozen ? &frozen_rule : kind->rules[param->group];
        REQUIRE(optim->be->err, rule != &muon_rule || param->value.rank == 2, PLX_INVALID_ARGUMENT,
                "%s: group %s needs rank 2, not %d", param->name, param_group_name(param->group),
                param->value.rank);
        optim->slots[i].rule = rule;
    }
    return PLX_OK;
}

static void optim_carve(struct optim *optim)
{
    for (int i = 0; i < optim->slot_count; i++) {
        const struct plx_tensor *value = &optim->params->items[i].value;
        for (int s = 0; s < optim->slots[i].rule->states; s++)
            optim->slots[i].states[s] =
                arena_tensor(&optim->state, value->dtype, value->rank, value->shape);
    }
}

static plx_status optim_allocate(struct optim *optim)
{
    optim->state = arena_measuring(optim->be->device);
    optim_carve(optim);
    size_t bytes = optim->state.peak;
    TRY(arena_create(&optim->state, optim->be->device, optim->be->stream, bytes, optim->be->err));
    optim_carve(optim);
    for (int i = 0; i < optim->slot_count; i++)
        for (int s = 0; s < optim->slots[i].rule->states; s++)
            TRY(optim->be->ops->zero(optim->be, &optim->slots[i].states[s]));
    return PLX_OK;
}

static plx_status optim_update(struct optim *optim, struct backend *be, double lr, double decay)
{
    for (int i = 0; i < optim->slot_count; i++) {
        const struct param *param = &optim->params->items[i];
        bool decays = optim_group_decays(&optim->config, param->group);
        struct update_call call = {
            .config = &optim->config,
            .param = param,
            .states = optim->slots[i].states,
            .lr = lr * optim_group_lr(&optim->config, param->group),
            .weight_decay = decays ? decay : 0.0,
            .step = optim->steps + 1,
        };
        TRY(optim->slots[i].rule->step(be, &call));
    }
    return PLX_OK;
}

/* A step with a measuring backend tells how much scratch the rules take. */
static plx_status optim_reserve_scratch(struct optim *optim)
{
    struct backend dry = backend_dry(optim->be);
    TRY(optim_update(optim, &dry, 0.0, 0.0));
    return backend_reserve(optim->be, dry.scratch.peak);
}

plx_status optim_create(struct backend *be, const struct optim_config *config,
                        struct param_list *params, struct optim **optim)
{
    *optim = NULL;
    const struct optim_kind *kind = optim_find(config->name);
    REQUIRE(be->err, kind != NULL, PLX_INVALID_ARGUMENT,
            "optimizer \"%s\" is neither adamw nor muon", config->name != NULL ? config->name : "");
    TRY(optim_check(config, be->err));
    struct optim *made = calloc(1, sizeof *made);
    REQUIRE(be->err, made != NULL, PLX_OUT_OF_MEMORY, "no memory for the optimiser");
    *made =
        (struct optim){.be = be, .config = *config, .params = params, .slot_count = params->count};
    made->config.name = kind->defaults.name; /* static storage, unlike the caller's */
    made->slots = calloc((size_t)params->count + 1, sizeof *made->slots);
    plx_status status = made->slots != NULL
                            ? optim_assign_rules(made, kind)
                            : error_set(be->err, PLX_OUT_OF_MEMORY,
                                        "no memory for %d optimiser slots", params->count);
    if (status == PLX_OK) status = optim_allocate(made);
    if (status == PLX_OK) status = optim_reserve_scratch(made);
    if (status != PLX_OK) {
        optim_destroy(made);
        return status;
    }
    *optim = made;
    return PLX_OK;
}

void optim_destroy(struct optim *optim)
{
    if (optim == NULL) return;
    arena_destroy(&optim->state);
    free(optim->slots);
    free(optim);
}

size_t optim_bytes(const struct optim *optim)
{
    return optim->state.capacity;
}

/* ---- Stepping ---- */

plx_status optim_step(struct optim *optim, double lr_factor, double decay_factor,
                      struct optim_report *report)
{
    struct backend *be = optim->be;
    for (int i = 0; i < optim->slot_count; i++)
        REQUIRE(
            be->err, optim->params->items[i].frozen || optim->params->items[i].grad.data != NULL,
            PLX_INVALID_ARGUMENT, "%s: an optimiser step needs gradients, which are not reserved",
            optim->params->items[i].name);
    double norm = 0.0;
    plx_status status = clip_gradients(be, optim->params, optim->config.clip, &norm);
    if (report != NULL) report->grad_norm = norm;
    if (status != PLX_OK) return status;
    TRY(optim_update(optim, be, optim->config.lr * lr_factor,
                     optim->config.weight_decay * decay_factor));
    optim->steps++;
    return backend_refresh(be, optim->params);
}

int64_t optim_steps(const struct optim *optim)
{
    return optim->steps;
}

void optim_set_steps(struct optim *optim, int64_t steps)
{
    optim->steps = steps;
}

bool optim_state(struct optim *optim, int index, struct optim_tensor *state)
{
    for (int i = 0; i < optim->slot_count; i++) {
        const struct optim_slot *slot = &optim->slots[i];
        if (index < slot->rule->states) {
            snprintf(state->name, sizeof state->name, "%s.%s", optim->params->items[i].name,
                     slot->rule->state_names[index]);
            state->tensor = slot->states[index];
            return true;
        }
        index -= slot->rule->states;
    }
    return false;
}
