/* test_ops_gradcheck.c: every forward and backward pair of ops_ref in double, by finite
 * differences.
 *
 * A case says how an operation maps up to four inputs to one output, and how it maps the output's
 * gradient back. The harness draws inputs and an output gradient w, and compares every coordinate
 * of every input gradient with the central difference of sum(w * output). Gradients that op.h says
 * are overwritten start as NaN, those that are accumulated start at random values, which must be
 * what is left beyond the derivative. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guarded.h"
#include "op.h"
#include "seeded.h"

enum { INPUTS = 4, SAVED = 3 };

struct shape {
    int rank;
    int64_t extent[PLX_MAX_RANK];
};

struct probe {
    struct test_tensor in[INPUTS], din[INPUTS], saved[SAVED], out, dout;
};

struct gradient_case {
    const char *name;
    int inputs, saved;
    struct shape in[INPUTS], saves[SAVED], out;
    plx_status (*forward)(struct backend *be, const struct probe *p);
    plx_status (*backward)(struct backend *be, const struct probe *p);
    bool accumulated[INPUTS]; /* which input gradients are added to */
    double same_dout;         /* not 0: every element of the output's gradient */
};

static struct test_options options;

/* ---- Operations ------------------------------------------------------------------------------ */

static plx_status multiply(struct backend *be, const struct test_tensor *c,
                           const struct test_tensor *a, bool transpose_a,
                           const struct test_tensor *b, bool transpose_b, double beta)
{
    struct gemm gemm = {.a = &a->view,
                        .b = &b->view,
                        .c = &c->view,
                        .transpose_a = transpose_a,
                        .transpose_b = transpose_b,
                        .alpha = 0.7,
                        .beta = beta};
    return be->ops->gemm(be, &gemm);
}

static plx_status product_forward(struct backend *be, const struct probe *p)
{
    return multiply(be, &p->out, &p->in[0], false, &p->in[1], false, 0.0);
}

static plx_status product_backward(struct backend *be, const struct probe *p)
{
    TRY(multiply(be, &p->din[0], &p->dout, false, &p->in[1], true, 0.0));
    return multiply(be, &p->din[1], &p->in[0], true, &p->dout, false, 1.0);
}

static plx_status linear_forward(struct backend *be, const struct probe *p)
{
    return multiply(be, &p->out, &p->in[0], false, &p->in[1], true, 0.0);
}

static plx_status linear_backward(struct backend *be, const struct probe *p)
{
    TRY(multiply(be, &p->din[0], &p->dout, false, &p->in[1], false, 0.0));
    return multiply(be, &p->din[1], &p->dout, true, &p->in[0], false, 1.0);
}

static plx_status both_transposed_forward(struct backend *be, const struct probe *p)
{
    return multiply(be, &p->out, &p->in[0], true, &p->in[1], true, 0.0);
}

static plx_status both_transposed_backward(struct backend *be, const struct probe *p)
{
    TRY(multiply(be, &p->din[0], &p->in[1], true, &p->dout, true, 0.0));
    return multiply(be, &p->din[1], &p->dout, true, &p->in[0], true, 0.0);
}

static plx_status rmsnorm_forward(struct backend *be, const struct probe *p)
{
    return be->ops->rmsnorm(be, &p->out.view, &p->saved[0].view, &p->in[0].view, &p->in[1].view,
                            1e-3);
}

static plx_status rmsnorm_backward(struct backend *be, const struct probe *p)
{
    return be->ops->rmsnorm_backward(be, &p->din[0].view, &p->din[1].view, &p->dout.view,
                                     &p->in[0].view, &p->in[1].view, &p->saved[0].view, NULL);
}

/* out = x + rmsnorm(x) gain: the gradient that goes straight to x is the output's. */
static plx_status residual_forward(struct backend *be, const struct probe *p)
{
    TRY(rmsnorm_forward(be, p));
    return be->ops->add(be, &p->out.view, &p->in[0].view, &p->out.view);
}

static plx_status residual_backward(struct backend *be, const struct probe *p)
{
    TRY(be->ops->copy(be, &p->din[0].view, &p->dout.view));
    return be->ops->rmsnorm_backward(be, &p->din[0].view, &p->din[1].view, &p->dout.view,
                                     &p->in[0].view, &p->in[1].view, &p->saved[0].view,
                                     &p->din[0].view);
}

static struct plx_tensor integers(const int32_t *values, int64_t count)
{
    return plx_tensor_dense((void *)values, PLX_I32, 1, &count);
}

static const int32_t positions[] = {0, 3, 1, 250, 7};
static const struct rope rope = {.theta = 1e4};

static plx_status bias_forward(struct backend *be, const struct probe *p)
{
    return be->ops->bias(be, &p->out.view, &p->in[0].view, &p->in[1].view);
}

