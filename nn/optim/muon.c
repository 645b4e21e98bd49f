/* muon.c: momentum whose every matrix is replaced by (nearly) its orthogonal polar factor.
 *
 * For a weight W [A,B] with gradient G, momentum mu and Nesterov's look-ahead:
 *
 *     EMA form (Jordan, torch.optim.Muon)     M <- mu M + (1 - mu) G     U = (1 - mu) G + mu M
 *     sum form (Moonlight)                    M <- mu M + G              U = G + mu M
 *     without Nesterov                        U = M
 *     W <- (1 - lr wd) W - lr scale NS(U)
 *
 * Both forms give the same direction, because NS ignores the length of U. The decay uses lr without
 * scale.
 *
 * NS(U) is a Newton-Schulz iteration: X = U / (f |U|_F + e), then for each triple (a, b, c) of the
 * list
 *
 *     P = X X'     Q = b P + c P^2     X <- a X + Q X
 *
 * which applies x -> a x + b x^3 + c x^5 to every singular value and leaves the singular vectors
 * alone (the backend's operation orthogonalise). Matrices of one shape are updated together.
 *
 * Sources: K. Jordan's Muon and its quintic (2024); the Polar Express (arXiv 2505.16932), whose
 * list is for X with |X|_2 <= 1 and has a factor 1.01 of safety against rounding; the five triples
 * of modded-nanogpt, which have a larger safety built in and 1.02 in the normaliser; that
 * speed-run's "Opt" set. Scales: Jordan, Moonlight (arXiv 2502.16982), torchtitan. */
#include "optim/update.h"

#include <math.h>

enum { MUON_MAX_TRIPLES = 8 };

/* One published list; steps beyond it repeat the last triple. */
struct muon_list {
    double norm_factor, norm_eps; /* X = U / (norm_factor |U|_F + norm_eps) */
    double safety;                /* a, b, c are divided by safety, safety^3, safety^5 ... */
    int safe_count;               /* ... in so many of the triples */
    int count;
    struct quintic triples[MUON_MAX_TRIPLES];
};

static const struct muon_list muon_lists[] = {
    [MUON_QUINTIC] = {1.0, 1e-7, 1.0, 0, 1, {{3.4445, -4.7750, 2.0315}}},
    [MUON_POLAR_EXPRESS] = {1.0,
                            1e-7,
                            1.01,
                            7,
                            8,
                            {{8.28721201814563, -23.595886519098837, 17.300387312530933},
                             {4.107059111542203, -2.9478499167379106, 0.5448431082926601},
                             {3.9486908534822946, -2.908902115962949, 0.5518191394370137},
                             {3.3184196573706015, -2.488488024314874, 0.51004894012372},
                             {2.300652019954817, -1.6689039845749493, 0.4188073119525673},
                             {1.891301407787398, -1.2679958271945868, 0.37680408948524835},
                             {1.8750014808534479, -1.2500016453999487, 0.3750001645474248},
                             {1.875, -1.25, 0.375}}},
    [MUON_POLAR_MODDED] = {1.02,
                           1e-6,
                           1.0,
                           0,
                           5,
                           {{8.156554524902461, -22.48329292557795, 15.878769915207462},
                            {4.042929935166739, -2.808917465908714, 0.5000178451051316},
                            {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
                            {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
                            {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}}},
    [MUON_OPT] = {1.0,
                  1e-7,
                  1.0,
                  0,
                  5,
                  {{4.0848, -6.8946, 2.9270},
                   {3.9505, -6.3029, 2.6377},
                   {3.7418, -5.5913, 2.3037},
                   {2.8769, -3.1427, 1.2046},
                   {2.8366, -3.0525, 1.2012}}},
};

static struct quintic muon_triple(const struct muon_list *list, int step)
{
    int index = step < list->count ? step : list->count - 1;
    struct quintic triple = list->triples[index];
    if (index < list->safe_count) {
        triple.a /= list->safety;
        triple.b /= pow(list->safety, 3.0);
        triple.c /= pow(list->safety, 5.0);
    }
    return triple;
}

plx_status muon_orthogonalise(struct backend *be, const struct muon_iteration *iteration,
                              const struct plx_tensor *x, const struct plx_tensor *y)
{
    const struct muon_list *list = &muon_lists[iteration->coefficients];
    struct quintic steps[MUON_MAX_STEPS];
    for (int step = 0; step < iteration->steps; step++) steps[step] = muon_triple(list, step);
    const struct orthogonalise call = {.x = x,
                                       .y = y,
                                       .factor = list->norm_factor,
                                       .eps = list->norm_eps,
                                       .steps = steps,
                                       .count = iteration->steps};
    return be->ops->orthogonalise(be, &call);
}

double muon_scale_factor(enum muon_scale scale, int64_t rows, int64_t columns)
{
    double a = (double)rows, b = (double)columns;
    switch (scale) {
    case MUON_SCALE_KELLER:
        return sqrt(fmax(1.0, a / b));
    case MUON_SCALE_MATCH_RMS:
        return 0.2 * sqrt(fmax(a, b));
    case MUON_SCALE_SPECTRAL_UNCLAMPED:
        return sqrt(a / b);
    case MUON_SCALE_MAX:
        return sqrt(fmax(a, b));
    case MUON_SCALE_NONE:
        return 1.0;
    }
    return 1.0;
}

static plx_status muon_directions(struct backend *be, const struct update_call *call,
                                  const struct muon_update *update)
{
    struct muon_iteration iteration = {call->config->coefficients, call->config->ns_steps};
    TRY(be->ops->momentum(be, update));
    TRY(muon_orthogonalise(be, &iteration, update->directions, update->directions));
    return be->ops->apply(be, update);
}

static plx_status muon_step(struct backend *be, const struct update_call *call)
{
    const struct optim_config *config = call->config;
    const int64_t *shape = call->items[0].value->shape;
    int64_t extents[3] = {call->count, shape[0], shape[1]};
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor directions = arena_tensor(&be->scratch, be->activation, 3, extents);
    const struct muon_update update = {
        .items = call->items,
        .count = call->count,
        .factor = call->factor,
        .numbers = call->numbers,
        .directions = &directions,
        .momentum = config->momentum,
        .nesterov = config->nesterov,
        .ema = config->momentum_ema,
        .scale = muon_scale_factor(config->scale, shape[0], shape[1]),
    };
    plx_status status = muon_directions(be, call, &update);
    arena_release(&be->scratch, mark);
    return status;
}

/* A GPU wants many matrices at once, and scratch for them that stays small beside a model's; the
 * products of a CPU are as fast one by one, and its caches hold a small batch. */
static int64_t muon_most(const struct backend *be, const struct plx_tensor *value)
{
    const int64_t elements = be->device->kind == PLX_CPU ? 1 << 16 : 3 << 25;
    int64_t each = plx_tensor_count(value);
    return each > 0 && each < elements ? elements / each : 1;
}

const struct update_rule muon_rule = {
    .states = 1,
    .state_names = {"momentum"},
    .most = muon_most,
    .step = muon_step,
};
