/* op.h: every operation a language model needs besides mixing, as one table of functions per
 * backend.
 *
 * Four tables exist: ops_ref (obviously correct, in f32 or f64 by the tensors' dtype), ops_cpu
 * (fast, f32 storage, f32 or bf16 products), ops_cuda (f32 storage, f32 or bf16 activations), and
 * ops_dry, whose operations do nothing: a forward and backward run with ops_dry on measuring arenas
 * is how memory is sized. No code above this table knows which one it uses.
 *
 * Conventions, stated here and nowhere else:
 *   - Tensors are dense row-major views unless an operation says otherwise, on the table's device.
 *     N counts tokens, E width.
 *   - Activations and their gradients have the backend's activation dtype, and so have the weights
 *     that products and embed read. Gains, biases, statistics (rstd, losses), parameter gradients,
 *     master weights and optimiser state have its storage dtype. The two differ on CUDA only.
 *     Quantised matrices (core/quantised.h) are made by quantise and read by gemm alone.
 *   - Work is queued on the backend's stream: only what returns a number to the host waits.
 *   - Backward overwrites input gradients and ACCUMULATES parameter gradients. Where several
 *     paths meet in one input gradient, the caller says so: gemm has beta, add has two inputs,
 *     rmsnorm_backward a residual.
 *   - Outputs may not overlap inputs, except where "in place allowed" is said.
 *   - Failures set be->err and return its status.
 *   - Every operation gives the same bits for every run with the same number of threads. */
#ifndef NN_OP_H
#define NN_OP_H

#include "core/param.h"
#include "core/rope.h"
#include "ops/clip_state.h"
#include "ops/step_numbers.h"

struct ops;
struct ops_scratch;

/* Everything a layer needs to run: the table, the library's context, scratch, and where errors go.
 */
struct backend {
    const struct ops *ops;
    const struct ops *counted;   /* a dry backend's: the table whose scratch it counts */
    const struct device *device; /* the table's */
    int device_index;
    plx_stream stream; /* of the device; NULL on the CPU */
    plx_context *context;
    struct arena scratch; /* LIFO: every function leaves it as it found it */
    plx_dtype storage;    /* of parameters and statistics: f32, or f64 with ops_ref */
    plx_dtype activation; /* of activations and active weights: storage, or bf16 on CUDA */
    plx_dtype compute;    /* of matrix products: f32, bf16 (operands rounded, f32 sums), f64 */
    bool fp8_linear;      /* products of linear layers, but for dW, of 8-bit operands */
    bool deterministic;   /* of attention's backward */
    enum packing packing; /* of weight matrices of the models made on it; not for training */
    int threads;
    struct error *err;
    void *ops_state; /* owned by the table's create/destroy */
};

/* c = alpha op(a) op(b) + beta add with op(a) [M,K], op(b) [K,N], add and c [M,N]; add NULL means c
 * itself. Rows may be strided, last stride 1. beta 0 reads neither. Operands of rank 3 are as many
 * products as their first axis is long. a and b have one dtype, c and add may have another. With
 * scales a [M,K] and b [N,K], which is transposed, are the values of quantised matrices. */
struct gemm {
    const struct plx_tensor *a, *b, *c;
    bool transpose_a, transpose_b;
    double alpha, beta;
    const struct plx_tensor *add;
    const struct plx_tensor *a_scale, *b_scale; /* [M], [N], or both NULL */
    bool weight; /* b is a parameter: no operation that is still under way writes it */
};

/* Gradient clipping that the host takes no part in. squares f64 [n] are the sums of squares of n
 * gradients, added in order; state, a struct clip_state, zero before the first step, receives the
 * norm and the gradients' factor: limit / norm where limit is positive and smaller than the norm, 1
 * otherwise. The first step whose norm is not finite leaves its number, the index of the gradient
 * to blame and the factor 0, which tells updates to change nothing; from then on the state stays.
 * numbers: a struct step_numbers, as in the updates. */
struct clip {
    const struct plx_tensor *squares, *state, *numbers;
    double limit;
};

/* One parameter in an update: its tensors, where m and v are state of the update and active is as
 * in struct param, and what its rates are as multiples of the step's. m and v have the storage
 * dtype or bf16, all of a list the same; in bf16 the update computes with them as they are before
 * they are rounded by the step, the parameter's number and the element's (ops/rounding.h). */
