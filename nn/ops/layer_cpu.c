/* layer_cpu.c: ops_cpu's operations on rows: norms, rotary positions, gates, embedding, loss.
 *
 * Tokens are shared among threads. The two gradients that sum over tokens are kept in a fixed
 * order: a gain's is summed per block of SCRATCH_PARTIAL_ROWS rows and then over blocks; the
 * embedding's is cut by columns, each of which one thread adds in the order of the tokens. */
#include "ops/check.h"
#include "ops/cpu_state.h"
#include "ops/scratch.h"

#include <math.h>
#include <string.h>

/* Rows a thread takes at a time where rows are independent. */
enum { LAYER_ROWS = 16 };

static int64_t layer_blocks(int64_t rows, int64_t block)
{
    return (rows + block - 1) / block;
}

static int64_t layer_length(int64_t rows, int64_t index, int64_t block)
{
    int64_t left = rows - index * block;
    return left < block ? left : block;
}

plx_status cpu_rmsnorm(struct backend *be, const struct plx_tensor *y,
                       const struct plx_tensor *rstd, const struct plx_tensor *x,
                       const struct plx_tensor *gain, double eps)
{
    TRY(check_rmsnorm(be, y, rstd, x, gain));
    const struct rows *rows = cpu_rows(be);
    int64_t E = gain->shape[0], R = plx_tensor_count(rstd);
    float *out = y->data, *saved = rstd->data;
    const float *in = x->data, *weight = gain->data;
#pragma omp parallel for num_threads(cpu_threads(be, R *E)) schedule(static)
    for (int64_t b = 0; b < layer_blocks(R, LAYER_ROWS); b++) {
        int64_t r = b * LAYER_ROWS;
        rows->rmsnorm(out + r * E, saved + r, in + r * E, weight, layer_length(R, b, LAYER_ROWS), E,
                      eps);
    }
    return PLX_OK;
}

plx_status cpu_rmsnorm_backward(struct backend *be, const struct plx_tensor *dx,
                                const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                const struct plx_tensor *x, const struct plx_tensor *gain,
                                const struct plx_tensor *rstd, const struct plx_tensor *residual)
{
    TRY(check_rmsnorm_backward(be, dx, dgain, dy, x, gain, rstd, residual));
    size_t mark = arena_mark(&be->scratch);
    void *block;
    plx_status status = scratch_push(be, "rmsnorm_backward", scratch_row_partials(x), &block);
    if (status == PLX_OK) {
        const struct rows *rows = cpu_rows(be);
        int64_t E = gain->shape[0], R = plx_tensor_count(rstd);
        int64_t blocks = layer_blocks(R, SCRATCH_PARTIAL_ROWS);
        double *partials = block;
        float *out = dx->data;
        const float *up = dy->data, *in = x->data, *weight = gain->data, *saved = rstd->data,
                    *straight = residual != NULL ? residual->data : NULL;
#pragma omp parallel for num_threads(cpu_threads(be, R *E)) schedule(static)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t r = b * SCRATCH_PARTIAL_ROWS;
            rows->rmsnorm_backward(out + r * E, partials + b * E, up + r * E, in + r * E, weight,
                                   saved + r, straight != NULL ? straight + r * E : NULL,
                                   layer_length(R, b, SCRATCH_PARTIAL_ROWS), E);
        }
        rows->add_partials(dgain->data, partials, blocks, E);
    }
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cpu_bias(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                    const struct plx_tensor *bias)
{
    TRY(check_bias(be, y, x, bias));
    const struct rows *rows = cpu_rows(be);
    int64_t N = x->shape[0], E = bias->shape[0];
    float *out = y->data;
    const float *in = x->data, *shift = bias->data;
#pragma omp parallel for num_threads(cpu_threads(be, N *E)) schedule(static)
    for (int64_t n = 0; n < N; n++) rows->add(out + n * E, in + n * E, shift, E);
    return PLX_OK;
}

