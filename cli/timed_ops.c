/* timed_ops.c: see timed_ops.h. One wrapper an operation, nothing else: it reads the clock, calls
 * the inner table and books the time. One process times one thing at a time, so the books are
 * static. */
#include "timed_ops.h"

#include "ops/scratch.h"
#include "process.h"

static const struct ops *inner = &ops_cpu;
static double booked[TIMED_PHASES];
static bool in_optimiser;

void timed_ops_start(void)
{
    for (int phase = 0; phase < TIMED_PHASES; phase++) booked[phase] = 0;
    in_optimiser = false;
}

void timed_ops_optimiser(bool begins)
{
    in_optimiser = begins;
}

double timed_ops_seconds(enum timed_phase phase)
{
    return booked[phase];
}

/* Books the time since start and passes the status on: the argument is computed before the clock is
 * read. */
static plx_status book(enum timed_phase phase, double start, plx_status status)
{
    if (in_optimiser) phase = phase == TIMED_GEMM ? TIMED_OPTIMISER_GEMM : TIMED_OPTIMISER_OTHER;
    booked[phase] += process_seconds() - start;
    return status;
}

static plx_status timed_create(struct backend *be)
{
    return inner->create(be);
}

static void timed_destroy(struct backend *be)
{
    inner->destroy(be);
}

static plx_status timed_zero(struct backend *be, const struct plx_tensor *y)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->zero(be, y));
}

static plx_status timed_copy(struct backend *be, const struct plx_tensor *y,
                             const struct plx_tensor *x)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->copy(be, y, x));
}

static plx_status timed_add(struct backend *be, const struct plx_tensor *y,
                            const struct plx_tensor *a, const struct plx_tensor *b)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->add(be, y, a, b));
}

static plx_status timed_sum(struct backend *be, const struct plx_tensor *sum,
                            const struct plx_tensor *x)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->sum(be, sum, x));
}

static plx_status timed_sum_squares(struct backend *be, const struct plx_tensor *sums,
                                    const struct plx_tensor *const *xs)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->sum_squares(be, sums, xs));
}

static plx_status timed_gemm(struct backend *be, const struct gemm *gemm)
{
    double start = process_seconds();
    return book(TIMED_GEMM, start, inner->gemm(be, gemm));
}

static plx_status timed_rmsnorm(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *rstd, const struct plx_tensor *x,
                                const struct plx_tensor *gain, double eps)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->rmsnorm(be, y, rstd, x, gain, eps));
}

static plx_status timed_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                         const struct plx_tensor *dgain,
                                         const struct plx_tensor *dy, const struct plx_tensor *x,
                                         const struct plx_tensor *gain,
                                         const struct plx_tensor *rstd,
                                         const struct plx_tensor *residual)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start,
                inner->rmsnorm_backward(be, dx, dgain, dy, x, gain, rstd, residual));
}

static plx_status timed_project(struct backend *be, const struct plx_tensor *y,
                                const struct plx_tensor *x, const struct packed *weight)
{
    double start = process_seconds();
    return book(TIMED_GEMM, start, inner->project(be, y, x, weight));
}

static plx_status timed_unpack(struct backend *be, const struct plx_tensor *y,
                               const struct packed *table, const struct plx_tensor *ids)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->unpack(be, y, table, ids));
}

static plx_status timed_bias(struct backend *be, const struct plx_tensor *y,
                             const struct plx_tensor *x, const struct plx_tensor *bias)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->bias(be, y, x, bias));
}

static plx_status timed_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                                      const struct plx_tensor *dy)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->bias_backward(be, dbias, dy));
}

static plx_status timed_rope(struct backend *be, const struct plx_tensor *y,
                             const struct plx_tensor *x, const struct plx_tensor *positions,
                             const struct rope *rope, bool inverse)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->rope(be, y, x, positions, rope, inverse));
}

static plx_status timed_norm_rope(struct backend *be, const struct plx_tensor *y,
                                  const struct plx_tensor *rstd, const struct plx_tensor *x,
                                  const struct plx_tensor *gain, double eps,
                                  const struct plx_tensor *positions, const struct rope *rope)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->norm_rope(be, y, rstd, x, gain, eps, positions, rope));
}

static plx_status timed_norm_rope_backward(
    struct backend *be, const struct plx_tensor *dx, const struct plx_tensor *dgain,
    const struct plx_tensor *dy, const struct plx_tensor *x, const struct plx_tensor *gain,
    const struct plx_tensor *rstd, const struct plx_tensor *positions, const struct rope *rope)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start,
                inner->norm_rope_backward(be, dx, dgain, dy, x, gain, rstd, positions, rope));
}