struct update_item {
    const struct plx_tensor *value, *active, *grad, *m, *v;
    double lr, weight_decay;
    uint32_t number;
};

/* AdamW for a list of parameters. First decay: w *= 1 - lr * weight_decay; then w -= lr *
 * mhat/(sqrt(vhat) + eps) with mhat = m / bias1, vhat = v / bias2. In this and the next, numbers
 * are a struct step_numbers, and gradients are taken times factor, f64 [1]; where that is 0 nothing
 * is written. */
struct adamw_update {
    const struct update_item *items;
    int count;
    const struct plx_tensor *factor, *numbers;
    double beta1, beta2, eps;
};

/* Both halves of a Muon update of count matrices of one shape [A,B]: momentum writes their
 * directions [count,A,B], apply takes them when they have been orthogonalised. */
struct muon_update {
    const struct update_item *items; /* without v */
    int count;
    const struct plx_tensor *factor, *numbers, *directions;
    double momentum;
    bool nesterov, ema;
    double scale;
};

/* Every singular value v of a matrix becomes a v + b v^3 + c v^5. */
struct quintic {
    double a, b, c;
};

/* y[i], for every matrix of x [n,A,B], is what count steps X <- a X + (b P + c P P) X with P = X X'
 * make of X = x[i] / (factor |x[i]| + eps), |x[i]| the root of its sum of squares. Tall matrices
 * take the same steps transposed. */
struct orthogonalise {
    const struct plx_tensor *x, *y;
    double factor, eps;
    const struct quintic *steps;
    int count;
};

/* New rows of keys and values on their way into a cache: attention's k_lengths counts them already
 * (plx_cache_append). */
struct append {
    const struct plx_attention *attention;
    const struct plx_cache_append_args *args;
};

/* One attention call of either mechanism; members as in the public structs (softmax leaves the
 * probe's absent). The operation finds its workspace in be->scratch. */
struct attend {
    plx_mechanism mechanism;
    const struct plx_attention *attention;
    const struct plx_parallax_args *args;
};

struct ops {
    const char *name;
    const struct device *device;
    const struct ops_scratch *scratch; /* what its operations need of it: ops/scratch.h */
    plx_status (*create)(struct backend *be);
    void (*destroy)(struct backend *be);

    plx_status (*zero)(struct backend *be, const struct plx_tensor *y);
    /* y = x, equal shapes, any strides, any of f32/bf16/f64. */
    plx_status (*copy)(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x);
    /* y = a + b; in place allowed. */
    plx_status (*add)(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *a,
                      const struct plx_tensor *b);
    /* *sum += the sum of x, in double and in a fixed order; sum f64 [1]. */
    plx_status (*sum)(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x);
    /* sums[i] = sum of squares of xs[i], in double and in a fixed order, or 0 where xs[i] is NULL;
     * sums f64 [n]. NaN and inf pass through. */
    plx_status (*sum_squares)(struct backend *be, const struct plx_tensor *sums,
                              const struct plx_tensor *const *xs);
    plx_status (*gemm)(struct backend *be, const struct gemm *gemm);
    /* rows = x, and, unless NULL, columns = its transpose, both quantised; x [M,K] dense. */
    plx_status (*quantise)(struct backend *be, const struct plx_tensor *x,
                           const struct quantised *rows, const struct quantised *columns);

    /* Rows of x [R,E]: rstd = 1/sqrt(mean x^2 + eps) [R], y = x rstd gain [E]. */
    plx_status (*rmsnorm)(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *rstd, const struct plx_tensor *x,
                          const struct plx_tensor *gain, double eps);
    /* dx = residual + the gradient, or the gradient alone where residual is NULL; dgain
     * accumulated. dx may be residual or dy: where a residual stream branches off into the norm,
     * both of its gradients meet here. */
    plx_status (*rmsnorm_backward)(struct backend *be, const struct plx_tensor *dx,
                                   const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                   const struct plx_tensor *x, const struct plx_tensor *gain,
                                   const struct plx_tensor *rstd,
                                   const struct plx_tensor *residual);

