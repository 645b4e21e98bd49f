/* check.c: argument checks shared by the tables; see check.h. */
#include "ops/check.h"

#include <stdio.h>

enum { SHAPE_TEXT = 112 };

static const char *check_shape_text(const struct plx_tensor *tensor, char text[SHAPE_TEXT])
{
    size_t used = (size_t)snprintf(text, SHAPE_TEXT, "[");
    for (int axis = 0; axis < tensor->rank && axis < PLX_MAX_RANK; axis++)
        used += (size_t)snprintf(text + used, SHAPE_TEXT - used, "%s%lld", axis > 0 ? "," : "",
                                 (long long)tensor->shape[axis]);
    snprintf(text + used, SHAPE_TEXT - used, "]");
    return text;
}

bool check_is_dense(const struct plx_tensor *tensor)
{
    int64_t stride = 1;
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
        if (tensor->shape[axis] != 1 && tensor->stride[axis] != stride) return false;
        stride *= tensor->shape[axis];
    }
    return true;
}

/* Rank, device and dtype; density where the operation has no use for strides. */
static plx_status check_tensor(struct backend *be, const char *op, const char *name,
                               const struct plx_tensor *tensor, plx_dtype dtype)
{
    REQUIRE(be->err, tensor->rank >= 1 && tensor->rank <= PLX_MAX_RANK, PLX_INTERNAL,
            "%s: %s has rank %d", op, name, tensor->rank);
    REQUIRE(be->err, tensor->device == be->device->kind, PLX_INTERNAL,
            "%s: %s is not in the memory of device %s", op, name, be->device->name);
    REQUIRE(be->err, tensor->dtype == dtype, PLX_INTERNAL, "%s: %s is %s but must be %s", op, name,
            plx_dtype_name(tensor->dtype), plx_dtype_name(dtype));
    return PLX_OK;
}

static plx_status check_dense(struct backend *be, const char *op, const char *name,
                              const struct plx_tensor *tensor, plx_dtype dtype)
{
    TRY(check_tensor(be, op, name, tensor, dtype));
    char text[SHAPE_TEXT];
    REQUIRE(be->err, check_is_dense(tensor), PLX_INTERNAL, "%s: %s %s must be dense and row-major",
            op, name, check_shape_text(tensor, text));
    return PLX_OK;
}

/* The same shape as another tensor that was checked before. */
static plx_status check_same_shape(struct backend *be, const char *op, const char *name,
                                   const struct plx_tensor *tensor, const char *other_name,
                                   const struct plx_tensor *other)
{
    bool same = tensor->rank == other->rank;
    for (int axis = 0; same && axis < tensor->rank; axis++)
        same = tensor->shape[axis] == other->shape[axis];
    char text[SHAPE_TEXT], other_text[SHAPE_TEXT];
    REQUIRE(be->err, same, PLX_INTERNAL, "%s: %s %s must have the shape of %s %s", op, name,
            check_shape_text(tensor, text), other_name, check_shape_text(other, other_text));
    return PLX_OK;
}

/* Dense, and of the storage or the activation dtype: whatever the operation is used for. */
static plx_status check_number(struct backend *be, const char *op, const char *name,
                               const struct plx_tensor *tensor)
{
    bool active = tensor->dtype == be->activation;
    return check_dense(be, op, name, tensor, active ? be->activation : be->storage);
}

/* Dense, and of the dtype and the shape of another tensor that was checked before. */
static plx_status check_like(struct backend *be, const char *op, const char *name,
                             const struct plx_tensor *tensor, const char *other_name,
                             const struct plx_tensor *other)
{
    TRY(check_dense(be, op, name, tensor, other->dtype));
    return check_same_shape(be, op, name, tensor, other_name, other);
}

/* Dense, of the given dtype, and with as many elements as expected says of another tensor. */
static plx_status check_count(struct backend *be, const char *op, const char *name,
                              const struct plx_tensor *tensor, plx_dtype dtype, int64_t expected,
                              const char *other_name, const struct plx_tensor *other)
{
    TRY(check_dense(be, op, name, tensor, dtype));
    char text[SHAPE_TEXT], other_text[SHAPE_TEXT];
    REQUIRE(be->err, plx_tensor_count(tensor) == expected, PLX_INTERNAL,
            "%s: %s %s must have %lld elements to go with %s %s", op, name,
            check_shape_text(tensor, text), (long long)expected, other_name,
            check_shape_text(other, other_text));
    return PLX_OK;
}

