/* real.h: rows of tensors in a reference source, whose number type is `real` (core/number.h). Rows
 * of any floating-point dtype are read into arrays of real and written back from them; a store to a
 * narrower type is the only place that rounds. */
#ifndef PLX_REAL_H
#define PLX_REAL_H

#include <math.h>

#include "core/dtype.h"
#include "core/number.h"
#include "core/tensor.h"

static inline real real_exp(real x)
{
    return sizeof(real) == sizeof(double) ? (real)exp((double)x) : (real)expf((float)x);
}

static inline real real_log(real x)
{
    return sizeof(real) == sizeof(double) ? (real)log((double)x) : (real)logf((float)x);
}

/* Reads count neighbours of a view, from the given offset on. */
static inline void real_load(real *values, const struct plx_tensor *tensor, int64_t offset,
                             int64_t count)
{
    const void *data = tensor_at(tensor, offset);
    if (tensor->dtype == PLX_F32)
        for (int64_t n = 0; n < count; n++) values[n] = (real)((const float *)data)[n];
    else if (tensor->dtype == PLX_F64)
        for (int64_t n = 0; n < count; n++) values[n] = (real)((const double *)data)[n];
    else
        for (int64_t n = 0; n < count; n++) values[n] = (real)dtype_load(data, tensor->dtype, n);
}

static inline void real_store(const real *values, const struct plx_tensor *tensor, int64_t offset,
                              int64_t count)
{
    void *data = tensor_at(tensor, offset);
    for (int64_t n = 0; n < count; n++) dtype_store(data, tensor->dtype, n, (double)values[n]);
}

static inline real real_dot(const real *a, const real *b, int64_t count)
{
    real sum = 0;
    for (int64_t n = 0; n < count; n++) sum += a[n] * b[n];
    return sum;
}

/* y += a x */
static inline void real_add(real *y, real a, const real *x, int64_t count)
{
    for (int64_t n = 0; n < count; n++) y[n] += a * x[n];
}

static inline void real_zero(real *values, int64_t count)
{
    for (int64_t n = 0; n < count; n++) values[n] = 0;
}

#endif
