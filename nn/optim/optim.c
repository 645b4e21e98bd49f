/* optim.c: the table of optimisers, and the optimiser as an object: one slot a parameter, state in
 * one arena.
 *
 * An optimiser is a row: a name, its defaults, and which update rule each parameter group gets.
 * Parameters of one rule are updated in batches, which are made at creation. A step is queued on
 * the backend's stream and waits for nothing: the norm of the whole gradient, what clipping makes
 * of it (both stay on the device), then every batch with its parameters' share of the rate. Read
 * update.h next, then adamw.c and muon.c. */
#include "optim/update.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

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
    const struct update_rule *rule; /* NULL where the parameter is frozen */
    bool remote;                    /* another process has the states */
    struct plx_tensor states[UPDATE_MAX_STATES];
};

/* Neighbours in items that are updated by one call. */
struct optim_batch {
    const struct update_rule *rule;
    int first, count;
};

struct optim {
    struct backend *be;
    struct optim_config config;
    struct param_list *params;
    struct optim_slot *slots; /* one a parameter, in the list's order */
    int slot_count;
    struct update_item *items; /* of updated parameters, batch after batch */
    int *rows;                 /* an item's parameter */
    struct optim_batch *batches;
    int item_count, batch_count;
    const struct plx_tensor **grads; /* a slot's gradient, NULL where it has no part in the norm */
    struct plx_tensor squares, clip; /* on the device: struct clip's */
    struct plx_tensor numbers;       /* and struct step_numbers */
    struct arena state;
    struct arena
        borrowed; /* of remote states, on the host, between optim_borrow and optim_return */
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
    REQUIRE(err, config->ns_steps >= 0 && config->ns_steps <= MUON_MAX_STEPS, PLX_INVALID_ARGUMENT,
            "optimizer %s: ns_steps is %d but must be 0 to %d", config->name, config->ns_steps,
            MUON_MAX_STEPS);
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
        if (param->frozen) continue;
        const struct update_rule *rule = kind->rules[param->group];
        REQUIRE(optim->be->err, rule != &muon_rule || param->value.rank == 2, PLX_INVALID_ARGUMENT,
                "%s: group %s needs rank 2, not %d", param->name, param_group_name(param->group),
                param->value.rank);
        optim->slots[i].rule = rule;
        optim->slots[i].remote = param->remote;
        optim->grads[i] = param->remote ? NULL : &param->grad;
    }
    return PLX_OK;
}

static bool optim_goes_with(const struct optim *optim, int first, int row)
{
    const struct plx_tensor *a = &optim->params->items[first].value;
    const struct plx_tensor *b = &optim->params->items[row].value;
    const struct update_rule *rule = optim->slots[first].rule;
    if (optim->slots[row].rule != rule || optim->slots[row].remote) return false;
    return rule->most == NULL || (a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1]);
}

/* Parameters of the batch that opens with a row: batches of one kind are about the same size. */
static int64_t optim_batch_size(const struct optim *optim, int first)
{
    const struct update_rule *rule = optim->slots[first].rule;
    int64_t alike = 0;
    for (int j = first; j < optim->slot_count; j++) alike += optim_goes_with(optim, first, j);
    if (rule->most == NULL) return alike;
    int64_t most = rule->most(optim->be, &optim->params->items[first].value);
    int64_t batches = (alike + most - 1) / most;
    return (alike + batches - 1) / batches;
}

/* Puts a parameter into the batch, whose items are the last. */
static void optim_batch_add(struct optim *optim, struct optim_batch *batch, int row)
{
    const struct optim_config *config = &optim->config;
    struct param *param = &optim->params->items[row];
    struct optim_slot *slot = &optim->slots[row];
    optim->rows[optim->item_count] = row;
    optim->items[optim->item_count] = (struct update_item){
        .value = &param->value,
        .active = &param->active,
        .grad = &param->grad,
        .m = &slot->states[0],
        .v = slot->rule->states > 1 ? &slot->states[1] : NULL,
        .lr = optim_group_lr(config, param->group),
        .weight_decay = optim_group_decays(config, param->group),
        .number = (uint32_t)row,
    };
    optim->item_count++;
    batch->count++;
}

