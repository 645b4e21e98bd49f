/* linear.c: y = x W^T and its gradients, dx = dy W and dW += dy^T x; with an adapter A [r,in],
 * B [out,r] on W also
 *
 *     z = x A^T      y += s z B^T
 *     dz = s dy B    dB += s dy^T z    dA += dz^T x    dx += dz A
 *
 * Weights are [out,in], as checkpoints store them, so the forward product transposes its second
 * operand and nothing is ever copied. The r numbers a token of z are computed again for backward:
 * a record of every projection would save a product that is small beside W's. Biases come behind as
 * layers of their own: Qwen-2 alone has any.
 *
 * Where W is quantised, so are the rows of x and dy that it is multiplied with. dW is not computed
 * from 8 bits: its operands would have to be scaled by columns and transposed, which costs what the
 * product would gain, and a weight's gradient is what training is most sensitive to. */
#include "layers/layers.h"

#include <math.h>
#include <string.h>

#include "layers/view.h"

int linear_add(struct param_list *params, plx_dtype dtype, int64_t out, int64_t in, double std,
               enum param_group group, const char *prefix, const char *name)
{
    const int weight = param_add(params, dtype, 2, (int64_t[]){out, in},
                                 std > 0 ? PARAM_INIT_NORMAL : PARAM_INIT_ZERO, std, group,
                                 "%s.%s.weight", prefix, name);
    const struct lora *lora = &params->lora;
    if (weight < 0 || lora->rank == 0 || !(lora_target_bit(name, strlen(name)) & lora->targets))
        return weight;
    struct adapter adapter = {.scale = lora_scale(lora)};
    adapter.down = param_add(params, dtype, 2, (int64_t[]){lora->rank, in}, PARAM_INIT_NORMAL,
                             sqrt(1.0 / (3.0 * (double)in)), PARAM_MATRIX, "%s.%s.lora_A.weight",
                             prefix, name);
    adapter.up = param_add(params, dtype, 2, (int64_t[]){out, lora->rank}, PARAM_INIT_ZERO, 0,
                           PARAM_MATRIX, "%s.%s.lora_B.weight", prefix, name);
    if (adapter.down < 0 || adapter.up < 0) return -1;
    params->items[adapter.down].adapts = params->items[adapter.up].adapts = true;
    params->items[weight].adapter = adapter;
    return weight;
}

/* ---- The weight ---- */

/* What several weights are multiplied with. */
struct source {
    struct plx_tensor x;
    struct quantised rows; /* where one of the weights is quantised */
};

static bool is_quantised(const struct param *weight)
{
    return weight->rows.values.rank > 0;
}

/* x [N,in] quantised, in scratch. */
static plx_status quantise_rows(struct backend *be, const struct plx_tensor *x,
                                struct quantised *rows)
{
    rows->values = arena_tensor(&be->scratch, PLX_F8E4M3, 2, x->shape);
    rows->scale = arena_tensor(&be->scratch, be->storage, 1, x->shape);
    return be->ops->quantise(be, x, rows, NULL);
}

static plx_status quantised_forward(struct backend *be, const struct param *weight,
                                    const struct quantised *x, const struct plx_tensor *residual,
                                    const struct plx_tensor *y)
{
    const struct gemm product = {.a = &x->values,
                                 .b = &weight->rows.values,
                                 .c = y,
                                 .transpose_b = true,
                                 .alpha = 1,
                                 .beta = residual != NULL ? 1 : 0,
                                 .add = residual,
                                 .a_scale = &x->scale,
                                 .b_scale = &weight->rows.scale,
                                 .weight = true};
    return be->ops->gemm(be, &product);
}