static plx_status timed_swiglu(struct backend *be, const struct plx_tensor *y,
                               const struct plx_tensor *gate, const struct plx_tensor *up)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->swiglu(be, y, gate, up));
}

static plx_status timed_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                                        const struct plx_tensor *dup, const struct plx_tensor *dy,
                                        const struct plx_tensor *gate, const struct plx_tensor *up)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->swiglu_backward(be, dgate, dup, dy, gate, up));
}

static plx_status timed_gate(struct backend *be, const struct plx_tensor *y,
                             const struct plx_tensor *x, const struct plx_tensor *z)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->gate(be, y, x, z));
}

static plx_status timed_gate_backward(struct backend *be, const struct plx_tensor *dx,
                                      const struct plx_tensor *dz, const struct plx_tensor *dy,
                                      const struct plx_tensor *x, const struct plx_tensor *z)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->gate_backward(be, dx, dz, dy, x, z));
}

static plx_status timed_embed(struct backend *be, const struct plx_tensor *y,
                              const struct plx_tensor *table, const struct plx_tensor *ids)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->embed(be, y, table, ids));
}

static plx_status timed_embed_backward(struct backend *be, const struct plx_tensor *dtable,
                                       const struct plx_tensor *dy, const struct plx_tensor *ids)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->embed_backward(be, dtable, dy, ids));
}

static plx_status timed_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                                      const struct plx_tensor *dlogits,
                                      const struct plx_tensor *logits,
                                      const struct plx_tensor *targets, double scale)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start,
                inner->cross_entropy(be, losses, dlogits, logits, targets, scale));
}

static plx_status timed_clip(struct backend *be, const struct clip *clip)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->clip(be, clip));
}

static plx_status timed_adamw(struct backend *be, const struct adamw_update *update)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->adamw(be, update));
}

static plx_status timed_momentum(struct backend *be, const struct muon_update *update)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->momentum(be, update));
}

static plx_status timed_normalise(struct backend *be, const struct plx_tensor *y,
                                  const struct plx_tensor *x, double factor, double eps)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->normalise(be, y, x, factor, eps));
}

static plx_status timed_apply(struct backend *be, const struct muon_update *update)
{
    double start = process_seconds();
    return book(TIMED_OTHER, start, inner->apply(be, update));
}

static plx_status timed_attend_forward(struct backend *be, const struct attend *attend)
{
    double start = process_seconds();
    return book(TIMED_ATTENTION, start, inner->attend_forward(be, attend));
}

static plx_status timed_attend_backward(struct backend *be, const struct attend *attend)
{
    double start = process_seconds();
    return book(TIMED_ATTENTION, start, inner->attend_backward(be, attend));
}

static plx_status timed_attend_decode(struct backend *be, const struct attend *attend)
{
    double start = process_seconds();
    return book(TIMED_ATTENTION, start, inner->attend_decode(be, attend));
}

const struct ops timed_ops = {
    .name = "timed",
    .device = &device_cpu,
    .scratch = &ops_cpu_scratch,
    .create = timed_create,
    .destroy = timed_destroy,
    .zero = timed_zero,
    .copy = timed_copy,
    .add = timed_add,
    .sum = timed_sum,
    .sum_squares = timed_sum_squares,
    .gemm = timed_gemm,
    .rmsnorm = timed_rmsnorm,
    .rmsnorm_backward = timed_rmsnorm_backward,
    .project = timed_project,
    .unpack = timed_unpack,
    .bias = timed_bias,
    .bias_backward = timed_bias_backward,
    .rope = timed_rope,
    .norm_rope = timed_norm_rope,
    .norm_rope_backward = timed_norm_rope_backward,
    .swiglu = timed_swiglu,
    .swiglu_backward = timed_swiglu_backward,
    .gate = timed_gate,
    .gate_backward = timed_gate_backward,
    .embed = timed_embed,
    .embed_backward = timed_embed_backward,
    .cross_entropy = timed_cross_entropy,
    .clip = timed_clip,
    .adamw = timed_adamw,
    .momentum = timed_momentum,
    .normalise = timed_normalise,
    .apply = timed_apply,
    .attend_forward = timed_attend_forward,
    .attend_backward = timed_attend_backward,
    .attend_decode = timed_attend_decode,
};