    /* y = x W^T + residual with packed W [N,K], x [M,K], y and residual (NULL: none) [M,N] dense
     * and of one dtype, the activation or the storage dtype. Sums are in float over x as it is, or
     * exact over x rounded to 32 bits of its row's largest: only W is rounded to its packing. */
    plx_status (*project)(struct backend *be, const struct plx_tensor *y,
                          const struct plx_tensor *x, const struct packed *weight,
                          const struct plx_tensor *residual);
    /* y[n,:] = table[ids[n],:] of a packed table [V,E]. */
    plx_status (*unpack)(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                         const struct plx_tensor *ids);

    /* y[n,:] = x[n,:] + bias; x [N,E], bias [E]; in place allowed. */
    plx_status (*bias)(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                       const struct plx_tensor *bias);
    /* dbias accumulated: the sum of dy over its rows. */
    plx_status (*bias_backward)(struct backend *be, const struct plx_tensor *dbias,
                                const struct plx_tensor *dy);

    /* Rotary positions on x [N,H,D], D even: channel pair (i, i + D/2) turns by position * its
     * frequency. positions i32 [N]. inverse turns back, which is the backward pass. In place
     * allowed. */
    plx_status (*rope)(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                       const struct plx_tensor *positions, const struct rope *rope, bool inverse);

    /* rmsnorm over the channels of every head of x [N,H,D], then rope: rstd [N H], gain [D]. */
    plx_status (*norm_rope)(struct backend *be, const struct plx_tensor *y,
                            const struct plx_tensor *rstd, const struct plx_tensor *x,
                            const struct plx_tensor *gain, double eps,
                            const struct plx_tensor *positions, const struct rope *rope);
    /* dx, which may be dy; dgain accumulated. */
    plx_status (*norm_rope_backward)(struct backend *be, const struct plx_tensor *dx,
                                     const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                     const struct plx_tensor *x, const struct plx_tensor *gain,
                                     const struct plx_tensor *rstd,
                                     const struct plx_tensor *positions, const struct rope *rope);

    /* y = silu(gate) * up, all [N,F]. */
    plx_status (*swiglu)(struct backend *be, const struct plx_tensor *y,
                         const struct plx_tensor *gate, const struct plx_tensor *up);
    /* And product = silu(gate) * up again, the same bits as swiglu's y; it may be dy. */
    plx_status (*swiglu_backward)(struct backend *be, const struct plx_tensor *dgate,
                                  const struct plx_tensor *dup, const struct plx_tensor *product,
                                  const struct plx_tensor *dy, const struct plx_tensor *gate,
                                  const struct plx_tensor *up);

    /* y[n,h,:] = sigmoid(z[n,h]) x[n,h,:]; x [N,H,D], z [N,H]. */
    plx_status (*gate)(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                       const struct plx_tensor *z);
    plx_status (*gate_backward)(struct backend *be, const struct plx_tensor *dx,
                                const struct plx_tensor *dz, const struct plx_tensor *dy,
                                const struct plx_tensor *x, const struct plx_tensor *z);

    /* y[n,:] = table[ids[n],:]; table [V,E], ids i32 [N]. */
    plx_status (*embed)(struct backend *be, const struct plx_tensor *y,
                        const struct plx_tensor *table, const struct plx_tensor *ids);
    /* dtable accumulated, deterministic. */
    plx_status (*embed_backward)(struct backend *be, const struct plx_tensor *dtable,
                                 const struct plx_tensor *dy, const struct plx_tensor *ids);

    /* losses[n] = logsumexp(logits[n,:]) - logits[n, targets[n]], 0 where targets[n] < 0; losses
     * [N]. Logits may have the storage dtype too. dlogits (optional, data NULL otherwise; in place
     * on logits allowed) = scale (softmax - one-hot), rows with a negative target zero; scale f64
     * [1], or NULL without dlogits. */
    plx_status (*cross_entropy)(struct backend *be, const struct plx_tensor *losses,
                                const struct plx_tensor *dlogits, const struct plx_tensor *logits,
                                const struct plx_tensor *targets, const struct plx_tensor *scale);
    /* ids[n] = the index of the largest number of row n of x [N,V], the first of equal ones, and 0
     * where all are NaN; x of the storage dtype, ids i32 [N]. */
    plx_status (*argmax)(struct backend *be, const struct plx_tensor *ids,
                         const struct plx_tensor *x);
    /* The ids seen[n,:counts[n]] of a row, all different, become less likely: x[n,id] is divided by
     * the penalty where it is positive and multiplied by it otherwise; ids outside of the row are
     * passed over. x [N,V] of the storage dtype, its rows may be strided; seen i32 [N,L], counts
     * i32 [N]. */
    plx_status (*penalise)(struct backend *be, const struct plx_tensor *x,
                           const struct plx_tensor *seen, const struct plx_tensor *counts,
                           double penalty);
    /* ids[n] = a draw from row n of logits x [N,V], as struct draw_numbers (ops/draw.h) n of
     * numbers f64 [N, DRAW_NUMBERS] says: the first of the largest where the temperature is 0;
     * otherwise tokens weigh exp((logit - largest) / temperature), and the draw is the first at
     * which the sum of weights exceeds uniform times that of all that are kept. Without filters
     * tokens come in the order of their ids. With filters they come in falling order, equal ones by
     * rising id, and each filter keeps the first of them: top-k so many; top-p, of those, up to and
     * including the one with which the sum reaches so much of theirs; the floor, while the logit is
     * no farther below the largest. Where a logit is not finite, ids[n] = -1 - its id, the first
     * such. x of the storage dtype, its rows may be strided; ids i32 [N]. */
    plx_status (*draw)(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x,
                       const struct plx_tensor *numbers);