/* residual may be NULL. */
static plx_status plain_forward(struct backend *be, const struct param *weight,
                                const struct plx_tensor *x, const struct plx_tensor *residual,
                                const struct plx_tensor *y)
{
    if (weight->packed.kind != PACKING_NONE)
        return be->ops->project(be, y, x, &weight->packed, residual);
    const struct gemm product = {.a = x,
                                 .b = &weight->active,
                                 .c = y,
                                 .transpose_b = true,
                                 .alpha = 1,
                                 .beta = residual != NULL ? 1 : 0,
                                 .add = residual,
                                 .weight = true};
    return be->ops->gemm(be, &product);
}

/* dW += dy^T x */
static plx_status weight_gradient(struct backend *be, const struct param *weight,
                                  const struct plx_tensor *dy, const struct plx_tensor *x,
                                  double scale)
{
    const struct gemm product = {
        .a = dy, .b = x, .c = &weight->grad, .transpose_a = true, .alpha = scale, .beta = 1};
    return weight->frozen ? PLX_OK : be->ops->gemm(be, &product);
}

/* dx = dy W, or dx += dy W, of which the transpose of W is quantised. */
static plx_status quantised_input(struct backend *be, const struct param *weight,
                                  const struct plx_tensor *dy, const struct plx_tensor *dx,
                                  bool accumulate)
{
    const size_t mark = arena_mark(&be->scratch);
    struct quantised rows;
    TRY(quantise_rows(be, dy, &rows));
    const struct gemm product = {.a = &rows.values,
                                 .b = &weight->columns.values,
                                 .c = dx,
                                 .transpose_b = true,
                                 .alpha = 1,
                                 .beta = accumulate ? 1 : 0,
                                 .a_scale = &rows.scale,
                                 .b_scale = &weight->columns.scale};
    TRY(be->ops->gemm(be, &product));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

static plx_status plain_input(struct backend *be, const struct param *weight,
                              const struct plx_tensor *dy, const struct plx_tensor *dx,
                              double scale, bool accumulate)
{
    const struct gemm product = {
        .a = dy, .b = &weight->active, .c = dx, .alpha = scale, .beta = accumulate ? 1 : 0};
    return be->ops->gemm(be, &product);
}

/* ---- Its adapter ---- */

/* Room for z or dz [N,r] in scratch. */
static struct plx_tensor adapter_inner(struct backend *be, const struct param *down,
                                       const struct plx_tensor *x)
{
    const int64_t shape[2] = {x->shape[0], down->value.shape[0]};
    return arena_tensor(&be->scratch, x->dtype, 2, shape);
}

static plx_status adapter_forward(struct backend *be, const struct adapter *adapter,
                                  const struct param_list *params, const struct plx_tensor *x,
                                  const struct plx_tensor *y)
{
    const struct param *down = &params->items[adapter->down], *up = &params->items[adapter->up];
    const size_t mark = arena_mark(&be->scratch);
    struct plx_tensor z = adapter_inner(be, down, x);
    TRY(plain_forward(be, down, x, NULL, &z));
    const struct gemm product = {
        .a = &z, .b = &up->active, .c = y, .transpose_b = true, .alpha = adapter->scale, .beta = 1};
    TRY(be->ops->gemm(be, &product));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

/* Gradients of both matrices; dz is made anew by the next, as it has few columns. */
static plx_status adapter_gradients(struct backend *be, const struct adapter *adapter,
                                    const struct param_list *params, const struct plx_tensor *dy,
                                    const struct plx_tensor *x)
{
    const struct param *down = &params->items[adapter->down], *up = &params->items[adapter->up];
    const size_t mark = arena_mark(&be->scratch);
    struct plx_tensor z = adapter_inner(be, down, x), dz = adapter_inner(be, down, x);
    TRY(plain_forward(be, down, x, NULL, &z));
    TRY(weight_gradient(be, up, dy, &z, adapter->scale));
    TRY(plain_input(be, up, dy, &dz, adapter->scale, false));
    TRY(weight_gradient(be, down, &dz, x, 1));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

/* dx += what flows through z. */
static plx_status adapter_input(struct backend *be, const struct adapter *adapter,
                                const struct param_list *params, const struct plx_tensor *dy,
                                const struct plx_tensor *dx)
{
    const struct param *down = &params->items[adapter->down], *up = &params->items[adapter->up];
    const size_t mark = arena_mark(&be->scratch);
    struct plx_tensor dz = adapter_inner(be, down, dx);
    TRY(plain_input(be, up, dy, &dz, adapter->scale, false));
    TRY(plain_input(be, down, &dz, dx, 1, true));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

/* ---- Both ---- */

static plx_status project(struct backend *be, const struct param_list *params,
                          const struct source *source, const struct projection *projection)
{
    const struct param *param = &params->items[projection->weight];
    struct plx_tensor y = view_matrix(projection->y, source->x.shape[0]);
    if (is_quantised(param))
        TRY(quantised_forward(be, param, &source->rows, projection->residual, &y));
    else
        TRY(plain_forward(be, param, &source->x, projection->residual, &y));
    if (param->adapter.down == 0) return PLX_OK;
    return adapter_forward(be, &param->adapter, params, &source->x, &y);
}

/* ---- Several of one x ---- */

enum { MOST_PROJECTIONS = 8 };

static bool is_packed(const struct param *weight)
{
    return weight->packed.kind != PACKING_NONE && weight->adapter.down == 0;
}

/* Whether all are packed and no more, as weights are that are only sampled from. */
static bool are_packed(const struct param_list *params, const struct projection *projections,
                       int count)
{
    bool packed = count <= MOST_PROJECTIONS;
    for (int i = 0; i < count; i++)
        packed = packed && is_packed(&params->items[projections[i].weight]);
    return packed;
}

static plx_status project_packed(struct backend *be, const struct param_list *params,
                                 const struct rmsnorm *norm, const struct plx_tensor *x,
                                 const struct projection *projections, int count, bool gated)
{
    struct projected items[MOST_PROJECTIONS];
    struct plx_tensor outputs[MOST_PROJECTIONS];
    const struct plx_tensor input = view_matrix(x, x->shape[0]);
    const struct project_all call = {.x = &input,
                                     .gain = norm != NULL ? &params->items[norm->gain].value : NULL,
                                     .eps = norm != NULL ? norm->eps : 0,
                                     .items = items,
                                     .count = count,
                                     .gated = gated};
    for (int i = 0; i < count; i++) {
        const struct projection *from = &projections[i];
        if (from->y != NULL) outputs[i] = view_matrix(from->y, x->shape[0]);
        items[i] = (struct projected){.weight = &params->items[from->weight].packed,
                                      .y = from->y != NULL ? &outputs[i] : NULL,
                                      .residual = from->residual};
    }
    return be->ops->project_all(be, &call);
}

/* x, or norm(x) in scratch, which the caller releases. */
static plx_status normed(struct backend *be, const struct param_list *params,
                         const struct rmsnorm *norm, const struct plx_tensor *x,
                         struct plx_tensor *y)
{
    *y = view_matrix(x, x->shape[0]);
    if (norm == NULL) return PLX_OK;
    const struct plx_tensor rstd = arena_tensor(&be->scratch, be->storage, 1, x->shape);
    *y = arena_tensor(&be->scratch, x->dtype, 2, y->shape);
    return rmsnorm_forward(be, norm, params, x, y, &rstd);
}

plx_status linear_project(struct backend *be, const struct param_list *params,
                          const struct rmsnorm *norm, const struct plx_tensor *x,
                          const struct projection *projections, int count)
{
    const bool one = norm == NULL && count == 1;
    if (!one && are_packed(params, projections, count))
        return project_packed(be, params, norm, x, projections, count, false);
    const size_t mark = arena_mark(&be->scratch);
    struct source source = {0};
    bool quantised = false;
    TRY(normed(be, params, norm, x, &source.x));
    for (int i = 0; i < count; i++)
        quantised = quantised || is_quantised(&params->items[projections[i].weight]);
    if (quantised) TRY(quantise_rows(be, &source.x, &source.rows));
    for (int i = 0; i < count; i++) TRY(project(be, params, &source, &projections[i]));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

plx_status linear_gated(struct backend *be, int gate, int up, const struct param_list *params,
                        const struct rmsnorm *norm, const struct plx_tensor *x,
                        const struct plx_tensor *y)
{
    struct projection projections[2] = {{.weight = gate, .y = y}, {.weight = up}};
    if (are_packed(params, projections, 2))
        return project_packed(be, params, norm, x, projections, 2, true);
    const size_t mark = arena_mark(&be->scratch);
    struct plx_tensor products[2];
    for (int i = 0; i < 2; i++) {
        products[i] = arena_tensor(&be->scratch, y->dtype, 2, y->shape);
        projections[i].y = &products[i];
    }
    TRY(linear_project(be, params, norm, x, projections, 2));
    TRY(be->ops->swiglu(be, y, &products[0], &products[1]));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

plx_status linear_forward(struct backend *be, int weight, const struct param_list *params,
                          const struct plx_tensor *x, const struct plx_tensor *y)
{
    return linear_residual(be, weight, params, x, NULL, y);
}

plx_status linear_residual(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *x, const struct plx_tensor *residual,
                           const struct plx_tensor *y)
{
    const struct projection projection = {.weight = weight, .y = y, .residual = residual};
    return linear_project(be, params, NULL, x, &projection, 1);
}

plx_status linear_gradient(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *dy, const struct plx_tensor *x)
{
    int64_t N = x->shape[0];
    struct plx_tensor input = view_matrix(x, N), d_output = view_matrix(dy, N);
    const struct param *param = &params->items[weight];
    TRY(weight_gradient(be, param, &d_output, &input, 1));
    if (param->adapter.down == 0) return PLX_OK;
    return adapter_gradients(be, &param->adapter, params, &d_output, &input);
}

plx_status linear_input(struct backend *be, int weight, const struct param_list *params,
                        const struct plx_tensor *dy, const struct plx_tensor *dx, bool accumulate)
{
    int64_t N = dx->shape[0];
    struct plx_tensor d_output = view_matrix(dy, N), d_input = view_matrix(dx, N);
    const struct param *param = &params->items[weight];
    if (is_quantised(param))
        TRY(quantised_input(be, param, &d_output, &d_input, accumulate));
    else
        TRY(plain_input(be, param, &d_output, &d_input, 1, accumulate));
    if (param->adapter.down == 0) return PLX_OK;
    return adapter_input(be, &param->adapter, params, &d_output, &d_input);
}

plx_status linear_backward(struct backend *be, int weight, const struct param_list *params,
                           const struct plx_tensor *dy, const struct plx_tensor *x,
                           const struct plx_tensor *dx, bool accumulate)
{
    TRY(linear_gradient(be, weight, params, dy, x));
    return linear_input(be, weight, params, dy, dx, accumulate);
}

int bias_add(struct param_list *params, plx_dtype dtype, int64_t out, const char *prefix,
             const char *name)
{
    return param_add(params, dtype, 1, &out, PARAM_INIT_ZERO, 0, PARAM_BIAS, "%s.%s.bias", prefix,
                     name);
}

plx_status bias_forward(struct backend *be, int bias, const struct param_list *params,
                        const struct plx_tensor *y)
{
    if (bias < 0) return PLX_OK;
    struct plx_tensor rows = view_matrix(y, y->shape[0]);
    return be->ops->bias(be, &rows, &rows, &params->items[bias].value);
}

plx_status bias_backward(struct backend *be, int bias, const struct param_list *params,
                         const struct plx_tensor *dy)
{
    if (bias < 0) return PLX_OK;
    struct plx_tensor rows = view_matrix(dy, dy->shape[0]);
    return be->ops->bias_backward(be, &params->items[bias].grad, &rows);
}