static plx_status bias_backward(struct backend *be, const struct probe *p)
{
    TRY(be->ops->copy(be, &p->din[0].view, &p->dout.view));
    return be->ops->bias_backward(be, &p->din[1].view, &p->dout.view);
}

static plx_status rope_forward(struct backend *be, const struct probe *p)
{
    struct plx_tensor at = integers(positions, 5);
    return be->ops->rope(be, &p->out.view, &p->in[0].view, &at, &rope, false);
}

static plx_status rope_backward(struct backend *be, const struct probe *p)
{
    struct plx_tensor at = integers(positions, 5);
    return be->ops->rope(be, &p->din[0].view, &p->dout.view, &at, &rope, true);
}

static plx_status norm_rope_forward(struct backend *be, const struct probe *p)
{
    struct plx_tensor at = integers(positions, 5);
    const struct turned_heads heads = {&p->out.view, &p->saved[0].view, &p->in[0].view,
                                       &p->in[1].view};
    return be->ops->norm_rope(be, &(struct norm_rope){&heads, 1, 1e-3, &at, &rope});
}

static plx_status norm_rope_backward(struct backend *be, const struct probe *p)
{
    struct plx_tensor at = integers(positions, 5);
    return be->ops->norm_rope_backward(be, &p->din[0].view, &p->din[1].view, &p->dout.view,
                                       &p->in[0].view, &p->in[1].view, &p->saved[0].view, &at,
                                       &rope);
}

static plx_status swiglu_forward(struct backend *be, const struct probe *p)
{
    return be->ops->swiglu(be, &p->out.view, &p->in[0].view, &p->in[1].view);
}

static plx_status swiglu_backward(struct backend *be, const struct probe *p)
{
    return be->ops->swiglu_backward(be, &p->din[0].view, &p->din[1].view, &p->out.view,
                                    &p->dout.view, &p->in[0].view, &p->in[1].view);
}

static plx_status gate_forward(struct backend *be, const struct probe *p)
{
    return be->ops->gate(be, &p->out.view, &p->in[0].view, &p->in[1].view);
}

static plx_status gate_backward(struct backend *be, const struct probe *p)
{
    return be->ops->gate_backward(be, &p->din[0].view, &p->din[1].view, &p->dout.view,
                                  &p->in[0].view, &p->in[1].view);
}

static const int32_t ids[] = {4, 0, 4, 2, 6};

static plx_status embed_forward(struct backend *be, const struct probe *p)
{
    struct plx_tensor at = integers(ids, 5);
    return be->ops->embed(be, &p->out.view, &p->in[0].view, &at);
}

static plx_status embed_backward(struct backend *be, const struct probe *p)
{
    struct plx_tensor at = integers(ids, 5);
    return be->ops->embed_backward(be, &p->din[0].view, &p->dout.view, &at);
}

/* One row is not scored. */
static const int32_t targets[] = {4, 0, -1, 2, 6};

static plx_status loss_forward(struct backend *be, const struct probe *p)
{
    struct plx_tensor at = integers(targets, 5), absent = {0};
    return be->ops->cross_entropy(be, &p->out.view, &absent, &p->in[0].view, &at, NULL);
}

static plx_status loss_backward(struct backend *be, const struct probe *p)
{
    double factor = 0.37;
    struct plx_tensor at = integers(targets, 5),
                      scale = plx_tensor_dense(&factor, PLX_F64, 1, (int64_t[]){1});
    return be->ops->cross_entropy(be, &p->saved[0].view, &p->din[0].view, &p->in[0].view, &at,
                                  &scale);
}

/* Two packed sequences of 3 and 4 tokens, 4 query heads over 2 key heads. */
static const int32_t offsets[] = {0, 3, 7};

static plx_status attention_pass(struct backend *be, const struct probe *p, plx_mechanism mechanism,
                                 bool backward)
{
    bool probe = mechanism == PLX_PARALLAX;
    struct plx_attention attention = {.causal = true, .q_offsets = integers(offsets, 3)};
    struct plx_parallax_args args = {.q = p->in[0].view,
                                     .k = p->in[1].view,
                                     .v = p->in[2].view,
                                     .o = p->out.view,
                                     .lse = p->saved[0].view};
    if (probe) {
        args.r = p->in[3].view;
        args.probe_mean = p->saved[1].view;
        args.value_mean = p->saved[2].view;
    }
    struct attend attend = {.mechanism = mechanism, .attention = &attention, .args = &args};
    if (!backward) return be->ops->attend_forward(be, &attend);
    args.d_o = p->dout.view;
    args.dq = p->din[0].view;
    args.dk = p->din[1].view;
    args.dv = p->din[2].view;
    if (probe) args.dr = p->din[3].view;
    return be->ops->attend_backward(be, &attend);
}

