/* ops_ref.c: what every operation means, as plain loops in `real`.
 *
 * This file is the oracle of all other backends: no blocking, no threads, no approximations, one
 * loop per sum. Sums that grow with the batch (sum_squares, the softmax of the loss) and rotary
 * angles are in double in both compilations, as op.h promises. It is checked by finite differences
 * (tests/gradcheck/test_ops_gradcheck.c). Arguments were checked by ops_reference.c, its only
 * caller. */
#include "ops/ref_table.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/number.h"
#include "ops/gemm_slice.h"
#include "ops/rounding.h"

/* ---- Vectors --------------------------------------------------------------------------------- */

static void ref_add(const struct plx_tensor *y, const struct plx_tensor *a,
                    const struct plx_tensor *b)
{
    real *out = y->data;
    const real *left = a->data, *right = b->data;
    int64_t count = plx_tensor_count(y);
    for (int64_t i = 0; i < count; i++) out[i] = left[i] + right[i];
}

static double ref_sum(const struct plx_tensor *x)
{
    const real *in = x->data;
    int64_t count = plx_tensor_count(x);
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += (double)in[i];
    return sum;
}

static double ref_sum_squares(const struct plx_tensor *x)
{
    const real *in = x->data;
    int64_t count = plx_tensor_count(x);
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += (double)in[i] * (double)in[i];
    return sum;
}

/* ---- Matrix product -------------------------------------------------------------------------- */

/* The nearest bf16 value of the nearest float. */
static real ref_round_bf16(real x)
{
    return (real)dtype_bf16_to_f32(dtype_f32_to_bf16((float)x));
}

/* scale is that of a quantised matrix, or NULL. */
static real ref_element(const struct plx_tensor *matrix, const struct plx_tensor *scale,
                        bool transpose, int64_t row, int64_t column, bool rounded)
{
    int64_t line = transpose ? column : row;
    int64_t index = line * matrix->stride[0] + (transpose ? row : column);
    if (scale != NULL)
        return (real)dtype_f8_to_f32(((const uint8_t *)matrix->data)[index]) *
               ((const real *)scale->data)[line];
    real element = ((const real *)matrix->data)[index];
    return rounded ? ref_round_bf16(element) : element;
}

/* One product of rank 2. */
static void ref_product(const struct gemm *gemm, bool round_operands)
{
    const struct plx_tensor *a = gemm->a, *b = gemm->b, *c = gemm->c;
    const struct plx_tensor *add = gemm->add != NULL ? gemm->add : c;
    int64_t K = gemm->transpose_a ? a->shape[0] : a->shape[1];
    for (int64_t m = 0; m < c->shape[0]; m++) {
        real *row = (real *)c->data + m * c->stride[0];
        const real *before = (const real *)add->data + m * add->stride[0];
        for (int64_t n = 0; n < c->shape[1]; n++) {
            real sum = 0;
            for (int64_t k = 0; k < K; k++)
                sum += ref_element(a, gemm->a_scale, gemm->transpose_a, m, k, round_operands) *
                       ref_element(b, gemm->b_scale, gemm->transpose_b, k, n, round_operands);
            real added = gemm->beta == 0.0 ? 0 : (real)gemm->beta * before[n];
            row[n] = (real)gemm->alpha * sum + added;
        }
    }
}

static void ref_gemm(const struct gemm *gemm, bool round_operands)
{
    for (int64_t i = 0; i < gemm_count(gemm); i++) {
        struct gemm_slice slice;
        struct gemm product = gemm_slice(gemm, i, &slice);
        ref_product(&product, round_operands);
    }
}

/* One row of x, or one column, which is one element in every stride. */
static void ref_quantise_line(const struct quantised *quantised, int64_t line, const real *x,
                              int64_t stride)
{
    const int64_t count = quantised->values.shape[1];
    uint8_t *out = (uint8_t *)quantised->values.data + line * count;
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double size = fabs((double)x[i * stride]);
        if (size > largest || isnan(size)) largest = size;
    }
    double scale = quantised_scale(largest);
    for (int64_t i = 0; i < count; i++) out[i] = dtype_f64_to_f8((double)x[i * stride] / scale);
    ((real *)quantised->scale.data)[line] = (real)scale;
}

