/* gemm_slice.h: products of rank 3 as one product of rank 2 after another, for tables that have no
 * batched ones. */
#ifndef NN_OPS_GEMM_SLICE_H
#define NN_OPS_GEMM_SLICE_H

#include "op.h"

/* A product with the views that it points to; it must stay where it was made. */
struct gemm_slice {
    struct plx_tensor a, b, c, add;
};

static inline int64_t gemm_count(const struct gemm *gemm)
{
    return gemm->c->rank == 3 ? gemm->c->shape[0] : 1;
}

static inline struct plx_tensor gemm_matrix(const struct plx_tensor *tensor, int64_t index)
{
    struct plx_tensor matrix = *tensor;
    if (tensor->rank == 2) return matrix;
    size_t offset = (size_t)(index * tensor->stride[0]) * plx_dtype_size(tensor->dtype);
    matrix.rank = 2;
    matrix.data = tensor->data != NULL ? (char *)tensor->data + offset : NULL;
    for (int axis = 0; axis < 2; axis++) {
        matrix.shape[axis] = tensor->shape[axis + 1];
        matrix.stride[axis] = tensor->stride[axis + 1];
    }
    return matrix;
}

/* The index-th product; its views are in slice. */
static inline struct gemm gemm_slice(const struct gemm *gemm, int64_t index,
                                     struct gemm_slice *slice)
{
    struct gemm product = *gemm;
    slice->a = gemm_matrix(gemm->a, index);
    slice->b = gemm_matrix(gemm->b, index);
    slice->c = gemm_matrix(gemm->c, index);
    product.a = &slice->a;
    product.b = &slice->b;
    product.c = &slice->c;
    if (gemm->add == NULL) return product;
    slice->add = gemm_matrix(gemm->add, index);
    product.add = &slice->add;
    return product;
}

#endif
