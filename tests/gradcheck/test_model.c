/* test_model.c: finite differences of the whole two-layer model in double, with every option.
 *
 * Each variant: gradients of every parameter against central differences of the loss at sampled
 * coordinates, and along one random direction through each parameter tensor, which every element of
 * its gradient enters. Then the same gradients with recomputation, which must be equal bit for bit.
 */
#include "../model_case.h"

enum { SAMPLES = 6 };
static const double step = 1e-5, tolerance = 1e-6;

static struct model_config base(void)
{
    return case_config(2, "parallax");
}

static struct model_config softmax_model(void)
{
    return case_config(2, "softmax");
}

static struct model_config mixed_with_windows(void)
{
    struct model_config config = base();
    config.layer[0].mixer = mixer_find("softmax");
    config.layer[0].window = 3;
    config.layer[1].window = 5;
    return config;
}

static struct model_config untied(void)
{
    struct model_config config = base();
    config.tie_embeddings = false;
    return config;
}

static struct model_config no_head_norms(void)
{
    struct model_config config = base();
    config.qk_norm = config.probe_norm = false;
    return config;
}

static struct model_config norm_on_probe_only(void)
{
    struct model_config config = base();
    config.qk_norm = false;
    return config;
}

static struct model_config norm_on_keys_only(void)
{
    struct model_config config = base();
    config.probe_norm = config.probe_rope = false;
    return config;
}

static struct model_config gated(void)
{
    struct model_config config = base();
    config.probe_gate = true;
    return config;
}

static struct model_config gated_bare(void)
{
    struct model_config config = base();
    config.probe_gate = true;
    config.qk_norm = config.probe_norm = config.probe_rope = false;
    return config;
}

static struct model_config gated_no_rope(void)
{
    struct model_config config = base();
    config.probe_gate = true;
    config.probe_rope = false;
    return config;
}

static struct model_config one_key_head_fla(void)
{
    struct model_config config = base();
    config.kv_heads = 1;
    config.family = FAMILY_FLA;
    config.tie_embeddings = false;
    return config;
}

static struct model_config full_heads_odd_sizes(void)
{
    struct model_config config = base();
    config.kv_heads = config.heads = 3;
    config.head_dim = 6;
    config.intermediate_size = 7;
    config.layer[0].window = 1;
    return config;
}

static struct model_config zero_gain(void)
{
    struct model_config config = base();
    config.probe_start = PROBE_START_ZERO_GAIN;
    return config;
}

static struct model_config biased_stretched(void)
{
    struct model_config config = base();
    config.qkv_bias = true;
    config.qk_norm = config.probe_norm = false;
    config.rope = (struct rope){.theta = 100,
                                .factor = 4,
                                .low_freq_factor = 1,
                                .high_freq_factor = 4,
                                .original_positions = 16};
    return config;
}

/* Adapters beside weights that are trained too, so that both meet in every input gradient. */
static struct model_config adapted(void)
{
    struct model_config config = base();
    config.lora = (struct lora){.rank = 3, .alpha = 5, .targets = LORA_ALL};
    return config;
}

static struct model_config adapted_in_part(void)
{
    struct model_config config = gated();
    config.lora = (struct lora){.rank = 1, .alpha = 0.5};
    config.lora.targets = lora_target_bit("k_proj", 6) | lora_target_bit("down_proj", 9);
    return config;
}

static const struct variant {
    const char *name;
    struct model_config (*config)(void);
} variants[] = {
    {"parallax", base},
    {"softmax", softmax_model},
    {"mixed layers with windows", mixed_with_windows},
    {"untied head", untied},
    {"no norms on q, k, r", no_head_norms},
    {"norm on r only", norm_on_probe_only},
    {"norm on q, k only, r without rope", norm_on_keys_only},
    {"probe gate", gated},
    {"probe gate without norms and rope", gated_bare},
    {"probe gate with norm, without rope", gated_no_rope},
    {"one key head, names of flash-linear-attention", one_key_head_fla},
    {"no grouping, odd sizes, window of one", full_heads_odd_sizes},
    {"zero gain of the probe", zero_gain},
    {"biases and stretched positions", biased_stretched},
    {"adapters on every projection", adapted},
    {"adapters of rank one on two projections", adapted_in_part},
};

static double scaled_loss(struct case_model *m, const struct batch *batch, double scale)
{
    struct model_loss loss;
    CASE_OK(m, model_loss(m->model, batch, &loss));
    return scale * loss.sum;
}

static double largest(const struct plx_tensor *tensor)
{
    double max = 0;
    for (int64_t i = 0; i < plx_tensor_count(tensor); i++)
        if (fabs(case_get(tensor, i)) > max) max = fabs(case_get(tensor, i));
    return max;
}

/* Central difference of the loss when element i of a parameter moves. */
static double difference(struct case_model *m, const struct batch *batch, double scale,
                         const struct plx_tensor *value, int64_t i)
{
    const double start = case_get(value, i);
    case_set(value, i, start + step);
    double above = scaled_loss(m, batch, scale);
    case_set(value, i, start - step);
    double below = scaled_loss(m, batch, scale);
    case_set(value, i, start);
    return (above - below) / (2 * step);
}

