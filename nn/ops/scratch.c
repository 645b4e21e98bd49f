/* scratch.c: what operations need from be->scratch; see scratch.h. */
#include "ops/scratch.h"

/* One partial row of double a block of rows. */
size_t scratch_row_partials(const struct plx_tensor *x)
{
    int64_t E = x->shape[x->rank - 1];
    int64_t rows = E > 0 ? plx_tensor_count(x) / E : 0;
    int64_t blocks = (rows + SCRATCH_PARTIAL_ROWS - 1) / SCRATCH_PARTIAL_ROWS;
    return (size_t)(blocks * E) * sizeof(double);
}

/* The frequency of every channel pair. */
size_t scratch_rope(const struct plx_tensor *x)
{
    return (size_t)(x->shape[2] / 2) * sizeof(double);
}

plx_status scratch_push(struct backend *be, const char *op, size_t bytes, void **block)
{
    *block = NULL;
    if (bytes == 0) return PLX_OK;
    size_t mark = arena_mark(&be->scratch);
    *block = arena_push(&be->scratch, bytes);
    bool pushed = *block != NULL || arena_is_measuring(&be->scratch);
    REQUIRE(be->err, pushed, PLX_INTERNAL,
            "%s: needs %zu bytes of scratch, but %zu of %zu are in use", op, bytes, mark,
            be->scratch.capacity);
    return PLX_OK;
}
