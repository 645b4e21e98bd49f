/* ops_watched.c: see ops_watched.h. One wrapper an operation, all of them the same. */
#include "ops/ops_watched.h"

#include <stddef.h>

/* One process watches one table at a time. */
static const struct ops_watch *watch;

static plx_status watched_create(struct backend *be)
{
    return watch->inner->create(be);
}

static void watched_destroy(struct backend *be)
{
    watch->inner->destroy(be);
}

typedef const struct plx_tensor *tensor;

#define WATCHED(op, arguments, ...)                                                                \
    static plx_status watched_##op(struct backend *be, __VA_ARGS__)                                \
    {                                                                                              \
        watch->before(be, offsetof(struct ops, op));                                               \
        plx_status status = watch->inner->op arguments;                                            \
        watch->after(be, offsetof(struct ops, op));                                                \
        return status;                                                                             \
    }

WATCHED(zero, (be, y), tensor y)
WATCHED(copy, (be, y, x), tensor y, tensor x)
WATCHED(add, (be, y, a, b), tensor y, tensor a, tensor b)
WATCHED(sum, (be, sum, x), tensor sum, tensor x)
WATCHED(sum_squares, (be, sums, xs), tensor sums, tensor const *xs)
WATCHED(gemm, (be, gemm), const struct gemm *gemm)
WATCHED(quantise, (be, x, rows, columns), tensor x, const struct quantised *rows,
        const struct quantised *columns)
WATCHED(rmsnorm, (be, y, rstd, x, gain, eps), tensor y, tensor rstd, tensor x, tensor gain,
        double eps)
WATCHED(rmsnorm_backward, (be, dx, dgain, dy, x, gain, rstd, residual), tensor dx, tensor dgain,
        tensor dy, tensor x, tensor gain, tensor rstd, tensor residual)
WATCHED(project, (be, y, x, weight, residual), tensor y, tensor x, const struct packed *weight,
        tensor residual)
WATCHED(unpack, (be, y, table, ids), tensor y, const struct packed *table, tensor ids)
WATCHED(bias, (be, y, x, bias), tensor y, tensor x, tensor bias)
WATCHED(bias_backward, (be, dbias, dy), tensor dbias, tensor dy)
WATCHED(rope, (be, y, x, positions, rope, inverse), tensor y, tensor x, tensor positions,
        const struct rope *rope, bool inverse)
WATCHED(norm_rope, (be, y, rstd, x, gain, eps, positions, rope), tensor y, tensor rstd, tensor x,
        tensor gain, double eps, tensor positions, const struct rope *rope)
WATCHED(norm_rope_backward, (be, dx, dgain, dy, x, gain, rstd, positions, rope), tensor dx,
        tensor dgain, tensor dy, tensor x, tensor gain, tensor rstd, tensor positions,
        const struct rope *rope)
WATCHED(swiglu, (be, y, gate, up), tensor y, tensor gate, tensor up)
WATCHED(swiglu_backward, (be, dgate, dup, product, dy, gate, up), tensor dgate, tensor dup,
        tensor product, tensor dy, tensor gate, tensor up)
WATCHED(gate, (be, y, x, z), tensor y, tensor x, tensor z)
WATCHED(gate_backward, (be, dx, dz, dy, x, z), tensor dx, tensor dz, tensor dy, tensor x, tensor z)
WATCHED(embed, (be, y, table, ids), tensor y, tensor table, tensor ids)
WATCHED(embed_backward, (be, dtable, dy, ids), tensor dtable, tensor dy, tensor ids)
WATCHED(cross_entropy, (be, losses, dlogits, logits, targets, scale), tensor losses, tensor dlogits,
        tensor logits, tensor targets, tensor scale)
WATCHED(clip, (be, clip), const struct clip *clip)
WATCHED(argmax, (be, ids, x), tensor ids, tensor x)
WATCHED(penalise, (be, x, seen, counts, penalty), tensor x, tensor seen, tensor counts,
        double penalty)
WATCHED(draw, (be, ids, x, numbers), tensor ids, tensor x, tensor numbers)
WATCHED(adamw, (be, update), const struct adamw_update *update)
WATCHED(momentum, (be, update), const struct muon_update *update)
WATCHED(normalise, (be, y, x, factor, eps), tensor y, tensor x, double factor, double eps)
WATCHED(orthogonalise, (be, call), const struct orthogonalise *call)
WATCHED(apply, (be, update), const struct muon_update *update)
WATCHED(attend_forward, (be, attend), const struct attend *attend)
WATCHED(attend_backward, (be, attend), const struct attend *attend)
WATCHED(attend_append, (be, append), const struct append *append)
WATCHED(attend_decode, (be, attend), const struct attend *attend)

const struct ops *ops_watched(const struct ops_watch *by)
{
    static struct ops table;
    watch = by;
    table = (struct ops){
        .name = by->inner->name,
        .device = by->device != NULL ? by->device : by->inner->device,
        .scratch = by->inner->scratch,
        .create = watched_create,
        .destroy = watched_destroy,
        .zero = watched_zero,
        .copy = watched_copy,
        .add = watched_add,
        .sum = watched_sum,
        .sum_squares = watched_sum_squares,
        .gemm = watched_gemm,
        .quantise = watched_quantise,
        .rmsnorm = watched_rmsnorm,
        .rmsnorm_backward = watched_rmsnorm_backward,
        .project = watched_project,
        .unpack = watched_unpack,
        .bias = watched_bias,
        .bias_backward = watched_bias_backward,
        .rope = watched_rope,
        .norm_rope = watched_norm_rope,
        .norm_rope_backward = watched_norm_rope_backward,
        .swiglu = watched_swiglu,
        .swiglu_backward = watched_swiglu_backward,
        .gate = watched_gate,
        .gate_backward = watched_gate_backward,
        .embed = watched_embed,
        .embed_backward = watched_embed_backward,
        .cross_entropy = watched_cross_entropy,
        .clip = watched_clip,
        .argmax = watched_argmax,
        .penalise = watched_penalise,
        .draw = watched_draw,
        .adamw = watched_adamw,
        .momentum = watched_momentum,
        .normalise = watched_normalise,
        .orthogonalise = watched_orthogonalise,
        .apply = watched_apply,
        .attend_forward = watched_attend_forward,
        .attend_backward = watched_attend_backward,
        .attend_append = watched_attend_append,
        .attend_decode = watched_attend_decode,
    };
    return &table;
}