static void check_coordinates(struct case_model *m, const struct batch *batch, double scale,
                              const struct param *param, struct rng *rng)
{
    const double bound = tolerance * (largest(&param->grad) + 1e-2);
    const int64_t count = plx_tensor_count(&param->value);
    for (int s = 0; s < SAMPLES; s++) {
        int64_t i = (int64_t)rng_below(rng, (uint64_t)count);
        double expected = difference(m, batch, scale, &param->value, i);
        double actual = case_get(&param->grad, i);
        if (!(fabs(expected - actual) <= bound))
            fail_msg("%s[%lld]: gradient %.12g, difference %.12g", param->name, (long long)i,
                     actual, expected);
    }
}

/* Central difference of the loss when a parameter moves from `start` by `far` times u. */
static double difference_along(struct case_model *m, const struct batch *batch, double scale,
                               const struct plx_tensor *value, const double *start, const double *u,
                               double far)
{
    const int64_t count = plx_tensor_count(value);
    double at[2];
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < count; i++)
            case_set(value, i, start[i] + (side ? far : -far) * u[i]);
        at[side] = scaled_loss(m, batch, scale);
    }
    for (int64_t i = 0; i < count; i++) case_set(value, i, start[i]);
    return (at[1] - at[0]) / (2 * far);
}

/* <gradient, u> for a random direction u. A path sqrt(count) times longer bends so much more that
 * its third derivative counts: two differences are combined in which that is the same. */
static void check_direction(struct case_model *m, const struct batch *batch, double scale,
                            const struct param *param, struct rng *rng)
{
    const int64_t count = plx_tensor_count(&param->value);
    double *start = malloc((size_t)count * sizeof *start), *u = malloc((size_t)count * sizeof *u);
    double expected = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        start[i] = case_get(&param->value, i);
        u[i] = rng_normal(rng);
        expected += u[i] * case_get(&param->grad, i);
        norm += pow(case_get(&param->grad, i), 2);
    }
    double whole = difference_along(m, batch, scale, &param->value, start, u, step);
    double half = difference_along(m, batch, scale, &param->value, start, u, step / 2);
    double actual = (4 * half - whole) / 3;
    free(start);
    free(u);
    if (!(fabs(expected - actual) <= tolerance * (sqrt(norm) + 1e-2)))
        fail_msg("%s along a direction: gradient %.12g, difference %.12g", param->name, expected,
                 actual);
}

static void gradients(struct case_model *m, const struct batch *batch, double scale,
                      enum recompute recompute)
{
    struct model_loss loss;
    CASE_OK(m, model_reserve(m->model, batch->tokens, batch->sequences, true, recompute, NULL));
    CASE_OK(m, model_zero_grads(m->model));
    CASE_OK(m, model_loss_backward(m->model, batch, scale, &loss));
    assert_true(loss.count > 0 && loss.count < batch->tokens);
}

/* Gradients with recomputation against those in place, bit for bit. */
static void check_recompute(struct case_model *m, const struct batch *batch, double scale,
                            enum recompute recompute)
{
    struct param_list *params = model_params(m->model);
    void **kept = calloc((size_t)params->count, sizeof *kept);
    for (int p = 0; p < params->count; p++) {
        size_t bytes = (size_t)plx_tensor_count(&params->items[p].grad) * sizeof(double);
        kept[p] = memcpy(malloc(bytes), params->items[p].grad.data, bytes);
    }
    gradients(m, batch, scale, recompute);
    for (int p = 0; p < params->count; p++) {
        size_t bytes = (size_t)plx_tensor_count(&params->items[p].grad) * sizeof(double);
        if (memcmp(kept[p], params->items[p].grad.data, bytes) != 0)
            fail_msg("%s: recomputation %d changes the gradient", params->items[p].name,
                     (int)recompute);
        free(kept[p]);
    }
    free(kept);
}

static void test_variant(void **state)
{
    const struct variant *variant = *state;
    const struct model_config config = variant->config();
    uint64_t seed = case_seed(variant->name);
    struct rng rng = rng_make(seed, 1);
    struct case_model m;
    struct case_batch b;
    case_open(&m, &config, &ops_ref, PLX_F64, seed);
    case_batch_fill(&b, (int64_t[]){13, 8}, 2, config.vocab_size, &rng);
    b.targets[3] = -1;
    b.targets[4] = 7;
    const double scale = 1.0 / 17;
    gradients(&m, &b.batch, scale, RECOMPUTE_NONE);
    struct param_list *params = model_params(m.model);
    for (int p = 0; p < params->count; p++) {
        check_coordinates(&m, &b.batch, scale, &params->items[p], &rng);
        check_direction(&m, &b.batch, scale, &params->items[p], &rng);
    }
    check_recompute(&m, &b.batch, scale, RECOMPUTE_SELECTIVE);
    check_recompute(&m, &b.batch, scale, RECOMPUTE_FULL);
    case_close(&m);
}

int main(void)
{
    enum { COUNT = sizeof variants / sizeof variants[0] };
    struct CMUnitTest tests[COUNT];
    for (int i = 0; i < COUNT; i++)
        tests[i] = (struct CMUnitTest){.name = variants[i].name,
                                       .test_func = test_variant,
                                       .initial_state = (void *)&variants[i]};
    return cmocka_run_group_tests_name("gradients of the model", tests, NULL, NULL);
}
