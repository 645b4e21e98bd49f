/* compare.c: see compare.h. */
#include "compare.h"

#include <math.h>
#include <stdio.h>

static bool agree(double got, double reference)
{
    if (isnan(reference)) return isnan(got);
    if (isinf(reference)) return got == reference;
    return isfinite(got);
}

struct comparison compare_values(const double *got, const double *reference, int64_t count)
{
    struct comparison c = {.anomaly = -1, .worst = -1};
    double error = 0, xx = 0, xr = 0, rr = 0;
    for (int64_t n = 0; n < count; n++) {
        double x = got[n], r = reference[n];
        if (!agree(x, r) && c.anomaly < 0) c.anomaly = n;
        if (!isfinite(x) || !isfinite(r)) continue;
        double difference = fabs(x - r);
        if (c.worst < 0 || difference > c.max_abs) {
            c.max_abs = difference;
            c.worst = n;
        }
        c.largest = fmax(c.largest, fabs(r));
        error += difference * difference;
        xx += x * x;
        xr += x * r;
        rr += r * r;
    }
    c.rms = count > 0 ? sqrt(error / (double)count) : 0;
    c.reference_rms = count > 0 ? sqrt(rr / (double)count) : 0;
    c.rms_ratio = rr > 0 ? sqrt(error / rr) : sqrt(error);
    c.cosine_distance = xx > 0 && rr > 0 ? 1 - xr / (sqrt(xx) * sqrt(rr)) : (double)(xx != rr);
    return c;
}

double compare_unit(plx_dtype storage)
{
    if (storage == PLX_BF16) return 0x1p-7;
    if (storage == PLX_F16) return 0x1p-10;
    return storage == PLX_F32 ? 4 * 0x1p-23 : 4 * 0x1p-52;
}

double compare_limit(const struct comparison *naive, plx_dtype storage,
                     const struct term_size *terms)
{
    double floor = compare_unit(storage) * naive->largest;
    if (terms) floor += compare_unit(PLX_F32) * terms->largest;
    return 2 * naive->max_abs + floor;
}

bool compare_within(const struct comparison *kernel, const struct comparison *naive,
                    plx_dtype storage, const struct term_size *terms)
{
    double rms_floor = compare_unit(storage) * naive->reference_rms;
    if (terms) rms_floor += compare_unit(PLX_F32) * terms->rms;
    return kernel->anomaly < 0 && kernel->max_abs <= compare_limit(naive, storage, terms) &&
           kernel->rms <= 2 * naive->rms + rms_floor;
}

void compare_describe(char *text, size_t size, const struct comparison *comparison,
                      const double *got, const double *reference, int rank, const int64_t *shape)
{
    int64_t place = comparison->anomaly >= 0 ? comparison->anomaly : comparison->worst;
    if (place < 0) {
        snprintf(text, size, "nothing to compare");
        return;
    }
    int64_t at[PLX_MAX_RANK] = {0}, rest = place;
    for (int axis = rank - 1; axis >= 0; axis--) {
        at[axis] = rest % shape[axis];
        rest /= shape[axis];
    }
    int used = snprintf(text, size, "[");
    for (int axis = 0; axis < rank; axis++)
        used += snprintf(text + used, size - (size_t)used, axis ? ",%lld" : "%lld",
                         (long long)at[axis]);
    snprintf(text + used, size - (size_t)used,
             "] is %.9g but must be %.9g; max abs %.3g, rms ratio %.3g, cosine distance %.3g",
             got[place], reference[place], comparison->max_abs, comparison->rms_ratio,
             comparison->cosine_distance);
}
