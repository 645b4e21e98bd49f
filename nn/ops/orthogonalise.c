/* orthogonalise.c: Newton-Schulz steps as products: P = X X', Q = b P + c P^2, X <- a X + Q X.
 *
 * For tall X the small Gram matrix is P = X' X and the product X Q, which is the same step
 * transposed, without moving anything. The products follow the backend's compute dtype; X and P
 * have its activation dtype. */
#include "ops/orthogonalise.h"

#include "ops/check.h"

/* Scratch of a step: Gram-sized matrices [n,m,m] with m = min(A,B), and another X [n,A,B]. */
struct products {
    struct plx_tensor gram, poly, other;
};

/* y = a x + (b P + c P^2) x, or its transpose for tall x. */
static plx_status step_of(struct backend *be, const struct quintic *step,
                          const struct products *work, const struct plx_tensor *x,
                          const struct plx_tensor *y)
{
    bool tall = x->shape[1] > x->shape[2];
    const struct gemm gram = {
        .a = x, .b = x, .c = &work->gram, .transpose_a = tall, .transpose_b = !tall, .alpha = 1.0};
    const struct gemm square = {.a = &work->gram,
                                .b = &work->gram,
                                .c = &work->poly,
                                .alpha = step->c,
                                .beta = step->b,
                                .add = &work->gram};
    const struct gemm product = {.a = tall ? x : &work->poly,
                                 .b = tall ? &work->poly : x,
                                 .c = y,
                                 .alpha = 1.0,
                                 .beta = step->a,
                                 .add = x};
    TRY(be->ops->gemm(be, &gram));
    TRY(be->ops->gemm(be, &square));
    return be->ops->gemm(be, &product);
}

/* X goes to and fro between y and the other, beginning where it will end in y. */
static plx_status all_steps(struct backend *be, const struct orthogonalise *call,
                            const struct products *work)
{
    const struct plx_tensor *const places[2] = {call->y, &work->other};
    TRY(be->ops->normalise(be, places[call->count % 2], call->x, call->factor, call->eps));
    for (int i = 0; i < call->count; i++) {
        int left = call->count - i;
        TRY(step_of(be, &call->steps[i], work, places[left % 2], places[(left - 1) % 2]));
    }
    return PLX_OK;
}

plx_status orthogonalise_by_products(struct backend *be, const struct orthogonalise *call)
{
    TRY(check_orthogonalise(be, call));
    const struct plx_tensor *x = call->x;
    size_t mark = arena_mark(&be->scratch);
    int64_t side = x->shape[1] < x->shape[2] ? x->shape[1] : x->shape[2];
    int64_t square[3] = {x->shape[0], side, side};
    const struct products work = {
        .gram = arena_tensor(&be->scratch, x->dtype, 3, square),
        .poly = arena_tensor(&be->scratch, x->dtype, 3, square),
        .other = arena_tensor(&be->scratch, x->dtype, 3, x->shape),
    };
    plx_status status = all_steps(be, call, &work);
    arena_release(&be->scratch, mark);
    return status;
}
