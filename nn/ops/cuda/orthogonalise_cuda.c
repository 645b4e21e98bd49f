/* orthogonalise_cuda.c: Newton-Schulz steps on the Gram matrix, on Hopper in bf16; everything else
 * by products.
 *
 * Several steps X <- Q X, Q = a + b P + c P^2 with P = X X', are one product with a matrix Z that
 * Gram-sized products make: P' = Q P Q is the next P, and Z' = Q Z. All of these commute and are
 * symmetric, so that half of each is computed (symmetric_sm90a.cu), where X and X X' of a wide
 * matrix cost several times as much. Rounding is what limits it: an error in P grows by a^2 a step.
 * So the steps are dealt out to stretches, each of which begins with P of a new X, and whose
 * lengths NOTES.md explains. Gram-sized matrices are f16, whose three more bits that needs; what
 * occurs lies within its range because the first X has length 1. X is bf16. It is never
 * normalised: the first P and the first Z are multiplied by what that would do.
 *
 * X goes from x to the other place and on to y. The number of stretches is even, so that y may
 * be x. */
#include "ops/check.h"
#include "ops/cuda/cuda_state.h"
#include "ops/cuda/gemm_library.h"
#include "ops/cuda/launch_update.h"
#include "ops/orthogonalise.h"

/* The first stretch takes three steps at most and the others two; an even number of them. */
static int stretches_of(int count)
{
    return 2 * ((count + 2) / 4);
}

/* Where stretch number i begins: the steps are dealt out evenly, more of them to earlier ones. */
static int stretch_begin(int i, int stretches, int count)
{
    return (i * count + stretches - 1) / stretches;
}

/* Scratch: Gram-sized matrices [n,m,m] with m = min(A,B), another X [n,A,B], scales f32 [n,2], the
 * partial sums behind them and the counters of the chains, one for each stretch. */
struct gram_work {
    struct plx_tensor gram, factor, product, other_product, other, scales, partials, written;
};

static struct gram_work work_carve(struct arena *arena, const struct orthogonalise *call)
{
    const struct plx_tensor *x = call->x;
    const int64_t n = x->shape[0], A = x->shape[1], B = x->shape[2], side = A < B ? A : B;
    const int64_t square[3] = {n, side, side}, pairs[2] = {n, 2};
    const int64_t partials[1] = {n * squares_partials(A * B)};
    const int64_t counters[2] = {stretches_of(call->count), n};
    return (struct gram_work){
        .gram = arena_tensor(arena, PLX_F16, 3, square),
        .factor = arena_tensor(arena, PLX_F16, 3, square),
        .product = arena_tensor(arena, PLX_F16, 3, square),
        .other_product = arena_tensor(arena, PLX_F16, 3, square),
        .other = arena_tensor(arena, PLX_BF16, 3, x->shape),
        .scales = arena_tensor(arena, PLX_F32, 2, pairs),
        .partials = arena_tensor(arena, PLX_F64, 1, partials),
        .written = arena_tensor(arena, PLX_I32, 2, counters),
    };
}

/* Whether the call is made this way, and not by products. */
static bool takes(const struct orthogonalise *call)
{
    const struct plx_tensor *x = call->x;
    return x->dtype == PLX_BF16 && call->count >= 2 &&
           symmetric_serves(x->shape[1], x->shape[2], x->data);
}

bool cuda_orthogonalise_scratch(const struct orthogonalise *call, size_t *first, size_t *second)
{
    struct arena measured = arena_measuring(&device_cuda);
    if (!takes(call)) return false;
    work_carve(&measured, call);
    *first = measured.peak;
    *second = GEMM_WORKSPACE;
    return true;
}

/* ---- A stretch of steps ---------------------------------------------------------------------- */

/* Matrices of a chain. The last two take turns in holding Z, the other one is spare. */
enum { X, GRAM, FACTOR, PRODUCT, OTHER_PRODUCT };

static bool is_tall(const struct plx_tensor *x)
{
    return x->shape[1] > x->shape[2];
}

static struct symmetric_matrix matrix_of(const struct plx_tensor *tensor)
{
    return (struct symmetric_matrix){tensor->data, tensor->shape[1], tensor->shape[2]};
}

static void add_product(struct symmetric_chain *chain, struct symmetric_product product)
{
    chain->product[chain->count++] = product;
}

/* c = left right of Gram-sized matrices. */
static struct symmetric_product product_of(int c, int left, int right)
{
    return (struct symmetric_product){
        .left = left, .right = right, .c = c, .half = true, .half_c = true, .alpha = 1.0f};
}