static void ref_quantise(const struct plx_tensor *x, const struct quantised *rows,
                         const struct quantised *columns)
{
    const int64_t M = x->shape[0], K = x->shape[1];
    const real *in = x->data;
    for (int64_t m = 0; m < M; m++) ref_quantise_line(rows, m, in + m * K, 1);
    for (int64_t k = 0; columns != NULL && k < K; k++) ref_quantise_line(columns, k, in + k, K);
}

/* ---- RMSNorm --------------------------------------------------------------------------------- */

static void ref_rmsnorm(const struct plx_tensor *y, const struct plx_tensor *rstd,
                        const struct plx_tensor *x, const struct plx_tensor *gain, double eps)
{
    int64_t E = gain->shape[0], rows = plx_tensor_count(rstd);
    const real *weight = gain->data;
    for (int64_t r = 0; r < rows; r++) {
        const real *in = (const real *)x->data + r * E;
        real *out = (real *)y->data + r * E;
        real squares = 0;
        for (int64_t e = 0; e < E; e++) squares += in[e] * in[e];
        real factor = 1 / (real)sqrt(squares / (real)E + (real)eps);
        ((real *)rstd->data)[r] = factor;
        for (int64_t e = 0; e < E; e++) out[e] = in[e] * factor * weight[e];
    }
}

/* With s = rstd, xhat = x s and y = xhat g:
 *     dg = sum over rows of dy xhat                  (accumulated)
 *     s depends on x through mean(x^2): ds/dx_e = -s^3 x_e / E, so
 *     dx_e = s dy_e g_e + (sum_f dy_f g_f x_f) ds/dx_e
 *          = s (dy_e g_e - xhat_e mean_f(dy_f g_f xhat_f)), to which the residual is added. */
static void ref_rmsnorm_backward(const struct plx_tensor *dx, const struct plx_tensor *dgain,
                                 const struct plx_tensor *dy, const struct plx_tensor *x,
                                 const struct plx_tensor *gain, const struct plx_tensor *rstd,
                                 const struct plx_tensor *residual)
{
    int64_t E = gain->shape[0], rows = plx_tensor_count(rstd);
    const real *weight = gain->data;
    real *weight_gradient = dgain->data;
    for (int64_t r = 0; r < rows; r++) {
        const real *in = (const real *)x->data + r * E, *up = (const real *)dy->data + r * E;
        real *out = (real *)dx->data + r * E;
        const real *straight = residual == NULL ? NULL : (const real *)residual->data + r * E;
        real factor = ((const real *)rstd->data)[r];
        real mean = 0;
        for (int64_t e = 0; e < E; e++) mean += up[e] * weight[e] * in[e] * factor;
        mean /= (real)E;
        for (int64_t e = 0; e < E; e++) {
            real normal = in[e] * factor;
            weight_gradient[e] += up[e] * normal;
            real gradient = factor * (up[e] * weight[e] - normal * mean);
            out[e] = straight == NULL ? gradient : straight[e] + gradient;
        }
    }
}

/* ---- Packed weights -------------------------------------------------------------------------- */

static real ref_packed(const struct packed *packed, int64_t row, int64_t column)
{
    int64_t index = row * packed->columns + column;
    if (packed->kind == PACKING_INT8)
        return (real)packed->scale[row] * (real)((const int8_t *)packed->data)[index];
    uint32_t bits = (uint32_t)((const uint16_t *)packed->data)[index] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (real)value;
}

static void ref_project(const struct plx_tensor *y, const struct plx_tensor *x,
                        const struct packed *weight, const struct plx_tensor *residual)
{
    int64_t M = x->shape[0], N = weight->rows, K = weight->columns;
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            real sum = 0;
            for (int64_t k = 0; k < K; k++)
                sum += ((const real *)x->data)[m * K + k] * ref_packed(weight, n, k);
            if (residual != NULL) sum += ((const real *)residual->data)[m * N + n];
            ((real *)y->data)[m * N + n] = sum;
        }
}

static void ref_unpack(const struct plx_tensor *y, const struct packed *table,
                       const struct plx_tensor *ids)
{
    int64_t N = ids->shape[0], E = table->columns;
    for (int64_t n = 0; n < N; n++)
        for (int64_t e = 0; e < E; e++)
            ((real *)y->data)[n * E + e] = ref_packed(table, ((const int32_t *)ids->data)[n], e);
}

