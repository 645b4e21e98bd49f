/* rows.h: the inner loops of ops_cpu, as one table per instruction set.
 *
 * Everything here is single-threaded and works on contiguous floats; ops_cpu's operations cut their
 * tensors into blocks, share the blocks among threads, and call these. All tables come from one
 * source, rows_body.h, compiled with the flags of each instruction set. Sizes may be anything, zero
 * included; no alignment is needed and none changes a result. Arguments mean what op.h says of the
 * operation. */
#ifndef NN_OPS_ROWS_H
#define NN_OPS_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a momentum update multiplies by. */
struct rows_momentum {
    float factor; /* of the gradient */
    float keep, take;
    bool nesterov;
};

/* What an AdamW update multiplies by, with the bias corrections already inside. */
struct rows_adamw {
    float factor;       /* of the gradient */
    float beta1, rest1; /* beta and 1 - beta */
    float beta2, rest2;
    float keep; /* 1 - lr * weight_decay */
    float rate; /* lr / (1 - beta1^step) */
    float root; /* 1 / sqrt(1 - beta2^step) */
    float eps;
};

/* How states in bf16 are rounded (rounding.h): the key, and the number of the first element. */
struct rows_rounding {
    uint32_t key, first;
};

struct rows {
    const char *name;

    /* y may be a or b. */
    void (*add)(float *y, const float *a, const float *b, int64_t count);
    void (*scale)(float *y, const float *x, float factor, int64_t count); /* y may be x */
    double (*sum_squares)(const float *x, int64_t count);
    void (*adamw)(float *w, float *m, float *v, const float *g, const struct rows_adamw *update,
                  int64_t count);
    void (*adamw_bf16)(float *w, uint16_t *m, uint16_t *v, const float *g,
                       const struct rows_adamw *update, const struct rows_rounding *rounding,
                       int64_t count);
    void (*momentum)(float *u, float *m, const float *g, const struct rows_momentum *update,
                     int64_t count);
    void (*momentum_bf16)(float *u, uint16_t *m, const float *g, const struct rows_momentum *update,
                          const struct rows_rounding *rounding, int64_t count);
    void (*apply)(float *w, const float *u, float decay, float rate, int64_t count);

    /* rows x E. */
    void (*rmsnorm)(float *y, float *rstd, const float *x, const float *gain, int64_t rows,
                    int64_t E, double eps);
    /* partial [E] is overwritten with these rows' share of the gain's gradient. residual may
     * be NULL; dx may be residual or dy. */
    void (*rmsnorm_backward)(float *dx, double *partial, const float *dy, const float *x,
                             const float *gain, const float *rstd, const float *residual,
                             int64_t rows, int64_t E);
    /* partial [E] is overwritten with the sum of these rows. */
    void (*sum_rows)(double *partial, const float *x, int64_t rows, int64_t E);
    /* y[e] += the sum of partials[b,e] over b. */
    void (*add_partials)(float *y, const double *partials, int64_t blocks, int64_t E);

    /* y[r] = the product of row r of w [rows,K], packed, with x [K]; sums in float. */
    void (*dots_bf16)(float *y, const uint16_t *w, const float *x, int64_t rows, int64_t K);
    void (*dots_int8)(float *y, const int8_t *w, const float *scale, const void *x, int64_t rows,
                      int64_t K);
    /* What dots_int8 takes as x, made of x [K] once for all rows: x itself, or what is put into
     * room, which has int8_room(K) bytes, a multiple of 64, and begins at one. */
    size_t (*int8_room)(int64_t K);
    const void *(*int8_ready)(const float *x, int64_t K, void *room);

    /* One token: heads x D, turned by position * frequency[pair]; y may be x. */
    void (*rope)(float *y, const float *x, double position, const double *frequency, int64_t heads,
                 int64_t D);

    void (*swiglu)(float *y, const float *gate, const float *up, int64_t count);
    /* product may be dy. */
    void (*swiglu_backward)(float *dgate, float *dup, float *product, const float *dy,
                            const float *gate, const float *up, int64_t count);
    /* rows x D, one gate a row. */
    void (*gate)(float *y, const float *x, const float *z, int64_t rows, int64_t D);
    void (*gate_backward)(float *dx, float *dz, const float *dy, const float *x, const float *z,
                          int64_t rows, int64_t D);

    /* The loss of one scored row; dlogits may be NULL or logits. */
    float (*cross_entropy)(float *dlogits, const float *logits, int64_t V, int64_t target,
                           double scale);
    /* The largest of logits, or NaN where one of them is not finite; and their weights (draw.h). */
    float (*top_logit)(const float *logits, int64_t V);
    void (*draw_weights)(uint64_t *weights, const float *logits, float largest, double rate,
                         int64_t count);
};

extern const struct rows rows_portable, rows_avx512, rows_vnni;

#endif