static plx_status check_rank(struct backend *be, const char *op, const char *name,
                             const struct plx_tensor *tensor, int rank)
{
    char text[SHAPE_TEXT];
    REQUIRE(be->err, tensor->rank == rank, PLX_INTERNAL, "%s: %s %s must have rank %d", op, name,
            check_shape_text(tensor, text), rank);
    return PLX_OK;
}

plx_status check_zero(struct backend *be, const struct plx_tensor *y)
{
    return check_dense(be, "zero", "y", y, y->dtype);
}

plx_status check_copy(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x)
{
    TRY(check_tensor(be, "copy", "x", x, x->dtype));
    TRY(check_tensor(be, "copy", "y", y, y->dtype));
    return check_same_shape(be, "copy", "y", y, "x", x);
}

plx_status check_add(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *a,
                     const struct plx_tensor *b)
{
    TRY(check_number(be, "add", "a", a));
    TRY(check_like(be, "add", "b", b, "a", a));
    return check_like(be, "add", "y", y, "a", a);
}

plx_status check_sum(struct backend *be, const struct plx_tensor *sum, const struct plx_tensor *x)
{
    TRY(check_number(be, "sum", "x", x));
    return check_count(be, "sum", "sum", sum, PLX_F64, 1, "x", x);
}

plx_status check_sum_squares(struct backend *be, const struct plx_tensor *sums,
                             const struct plx_tensor *const *xs)
{
    TRY(check_dense(be, "sum_squares", "sums", sums, PLX_F64));
    TRY(check_rank(be, "sum_squares", "sums", sums, 1));
    for (int64_t i = 0; i < sums->shape[0]; i++)
        if (xs[i] != NULL) TRY(check_dense(be, "sum_squares", "x", xs[i], be->storage));
    return PLX_OK;
}

/* A matrix, or as many as the first of three axes is long. Strided rows are welcome. */
static plx_status check_matrix(struct backend *be, const char *name,
                               const struct plx_tensor *matrix, plx_dtype dtype, int rank)
{
    TRY(check_tensor(be, "gemm", name, matrix, dtype));
    TRY(check_rank(be, "gemm", name, matrix, rank));
    const int64_t *shape = &matrix->shape[rank - 2], *stride = &matrix->stride[rank - 2];
    bool unit = stride[1] == 1 || shape[1] <= 1;
    bool apart = stride[0] >= shape[1] || shape[0] <= 1;
    char text[SHAPE_TEXT];
    REQUIRE(
        be->err, unit && apart, PLX_INTERNAL,
        "gemm: %s %s has strides %lld, %lld; rows must not overlap and elements must be adjacent",
        name, check_shape_text(matrix, text), (long long)stride[0], (long long)stride[1]);
    return PLX_OK;
}

/* Operands that are quantised, both of them: [M,K], and [N,K] transposed. */
static plx_status check_scales(struct backend *be, const struct gemm *gemm)
{
    const struct plx_tensor *scales[2] = {gemm->a_scale, gemm->b_scale};
    const struct plx_tensor *matrices[2] = {gemm->a, gemm->b};
    REQUIRE(be->err, !gemm->transpose_a && gemm->transpose_b, PLX_INTERNAL,
            "gemm: of quantised matrices b must be transposed and a not");
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "a" : "b", *scale = i == 0 ? "a_scale" : "b_scale";
        REQUIRE(be->err, scales[i] != NULL, PLX_INTERNAL, "gemm: %s is missing", scale);
        TRY(check_dense(be, "gemm", name, matrices[i], PLX_F8E4M3));
        TRY(check_rank(be, "gemm", name, matrices[i], 2));
        TRY(check_count(be, "gemm", scale, scales[i], be->storage, matrices[i]->shape[0], name,
                        matrices[i]));
    }
    return PLX_OK;
}

/* Products read activations, or what is stored where the two are one; they write either. */
static plx_status check_gemm_dtypes(struct backend *be, const struct gemm *gemm)
{
    bool quantised = gemm->a_scale != NULL || gemm->b_scale != NULL;
    if (quantised) TRY(check_scales(be, gemm));
    bool in = quantised || gemm->a->dtype == be->activation || gemm->a->dtype == be->storage;
    bool out = gemm->c->dtype == be->activation || gemm->c->dtype == be->storage;
    REQUIRE(be->err, in && out, PLX_INTERNAL, "gemm: a is %s and c %s but must be %s or %s",
            plx_dtype_name(gemm->a->dtype), plx_dtype_name(gemm->c->dtype),
            plx_dtype_name(be->activation), plx_dtype_name(be->storage));
    return PLX_OK;
}

