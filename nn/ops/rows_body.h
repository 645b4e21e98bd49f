/* rows_body.h: the one source of the tables of rows.h.
 *
 * rows_portable.c, rows_avx512.c and rows_vnni.c include it, each with its own ROWS_TABLE (the
 * symbol) and ROWS_NAME, and differ in compiler flags only. Loops are written for the vectoriser:
 * no branches, no calls but the inline functions below, and `omp simd` where a sum may be split
 * over vector lanes (always in the same way, so results repeat bit for bit) or where the compiler
 * cannot see that an output equals an input exactly or not at all. */
#include "core/dtype.h"
#include "ops/draw.h"
#include "ops/rounding.h"
#include "ops/rows.h"

#include <math.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "ops/rows_packed_body.h"

/* ---- Elementary functions -------------------------------------------------------------------- */

/* exp(x) = 2^n e^r with n = round(x / ln 2), so |r| <= ln(2) / 2, where seven terms of the power
 * series leave 6e-9. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the
 * sum. ln 2 is subtracted in two parts; the first has 15 bits, so that n times it is exact. Below
 * the smallest normal float the result is 0, above 2^127.5 infinity, and NaN stays NaN. At most 1
 * ulp off elsewhere. */
static inline float rows_exp(float x)
{
    const float shift = 0x1.8p23f;
    float shifted = x * 0x1.715476p+0f + shift;
    float n = shifted - shift;
    float r = x - n * 0x1.62e4p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    float sum = 1.0f / 5040.0f;
    sum = sum * r + 1.0f / 720.0f;
    sum = sum * r + 1.0f / 120.0f;
    sum = sum * r + 1.0f / 24.0f;
    sum = sum * r + 1.0f / 6.0f;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    float power = bits_float((float_bits(shifted) << 23) + 0x3f800000u);
    uint32_t below = 0u - (uint32_t)(x < -87.336f), above = 0u - (uint32_t)(x > 88.376f);
    uint32_t bits = float_bits(sum * power) & ~(below | above);
    return bits_float(bits | (above & 0x7f800000u));
}

static inline float rows_sigmoid(float x)
{
    return 1.0f / (1.0f + rows_exp(-x));
}

/* Cosine and sine of an angle, both correct to about 1e-10 for |angle| up to 2^31. The angle is
 * reduced by the nearest multiple k of pi/2, subtracted in three parts of which the first two have
 * 33 bits or fewer; k mod 4 then says which of the two series is which, and their signs. */
static inline void rows_cos_sin(double angle, float *cosine, float *sine)
{
    const double shift = 0x1.8p52;
    double shifted = angle * 0x1.45f306dc9c883p-1 + shift;
    uint64_t quadrant = double_bits(shifted);
    double k = shifted - shift;
    double r = angle - k * 0x1.921fb544p+0;
    r = r - k * 0x1.0b4611a6p-34;
    r = r - k * 0x1.3198a2e037073p-69;
    double z = r * r;
    double s = -1.0 / 39916800.0;
    s = s * z + 1.0 / 362880.0;
    s = s * z - 1.0 / 5040.0;
    s = s * z + 1.0 / 120.0;
    s = s * z - 1.0 / 6.0;
    s = r + r * z * s;
    double c = 1.0 / 479001600.0;
    c = c * z - 1.0 / 3628800.0;
    c = c * z + 1.0 / 40320.0;
    c = c * z - 1.0 / 720.0;
    c = c * z + 1.0 / 24.0;
    c = c * z - 0.5;
    c = c * z + 1.0;
    uint64_t swapped = (uint64_t)0 - (quadrant & 1), s_bits = double_bits(s);
    uint64_t c_bits = double_bits(c);
    uint64_t x = (s_bits & swapped) | (c_bits & ~swapped), x_sign = ((quadrant + 1) & 2) << 62;
    uint64_t y = (c_bits & swapped) | (s_bits & ~swapped), y_sign = (quadrant & 2) << 62;
    *cosine = (float)bits_double(x ^ x_sign);
    *sine = (float)bits_double(y ^ y_sign);
}

