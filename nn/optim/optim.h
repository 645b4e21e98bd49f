/* optim.h: optimisers and schedules.
 *
 * Two optimisers, one table: adamw gives every group an AdamW update; muon gives PARAM_MATRIX an
 * orthogonalised momentum update, each matrix alone, and the other groups AdamW with its own betas
 * and rate multipliers. The exact formulas, with their sources, are at the top of muon.c, adamw.c
 * and schedule.c. Everything that touches numbers goes through the backend's operations. */
#ifndef NN_OPTIM_H
#define NN_OPTIM_H

#include "core/param.h"
#include "op.h"

enum muon_scale {
    MUON_SCALE_KELLER,             /* sqrt(max(1, A/B)) for W [A,B]; torch's "original" */
    MUON_SCALE_MATCH_RMS,          /* 0.2 sqrt(max(A,B)): Moonlight, torch's "match_rms_adamw" */
    MUON_SCALE_SPECTRAL_UNCLAMPED, /* sqrt(A/B) */
    MUON_SCALE_MAX,                /* sqrt(max(A,B)): October 2024 */
    MUON_SCALE_NONE                /* 1 */
};

enum muon_coefficients {
    MUON_QUINTIC,       /* (3.4445, -4.7750, 2.0315), five times */
    MUON_POLAR_EXPRESS, /* the paper's list, divided by the 1.01 safety powers */
    MUON_POLAR_MODDED,  /* the speed-run's five triples, normaliser 1.02 |X| + 1e-6 */
    MUON_OPT            /* the "Opt" set of the speed-run's medium track */
};

struct optim_config {
    const char *name; /* "adamw" or "muon": a row of optim.c's table */
    double lr;        /* peak */
    double weight_decay;
    double beta1, beta2, eps; /* AdamW, and muon's other groups */
    double momentum;          /* muon */
    bool nesterov, momentum_ema;
    enum muon_scale scale;
    enum muon_coefficients coefficients;
    int ns_steps;
    double embedding_lr, head_lr; /* multipliers of lr by group */
    double norm_lr, other_lr;     /* other: thin matrices and biases */
    bool decay_norms; /* weight decay also on norms, biases and embeddings; matrices, thin ones and
                         an untied head always decay */
    double clip;      /* largest global gradient norm; 0: no clipping */
    bool
        bf16_moments; /* momentum, m and v in bf16 (ops/rounding.h), not in the parameters' dtype */
};

/* The recipe of the paper's language models (arXiv 2605.29157): adamw lr 3e-4, betas 0.9, 0.95, eps
 * 1e-8; muon lr 5e-3, momentum 0.95 with Nesterov in the EMA form, five steps of the quintic, scale
 * MUON_SCALE_KELLER (the paper says "spectral"), the other groups by betas 0.8, 0.95, eps 1e-7 at
 * 0.3 (embedding) and 0.015 (norms) of the rate. Both: weight decay 0.1, clip 1. Not stated there
 * and chosen here: weight decay on everything, norms too, as torchtitan does, which trained those
 * models; an untied head at the embedding's 0.3 and thin matrices and biases at 0.06, which is
 * adamw's 3e-4. A name that is no optimiser gives a config with that name, which optim_create
 * refuses. */
struct optim_config optim_config_default(const char *name);

struct optim;

/* Allocates the state for every parameter that is neither frozen nor remote, zeroed, and grows be's
 * scratch to what a step needs. The list must outlive the optimiser and not grow; its gradients
 * need memory only when optim_step is called. A config out of range is PLX_INVALID_ARGUMENT. NULL
 * is fine to destroy. */
plx_status optim_create(struct backend *be, const struct optim_config *config,
                        struct param_list *params, struct optim **optim);
void optim_destroy(struct optim *optim);
size_t optim_bytes(const struct optim *optim);