/* Every parameter opens a batch with what goes with it, unless it is in one already. */
static void optim_make_batches(struct optim *optim)
{
    for (int i = 0; i < optim->slot_count; i++) {
        bool taken = optim->slots[i].rule == NULL || optim->slots[i].remote;
        for (int k = 0; k < optim->item_count && !taken; k++) taken = optim->rows[k] == i;
        if (taken) continue;
        struct optim_batch *batch = &optim->batches[optim->batch_count++];
        *batch = (struct optim_batch){.rule = optim->slots[i].rule, .first = optim->item_count};
        const int64_t size = optim_batch_size(optim, i);
        for (int j = i; j < optim->slot_count && batch->count < size; j++)
            if (optim_goes_with(optim, i, j)) optim_batch_add(optim, batch, j);
    }
}

/* The states of remote parameters, or of all others. */
static void optim_carve_states(struct optim *optim, struct arena *arena, bool remote)
{
    for (int i = 0; i < optim->slot_count; i++) {
        struct optim_slot *slot = &optim->slots[i];
        const struct plx_tensor *value = &optim->params->items[i].value;
        const plx_dtype dtype = optim->config.bf16_moments ? PLX_BF16 : value->dtype;
        if (slot->rule == NULL || slot->remote != remote) continue;
        for (int s = 0; s < slot->rule->states; s++)
            slot->states[s] = arena_tensor(arena, dtype, value->rank, value->shape);
    }
}

static void optim_carve(struct optim *optim)
{
    struct arena none = arena_measuring(&device_cpu);
    optim_carve_states(optim, &optim->state, false);
    optim_carve_states(optim, &none, true);
    optim->squares = arena_tensor(&optim->state, PLX_F64, 1, (int64_t[]){optim->slot_count});
    optim->clip = arena_tensor(&optim->state, PLX_F64, 1, (int64_t[]){CLIP_STATE});
    optim->numbers = arena_tensor(&optim->state, PLX_F64, 1, (int64_t[]){STEP_NUMBERS});
}

/* Arenas come zeroed, which is how every state begins. */
static plx_status optim_allocate(struct optim *optim)
{
    optim->state = arena_measuring(optim->be->device);
    optim_carve(optim);
    size_t bytes = optim->state.peak;
    TRY(backend_arena(optim->be, bytes, &optim->state));
    optim_carve(optim);
    return PLX_OK;
}

static plx_status optim_queue(struct optim *optim, struct backend *be)
{
    const struct clip clip = {.squares = &optim->squares,
                              .state = &optim->clip,
                              .numbers = &optim->numbers,
                              .limit = optim->config.clip};
    struct plx_tensor factor = optim->clip;
    factor.shape[0] = 1;
    TRY(be->ops->clip(be, &clip));
    for (int b = 0; b < optim->batch_count; b++) {
        const struct optim_batch *batch = &optim->batches[b];
        const struct update_call call = {
            .config = &optim->config,
            .items = &optim->items[batch->first],
            .count = batch->count,
            .factor = &factor,
            .numbers = &optim->numbers,
        };
        TRY(batch->rule->step(be, &call));
    }
    return backend_requantise(be, optim->params, false);
}

/* A step with a measuring backend tells how much scratch the rules take. */
static plx_status optim_reserve_scratch(struct optim *optim)
{
    struct backend dry = backend_dry(optim->be);
    TRY(dry.ops->sum_squares(&dry, &optim->squares, optim->grads));
    TRY(optim_queue(optim, &dry));
    TRY(backend_requantise(&dry, optim->params, true));
    return backend_reserve(optim->be, dry.scratch.peak);
}

static plx_status optim_build(struct optim *optim, const struct optim_kind *kind)
{
    size_t rows = (size_t)optim->slot_count + 1;
    optim->slots = calloc(rows, sizeof *optim->slots);
    optim->items = calloc(rows, sizeof *optim->items);
    optim->rows = calloc(rows, sizeof *optim->rows);
    optim->batches = calloc(rows, sizeof *optim->batches);
    optim->grads = calloc(rows, sizeof *optim->grads);
    REQUIRE(optim->be->err,
            optim->slots && optim->items && optim->rows && optim->batches && optim->grads,
            PLX_OUT_OF_MEMORY, "no memory for %d optimiser slots", optim->slot_count);
    TRY(optim_assign_rules(optim, kind));
    optim_make_batches(optim);
    TRY(optim_allocate(optim));
    return optim_reserve_scratch(optim);
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
    plx_status status = optim_build(made, kind);
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
    arena_destroy(&optim->borrowed);
    free(optim->slots);
    free(optim->items);
    free(optim->rows);
    free(optim->batches);
    free(optim->grads);
    free(optim);
}