/* c = a + b P + c P^2. */
static struct symmetric_product factor_of(int c, const struct quintic *step)
{
    struct symmetric_product product = product_of(c, GRAM, GRAM);
    product.alpha = (float)step->c, product.beta = (float)step->b, product.gamma = (float)step->a;
    return product;
}

/* P of x, Z after so many steps, and all between; returns the matrix that has Z, in bf16 because it
 * is multiplied with X next. scales or NULL as launch_scales leaves them. */
static int make_chain(struct symmetric_chain *chain, const struct quintic *steps, int count,
                      bool tall, const float *scales)
{
    int z = PRODUCT, spare = OTHER_PRODUCT, factor = z;
    add_product(chain, (struct symmetric_product){.left = X,
                                                  .right = X,
                                                  .c = GRAM,
                                                  .tall = tall,
                                                  .half_c = true,
                                                  .alpha = 1.0f,
                                                  .scales = scales != NULL ? scales + 1 : NULL});
    add_product(chain, factor_of(z, &steps[0]));
    for (int i = 1; i < count; i++) {
        add_product(chain, product_of(spare, factor, GRAM));
        add_product(chain, product_of(GRAM, spare, factor));
        add_product(chain, factor_of(FACTOR, &steps[i]));
        add_product(chain, product_of(spare, FACTOR, z));
        const int old = z;
        z = spare, spare = old, factor = FACTOR;
    }
    struct symmetric_product *last = &chain->product[chain->count - 1];
    last->half_c = false;
    last->scales = scales;
    return z;
}

/* y = Z x, or x Z of tall x. */
static plx_status queue_apply(struct backend *be, const struct plx_tensor *z,
                              const struct plx_tensor *x, const struct plx_tensor *y)
{
    struct plx_tensor read = *z;
    read.dtype = PLX_BF16;
    const bool tall = is_tall(x);
    const struct gemm product = {
        .a = tall ? x : &read, .b = tall ? &read : x, .c = y, .alpha = 1.0};
    return cuda_gemm(be, &product);
}

static plx_status queue_stretch(struct backend *be, const struct gram_work *work,
                                const struct orthogonalise *call, int i)
{
    const int stretches = stretches_of(call->count);
    const int begin = stretch_begin(i, stretches, call->count);
    const int end = stretch_begin(i + 1, stretches, call->count);
    const struct plx_tensor *x = i == 0 ? call->x : i % 2 == 0 ? call->y : &work->other;
    const struct plx_tensor *y = i % 2 == 0 ? &work->other : call->y;
    struct symmetric_chain chain = {
        .matrix = {matrix_of(x), matrix_of(&work->gram), matrix_of(&work->factor),
                   matrix_of(&work->product), matrix_of(&work->other_product)},
        .matrices = x->shape[0],
        .side = work->gram.shape[1],
        .written = (uint32_t *)work->written.data + i * x->shape[0],
    };
    const int z = make_chain(&chain, call->steps + begin, end - begin, is_tall(x),
                             i == 0 ? work->scales.data : NULL);
    TRY(cuda_launched(be, "orthogonalise", launch_symmetric(be->stream, &chain)));
    return queue_apply(be, z == PRODUCT ? &work->product : &work->other_product, x, y);
}

/* ---- The operation --------------------------------------------------------------------------- */

static plx_status queue_stretches(struct backend *be, const struct orthogonalise *call,
                                  const struct gram_work *work)
{
    const struct plx_tensor *x = call->x;
    const int stretches = stretches_of(call->count);
    TRY(cuda_launched(be, "orthogonalise",
                      launch_scales(be->stream, x->dtype, work->scales.data, x->data, x->shape[0],
                                    x->shape[1] * x->shape[2], call->factor, call->eps,
                                    work->partials.data, work->written.data, stretches)));
    for (int i = 0; i < stretches; i++) TRY(queue_stretch(be, work, call, i));
    return PLX_OK;
}

plx_status cuda_orthogonalise(struct backend *be, const struct orthogonalise *call)
{
    TRY(check_orthogonalise(be, call));
    if (!takes(call)) return orthogonalise_by_products(be, call);
    size_t mark = arena_mark(&be->scratch);
    const struct gram_work work = work_carve(&be->scratch, call);
    const bool room = !arena_overflowed(&be->scratch);
    plx_status status = room ? queue_stretches(be, call, &work) : PLX_OK;
    arena_release(&be->scratch, mark);
    REQUIRE(be->err, room, PLX_INTERNAL, "orthogonalise: %zu bytes of scratch are too few",
            be->scratch.capacity);
    return status;
}