/* ---- Biases ---------------------------------------------------------------------------------- */

static void ref_bias(const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *bias)
{
    int64_t N = x->shape[0], E = bias->shape[0];
    for (int64_t n = 0; n < N; n++)
        for (int64_t e = 0; e < E; e++)
            ((real *)y->data)[n * E + e] =
                ((const real *)x->data)[n * E + e] + ((const real *)bias->data)[e];
}

static void ref_bias_backward(const struct plx_tensor *dbias, const struct plx_tensor *dy)
{
    int64_t N = dy->shape[0], E = dbias->shape[0];
    for (int64_t n = 0; n < N; n++)
        for (int64_t e = 0; e < E; e++)
            ((real *)dbias->data)[e] += ((const real *)dy->data)[n * E + e];
}

/* ---- Rotary positions ------------------------------------------------------------------------ */

static void ref_rope(const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *positions, const struct rope *rope, bool inverse)
{
    int64_t N = x->shape[0], H = x->shape[1], D = x->shape[2];
    for (int64_t n = 0; n < N; n++) {
        double position = ((const int32_t *)positions->data)[n];
        for (int64_t i = 0; i < D / 2; i++) {
            double angle = position * rope_frequency(rope, i, D);
            real c = (real)cos(angle), s = (real)sin(inverse ? -angle : angle);
            for (int64_t h = 0; h < H; h++) {
                const real *in = (const real *)x->data + (n * H + h) * D;
                real *out = (real *)y->data + (n * H + h) * D;
                real first = in[i], second = in[i + D / 2];
                out[i] = first * c - second * s;
                out[i + D / 2] = second * c + first * s;
            }
        }
    }
}

/* ---- Gates ----------------------------------------------------------------------------------- */

static real ref_sigmoid(real x)
{
    return 1 / (1 + (real)exp(-x));
}

static void ref_swiglu(const struct plx_tensor *y, const struct plx_tensor *gate,
                       const struct plx_tensor *up)
{
    real *out = y->data;
    const real *g = gate->data, *u = up->data;
    int64_t count = plx_tensor_count(y);
    for (int64_t i = 0; i < count; i++) out[i] = g[i] * ref_sigmoid(g[i]) * u[i];
}

/* silu'(g) = s + g s (1 - s) with s = sigmoid(g). */
static void ref_swiglu_backward(const struct plx_tensor *dgate, const struct plx_tensor *dup,
                                const struct plx_tensor *product, const struct plx_tensor *dy,
                                const struct plx_tensor *gate, const struct plx_tensor *up)
{
    real *dg = dgate->data, *du = dup->data, *y = product->data;
    const real *d = dy->data, *g = gate->data, *u = up->data;
    int64_t count = plx_tensor_count(dy);
    for (int64_t i = 0; i < count; i++) {
        real s = ref_sigmoid(g[i]);
        du[i] = d[i] * g[i] * s;
        dg[i] = d[i] * u[i] * (s + g[i] * s * (1 - s));
        y[i] = g[i] * s * u[i];
    }
}

static void ref_gate(const struct plx_tensor *y, const struct plx_tensor *x,
                     const struct plx_tensor *z)
{
    int64_t rows = plx_tensor_count(z), D = x->shape[2];
    for (int64_t r = 0; r < rows; r++) {
        real s = ref_sigmoid(((const real *)z->data)[r]);
        for (int64_t d = 0; d < D; d++)
            ((real *)y->data)[r * D + d] = s * ((const real *)x->data)[r * D + d];
    }
}

static void ref_gate_backward(const struct plx_tensor *dx, const struct plx_tensor *dz,
                              const struct plx_tensor *dy, const struct plx_tensor *x,
                              const struct plx_tensor *z)
{
    int64_t rows = plx_tensor_count(z), D = x->shape[2];
    for (int64_t r = 0; r < rows; r++) {
        const real *in = (const real *)x->data + r * D, *up = (const real *)dy->data + r * D;
        real *out = (real *)dx->data + r * D;
        real s = ref_sigmoid(((const real *)z->data)[r]), dot = 0;
        for (int64_t d = 0; d < D; d++) {
            dot += up[d] * in[d];
            out[d] = s * up[d];
        }
        ((real *)dz->data)[r] = dot * s * (1 - s);
    }
}

