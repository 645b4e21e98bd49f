/* test_layers.c: every layer alone, against finite differences in double on the reference
 * operations.
 *
 * A layer is driven through one interface: forward x -> y, backward dy -> dx. With the loss <c, y>
 * for a random c, every coordinate of x and of every parameter is checked. Then backward runs again
 * on top of what it left: parameter gradients must double (they accumulate), input gradients must
 * not (they are overwritten). */
#include "../model_case.h"

#include "layers/block.h"
#include "layers/view.h"

enum { N = 9, E = 8, SEQUENCES = 2 };
static const double step = 1e-5, tolerance = 1e-6;

/* What all layers of this file may need; each uses its part. */
struct rig {
    struct error err;
    struct backend be;
    struct param_list params;
    struct arena values, grads, records;
    struct batch_view batch;
    int32_t positions[N], offsets[SEQUENCES + 1], ids[N], targets[N];
    struct plx_tensor id_view, target_view;
    struct rng rng;
    int weight;
    struct rmsnorm norm;
    struct plx_tensor rstd;
    struct heads heads;
    struct heads_record heads_record;
    struct mlp mlp;
    struct mlp_record mlp_record;
    struct block block;
    struct block_record block_record;
};

struct layer_case {
    const char *name;
    void (*create)(struct rig *rig, int variant);
    int variant;
    int64_t inputs, outputs; /* numbers a token */
    plx_status (*forward)(struct rig *rig, const struct plx_tensor *x, const struct plx_tensor *y);
    plx_status (*backward)(struct rig *rig, const struct plx_tensor *x, const struct plx_tensor *dy,
                           const struct plx_tensor *dx);
};