    plx_status (*clip)(struct backend *be, const struct clip *clip);
    plx_status (*adamw)(struct backend *be, const struct adamw_update *update);
    /* m = mu m + (ema ? 1 - mu : 1) g; u = nesterov ? (ema ? 1 - mu : 1) g + mu m : m. */
    plx_status (*momentum)(struct backend *be, const struct muon_update *update);
    /* y[i] = x[i] / (factor |x[i]| + eps) for every matrix of x [n,A,B], |x[i]| the root of its sum
     * of squares; in place allowed. */
    plx_status (*normalise)(struct backend *be, const struct plx_tensor *y,
                            const struct plx_tensor *x, double factor, double eps);
    /* In place allowed. Where a GPU computes in bf16 it may multiply in another order. */
    plx_status (*orthogonalise)(struct backend *be, const struct orthogonalise *call);
    /* w = (1 - lr weight_decay) w - lr scale u. */
    plx_status (*apply)(struct backend *be, const struct muon_update *update);

    plx_status (*attend_forward)(struct backend *be, const struct attend *attend);
    plx_status (*attend_backward)(struct backend *be, const struct attend *attend);
    plx_status (*attend_append)(struct backend *be, const struct append *append);
    plx_status (*attend_decode)(struct backend *be, const struct attend *attend);
};

/* In a build without CUDA ops_cuda's create says so and fails. */
extern const struct ops ops_ref, ops_cpu, ops_cuda, ops_dry;

/* Creates a backend, its stream and its library context. storage and compute as above; features in
 * disabled are treated as absent. The scratch arena starts empty: see backend_reserve. */
struct backend_config {
    const struct ops *ops;
    plx_dtype storage, compute;
    int threads;        /* 0: all */
    const char *kernel; /* forced attention kernel, or NULL */
    uint32_t disabled_features;
    enum packing packing;
    bool bf16_activations; /* otherwise activations have the storage dtype */
    bool fp8_linear;
    bool deterministic; /* attention's backward gives the same bits on every run; so does all else
                           anyway */
    int device_index;
};
plx_status backend_create(struct backend *be, const struct backend_config *config,
                          struct error *err);
void backend_destroy(struct backend *be);
/* An arena of so many bytes on the backend's device; a measuring one where the backend measures. */
plx_status backend_arena(const struct backend *be, size_t bytes, struct arena *arena);
/* Makes scratch at least bytes large. Only while scratch is unused. */
plx_status backend_reserve(struct backend *be, size_t bytes);
/* Copies the values of parameters into their active and quantised copies, where they have any:
 * after every change of values. */
plx_status backend_refresh(struct backend *be, const struct param_list *params);
/* The quantised ones alone, which updates do not write: of parameters that are updated here, or of
 * those that another process updates. */
plx_status backend_requantise(struct backend *be, const struct param_list *params, bool remote);
/* The dtypes of the models made on it. */
struct precision backend_precision(const struct backend *be);
/* A backend that measures: ops_dry over measuring arenas, same dtypes, sharing the context of be
 * and, as it owns nothing, never destroyed. Models and optimisers made on it allocate no tensors
 * and know their sizes; scratch.peak is what they would have reserved. */
struct backend backend_dry(const struct backend *be);

#endif