/* ---- Vectors --------------------------------------------------------------------------------- */

static void rows_add(float *y, const float *a, const float *b, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = a[i] + b[i];
}

static void rows_scale(float *y, const float *x, float factor, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = factor * x[i];
}

static double rows_sum_squares(const float *x, int64_t count)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

static void rows_adamw(float *restrict w, float *restrict m, float *restrict v,
                       const float *restrict g, const struct rows_adamw *update, int64_t count)
{
    const struct rows_adamw u = *update;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float slope = u.factor * g[i];
        float mean = u.beta1 * m[i] + u.rest1 * slope;
        float square = u.beta2 * v[i] + u.rest2 * slope * slope;
        m[i] = mean;
        v[i] = square;
        w[i] = u.keep * w[i] - u.rate * (mean / (sqrtf(square) * u.root + u.eps));
    }
}

static void rows_adamw_bf16(float *restrict w, uint16_t *restrict m, uint16_t *restrict v,
                            const float *restrict g, const struct rows_adamw *update,
                            const struct rows_rounding *rounding, int64_t count)
{
    const struct rows_adamw u = *update;
    const struct rows_rounding at = *rounding;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float slope = u.factor * g[i];
        float mean = u.beta1 * dtype_bf16_to_f32(m[i]) + u.rest1 * slope;
        float square = u.beta2 * dtype_bf16_to_f32(v[i]) + u.rest2 * slope * slope;
        uint32_t random = rounding_word(at.key, at.first + (uint32_t)i);
        m[i] = rounding_bf16(float_bits(mean), random);
        v[i] = rounding_bf16(float_bits(square), random >> 16);
        w[i] = u.keep * w[i] - u.rate * (mean / (sqrtf(square) * u.root + u.eps));
    }
}

static void rows_momentum(float *restrict u, float *restrict m, const float *restrict g,
                          const struct rows_momentum *update, int64_t count)
{
    const float factor = update->factor, keep = update->keep, take = update->take;
    if (update->nesterov) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float slope = factor * g[i];
            float moment = keep * m[i] + take * slope;
            m[i] = moment;
            u[i] = take * slope + keep * moment;
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float moment = keep * m[i] + take * (factor * g[i]);
        m[i] = moment;
        u[i] = moment;
    }
}

static void rows_momentum_bf16(float *restrict u, uint16_t *restrict m, const float *restrict g,
                               const struct rows_momentum *update,
                               const struct rows_rounding *rounding, int64_t count)
{
    const float factor = update->factor, keep = update->keep, take = update->take;
    const struct rows_rounding at = *rounding;
    const bool nesterov = update->nesterov;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float slope = factor * g[i];
        float moment = keep * dtype_bf16_to_f32(m[i]) + take * slope;
        m[i] = rounding_bf16(float_bits(moment), rounding_word(at.key, at.first + (uint32_t)i));
        u[i] = nesterov ? take * slope + keep * moment : moment;
    }
}

static void rows_apply(float *restrict w, const float *restrict u, float decay, float rate,
                       int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) w[i] = decay * w[i] - rate * u[i];
}

/* All sums are in double. It costs a third of operations that are a few percent of a step, and an
 * error in a row's one factor would be an error of the whole row. */

/* ---- RMSNorm --------------------------------------------------------------------------------- */

static void rows_rmsnorm(float *restrict y, float *restrict rstd, const float *restrict x,
                         const float *restrict gain, int64_t rows, int64_t E, double eps)
{
    for (int64_t r = 0; r < rows; r++, x += E, y += E) {
        double squares = rows_sum_squares(x, E);
        float factor = (float)(1.0 / sqrt(squares / (double)E + eps));
        rstd[r] = factor;
#pragma omp simd
        for (int64_t e = 0; e < E; e++) y[e] = x[e] * factor * gain[e];
    }
}

