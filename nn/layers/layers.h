/* layers.h: the small layers that blocks and models are built of, forward and backward.
 *
 * A layer is a few indices into the parameter table plus what it must know of the configuration.
 * What its backward reads besides parameters is a record, carved from an arena by the layer's carve
 * function: the same code measures and allocates. Backward functions overwrite input gradients (or
 * add to them where an accumulate flag says so) and always add to parameter gradients, as op.h
 * states. Next: layers/block.h, which composes these. */
#ifndef NN_LAYERS_H
#define NN_LAYERS_H

#include "core/param.h"
#include "op.h"

/* The parts of a record: what only products and attention can make again, and what passes over the
 * former can. The functions named recompute fill the second from the first, with the same bits as
 * forward; where everything is kept nobody calls them. */
enum record_parts { RECORD_KEPT = 1, RECORD_CHEAP = 2, RECORD_ALL = 3 };

/* ---- linear.c: y = x W^T, W [out,in] as checkpoints store it; the layer is the index of W ---- */

/* Adds PREFIX.NAME.weight [out,in] ~ N(0, std) (zero where std is 0), and its adapter where the
 * list has adapters for NAME; -1 when out of memory. */
int linear_add(struct param_list *params, plx_dtype dtype, int64_t out, int64_t in, double std,
               enum param_group group, const char *prefix, const char *name);
/* x [N,in], y [N,out]; further axes count as flattened into the second. */
plx_status linear_forward(struct backend *be, int weight, const struct param_list *params,
                          const struct plx_tensor *x, const struct plx_tensor *y);
/* y = residual + x W^T, where a branch comes back to the stream that it left; residual NULL adds
 * nothing. */
plx_status linear_residual(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *x, const struct plx_tensor *residual,
                           const struct plx_tensor *y);
/* Several projections of one x, or of norm(x) where norm is not NULL: what is done to it for their
 * products is done once. */
struct rmsnorm;
struct projection {
    int weight;
    const struct plx_tensor *y, *residual; /* residual NULL adds nothing */
};
plx_status linear_project(struct backend *be, const struct param_list *params,
                          const struct rmsnorm *norm, const struct plx_tensor *x,
                          const struct projection *projections, int count);
/* y = swiglu of the projections of x, or norm(x), by gate and up: nothing is kept of them. */
plx_status linear_gated(struct backend *be, int gate, int up, const struct param_list *params,
                        const struct rmsnorm *norm, const struct plx_tensor *x,
                        const struct plx_tensor *y);
/* dW += dy^T x unless W is frozen; dx = dy W, or dx += dy W; of an adapter likewise. The two halves
 * of backward, whose operands need not be there at the same time, and both. */
plx_status linear_gradient(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *dy, const struct plx_tensor *x);
plx_status linear_input(struct backend *be, int weight, const struct param_list *params,
                        const struct plx_tensor *dy, const struct plx_tensor *dx, bool accumulate);
plx_status linear_backward(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *dy, const struct plx_tensor *x,
                           const struct plx_tensor *dx, bool accumulate);

/* Where a projection has a bias, it is a layer of its own behind the product: the index of b [out],
 * or -1 for none, with which the two functions below do nothing. */

/* Adds PREFIX.NAME.bias [out], zero; -1 when out of memory. */
int bias_add(struct param_list *params, plx_dtype dtype, int64_t out, const char *prefix,
             const char *name);
/* y += b, y [N,out] or with further axes that make up out. */
plx_status bias_forward(struct backend *be, int bias, const struct param_list *params,
                        const struct plx_tensor *y);
/* db += the sum of dy over tokens. */
plx_status bias_backward(struct backend *be, int bias, const struct param_list *params,
                         const struct plx_tensor *dy);

/* ---- rmsnorm.c: rows scaled to unit root mean square, then by a learned gain ---- */

struct rmsnorm {
    int gain; /* [width] */
    int64_t width;
    double eps;
};

/* Adds PREFIX.NAME.weight [width]; false when out of memory. */
bool rmsnorm_create(struct rmsnorm *norm, struct param_list *params, plx_dtype dtype, int64_t width,
                    double eps, enum param_init init, const char *prefix, const char *name);
/* x, y [rows * width] in any shape whose last axes make up width; rstd [rows]. */
plx_status rmsnorm_forward(struct backend *be, const struct rmsnorm *norm,
                           const struct param_list *params, const struct plx_tensor *x,
                           const struct plx_tensor *y, const struct plx_tensor *rstd);
/* dx = residual (NULL: nothing) + what flows back through the norm. */
plx_status rmsnorm_backward(struct backend *be, const struct rmsnorm *norm,
                            const struct param_list *params, const struct plx_tensor *dy,
                            const struct plx_tensor *x, const struct plx_tensor *rstd,
                            const struct plx_tensor *residual, const struct plx_tensor *dx);

/* ---- heads.c: x projected into heads and made ready for mixing: norm, gate, rotary positions - */

struct heads {
    int64_t heads, channels;
    struct precision precision;
    int weight;          /* [heads * channels, E] */
    int bias;            /* [heads * channels]; -1: none */
    bool has_norm;       /* RMSNorm over the channels of every head, one gain for all heads */
    struct rmsnorm norm; /* gain [channels] */
    int gate;            /* [heads, E]: every head times sigmoid of one number; -1: none */
    bool has_rope;
    struct rope rope;
};

