/* quantise_cuda.c: rounding of ops_cuda to 8-bit operands of products: checks, scratch, then
 * launches. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/scratch.h"

/* The largest magnitudes of rows and columns; rows alone keep theirs in registers. */
size_t cuda_quantise_scratch(const struct plx_tensor *x, const struct quantised *columns)
{
    if (columns == NULL || plx_tensor_count(x) == 0) return 0;
    return (size_t)(x->shape[0] + x->shape[1]) * sizeof(uint32_t);
}

static plx_status quantise_both(struct backend *be, const struct plx_tensor *x,
                                const struct quantised *rows, const struct quantised *columns,
                                void *largest)
{
    const struct quantise_both call = {.rows = rows->values.data,
                                       .columns = columns->values.data,
                                       .row_scale = rows->scale.data,
                                       .column_scale = columns->scale.data,
                                       .x = x->data,
                                       .M = x->shape[0],
                                       .K = x->shape[1],
                                       .largest = largest};
    TRY(be->device->fill(largest, 0, cuda_quantise_scratch(x, columns), be->stream, be->err));
    return cuda_launched(be, "quantise", launch_quantise_both(be->stream, x->dtype, &call));
}

plx_status cuda_quantise(struct backend *be, const struct plx_tensor *x,
                         const struct quantised *rows, const struct quantised *columns)
{
    TRY(check_quantise(be, x, rows, columns));
    if (plx_tensor_count(x) == 0) return PLX_OK;
    if (columns == NULL)
        return cuda_launched(be, "quantise",
                             launch_quantise_rows(be->stream, x->dtype, rows->values.data,
                                                  rows->scale.data, x->data, x->shape[0],
                                                  x->shape[1]));
    const size_t mark = arena_mark(&be->scratch);
    void *largest;
    plx_status status = scratch_push(be, "quantise", cuda_quantise_scratch(x, columns), &largest);
    if (status == PLX_OK) status = quantise_both(be, x, rows, columns, largest);
    arena_release(&be->scratch, mark);
    return status;
}