plx_status cpu_bias_backward(struct backend *be, const struct plx_tensor *dbias,
                             const struct plx_tensor *dy)
{
    TRY(check_bias_backward(be, dbias, dy));
    size_t mark = arena_mark(&be->scratch);
    void *block;
    plx_status status = scratch_push(be, "bias_backward", scratch_row_partials(dy), &block);
    if (status == PLX_OK) {
        const struct rows *rows = cpu_rows(be);
        int64_t N = dy->shape[0], E = dbias->shape[0];
        int64_t blocks = layer_blocks(N, SCRATCH_PARTIAL_ROWS);
        double *partials = block;
        const float *up = dy->data;
#pragma omp parallel for num_threads(cpu_threads(be, N *E)) schedule(static)
        for (int64_t b = 0; b < blocks; b++)
            rows->sum_rows(partials + b * E, up + b * SCRATCH_PARTIAL_ROWS * E,
                           layer_length(N, b, SCRATCH_PARTIAL_ROWS), E);
        rows->add_partials(dbias->data, partials, blocks, E);
    }
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cpu_rope(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                    const struct plx_tensor *positions, const struct rope *rope, bool inverse)
{
    TRY(check_rope(be, y, x, positions));
    size_t mark = arena_mark(&be->scratch);
    void *block;
    plx_status status = scratch_push(be, "rope", scratch_rope(x), &block);
    if (status == PLX_OK) {
        const struct rows *rows = cpu_rows(be);
        int64_t N = x->shape[0], H = x->shape[1], D = x->shape[2];
        double *frequency = block, sign = inverse ? -1.0 : 1.0;
        float *out = y->data;
        const float *in = x->data;
        const int32_t *position = positions->data;
        for (int64_t i = 0; i < D / 2; i++) frequency[i] = rope_frequency(rope, i, D);
#pragma omp parallel for num_threads(cpu_threads(be, N *H *D)) schedule(static)
        for (int64_t n = 0; n < N; n++)
            rows->rope(out + n * H * D, in + n * H * D, sign * position[n], frequency, H, D);
    }
    arena_release(&be->scratch, mark);
    return status;
}

plx_status cpu_norm_rope(struct backend *be, const struct norm_rope *call)
{
    for (int i = 0; i < call->count; i++) {
        const struct turned_heads *heads = &call->heads[i];
        TRY(cpu_rmsnorm(be, heads->y, heads->rstd, heads->x, heads->gain, call->eps));
        TRY(cpu_rope(be, heads->y, heads->y, call->positions, call->rope, false));
    }
    return PLX_OK;
}

plx_status cpu_norm_rope_backward(struct backend *be, const struct plx_tensor *dx,
                                  const struct plx_tensor *dgain, const struct plx_tensor *dy,
                                  const struct plx_tensor *x, const struct plx_tensor *gain,
                                  const struct plx_tensor *rstd, const struct plx_tensor *positions,
                                  const struct rope *rope)
{
    TRY(cpu_rope(be, dx, dy, positions, rope, true));
    return cpu_rmsnorm_backward(be, dx, dgain, dx, x, gain, rstd, NULL);
}

plx_status cpu_swiglu(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *gate,
                      const struct plx_tensor *up)
{
    TRY(check_swiglu(be, y, gate, up));
    enum { BLOCK = 8192 };
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(y);
    float *out = y->data;
    const float *g = gate->data, *u = up->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t b = 0; b < layer_blocks(count, BLOCK); b++) {
        int64_t at = b * BLOCK;
        rows->swiglu(out + at, g + at, u + at, layer_length(count, b, BLOCK));
    }
    return PLX_OK;
}

plx_status cpu_swiglu_backward(struct backend *be, const struct plx_tensor *dgate,
                               const struct plx_tensor *dup, const struct plx_tensor *product,
                               const struct plx_tensor *dy, const struct plx_tensor *gate,
                               const struct plx_tensor *up)
{
    TRY(check_swiglu_backward(be, dgate, dup, product, dy, gate, up));
    enum { BLOCK = 8192 };
    const struct rows *rows = cpu_rows(be);
    int64_t count = plx_tensor_count(dy);
    float *dg = dgate->data, *du = dup->data, *y = product->data;
    const float *d = dy->data, *g = gate->data, *u = up->data;
#pragma omp parallel for num_threads(cpu_threads(be, count)) schedule(static)
    for (int64_t b = 0; b < layer_blocks(count, BLOCK); b++) {
        int64_t at = b * BLOCK;
        rows->swiglu_backward(dg + at, du + at, y + at, d + at, g + at, u + at,
                              layer_length(count, b, BLOCK));
    }
    return PLX_OK;
}

plx_status cpu_gate(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *x,
                    const struct plx_tensor *z)
{
    TRY(check_gate(be, y, x, z));
    const struct rows *rows = cpu_rows(be);
    int64_t R = plx_tensor_count(z), D = x->shape[2];
    float *out = y->data;
    const float *in = x->data, *logit = z->data;
#pragma omp parallel for num_threads(cpu_threads(be, R *D)) schedule(static)
    for (int64_t b = 0; b < layer_blocks(R, LAYER_ROWS); b++) {
        int64_t r = b * LAYER_ROWS;
        rows->gate(out + r * D, in + r * D, logit + r, layer_length(R, b, LAYER_ROWS), D);
    }
    return PLX_OK;
}