/* ---- Embedding and loss ---------------------------------------------------------------------- */

static void ref_embed(const struct plx_tensor *y, const struct plx_tensor *table,
                      const struct plx_tensor *ids)
{
    int64_t N = ids->shape[0], E = table->shape[1];
    for (int64_t n = 0; n < N; n++) {
        int64_t id = ((const int32_t *)ids->data)[n];
        for (int64_t e = 0; e < E; e++)
            ((real *)y->data)[n * E + e] = ((const real *)table->data)[id * E + e];
    }
}

static void ref_embed_backward(const struct plx_tensor *dtable, const struct plx_tensor *dy,
                               const struct plx_tensor *ids)
{
    int64_t N = ids->shape[0], E = dtable->shape[1];
    for (int64_t n = 0; n < N; n++) {
        int64_t id = ((const int32_t *)ids->data)[n];
        for (int64_t e = 0; e < E; e++)
            ((real *)dtable->data)[id * E + e] += ((const real *)dy->data)[n * E + e];
    }
}

/* One scored row. The largest logit is subtracted so that no exponential overflows. The target's
 * logit is read first because dlogits may be the logits themselves. */
static double ref_cross_entropy_row(const real *logits, real *dlogits, int64_t V, int64_t target,
                                    double scale)
{
    double largest = logits[0], sum = 0.0, wanted = logits[target];
    for (int64_t v = 1; v < V; v++)
        if (logits[v] > largest) largest = logits[v];
    for (int64_t v = 0; v < V; v++) sum += exp(logits[v] - largest);
    if (dlogits != NULL)
        for (int64_t v = 0; v < V; v++)
            dlogits[v] = (real)(scale * (exp(logits[v] - largest) / sum - (v == target)));
    return log(sum) + largest - wanted;
}

static void ref_cross_entropy(const struct plx_tensor *losses, const struct plx_tensor *dlogits,
                              const struct plx_tensor *logits, const struct plx_tensor *targets,
                              double scale)
{
    int64_t N = logits->shape[0], V = logits->shape[1];
    for (int64_t n = 0; n < N; n++) {
        const real *row = (const real *)logits->data + n * V;
        real *gradient = dlogits->data == NULL ? NULL : (real *)dlogits->data + n * V;
        int64_t target = ((const int32_t *)targets->data)[n];
        real *loss = (real *)losses->data + n;
        if (target >= 0)
            *loss = (real)ref_cross_entropy_row(row, gradient, V, target, scale);
        else
            *loss = 0;
        if (target < 0 && gradient != NULL)
            for (int64_t v = 0; v < V; v++) gradient[v] = 0;
    }
}

static void ref_argmax(const struct plx_tensor *ids, const struct plx_tensor *x)
{
    int64_t N = x->shape[0], V = x->shape[1];
    int32_t *id = ids->data;
    for (int64_t n = 0; n < N; n++) {
        const real *row = (const real *)x->data + n * V;
        int64_t first = -1;
        for (int64_t v = 0; v < V; v++)
            if (!isnan(row[v]) && (first < 0 || row[v] > row[first])) first = v;
        id[n] = first < 0 ? 0 : (int32_t)first;
    }
}

/* ---- Optimiser updates ----------------------------------------------------------------------- */

/* Element i of a state, and what it becomes: rounded by the given bits where it is bf16. */
static real ref_moment(const struct plx_tensor *state, int64_t i)
{
    if (state->dtype != PLX_BF16) return ((const real *)state->data)[i];
    return (real)dtype_bf16_to_f32(((const uint16_t *)state->data)[i]);
}

static void ref_keep_moment(const struct plx_tensor *state, int64_t i, real value, uint32_t random)
{
    if (state->dtype == PLX_BF16)
        ((uint16_t *)state->data)[i] = rounding_bf16(float_bits((float)value), random);
    else
        ((real *)state->data)[i] = value;
}