/* raw -> norm -> gate -> rope. A step that is absent makes its two tensors one, and rope works in
 * place, so exactly what backward reads is kept. All behind raw is cheap where it is not raw. */
struct heads_record {
    struct plx_tensor raw;    /* [N,h,D] x W^T + b, which the norm's backward reads */
    struct plx_tensor rstd;   /* [N*h]   absent without norm */
    struct plx_tensor normed; /* [N,h,D] which the gate's backward reads */
    struct plx_tensor z;      /* [N,h]   gate before the sigmoid; absent without gate */
    struct plx_tensor out;    /* [N,h,D] what the mixer sees */
};

void heads_carve(const struct heads *heads, int64_t tokens, enum record_parts parts,
                 struct arena *arena, struct heads_record *record);
/* What linear_project is to fill raw and z by, at most two; returns how many. */
int heads_projections(const struct heads *heads, const struct heads_record *record,
                      struct projection projections[2]);
/* Heads of a layer, which share their tokens and what the configuration says of norms and rotary
 * positions; at most NORM_ROPE_MOST. */
struct heads_pass {
    const struct heads *heads;
    const struct heads_record *record;
};
/* Fills the rest of the records. positions i32 [N]. */
plx_status heads_forward(struct backend *be, const struct heads_pass *passes, int count,
                         const struct param_list *params, const struct plx_tensor *positions);
plx_status heads_recompute(struct backend *be, const struct heads_pass *passes, int count,
                           const struct param_list *params, const struct plx_tensor *positions);
/* dout [N,h,D] is used as scratch. */
plx_status heads_backward(struct backend *be, const struct heads *heads,
                          const struct param_list *params, const struct plx_tensor *positions,
                          const struct plx_tensor *x, const struct heads_record *record,
                          const struct plx_tensor *dout, const struct plx_tensor *dx,
                          bool accumulate);

/* ---- mlp.c: y = W_down (silu(W_gate x) * W_up x) ---- */

struct mlp {
    int gate, up, down; /* [F,E], [F,E], [E,F] */
    int64_t width, inner;
    struct precision precision;
};

struct mlp_record {
    struct plx_tensor gate, up; /* [N,F] */
};

/* Adds PREFIX.{gate,up,down}_proj.weight; false when out of memory. */
bool mlp_create(struct mlp *mlp, struct param_list *params, struct precision precision,
                int64_t width, int64_t inner, double std, const char *prefix);
void mlp_carve(const struct mlp *mlp, int64_t tokens, struct arena *arena,
               struct mlp_record *record);
/* x, y [N,E]; residual, where it is not NULL, is added to y. y NULL: only the record is wanted, as
 * when a block is recomputed for backward. */
plx_status mlp_forward(struct backend *be, const struct mlp *mlp, const struct param_list *params,
                       const struct plx_tensor *x, const struct mlp_record *record,
                       const struct plx_tensor *residual, const struct plx_tensor *y);
/* y = x + the layer of norm(x), and nothing is kept: a step of generation. */
plx_status mlp_decode(struct backend *be, const struct mlp *mlp, const struct param_list *params,
                      const struct rmsnorm *norm, const struct plx_tensor *x,
                      const struct plx_tensor *y);
plx_status mlp_backward(struct backend *be, const struct mlp *mlp, const struct param_list *params,
                        const struct plx_tensor *dy, const struct plx_tensor *x,
                        const struct mlp_record *record, const struct plx_tensor *dx);

/* ---- embedding.c: rows of a table; the layer is the table's index ---- */

/* Adds NAME.weight [vocab,width]; -1 when out of memory. */
int embedding_add(struct param_list *params, plx_dtype dtype, int64_t vocab, int64_t width,
                  double std, const char *name);
/* ids i32 [N], y [N,E]. */
plx_status embedding_forward(struct backend *be, int table, const struct param_list *params,
                             const struct plx_tensor *ids, const struct plx_tensor *y);
plx_status embedding_backward(struct backend *be, int table, const struct param_list *params,
                              const struct plx_tensor *ids, const struct plx_tensor *dy);

/* ---- head.c: logits and loss, a chunk of tokens at a time ---- */

/* Tokens whose logits, of this dtype, exist at once. */
int64_t head_chunk(const struct backend *be, plx_dtype logits, int64_t vocab, int64_t tokens);
/* Adds to sum (f64 [1]) the cross-entropy of x W^T against targets (i32 [N], negative: not scored).
 * Where dx is given: dx = gradient of scale (f64 [1]) times that, and dW accumulated. weight is the
 * index of W [V,E]. */
plx_status head_loss(struct backend *be, int weight, const struct param_list *params,
                     const struct plx_tensor *x, const struct plx_tensor *targets,
                     const struct plx_tensor *scale, const struct plx_tensor *dx,
                     const struct plx_tensor *sum);
/* Logits of rows of x [N,E] into host memory, [N,V] of the storage dtype; data NULL in a dry run.
 */
plx_status head_logits(struct backend *be, int weight, const struct param_list *params,
                       const struct plx_tensor *x, const struct plx_tensor *host);
/* Answers queries about the tokens that follow rows of x [N,E]. Scratch does not grow with their
 * count; a dry run needs no queries. */
struct score_query;
struct score;
plx_status head_scores(struct backend *be, int weight, const struct param_list *params,
                       const struct plx_tensor *x, const struct score_query *queries, int64_t count,
                       struct score *scores);

#endif