plx_status check_gemm(struct backend *be, const struct gemm *gemm)
{
    const struct plx_tensor *a = gemm->a, *b = gemm->b, *c = gemm->c;
    int rank = c->rank == 3 ? 3 : 2;
    TRY(check_gemm_dtypes(be, gemm));
    TRY(check_matrix(be, "a", a, a->dtype, rank));
    TRY(check_matrix(be, "b", b, a->dtype, rank));
    TRY(check_matrix(be, "c", c, c->dtype, rank));
    int row = rank - 2, column = rank - 1;
    int64_t M = a->shape[gemm->transpose_a ? column : row];
    int64_t K = a->shape[gemm->transpose_a ? row : column];
    int64_t b_rows = b->shape[gemm->transpose_b ? column : row];
    int64_t N = b->shape[gemm->transpose_b ? row : column];
    bool batch = rank == 2 || (a->shape[0] == c->shape[0] && b->shape[0] == c->shape[0]);
    bool matches = b_rows == K && c->shape[row] == M && c->shape[column] == N;
    char a_text[SHAPE_TEXT], b_text[SHAPE_TEXT], c_text[SHAPE_TEXT];
    REQUIRE(be->err, batch && matches, PLX_INTERNAL, "gemm: a %s%s times b %s%s does not give c %s",
            check_shape_text(a, a_text), gemm->transpose_a ? " transposed" : "",
            check_shape_text(b, b_text), gemm->transpose_b ? " transposed" : "",
            check_shape_text(c, c_text));
    if (gemm->add == NULL) return PLX_OK;
    TRY(check_matrix(be, "add", gemm->add, c->dtype, rank));
    return check_same_shape(be, "gemm", "add", gemm->add, "c", c);
}

static plx_status check_quantised(struct backend *be, const char *name,
                                  const struct quantised *quantised, int64_t rows, int64_t columns,
                                  const struct plx_tensor *x)
{
    const struct plx_tensor *values = &quantised->values;
    char x_text[SHAPE_TEXT], text[SHAPE_TEXT];
    TRY(check_dense(be, "quantise", name, values, PLX_F8E4M3));
    TRY(check_rank(be, "quantise", name, values, 2));
    REQUIRE(be->err, values->shape[0] == rows && values->shape[1] == columns, PLX_INTERNAL,
            "quantise: %s %s do not hold x %s", name, check_shape_text(values, text),
            check_shape_text(x, x_text));
    return check_count(be, "quantise", "scale", &quantised->scale, be->storage, rows, name, values);
}

plx_status check_quantise(struct backend *be, const struct plx_tensor *x,
                          const struct quantised *rows, const struct quantised *columns)
{
    TRY(check_number(be, "quantise", "x", x));
    TRY(check_rank(be, "quantise", "x", x, 2));
    TRY(check_quantised(be, "rows", rows, x->shape[0], x->shape[1], x));
    if (columns == NULL) return PLX_OK;
    return check_quantised(be, "columns", columns, x->shape[1], x->shape[0], x);
}

plx_status check_rmsnorm(struct backend *be, const struct plx_tensor *y,
                         const struct plx_tensor *rstd, const struct plx_tensor *x,
                         const struct plx_tensor *gain)
{
    const char *op = "rmsnorm";
    TRY(check_dense(be, op, "x", x, be->activation));
    TRY(check_like(be, op, "y", y, "x", x));
    int64_t E = x->shape[x->rank - 1];
    TRY(check_rank(be, op, "gain", gain, 1));
    TRY(check_count(be, op, "gain", gain, be->storage, E, "x", x));
    int64_t rows = E > 0 ? plx_tensor_count(x) / E : plx_tensor_count(rstd);
    return check_count(be, op, "rstd", rstd, be->storage, rows, "x", x);
}

plx_status check_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                  const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                  const struct plx_tensor *x, const struct plx_tensor *gain,
                                  const struct plx_tensor *rstd, const struct plx_tensor *residual)
{
    const char *op = "rmsnorm_backward";
    TRY(check_dense(be, op, "x", x, be->activation));
    TRY(check_like(be, op, "dy", dy, "x", x));
    TRY(check_like(be, op, "dx", dx, "x", x));
    if (residual != NULL) TRY(check_like(be, op, "residual", residual, "x", x));
    int64_t E = x->shape[x->rank - 1];
    TRY(check_rank(be, op, "gain", gain, 1));
    TRY(check_count(be, op, "gain", gain, be->storage, E, "x", x));
    TRY(check_like(be, op, "dgain", dgain, "gain", gain));
    int64_t rows = E > 0 ? plx_tensor_count(x) / E : plx_tensor_count(rstd);
    return check_count(be, op, "rstd", rstd, be->storage, rows, "x", x);
}