static plx_status softmax_forward(struct backend *be, const struct probe *p)
{
    return attention_pass(be, p, PLX_SOFTMAX, false);
}

static plx_status softmax_backward(struct backend *be, const struct probe *p)
{
    return attention_pass(be, p, PLX_SOFTMAX, true);
}

static plx_status parallax_forward(struct backend *be, const struct probe *p)
{
    return attention_pass(be, p, PLX_PARALLAX, false);
}

static plx_status parallax_backward(struct backend *be, const struct probe *p)
{
    return attention_pass(be, p, PLX_PARALLAX, true);
}

static const struct gradient_case cases[] = {
    {.name = "gemm/NN",
     .inputs = 2,
     .in = {{2, {3, 5}}, {2, {5, 4}}},
     .out = {2, {3, 4}},
     .forward = product_forward,
     .backward = product_backward,
     .accumulated = {false, true}},
    {.name = "gemm/NT",
     .inputs = 2,
     .in = {{2, {3, 5}}, {2, {4, 5}}},
     .out = {2, {3, 4}},
     .forward = linear_forward,
     .backward = linear_backward,
     .accumulated = {false, true}},
    {.name = "gemm/TT",
     .inputs = 2,
     .in = {{2, {5, 3}}, {2, {4, 5}}},
     .out = {2, {3, 4}},
     .forward = both_transposed_forward,
     .backward = both_transposed_backward},
    {.name = "rmsnorm",
     .inputs = 2,
     .saved = 1,
     .in = {{2, {6, 7}}, {1, {7}}},
     .saves = {{1, {6}}},
     .out = {2, {6, 7}},
     .forward = rmsnorm_forward,
     .backward = rmsnorm_backward,
     .accumulated = {false, true}},
    {.name = "rmsnorm/residual",
     .inputs = 2,
     .saved = 1,
     .in = {{2, {6, 7}}, {1, {7}}},
     .saves = {{1, {6}}},
     .out = {2, {6, 7}},
     .forward = residual_forward,
     .backward = residual_backward,
     .accumulated = {false, true}},
    {.name = "bias",
     .inputs = 2,
     .in = {{2, {5, 7}}, {1, {7}}},
     .out = {2, {5, 7}},
     .forward = bias_forward,
     .backward = bias_backward,
     .accumulated = {false, true}},
    {.name = "rope",
     .inputs = 1,
     .in = {{3, {5, 2, 6}}},
     .out = {3, {5, 2, 6}},
     .forward = rope_forward,
     .backward = rope_backward},
    {.name = "norm_rope",
     .inputs = 2,
     .saved = 1,
     .in = {{3, {5, 2, 6}}, {1, {6}}},
     .saves = {{1, {10}}},
     .out = {3, {5, 2, 6}},
     .forward = norm_rope_forward,
     .backward = norm_rope_backward,
     .accumulated = {false, true}},
    {.name = "swiglu",
     .inputs = 2,
     .in = {{2, {5, 7}}, {2, {5, 7}}},
     .out = {2, {5, 7}},
     .forward = swiglu_forward,
     .backward = swiglu_backward},
    {.name = "gate",
     .inputs = 2,
     .in = {{3, {5, 2, 6}}, {2, {5, 2}}},
     .out = {3, {5, 2, 6}},
     .forward = gate_forward,
     .backward = gate_backward},
    {.name = "embed",
     .inputs = 1,
     .in = {{2, {7, 3}}},
     .out = {2, {5, 3}},
     .forward = embed_forward,
     .backward = embed_backward,
     .accumulated = {true}},
    {.name = "cross_entropy",
     .inputs = 1,
     .saved = 1,
     .in = {{2, {5, 7}}},
     .saves = {{1, {5}}},
     .out = {1, {5}},
     .forward = loss_forward,
     .backward = loss_backward,
     .same_dout = 0.37},
    {.name = "attend/softmax",
     .inputs = 3,
     .saved = 1,
     .in = {{4, {1, 7, 4, 5}}, {4, {1, 7, 2, 5}}, {4, {1, 7, 2, 5}}},
     .saves = {{3, {1, 7, 4}}},
     .out = {4, {1, 7, 4, 5}},
     .forward = softmax_forward,
     .backward = softmax_backward},
    {.name = "attend/parallax",
     .inputs = 4,
     .saved = 3,
     .in = {{4, {1, 7, 4, 5}}, {4, {1, 7, 2, 5}}, {4, {1, 7, 2, 5}}, {4, {1, 7, 4, 5}}},
     .saves = {{3, {1, 7, 4}}, {3, {1, 7, 4}}, {4, {1, 7, 4, 5}}},
     .out = {4, {1, 7, 4, 5}},
     .forward = parallax_forward,
     .backward = parallax_backward},
};

/* ---- The harness ----------------------------------------------------------------------------- */