/* dx = rstd (dy g - xhat mean(dy g xhat)) with xhat = x rstd; derived in ops_ref.c. */
static void rows_rmsnorm_backward(float *dx, double *restrict partial, const float *dy,
                                  const float *restrict x, const float *restrict gain,
                                  const float *restrict rstd, const float *residual, int64_t rows,
                                  int64_t E)
{
    memset(partial, 0, (size_t)E * sizeof *partial);
    for (int64_t r = 0; r < rows; r++, x += E, dy += E, dx += E) {
        float factor = rstd[r];
        double dot = 0.0;
#pragma omp simd reduction(+ : dot)
        for (int64_t e = 0; e < E; e++) dot += (double)(dy[e] * gain[e]) * (double)x[e];
        float mean = (float)(dot * (double)factor / (double)E);
#pragma omp simd
        for (int64_t e = 0; e < E; e++) {
            float normal = x[e] * factor, gradient = factor * (dy[e] * gain[e] - normal * mean);
            partial[e] += (double)(dy[e] * normal);
            dx[e] = residual != NULL ? residual[r * E + e] + gradient : gradient;
        }
    }
}

static void rows_sum_rows(double *restrict partial, const float *restrict x, int64_t rows,
                          int64_t E)
{
    for (int64_t e = 0; e < E; e++) partial[e] = 0.0;
    for (int64_t r = 0; r < rows; r++, x += E) {
#pragma omp simd
        for (int64_t e = 0; e < E; e++) partial[e] += (double)x[e];
    }
}

static void rows_add_partials(float *restrict y, const double *restrict partials, int64_t blocks,
                              int64_t E)
{
    enum { CHUNK = 64 };
    for (int64_t start = 0; start < E; start += CHUNK) {
        int64_t width = E - start < CHUNK ? E - start : CHUNK;
        double sums[CHUNK] = {0.0};
        for (int64_t b = 0; b < blocks; b++) {
            const double *partial = partials + b * E + start;
#pragma omp simd
            for (int64_t e = 0; e < width; e++) sums[e] += partial[e];
        }
        for (int64_t e = 0; e < width; e++) y[start + e] = (float)((double)y[start + e] + sums[e]);
    }
}

/* ---- Rotary positions ------------------------------------------------------------------------ */

static void rows_rope(float *y, const float *x, double position, const double *restrict frequency,
                      int64_t heads, int64_t D)
{
    enum { CHUNK = 64 };
    float cosine[CHUNK], sine[CHUNK];
    int64_t half = D / 2;
    for (int64_t start = 0; start < half; start += CHUNK) {
        int64_t width = half - start < CHUNK ? half - start : CHUNK;
#pragma omp simd
        for (int64_t i = 0; i < width; i++)
            rows_cos_sin(position * frequency[start + i], &cosine[i], &sine[i]);
        for (int64_t h = 0; h < heads; h++) {
            const float *in = x + h * D + start;
            float *out = y + h * D + start;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                float first = in[i], second = in[i + half];
                out[i] = first * cosine[i] - second * sine[i];
                out[i + half] = second * cosine[i] + first * sine[i];
            }
        }
    }
}

/* ---- Gates ----------------------------------------------------------------------------------- */

static void rows_swiglu(float *restrict y, const float *restrict gate, const float *restrict up,
                        int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = gate[i] * rows_sigmoid(gate[i]) * up[i];
}

static void rows_swiglu_backward(float *restrict dgate, float *restrict dup, float *product,
                                 const float *dy, const float *restrict gate,
                                 const float *restrict up, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float g = gate[i], u = up[i], d = dy[i], s = rows_sigmoid(g);
        dup[i] = d * g * s;
        dgate[i] = d * u * (s + g * s * (1.0f - s));
        product[i] = g * s * u;
    }
}