plx_status check_project(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                         const struct packed *weight, const struct plx_tensor *residual)
{
    const plx_dtype dtype = y->dtype == be->storage ? be->storage : be->activation;
    char x_text[SHAPE_TEXT], y_text[SHAPE_TEXT];
    TRY(check_dense(be, "project", "x", x, be->activation));
    TRY(check_rank(be, "project", "x", x, 2));
    TRY(check_dense(be, "project", "y", y, dtype));
    TRY(check_rank(be, "project", "y", y, 2));
    if (residual != NULL) TRY(check_like(be, "project", "residual", residual, "y", y));
    REQUIRE(be->err,
            x->shape[1] == weight->columns && y->shape[1] == weight->rows &&
                y->shape[0] == x->shape[0],
            PLX_INTERNAL, "project: x %s times a transposed weight [%lld,%lld] does not give y %s",
            check_shape_text(x, x_text), (long long)weight->rows, (long long)weight->columns,
            check_shape_text(y, y_text));
    return PLX_OK;
}

plx_status check_unpack(struct backend *be, const struct plx_tensor *y, const struct packed *table,
                        const struct plx_tensor *ids)
{
    TRY(check_dense(be, "unpack", "ids", ids, PLX_I32));
    return check_count(be, "unpack", "y", y, be->activation, plx_tensor_count(ids) * table->columns,
                       "ids", ids);
}

/* A matrix, and a bias for each of its columns. */
static plx_status check_columns(struct backend *be, const char *op, const char *name,
                                const struct plx_tensor *x, const char *bias_name,
                                const struct plx_tensor *bias)
{
    TRY(check_dense(be, op, name, x, be->activation));
    TRY(check_rank(be, op, name, x, 2));
    TRY(check_rank(be, op, bias_name, bias, 1));
    return check_count(be, op, bias_name, bias, be->storage, x->shape[1], name, x);
}

plx_status check_bias(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                      const struct plx_tensor *bias)
{
    TRY(check_columns(be, "bias", "x", x, "bias", bias));
    return check_like(be, "bias", "y", y, "x", x);
}

plx_status check_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                               const struct plx_tensor *dy)
{
    return check_columns(be, "bias_backward", "dy", dy, "dbias", dbias);
}

plx_status check_rope(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                      const struct plx_tensor *positions)
{
    TRY(check_dense(be, "rope", "x", x, be->activation));
    TRY(check_rank(be, "rope", "x", x, 3));
    TRY(check_like(be, "rope", "y", y, "x", x));
    char text[SHAPE_TEXT];
    REQUIRE(be->err, x->shape[2] % 2 == 0, PLX_INTERNAL, "rope: x %s has an odd number of channels",
            check_shape_text(x, text));
    return check_count(be, "rope", "positions", positions, PLX_I32, x->shape[0], "x", x);
}

plx_status check_swiglu(struct backend *be, const struct plx_tensor *y,
                        const struct plx_tensor *gate, const struct plx_tensor *up)
{
    TRY(check_dense(be, "swiglu", "gate", gate, be->activation));
    TRY(check_like(be, "swiglu", "up", up, "gate", gate));
    return check_like(be, "swiglu", "y", y, "gate", gate);
}

plx_status check_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                                 const struct plx_tensor *dup, const struct plx_tensor *product,
                                 const struct plx_tensor *dy, const struct plx_tensor *gate,
                                 const struct plx_tensor *up)
{
    const char *op = "swiglu_backward";
    TRY(check_dense(be, op, "gate", gate, be->activation));
    TRY(check_like(be, op, "up", up, "gate", gate));
    TRY(check_like(be, op, "dy", dy, "gate", gate));
    TRY(check_like(be, op, "dgate", dgate, "gate", gate));
    TRY(check_like(be, op, "dup", dup, "gate", gate));
    return check_like(be, op, "product", product, "gate", gate);
}

