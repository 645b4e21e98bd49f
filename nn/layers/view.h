/* view.h: other shapes of the same dense memory.
 *
 * Layers keep activations in the shape that reads best ([N,H,D] for heads) and hand operations the
 * shape that these want ([N, H D] to a matrix product, [N H, D] to a norm, [1,N,H,D] to attention).
 * Nothing is copied. All work on tensors without data too, because a dry run measures memory with
 * exactly such tensors. */
#ifndef NN_VIEW_H
#define NN_VIEW_H

#include "parallax/parallax.h"

/* A dense tensor in another shape of as many elements. */
static inline struct plx_tensor view_shaped(const struct plx_tensor *tensor, int rank,
                                            const int64_t *shape)
{
    struct plx_tensor view = plx_tensor_dense(tensor->data, tensor->dtype, rank, shape);
    view.device = tensor->device;
    return view;
}

/* A dense tensor as [rows, columns]; rows > 0 must divide its count. */
static inline struct plx_tensor view_matrix(const struct plx_tensor *tensor, int64_t rows)
{
    int64_t shape[2] = {rows, plx_tensor_count(tensor) / rows};
    return view_shaped(tensor, 2, shape);
}

/* A dense tensor as [batch, time, heads, channels]; the product must be its count. */
static inline struct plx_tensor view_4d(const struct plx_tensor *tensor, int64_t batch,
                                        int64_t time, int64_t heads, int64_t channels)
{
    return view_shaped(tensor, 4, (int64_t[]){batch, time, heads, channels});
}

/* Entries first .. first + count - 1 along the first axis of a dense tensor. */
static inline struct plx_tensor view_rows(const struct plx_tensor *tensor, int64_t first,
                                          int64_t count)
{
    struct plx_tensor rows = *tensor;
    rows.shape[0] = count;
    if (rows.data != NULL)
        rows.data =
            (char *)rows.data + (size_t)(first * tensor->stride[0]) * plx_dtype_size(tensor->dtype);
    return rows;
}

#endif