static void rows_gate(float *restrict y, const float *restrict x, const float *restrict z,
                      int64_t rows, int64_t D)
{
    for (int64_t r = 0; r < rows; r++, x += D, y += D) {
        float s = rows_sigmoid(z[r]);
#pragma omp simd
        for (int64_t d = 0; d < D; d++) y[d] = s * x[d];
    }
}

static void rows_gate_backward(float *restrict dx, float *restrict dz, const float *restrict dy,
                               const float *restrict x, const float *restrict z, int64_t rows,
                               int64_t D)
{
    for (int64_t r = 0; r < rows; r++, x += D, dy += D, dx += D) {
        float s = rows_sigmoid(z[r]);
        double dot = 0.0;
#pragma omp simd reduction(+ : dot)
        for (int64_t d = 0; d < D; d++) {
            dot += (double)dy[d] * (double)x[d];
            dx[d] = s * dy[d];
        }
        dz[r] = (float)dot * s * (1.0f - s);
    }
}

/* ---- Loss ------------------------------------------------------------------------------------ */

/* The exponentials wait in dlogits until their sum is known. The target's own gradient is taken in
 * double: where the model is sure of it, p - 1 loses every digit in float. */
static float rows_cross_entropy(float *dlogits, const float *logits, int64_t V, int64_t target,
                                double scale)
{
    float largest = logits[0], wanted = logits[target];
#pragma omp simd reduction(max : largest)
    for (int64_t v = 1; v < V; v++) largest = logits[v] > largest ? logits[v] : largest;
    double sum = 0.0;
    if (dlogits == NULL) {
#pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < V; v++) sum += (double)rows_exp(logits[v] - largest);
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < V; v++) {
            float power = rows_exp(logits[v] - largest);
            dlogits[v] = power;
            sum += (double)power;
        }
        float factor = (float)(scale / sum);
#pragma omp simd
        for (int64_t v = 0; v < V; v++) dlogits[v] *= factor;
        double rest = exp((double)wanted - (double)largest) / sum - 1.0;
        dlogits[target] = (float)(scale * rest);
    }
    return (float)(log(sum) + (double)largest - (double)wanted);
}

/* ---- Draws ----------------------------------------------------------------------------------- */

static float rows_top_logit(const float *logits, int64_t V)
{
    float largest = logits[0], odd = 0.0f; /* becomes NaN where a number is not finite */
#pragma omp simd reduction(max : largest) reduction(+ : odd)
    for (int64_t v = 0; v < V; v++) {
        largest = logits[v] > largest ? logits[v] : largest;
        odd += logits[v] - logits[v];
    }
    return largest + odd;
}

static void rows_draw_weights(uint64_t *restrict weights, const float *restrict logits,
                              float largest, double rate, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) weights[i] = draw_weight(logits[i], largest, rate);
}

const struct rows ROWS_TABLE = {
    .name = ROWS_NAME,
    .add = rows_add,
    .scale = rows_scale,
    .sum_squares = rows_sum_squares,
    .adamw = rows_adamw,
    .adamw_bf16 = rows_adamw_bf16,
    .momentum = rows_momentum,
    .momentum_bf16 = rows_momentum_bf16,
    .apply = rows_apply,
    .rmsnorm = rows_rmsnorm,
    .rmsnorm_backward = rows_rmsnorm_backward,
    .sum_rows = rows_sum_rows,
    .add_partials = rows_add_partials,
    .dots_bf16 = rows_dots_bf16,
    .dots_int8 = rows_dots_int8,
    .int8_room = rows_int8_room,
    .int8_ready = rows_int8_ready,
    .rope = rows_rope,
    .swiglu = rows_swiglu,
    .swiglu_backward = rows_swiglu_backward,
    .gate = rows_gate,
    .gate_backward = rows_gate_backward,
    .cross_entropy = rows_cross_entropy,
    .top_logit = rows_top_logit,
    .draw_weights = rows_draw_weights,
};