plx_status check_gate(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                      const struct plx_tensor *z)
{
    TRY(check_dense(be, "gate", "x", x, be->activation));
    TRY(check_rank(be, "gate", "x", x, 3));
    TRY(check_like(be, "gate", "y", y, "x", x));
    return check_count(be, "gate", "z", z, be->activation, x->shape[0] * x->shape[1], "x", x);
}

plx_status check_gate_backward(struct backend *be, const struct plx_tensor *dx,
                               const struct plx_tensor *dz, const struct plx_tensor *dy,
                               const struct plx_tensor *x, const struct plx_tensor *z)
{
    const char *op = "gate_backward";
    TRY(check_dense(be, op, "x", x, be->activation));
    TRY(check_rank(be, op, "x", x, 3));
    TRY(check_like(be, op, "dy", dy, "x", x));
    TRY(check_like(be, op, "dx", dx, "x", x));
    TRY(check_count(be, op, "z", z, be->activation, x->shape[0] * x->shape[1], "x", x));
    return check_like(be, op, "dz", dz, "z", z);
}

plx_status check_embed(struct backend *be, const char *op, const struct plx_tensor *rows,
                       const struct plx_tensor *table, plx_dtype dtype,
                       const struct plx_tensor *ids)
{
    TRY(check_dense(be, op, "table", table, dtype));
    TRY(check_rank(be, op, "table", table, 2));
    TRY(check_dense(be, op, "ids", ids, PLX_I32));
    return check_count(be, op, "rows", rows, be->activation,
                       plx_tensor_count(ids) * table->shape[1], "table", table);
}

plx_status check_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                               const struct plx_tensor *dlogits, const struct plx_tensor *logits,
                               const struct plx_tensor *targets, const struct plx_tensor *scale)
{
    const char *op = "cross_entropy";
    TRY(check_number(be, op, "logits", logits));
    TRY(check_rank(be, op, "logits", logits, 2));
    TRY(check_count(be, op, "losses", losses, be->storage, logits->shape[0], "logits", logits));
    TRY(check_count(be, op, "targets", targets, PLX_I32, logits->shape[0], "logits", logits));
    bool absent = dlogits->data == NULL && dlogits->rank == 0;
    if (absent) return PLX_OK;
    TRY(check_count(be, op, "scale", scale, PLX_F64, 1, "logits", logits));
    return check_like(be, op, "dlogits", dlogits, "logits", logits);
}

static plx_status check_numbers(struct backend *be, const char *op,
                                const struct plx_tensor *numbers)
{
    return check_count(be, op, "numbers", numbers, PLX_F64, STEP_NUMBERS, "itself", numbers);
}

plx_status check_clip(struct backend *be, const struct clip *clip)
{
    TRY(check_dense(be, "clip", "squares", clip->squares, PLX_F64));
    TRY(check_count(be, "clip", "state", clip->state, PLX_F64, CLIP_STATE, "squares",
                    clip->squares));
    return check_numbers(be, "clip", clip->numbers);
}

static plx_status check_moment(struct backend *be, const char *op, const char *name,
                               const struct plx_tensor *moment, const struct update_item *item)
{
    const bool rounds = item->m->dtype == PLX_BF16;
    TRY(check_dense(be, op, name, moment, rounds ? PLX_BF16 : be->storage));
    return check_same_shape(be, op, name, moment, "value", item->value);
}

/* Each item's value, active copy and state; v may be none. */
static plx_status check_items(struct backend *be, const char *op, const struct update_item *items,
                              int count)
{
    for (int i = 0; i < count; i++) {
        const struct update_item *item = &items[i];
        TRY(check_dense(be, op, "value", item->value, be->storage));
        TRY(check_dense(be, op, "active", item->active, item->active->dtype));
        TRY(check_same_shape(be, op, "active", item->active, "value", item->value));
        TRY(check_like(be, op, "grad", item->grad, "value", item->value));
        TRY(check_moment(be, op, "m", item->m, item));
        if (item->v != NULL) TRY(check_moment(be, op, "v", item->v, item));
    }
    return PLX_OK;
}

plx_status check_argmax(struct backend *be, const struct plx_tensor *ids,
                        const struct plx_tensor *x)
{
    TRY(check_dense(be, "argmax", "x", x, be->storage));
    TRY(check_rank(be, "argmax", "x", x, 2));
    return check_count(be, "argmax", "ids", ids, PLX_I32, x->shape[0], "x", x);
}