static void ref_adamw(const struct adamw_update *update, const struct update_item *item)
{
    real *w = item->value->data;
    const real *g = item->grad->data;
    real factor = (real) * (const double *)update->factor->data;
    real beta1 = (real)update->beta1, beta2 = (real)update->beta2;
    const struct step_numbers *numbers = update->numbers->data;
    double rate = numbers->lr * item->lr, decay = numbers->weight_decay * item->weight_decay;
    real lr = (real)rate, keep = (real)(1.0 - rate * decay);
    const uint32_t key = rounding_key(numbers->step, item->number);
    int64_t count = plx_tensor_count(item->value);
    for (int64_t i = 0; i < count; i++) {
        real slope = factor * g[i];
        real m = beta1 * ref_moment(item->m, i) + (real)(1.0 - update->beta1) * slope;
        real v = beta2 * ref_moment(item->v, i) + (real)(1.0 - update->beta2) * slope * slope;
        const uint32_t random = rounding_word(key, (uint32_t)i);
        ref_keep_moment(item->m, i, m, random);
        ref_keep_moment(item->v, i, v, random >> 16);
        real mean = m / (real)numbers->bias1, root = (real)sqrt(v / (real)numbers->bias2);
        w[i] = keep * w[i] - lr * (mean / (root + (real)update->eps));
    }
}

static void ref_momentum(const struct muon_update *update, int index)
{
    const struct update_item *item = &update->items[index];
    int64_t count = plx_tensor_count(item->value);
    real *direction = (real *)update->directions->data + index * count;
    const real *gradient = item->grad->data;
    real factor = (real) * (const double *)update->factor->data;
    real keep = (real)update->momentum, take = (real)(update->ema ? 1.0 - update->momentum : 1.0);
    const struct step_numbers *numbers = update->numbers->data;
    const uint32_t key = rounding_key(numbers->step, item->number);
    for (int64_t i = 0; i < count; i++) {
        real slope = factor * gradient[i];
        real moment = keep * ref_moment(item->m, i) + take * slope;
        ref_keep_moment(item->m, i, moment, rounding_word(key, (uint32_t)i));
        direction[i] = update->nesterov ? take * slope + keep * moment : moment;
    }
}

static void ref_normalise(const struct plx_tensor *y, const struct plx_tensor *x, double factor,
                          double eps)
{
    int64_t size = x->shape[1] * x->shape[2];
    for (int64_t n = 0; n < x->shape[0]; n++) {
        const real *in = (const real *)x->data + n * size;
        real *out = (real *)y->data + n * size;
        double squares = 0.0;
        for (int64_t i = 0; i < size; i++) squares += (double)in[i] * (double)in[i];
        real rate = (real)(1.0 / (factor * sqrt(squares) + eps));
        for (int64_t i = 0; i < size; i++) out[i] = rate * in[i];
    }
}

static void ref_apply(const struct muon_update *update, int index)
{
    const struct update_item *item = &update->items[index];
    int64_t count = plx_tensor_count(item->value);
    real *weight = item->value->data;
    const real *direction = (const real *)update->directions->data + index * count;
    const struct step_numbers *numbers = update->numbers->data;
    double lr = numbers->lr * item->lr, decay = numbers->weight_decay * item->weight_decay;
    real keep = (real)(1.0 - lr * decay), rate = (real)(lr * update->scale);
    for (int64_t i = 0; i < count; i++) weight[i] = keep * weight[i] - rate * direction[i];
}

const struct ref_table REAL(ref_table) = {
    .add = ref_add,
    .sum = ref_sum,
    .sum_squares = ref_sum_squares,
    .gemm = ref_gemm,
    .quantise = ref_quantise,
    .rmsnorm = ref_rmsnorm,
    .rmsnorm_backward = ref_rmsnorm_backward,
    .project = ref_project,
    .unpack = ref_unpack,
    .bias = ref_bias,
    .bias_backward = ref_bias_backward,
    .rope = ref_rope,
    .swiglu = ref_swiglu,
    .swiglu_backward = ref_swiglu_backward,
    .gate = ref_gate,
    .gate_backward = ref_gate_backward,
    .embed = ref_embed,
    .embed_backward = ref_embed_backward,
    .cross_entropy = ref_cross_entropy,
    .argmax = ref_argmax,
    .penalise = REAL(draw_ref_penalise),
    .draw = REAL(draw_ref_draw),
    .adamw = ref_adamw,
    .momentum = ref_momentum,
    .normalise = ref_normalise,
    .apply = ref_apply,
};