plx_status cpu_gate_backward(struct backend *be, const struct plx_tensor *dx,
                             const struct plx_tensor *dz, const struct plx_tensor *dy,
                             const struct plx_tensor *x, const struct plx_tensor *z)
{
    TRY(check_gate_backward(be, dx, dz, dy, x, z));
    const struct rows *rows = cpu_rows(be);
    int64_t R = plx_tensor_count(z), D = x->shape[2];
    float *out = dx->data, *dlogit = dz->data;
    const float *up = dy->data, *in = x->data, *logit = z->data;
#pragma omp parallel for num_threads(cpu_threads(be, R *D)) schedule(static)
    for (int64_t b = 0; b < layer_blocks(R, LAYER_ROWS); b++) {
        int64_t r = b * LAYER_ROWS;
        rows->gate_backward(out + r * D, dlogit + r, up + r * D, in + r * D, logit + r,
                            layer_length(R, b, LAYER_ROWS), D);
    }
    return PLX_OK;
}

plx_status cpu_embed(struct backend *be, const struct plx_tensor *y, const struct plx_tensor *table,
                     const struct plx_tensor *ids)
{
    TRY(check_embed(be, "embed", y, table, be->activation, ids));
    TRY(check_ids(be, "embed", ids, table->shape[0], false));
    int64_t N = plx_tensor_count(ids), E = table->shape[1];
    float *out = y->data;
    const float *rows = table->data;
    const int32_t *id = ids->data;
#pragma omp parallel for num_threads(cpu_threads(be, N *E)) schedule(static)
    for (int64_t n = 0; n < N; n++) memcpy(out + n * E, rows + id[n] * E, (size_t)E * sizeof *out);
    return PLX_OK;
}

plx_status cpu_embed_backward(struct backend *be, const struct plx_tensor *dtable,
                              const struct plx_tensor *dy, const struct plx_tensor *ids)
{
    enum { COLUMNS = 64 };
    TRY(check_embed(be, "embed_backward", dy, dtable, be->storage, ids));
    TRY(check_ids(be, "embed_backward", ids, dtable->shape[0], false));
    const struct rows *rows = cpu_rows(be);
    int64_t N = plx_tensor_count(ids), E = dtable->shape[1];
    float *gradient = dtable->data;
    const float *up = dy->data;
    const int32_t *id = ids->data;
#pragma omp parallel for num_threads(cpu_threads(be, N *E)) schedule(static)
    for (int64_t b = 0; b < layer_blocks(E, COLUMNS); b++) {
        int64_t width = layer_length(E, b, COLUMNS);
        for (int64_t n = 0; n < N; n++) {
            float *row = gradient + id[n] * E + b * COLUMNS;
            rows->add(row, row, up + n * E + b * COLUMNS, width);
        }
    }
    return PLX_OK;
}

plx_status cpu_cross_entropy(struct backend *be, const struct plx_tensor *losses,
                             const struct plx_tensor *dlogits, const struct plx_tensor *logits,
                             const struct plx_tensor *targets, const struct plx_tensor *scale)
{
    TRY(check_cross_entropy(be, losses, dlogits, logits, targets, scale));
    TRY(check_ids(be, "cross_entropy", targets, logits->shape[1], true));
    const struct rows *rows = cpu_rows(be);
    int64_t N = logits->shape[0], V = logits->shape[1];
    float *loss = losses->data, *gradients = dlogits->data;
    const float *in = logits->data;
    const int32_t *target = targets->data;
    const double factor = gradients != NULL ? *(const double *)scale->data : 0.0;
#pragma omp parallel for num_threads(cpu_threads(be, N *V)) schedule(static)
    for (int64_t n = 0; n < N; n++) {
        float *gradient = gradients == NULL ? NULL : gradients + n * V;
        if (target[n] >= 0)
            loss[n] = rows->cross_entropy(gradient, in + n * V, V, target[n], factor);
        else
            loss[n] = 0.0f;
        if (target[n] < 0 && gradient != NULL) memset(gradient, 0, (size_t)V * sizeof *gradient);
    }
    return PLX_OK;
}

plx_status cpu_argmax(struct backend *be, const struct plx_tensor *ids, const struct plx_tensor *x)
{
    TRY(check_argmax(be, ids, x));
    int64_t N = x->shape[0], V = x->shape[1];
    int32_t *id = ids->data;
    const float *in = x->data;
#pragma omp parallel for num_threads(cpu_threads(be, N *V)) schedule(static)
    for (int64_t n = 0; n < N; n++) {
        const float *row = in + n * V;
        float largest = -INFINITY; /* NaN is larger than nothing */
        int64_t first = 0;
#pragma omp simd reduction(max : largest)
        for (int64_t v = 0; v < V; v++) largest = row[v] > largest ? row[v] : largest;
        while (first < V && row[first] != largest) first++;
        id[n] = first < V ? (int32_t)first : 0;
    }
    return PLX_OK;
}