/* Logits [N,V] whose rows may be strided. */
static plx_status check_logits(struct backend *be, const char *op, const struct plx_tensor *x)
{
    TRY(check_tensor(be, op, "x", x, be->storage));
    TRY(check_rank(be, op, "x", x, 2));
    REQUIRE(be->err, x->stride[1] == 1 || x->shape[1] == 1, PLX_INTERNAL,
            "%s: the numbers of a row of x are %lld apart but must be neighbours", op,
            (long long)x->stride[1]);
    return PLX_OK;
}

plx_status check_penalise(struct backend *be, const struct plx_tensor *x,
                          const struct plx_tensor *seen, const struct plx_tensor *counts)
{
    TRY(check_logits(be, "penalise", x));
    TRY(check_rank(be, "penalise", "seen", seen, 2));
    TRY(check_count(be, "penalise", "seen", seen, PLX_I32, x->shape[0] * seen->shape[1], "x", x));
    return check_count(be, "penalise", "counts", counts, PLX_I32, x->shape[0], "x", x);
}

plx_status check_draw(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x,
                      const struct plx_tensor *numbers)
{
    TRY(check_logits(be, "draw", x));
    REQUIRE(be->err, x->shape[1] >= 1 && x->shape[1] <= DRAW_LONGEST_ROW, PLX_UNSUPPORTED,
            "draw: a row of %lld logits, but one has 1 to %d", (long long)x->shape[1],
            DRAW_LONGEST_ROW);
    TRY(check_count(be, "draw", "ids", ids, PLX_I32, x->shape[0], "x", x));
    return check_count(be, "draw", "numbers", numbers, PLX_F64, x->shape[0] * DRAW_NUMBERS, "x", x);
}

plx_status check_adamw(struct backend *be, const struct adamw_update *update)
{
    const char *op = "adamw";
    TRY(check_count(be, op, "factor", update->factor, PLX_F64, 1, "itself", update->factor));
    TRY(check_numbers(be, op, update->numbers));
    return check_items(be, op, update->items, update->count);
}

static plx_status check_muon(struct backend *be, const char *op, const struct muon_update *update)
{
    const struct plx_tensor *directions = update->directions;
    TRY(check_count(be, op, "factor", update->factor, PLX_F64, 1, "itself", update->factor));
    TRY(check_numbers(be, op, update->numbers));
    TRY(check_items(be, op, update->items, update->count));
    TRY(check_dense(be, op, "directions", directions, be->activation));
    TRY(check_rank(be, op, "directions", directions, 3));
    bool fits = directions->shape[0] == update->count;
    for (int i = 0; fits && i < update->count; i++) {
        const struct plx_tensor *value = update->items[i].value;
        fits = value->rank == 2 && value->shape[0] == directions->shape[1] &&
               value->shape[1] == directions->shape[2];
    }
    char text[SHAPE_TEXT];
    REQUIRE(be->err, fits, PLX_INTERNAL, "%s: directions %s do not go with %d values", op,
            check_shape_text(directions, text), update->count);
    return PLX_OK;
}

plx_status check_momentum(struct backend *be, const struct muon_update *update)
{
    return check_muon(be, "momentum", update);
}

static plx_status check_matrices(struct backend *be, const char *op, const struct plx_tensor *y,
                                 const struct plx_tensor *x)
{
    TRY(check_dense(be, op, "x", x, be->activation));
    TRY(check_rank(be, op, "x", x, 3));
    TRY(check_dense(be, op, "y", y, be->activation));
    return check_same_shape(be, op, "y", y, "x", x);
}

plx_status check_normalise(struct backend *be, const struct plx_tensor *y,
                           const struct plx_tensor *x)
{
    return check_matrices(be, "normalise", y, x);
}

plx_status check_orthogonalise(struct backend *be, const struct orthogonalise *call)
{
    return check_matrices(be, "orthogonalise", call->y, call->x);
}

plx_status check_apply(struct backend *be, const struct muon_update *update)
{
    return check_muon(be, "apply", update);
}

plx_status check_ids(struct backend *be, const char *op, const struct plx_tensor *ids,
                     int64_t bound, bool allow_negative)
{
    const int32_t *id = ids->data;
    int64_t count = plx_tensor_count(ids);
    for (int64_t n = 0; n < count; n++)
        REQUIRE(be->err, id[n] < bound && (id[n] >= 0 || allow_negative), PLX_INVALID_ARGUMENT,
                "%s: id %d at %lld is outside 0..%lld", op, id[n], (long long)n,
                (long long)bound - 1);
    return PLX_OK;
}