size_t optim_bytes(const struct optim *optim)
{
    return optim->state.used;
}

/* ---- Stepping ---- */

plx_status optim_begin(struct optim *optim, double lr_factor, double decay_factor)
{
    const struct optim_config *config = &optim->config;
    const struct backend *be = optim->be;
    const double step = (double)++optim->steps;
    const struct step_numbers numbers = {.step = step,
                                         .lr = config->lr * lr_factor,
                                         .weight_decay = config->weight_decay * decay_factor,
                                         .bias1 = 1.0 - pow(config->beta1, step),
                                         .bias2 = 1.0 - pow(config->beta2, step)};
    return be->device->upload(optim->numbers.data, &numbers, sizeof numbers, be->stream, be->err);
}

plx_status optim_measure(struct optim *optim)
{
    struct backend *be = optim->be;
    for (int i = 0; i < optim->slot_count; i++)
        REQUIRE(be->err, optim->grads[i] == NULL || optim->grads[i]->data != NULL,
                PLX_INVALID_ARGUMENT,
                "%s: an optimiser step needs gradients, which are not reserved",
                optim->params->items[i].name);
    return be->ops->sum_squares(be, &optim->squares, optim->grads);
}

const struct plx_tensor *optim_squares(const struct optim *optim)
{
    return &optim->squares;
}

plx_status optim_update(struct optim *optim)
{
    return optim_queue(optim, optim->be);
}

plx_status optim_step(struct optim *optim, double lr_factor, double decay_factor)
{
    TRY(optim_begin(optim, lr_factor, decay_factor));
    TRY(optim_measure(optim));
    return optim_update(optim);
}

struct plx_tensor optim_norm(const struct optim *optim)
{
    struct plx_tensor norm = optim->clip;
    norm.shape[0] = 1;
    norm.data = (char *)norm.data + offsetof(struct clip_state, norm);
    return norm;
}

plx_status optim_read_report(struct optim *optim, struct optim_report *report)
{
    struct backend *be = optim->be;
    struct clip_state state;
    TRY(be->device->download(&state, optim->clip.data, sizeof state, be->stream, be->err));
    *report = (struct optim_report){.grad_norm = state.norm, .bad_step = (int64_t)state.bad_step};
    if (report->bad_step == 0) return PLX_OK;
    optim->steps = report->bad_step - 1;
    return error_set(be->err, PLX_BAD_DATA,
                     "%s: the gradient norm is not finite (%g); no parameter was changed",
                     optim->params->items[(int)state.bad_index].name, report->grad_norm);
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
        if (slot->rule == NULL) continue;
        if (index < slot->rule->states) {
            snprintf(state->name, sizeof state->name, "%s.%s", optim->params->items[i].name,
                     slot->rule->state_names[index]);
            state->tensor = slot->states[index];
            state->param = i;
            return true;
        }
        index -= slot->rule->states;
    }
    return false;
}

plx_status optim_borrow(struct optim *optim)
{
    struct arena measuring = arena_measuring(&device_cpu);
    optim_carve_states(optim, &measuring, true);
    TRY(arena_create(&optim->borrowed, &device_cpu, NULL, measuring.used, optim->be->err));
    optim_carve_states(optim, &optim->borrowed, true);
    return PLX_OK;
}

void optim_return(struct optim *optim)
{
    struct arena none = arena_measuring(&device_cpu);
    arena_destroy(&optim->borrowed);
    optim_carve_states(optim, &none, true);
}

double optim_cost(const struct optim_config *config, const struct param *param)
{
    const struct optim_kind *kind = optim_find(config->name);
    double elements = (double)plx_tensor_count(&param->value);
    if (kind == NULL || kind->rules[param->group] != &muon_rule) return elements;
    int64_t rows = param->value.shape[0], columns = param->value.shape[1];
    return elements * (1.0 + (double)(rows < columns ? rows : columns) / 256.0);
}