/* Queues one update of every parameter that was not frozen at creation with lr * lr_factor and
 * weight_decay * decay_factor, gradients taken times clip / norm where their norm is above clip,
 * and advances the step. Nothing waits for the device. A norm that is not finite is found there:
 * that step and all later ones change nothing, which optim_read_report tells. */
plx_status optim_step(struct optim *optim, double lr_factor, double decay_factor);

/* The same in three parts. The first advances the step and brings its numbers to the device; what
 * the others queue is the same in every step, so it can be repeated as it is (ops/replay.h).
 * Between these two, processes that share gradients add up optim_squares, f64 [parameters] on the
 * device.
 */
plx_status optim_begin(struct optim *optim, double lr_factor, double decay_factor);
plx_status optim_measure(struct optim *optim);
const struct plx_tensor *optim_squares(const struct optim *optim);
plx_status optim_update(struct optim *optim);

struct optim_report {
    double grad_norm; /* of the last step, before clipping; or of the bad one */
    int64_t bad_step; /* the first whose norm was not finite, counted from 1; 0: none */
};

/* The norm of the step queued last, f64 [1] on the device; of the bad step from that one on. */
struct plx_tensor optim_norm(const struct optim *optim);
/* Waits for all that is queued. With a bad step it returns PLX_BAD_DATA naming the parameter, and
 * takes the steps back to the one before, whose weights and state are still there. */
plx_status optim_read_report(struct optim *optim, struct optim_report *report);
int64_t optim_steps(const struct optim *optim);
void optim_set_steps(struct optim *optim, int64_t steps);

/* State as named tensors ("NAME.momentum", "NAME.m", "NAME.v"), for checkpoints: index from 0;
 * false past the last. Those of remote parameters are named too, but without data unless it is
 * borrowed. */
struct optim_tensor {
    char name[PARAM_NAME_MAX + 16];
    struct plx_tensor tensor;
    int param; /* whose */
};
bool optim_state(struct optim *optim, int index, struct optim_tensor *state);
/* Gives the states of remote parameters memory on the host, to be filled with what their owners
 * have and written to a checkpoint; optim_return takes it back. */
plx_status optim_borrow(struct optim *optim);
void optim_return(struct optim *optim);

/* How long an update of the parameter takes beside others, for dealing them out: by its elements,
 * and Muon's products by the shorter side of the matrix as well, which on a GPU outweighs the
 * memory that AdamW moves from about 256 on. */
double optim_cost(const struct optim_config *config, const struct param *param);

/* ---- Orthogonalisation, exposed for tests ---- */
enum { MUON_MAX_STEPS = 100 };
struct muon_iteration {
    enum muon_coefficients coefficients;
    int steps; /* at most MUON_MAX_STEPS */
};
/* y[i] = NS(x[i]), both [n,A,B], in the backend's activation dtype; in place allowed. Steps beyond
 * a list's length repeat its last triple. */
plx_status muon_orthogonalise(struct backend *be, const struct muon_iteration *iteration,
                              const struct plx_tensor *x, const struct plx_tensor *y);
double muon_scale_factor(enum muon_scale scale, int64_t rows, int64_t columns);

/* ---- Schedules ---- */
enum schedule_kind { SCHEDULE_WSD, SCHEDULE_COSINE, SCHEDULE_CONSTANT };
enum decay_shape { DECAY_LINEAR, DECAY_SQRT, DECAY_COSINE };

struct schedule_config {
    enum schedule_kind kind;
    enum decay_shape shape; /* of WSD's decay */
    int64_t steps;          /* total */
    int64_t warmup;         /* steps */
    double decay_ratio;     /* share of the steps spent decaying (WSD), cut to 0 .. 1 */
    double min_factor;      /* where the decay ends */
    double
        weight_decay_gamma; /* weight decay falls as (1 - t)^gamma over the decay stage; 0: not */
};
/* Factor of the peak rate for the 0-based step, and of the weight decay. */
double schedule_lr(const struct schedule_config *config, int64_t step);
double schedule_weight_decay(const struct schedule_config *config, int64_t step);

#endif