static struct test_tensor make(struct shape shape)
{
    return test_tensor_create(PLX_F64, VIEW_DENSE, shape.rank, shape.extent);
}

static void fill_normal(struct test_tensor *tensor, struct seeded *random)
{
    double *data = tensor->view.data;
    for (int64_t i = 0; i < plx_tensor_count(&tensor->view); i++) data[i] = seeded_normal(random);
}

static struct probe probe_create(const struct gradient_case *c, struct seeded *random)
{
    struct probe p = {.out = make(c->out), .dout = make(c->out)};
    for (int n = 0; n < c->saved; n++) p.saved[n] = make(c->saves[n]);
    for (int n = 0; n < c->inputs; n++) {
        p.in[n] = make(c->in[n]);
        p.din[n] = make(c->in[n]);
        fill_normal(&p.in[n], random);
        if (c->accumulated[n]) fill_normal(&p.din[n], random);
    }
    fill_normal(&p.dout, random);
    double *dout = p.dout.view.data;
    for (int64_t i = 0; c->same_dout != 0 && i < plx_tensor_count(&p.dout.view); i++)
        dout[i] = c->same_dout;
    return p;
}

static void probe_destroy(const struct gradient_case *c, struct probe *p)
{
    for (int n = 0; n < c->inputs; n++) {
        assert_true(test_tensor_intact(&p->in[n]) && test_tensor_intact(&p->din[n]));
        test_tensor_destroy(&p->in[n]);
        test_tensor_destroy(&p->din[n]);
    }
    for (int n = 0; n < c->saved; n++) test_tensor_destroy(&p->saved[n]);
    test_tensor_destroy(&p->out);
    test_tensor_destroy(&p->dout);
}

static void must(struct backend *be, plx_status status)
{
    if (status != PLX_OK) fail_msg("%s: %s", plx_status_name(status), be->err->text);
}

static double objective(struct backend *be, const struct gradient_case *c, const struct probe *p)
{
    must(be, c->forward(be, p));
    const double *out = p->out.view.data, *weight = p->dout.view.data;
    double sum = 0;
    for (int64_t i = 0; i < plx_tensor_count(&p->out.view); i++) sum += out[i] * weight[i];
    return sum;
}

/* Largest disagreement over one input, relative to the largest derivative. */
static double input_error(struct backend *be, const struct gradient_case *c, struct probe *p, int n,
                          const double *before)
{
    const double h = 1e-5;
    double *x = p->in[n].view.data, worst = 0, largest = 0;
    const double *gradient = p->din[n].view.data;
    for (int64_t i = 0; i < plx_tensor_count(&p->in[n].view); i++) {
        double kept = x[i];
        x[i] = kept + h;
        double above = objective(be, c, p);
        x[i] = kept - h;
        double below = objective(be, c, p);
        x[i] = kept;
        double numeric = (above - below) / (2 * h);
        double analytic = gradient[i] - (c->accumulated[n] ? before[i] : 0);
        worst = isnan(analytic) ? INFINITY : fmax(worst, fabs(numeric - analytic));
        largest = fmax(largest, fabs(numeric));
    }
    assert_true(largest > 0);
    return worst / largest;
}

static void check_case(struct backend *be, const struct gradient_case *c, uint64_t stream)
{
    struct seeded random = seeded_make(options.seed, stream);
    struct probe p = probe_create(c, &random);
    double *before[INPUTS] = {NULL};
    for (int n = 0; n < c->inputs; n++) {
        size_t bytes = (size_t)plx_tensor_count(&p.in[n].view) * sizeof(double);
        before[n] = malloc(bytes);
        assert_non_null(before[n]);
        memcpy(before[n], p.din[n].view.data, bytes);
    }
    must(be, c->forward(be, &p));
    must(be, c->backward(be, &p));
    for (int n = 0; n < c->inputs; n++) {
        double error = input_error(be, c, &p, n, before[n]);
        free(before[n]);
        if (!(error < 1e-6))
            fail_msg("%s: gradient of input %d is off by %.3g of its largest element; repeat with "
                     "--only %s --seed %llu",
                     c->name, n, error, c->name, (unsigned long long)options.seed);
    }
    probe_destroy(c, &p);
}

static void every_pair_agrees_with_finite_differences(void **state)
{
    (void)state;
    struct error err = {0};
    struct backend_config config = {
        .ops = &ops_ref, .storage = PLX_F64, .compute = PLX_F64, .threads = 1};
    struct backend be;
    assert_int_equal(backend_create(&be, &config, &err), PLX_OK);
    must(&be, backend_reserve(&be, 1 << 20));
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++)
        if (test_options_match(&options, cases[n].name)) check_case(&be, &cases[n], n);
    backend_destroy(&be);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_agrees_with_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