#define RIG_OK(rig, call)                                                                          \
    do {                                                                                           \
        if ((call) != PLX_OK) fail_msg("%s: %s", #call, (rig)->err.text);                          \
    } while (0)

/* ---- The rig ---- */

static void rig_fill_batch(struct rig *rig)
{
    const int64_t n = N, offsets = SEQUENCES + 1;
    memcpy(rig->offsets, (int32_t[]){0, 5, N}, sizeof rig->offsets);
    for (int i = 0; i < N; i++) {
        rig->positions[i] = i < 5 ? i : i - 5;
        rig->ids[i] = (int32_t)rng_below(&rig->rng, E);
        rig->targets[i] = i == 4 ? -1 : (int32_t)rng_below(&rig->rng, E);
    }
    rig->ids[1] = rig->ids[0]; /* a row that two tokens share */
    rig->batch =
        (struct batch_view){.tokens = N,
                            .positions = plx_tensor_dense(rig->positions, PLX_I32, 1, &n),
                            .offsets = plx_tensor_dense(rig->offsets, PLX_I32, 1, &offsets)};
    rig->id_view = plx_tensor_dense(rig->ids, PLX_I32, 1, &n);
    rig->target_view = plx_tensor_dense(rig->targets, PLX_I32, 1, &n);
}

static void rig_create(struct rig *rig, const struct layer_case *layer, uint64_t seed)
{
    *rig = (struct rig){.rng = rng_make(seed, 3)};
    const struct backend_config config = {
        .ops = &ops_ref, .storage = PLX_F64, .compute = PLX_F64, .threads = 1};
    RIG_OK(rig, backend_create(&rig->be, &config, &rig->err));
    RIG_OK(rig, backend_reserve(&rig->be, 1 << 22));
    RIG_OK(rig, arena_create(&rig->values, &device_cpu, NULL, 1 << 18, &rig->err));
    RIG_OK(rig, arena_create(&rig->grads, &device_cpu, NULL, 1 << 18, &rig->err));
    RIG_OK(rig, arena_create(&rig->records, &device_cpu, NULL, 1 << 20, &rig->err));
    rig_fill_batch(rig);
    layer->create(rig, layer->variant);
    param_list_carve_values(&rig->params, &rig->values);
    param_list_carve_active(&rig->params, backend_precision(&rig->be), &rig->values);
    param_list_carve_grads(&rig->params, &rig->grads);
    for (int p = 0; p < rig->params.count; p++) {
        case_fill(&rig->params.items[p].value, &rig->rng, 0.5);
        memset(rig->params.items[p].grad.data, 0,
               (size_t)plx_tensor_count(&rig->params.items[p].grad) * sizeof(double));
    }
}

static void rig_destroy(struct rig *rig)
{
    block_destroy(&rig->block);
    free(rig->block_record.mixer);
    param_list_destroy(&rig->params);
    arena_destroy(&rig->values);
    arena_destroy(&rig->grads);
    arena_destroy(&rig->records);
    assert_int_equal(rig->be.scratch.used, 0);
    backend_destroy(&rig->be);
}

/* ---- Linear ---- */

static void linear_case(struct rig *rig, int variant)
{
    (void)variant;
    rig->weight = linear_add(&rig->params, PLX_F64, 5, E, 1, PARAM_MATRIX, "l", "w");
    assert_string_equal(rig->params.items[rig->weight].name, "l.w.weight");
}

static plx_status linear_case_forward(struct rig *rig, const struct plx_tensor *x,
                                      const struct plx_tensor *y)
{
    return linear_forward(&rig->be, rig->weight, &rig->params, x, y);
}

static plx_status linear_case_backward(struct rig *rig, const struct plx_tensor *x,
                                       const struct plx_tensor *dy, const struct plx_tensor *dx)
{
    return linear_backward(&rig->be, rig->weight, &rig->params, dy, x, dx, false);
}

/* ---- RMSNorm: rows of the whole token, or of its two halves ---- */

static void norm_case(struct rig *rig, int variant)
{
    const int64_t width = E / variant, rows = N * variant;
    assert_true(
        rmsnorm_create(&rig->norm, &rig->params, PLX_F64, width, 1e-3, PARAM_INIT_ONE, "n", "g"));
    rig->rstd = arena_tensor(&rig->records, PLX_F64, 1, &rows);
}

static plx_status norm_case_forward(struct rig *rig, const struct plx_tensor *x,
                                    const struct plx_tensor *y)
{
    return rmsnorm_forward(&rig->be, &rig->norm, &rig->params, x, y, &rig->rstd);
}

static plx_status norm_case_backward(struct rig *rig, const struct plx_tensor *x,
                                     const struct plx_tensor *dy, const struct plx_tensor *dx)
{
    return rmsnorm_backward(&rig->be, &rig->norm, &rig->params, dy, x, &rig->rstd, NULL, dx);
}

/* ---- Heads: three of 4 channels; variant bits: 1 norm, 2 gate, 4 rope, 8 bias ---- */

static void heads_case(struct rig *rig, int variant)
{
    struct heads *heads = &rig->heads;
    *heads = (struct heads){.heads = 3,
                            .channels = 4,
                            .precision = backend_precision(&rig->be),
                            .has_norm = variant & 1,
                            .bias = -1,
                            .gate = -1,
                            .has_rope = variant & 4,
                            .rope = {.theta = 50}};
    heads->weight = linear_add(&rig->params, PLX_F64, 12, E, 1, PARAM_MATRIX, "h", "w");
    if (variant & 1)
        assert_true(
            rmsnorm_create(&heads->norm, &rig->params, PLX_F64, 4, 1e-3, PARAM_INIT_ONE, "h", "n"));
    if (variant & 2) heads->gate = linear_add(&rig->params, PLX_F64, 3, E, 1, PARAM_THIN, "h", "g");
    if (variant & 8) heads->bias = bias_add(&rig->params, PLX_F64, 12, "h", "w");
    heads_carve(heads, N, RECORD_ALL, &rig->records, &rig->heads_record);
}

static plx_status heads_case_forward(struct rig *rig, const struct plx_tensor *x,
                                     const struct plx_tensor *y)
{
    struct projection projections[2];
    int count = heads_projections(&rig->heads, &rig->heads_record, projections);
    TRY(linear_project(&rig->be, &rig->params, NULL, x, projections, count));
    const struct heads_pass pass = {&rig->heads, &rig->heads_record};
    TRY(heads_forward(&rig->be, &pass, 1, &rig->params, &rig->batch.positions));
    struct plx_tensor out = view_matrix(&rig->heads_record.out, N);
    return rig->be.ops->copy(&rig->be, y, &out);
}

static plx_status heads_case_backward(struct rig *rig, const struct plx_tensor *x,
                                      const struct plx_tensor *dy, const struct plx_tensor *dx)
{
    size_t mark = arena_mark(&rig->be.scratch);
    struct plx_tensor dout =
        arena_tensor(&rig->be.scratch, PLX_F64, 3, rig->heads_record.out.shape);
    struct plx_tensor flat = view_matrix(&dout, N);
    TRY(rig->be.ops->copy(&rig->be, &flat, dy));
    TRY(heads_backward(&rig->be, &rig->heads, &rig->params, &rig->batch.positions, x,
                       &rig->heads_record, &dout, dx, false));
    arena_release(&rig->be.scratch, mark);
    return PLX_OK;
}

/* ---- MLP ---- */

static void mlp_case(struct rig *rig, int variant)
{
    (void)variant;
    assert_true(mlp_create(&rig->mlp, &rig->params, backend_precision(&rig->be), E, 11, 1, "m"));
    mlp_carve(&rig->mlp, N, &rig->records, &rig->mlp_record);
}

static plx_status mlp_case_forward(struct rig *rig, const struct plx_tensor *x,
                                   const struct plx_tensor *y)
{
    return mlp_forward(&rig->be, &rig->mlp, &rig->params, x, &rig->mlp_record, NULL, y);
}

static plx_status mlp_case_backward(struct rig *rig, const struct plx_tensor *x,
                                    const struct plx_tensor *dy, const struct plx_tensor *dx)
{
    return mlp_backward(&rig->be, &rig->mlp, &rig->params, dy, x, &rig->mlp_record, dx);
}

/* ---- Embedding: y = x + table[ids], so that it has an input like the others ---- */

static void embedding_case(struct rig *rig, int variant)
{
    (void)variant;
    rig->weight = embedding_add(&rig->params, PLX_F64, E, E, 1, "table");
}

static plx_status embedding_case_forward(struct rig *rig, const struct plx_tensor *x,
                                         const struct plx_tensor *y)
{
    TRY(embedding_forward(&rig->be, rig->weight, &rig->params, &rig->id_view, y));
    return rig->be.ops->add(&rig->be, y, y, x);
}

static plx_status embedding_case_backward(struct rig *rig, const struct plx_tensor *x,
                                          const struct plx_tensor *dy, const struct plx_tensor *dx)
{
    (void)x;
    TRY(rig->be.ops->copy(&rig->be, dx, dy));
    return embedding_backward(&rig->be, rig->weight, &rig->params, &rig->id_view, dy);
}

/* ---- Block: softmax, Parallax, Parallax with options ---- */

static void block_case(struct rig *rig, int variant)
{
    struct model_config config = case_config(1, variant == 0 ? "softmax" : "parallax");
    config.hidden_size = E;
    config.intermediate_size = 6;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 2;
    config.norm_eps = config.qk_norm_eps = 1e-3;
    config.probe_gate = variant == 2;
    config.qkv_bias = variant == 3;
    config.layer[0].window = variant == 2 ? 2 : 0;
    assert_true(block_create(&rig->block, &config, 0, backend_precision(&rig->be), &rig->params));
    rig->block_record.mixer = calloc(1, rig->block.kind->record_size);
    block_carve(&rig->block, N, RECORD_ALL, &rig->records, &rig->block_record);
}

static plx_status block_case_forward(struct rig *rig, const struct plx_tensor *x,
                                     const struct plx_tensor *y)
{
    return block_forward(&rig->be, &rig->block, &rig->params, &rig->batch, x, &rig->block_record,
                         y);
}

static plx_status block_case_backward(struct rig *rig, const struct plx_tensor *x,
                                      const struct plx_tensor *dy, const struct plx_tensor *dx)
{
    TRY(rig->be.ops->copy(&rig->be, dx, dy));
    return block_backward(&rig->be, &rig->block, &rig->params, &rig->batch, x, &rig->block_record,
                          dx);
}

/* ---- The check ---- */

static const struct layer_case layers[] = {
    {"linear", linear_case, 0, E, 5, linear_case_forward, linear_case_backward},
    {"rmsnorm of tokens", norm_case, 1, E, E, norm_case_forward, norm_case_backward},
    {"rmsnorm of heads", norm_case, 2, E, E, norm_case_forward, norm_case_backward},
    {"heads, bare", heads_case, 0, E, 12, heads_case_forward, heads_case_backward},
    {"heads, norm", heads_case, 1, E, 12, heads_case_forward, heads_case_backward},
    {"heads, gate", heads_case, 2, E, 12, heads_case_forward, heads_case_backward},
    {"heads, norm and gate", heads_case, 3, E, 12, heads_case_forward, heads_case_backward},
    {"heads, rope", heads_case, 4, E, 12, heads_case_forward, heads_case_backward},
    {"heads, norm and rope", heads_case, 5, E, 12, heads_case_forward, heads_case_backward},
    {"heads, gate and rope", heads_case, 6, E, 12, heads_case_forward, heads_case_backward},
    {"heads, norm, gate, rope", heads_case, 7, E, 12, heads_case_forward, heads_case_backward},
    {"heads, bias", heads_case, 8, E, 12, heads_case_forward, heads_case_backward},
    {"heads, bias and everything", heads_case, 15, E, 12, heads_case_forward, heads_case_backward},
    {"mlp", mlp_case, 0, E, E, mlp_case_forward, mlp_case_backward},
    {"embedding", embedding_case, 0, E, E, embedding_case_forward, embedding_case_backward},
    {"block, softmax", block_case, 0, E, E, block_case_forward, block_case_backward},
    {"block, parallax", block_case, 1, E, E, block_case_forward, block_case_backward},
    {"block, parallax, biases", block_case, 3, E, E, block_case_forward, block_case_backward},
    {"block, parallax, window and gate", block_case, 2, E, E, block_case_forward,
     block_case_backward},
};

struct check {
    struct rig *rig;
    const struct layer_case *layer;
    struct plx_tensor x, y, c;
};

static double weighted_sum(const struct check *check)
{
    double sum = 0;
    RIG_OK(check->rig, check->layer->forward(check->rig, &check->x, &check->y));
    for (int64_t i = 0; i < plx_tensor_count(&check->y); i++)
        sum += case_get(&check->y, i) * case_get(&check->c, i);
    return sum;
}

static void check_tensor(const struct check *check, const char *name,
                         const struct plx_tensor *value, const struct plx_tensor *gradient)
{
    double scale = 1e-2;
    for (int64_t i = 0; i < plx_tensor_count(value); i++)
        scale = fmax(scale, fabs(case_get(gradient, i)));
    for (int64_t i = 0; i < plx_tensor_count(value); i++) {
        const double start = case_get(value, i);
        case_set(value, i, start + step);
        double above = weighted_sum(check);
        case_set(value, i, start - step);
        double below = weighted_sum(check);
        case_set(value, i, start);
        double expected = (above - below) / (2 * step), actual = case_get(gradient, i);
        if (!(fabs(expected - actual) <= tolerance * scale))
            fail_msg("%s[%lld]: gradient %.12g, difference %.12g", name, (long long)i, actual,
                     expected);
    }
}

/* A second backward on top of the first. */
static void check_accumulation(struct check *check, const struct plx_tensor *dx)
{
    struct rig *rig = check->rig;
    int64_t total = 0, at = 0;
    for (int p = 0; p < rig->params.count; p++)
        total += plx_tensor_count(&rig->params.items[p].grad);
    struct plx_tensor first = case_tensor(PLX_F64, 1, &total),
                      again = case_tensor(PLX_F64, 2, dx->shape);
    for (int p = 0; p < rig->params.count; p++)
        for (int64_t i = 0; i < plx_tensor_count(&rig->params.items[p].grad); i++)
            case_set(&first, at++, case_get(&rig->params.items[p].grad, i));
    case_fill(&again, &rig->rng, 1);
    RIG_OK(rig, check->layer->forward(rig, &check->x, &check->y));
    RIG_OK(rig, check->layer->backward(rig, &check->x, &check->c, &again));
    case_assert_same_bits(dx, &again);
    at = 0;
    for (int p = 0; p < rig->params.count; p++)
        for (int64_t i = 0; i < plx_tensor_count(&rig->params.items[p].grad); i++, at++)
            assert_true(fabs(case_get(&rig->params.items[p].grad, i) - 2 * case_get(&first, at)) <=
                        1e-13 * (1 + fabs(case_get(&first, at))));
    free(first.data);
    free(again.data);
}

static void test_layer(void **state)
{
    const struct layer_case *layer = *state;
    struct rig rig;
    rig_create(&rig, layer, case_seed(layer->name));
    struct check check = {.rig = &rig,
                          .layer = layer,
                          .x = case_tensor(PLX_F64, 2, (int64_t[]){N, layer->inputs}),
                          .y = case_tensor(PLX_F64, 2, (int64_t[]){N, layer->outputs}),
                          .c = case_tensor(PLX_F64, 2, (int64_t[]){N, layer->outputs})};
    struct plx_tensor dx = case_tensor(PLX_F64, 2, check.x.shape);
    case_fill(&check.x, &rig.rng, 1);
    case_fill(&check.c, &rig.rng, 1);
    case_fill(&dx, &rig.rng, 1); /* overwritten, whatever it held */
    RIG_OK(&rig, layer->forward(&rig, &check.x, &check.y));
    RIG_OK(&rig, layer->backward(&rig, &check.x, &check.c, &dx));
    check_tensor(&check, "x", &check.x, &dx);
    for (int p = 0; p < rig.params.count; p++)
        check_tensor(&check, rig.params.items[p].name, &rig.params.items[p].value,
                     &rig.params.items[p].grad);
    check_accumulation(&check, &dx);
    free(check.x.data);
    free(check.y.data);
    free(check.c.data);
    free(dx.data);
    rig_destroy(&rig);
}

/* ---- The head, whose output is a number, over several chunks ---- */

enum { HEAD_VOCAB = 4200 };

static double head_value(struct rig *rig, const struct plx_tensor *x,
                         const struct plx_tensor *targets)
{
    double sum = 0;
    struct plx_tensor total = plx_tensor_dense(&sum, PLX_F64, 1, (int64_t[]){1});
    RIG_OK(rig, head_loss(&rig->be, rig->weight, &rig->params, x, targets, NULL, NULL, &total));
    return sum;
}

static void test_head(void **state)
{
    (void)state;
    const int64_t tokens = 600, shape[2] = {tokens, 3};
    double scale = 0.7;
    const struct layer_case none = {.create = embedding_case};
    struct rig rig;
    rig_create(&rig, &none, case_seed("head"));
    assert_true(head_chunk(&rig.be, PLX_F64, HEAD_VOCAB, tokens) < tokens / 2);
    struct plx_tensor weight = case_tensor(PLX_F64, 2, (int64_t[]){HEAD_VOCAB, 3}),
                      grad = case_tensor(PLX_F64, 2, weight.shape),
                      x = case_tensor(PLX_F64, 2, shape), dx = case_tensor(PLX_F64, 2, shape),
                      targets = case_tensor(PLX_I32, 1, &tokens);
    rig.params.items[0].value = rig.params.items[0].active = weight;
    rig.params.items[0].grad = grad;
    case_fill(&weight, &rig.rng, 1);
    case_fill(&x, &rig.rng, 1);
    for (int64_t n = 0; n < tokens; n++)
        ((int32_t *)targets.data)[n] = n % 7 == 0 ? -1 : (int32_t)rng_below(&rig.rng, HEAD_VOCAB);
    RIG_OK(&rig, backend_reserve(&rig.be, (size_t)1 << 24));
    double sum = 0;
    struct plx_tensor total = plx_tensor_dense(&sum, PLX_F64, 1, (int64_t[]){1}),
                      factor = plx_tensor_dense(&scale, PLX_F64, 1, (int64_t[]){1});
    RIG_OK(&rig, head_loss(&rig.be, rig.weight, &rig.params, &x, &targets, &factor, &dx, &total));
    assert_true(fabs(sum - head_value(&rig, &x, &targets)) <= 1e-12 * sum);
    for (int s = 0; s < 24; s++) {
        bool in_x = s % 2 == 0;
        const struct plx_tensor *value = in_x ? &x : &weight, *gradient = in_x ? &dx : &grad;
        int64_t i = (int64_t)rng_below(&rig.rng, (uint64_t)plx_tensor_count(value));
        const double start = case_get(value, i);
        case_set(value, i, start + step);
        double above = head_value(&rig, &x, &targets);
        case_set(value, i, start - step);
        double below = head_value(&rig, &x, &targets);
        case_set(value, i, start);
        double expected = scale * (above - below) / (2 * step);
        if (!(fabs(expected - case_get(gradient, i)) <= 1e-5))
            fail_msg("%s[%lld]: gradient %.12g, difference %.12g", in_x ? "x" : "W", (long long)i,
                     case_get(gradient, i), expected);
    }
    free(weight.data);
    free(grad.data);
    free(x.data);
    free(dx.data);
    free(targets.data);
    rig_destroy(&rig);
}

int main(void)
{
    enum { COUNT = sizeof layers / sizeof layers[0] };
    struct CMUnitTest tests[COUNT + 1] = {cmocka_unit_test(test_head)};
    for (int i = 0; i < COUNT; i++)
        tests[i + 1] = (struct CMUnitTest){
            .name = layers[i].name, .test_func = test_layer, .initial_state = (void *)&layers[i]};
    return cmocka_run_group_tests_name("gradients of layers", tests, NULL, NULL);
}
