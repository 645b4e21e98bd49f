/* test_convert_laws.c: what every conversion must keep, over families and types of weights.
 *
 * There and back is the identity, byte for byte: into another layout, with a probe added and taken
 * away, cut into shards and joined. A probe that starts silent changes no logit, and damage on the
 * way is noticed. Models are small and random; TEST_SEED repeats a run. */
#include "../model_case.h"
#include "../unit/io_files.h"

#include "convert/convert_parts.h"
#include "io/model_file.h"
#include "io/weights.h"

struct family_case {
    const char *name;
    enum model_family family;
    bool qk_norm, qkv_bias, tied, probe;
    int64_t window;
    double stretch;
};

static const struct family_case families[] = {
    {"qwen3", FAMILY_QWEN3, true, false, true, false, 0, 0},
    {"qwen2", FAMILY_QWEN2, false, true, false, false, 0, 0},
    {"llama", FAMILY_LLAMA, false, false, false, false, 0, 8},
    {"mistral", FAMILY_MISTRAL, false, false, true, false, 5, 0},
    {"fla", FAMILY_FLA, false, true, false, true, 0, 0},
    {"ours", FAMILY_OURS, true, true, true, true, 7, 4},
};
enum { FAMILIES = sizeof families / sizeof *families };

static const char *const dtypes[] = {"F32", "BF16", "F16"};

static struct model_config family_config(const struct family_case *family)
{
    struct model_config config = case_config(2, family->probe ? "parallax" : "softmax");
    config.family = family->family;
    config.qk_norm = family->qk_norm;
    config.probe_norm = family->probe && family->qk_norm;
    config.qkv_bias = family->qkv_bias;
    config.tie_embeddings = family->tied;
    config.rope.factor = family->stretch;
    config.rope.low_freq_factor = 1;
    config.rope.high_freq_factor = 4;
    config.rope.original_positions = 16;
    for (int l = 0; l < 2; l++) config.layer[l].window = family->window;
    if (!family->probe) config.probe_norm = model_config_default().probe_norm;
    return config;
}

static struct convert_report convert_to(const char *source, const char *target,
                                        struct convert_options options)
{
    struct error err = {0};
    struct convert_report report;
    assert_ok(convert_folder(source, target, &options, &report, &err), &err);
    return report;
}

static const char *fresh_model(const struct family_case *family, const char *dtype, uint64_t seed)
{
    struct error err = {0};
    struct convert_report report;
    const struct model_config config = family_config(family);
    const struct convert_options options = {.dtype = dtype, .seed = seed};
    static char path[512]; /* outlives the buffers that take turns */
    snprintf(path, sizeof path, "%s", io_absent("source"));
    assert_ok(convert_init(&config, path, &options, &report, &err), &err);
    assert_int_equal(report.proof, CONVERT_NOTHING_TO_COMPARE);
    assert_int_equal(report.config.family, family->family);
    return path;
}

/* The same tensors with the same bytes, whatever files they lie in. */
static void assert_same_weights(const char *left, const char *right)
{
    struct error err = {0};
    struct weights *a, *b;
    assert_ok(weights_open(left, &a, &err), &err);
    assert_ok(weights_open(right, &b, &err), &err);
    assert_int_equal(weights_count(a), weights_count(b));
    for (int i = 0; i < weights_count(a); i++) {
        const struct safetensors_entry *x = weights_at(a, i)->entry, *y = weights_at(b, i)->entry;
        assert_string_equal(x->name, y->name);
        assert_string_equal(x->dtype, y->dtype);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
    }
    weights_close(a);
    weights_close(b);
}

static void assert_same_file(const char *left, const char *right, const char *name)
{
    struct error err = {0};
    char a_path[600], b_path[600], *a, *b;
    size_t a_size, b_size;
    snprintf(a_path, sizeof a_path, "%s/%s", left, name);
    snprintf(b_path, sizeof b_path, "%s/%s", right, name);
    assert_ok(file_read_all(a_path, 1 << 24, &a, &a_size, &err), &err);
    assert_ok(file_read_all(b_path, 1 << 24, &b, &b_size, &err), &err);
    assert_int_equal(a_size, b_size);
    assert_memory_equal(a, b, a_size);
    free(a);
    free(b);
}

static void assert_same_folder(const char *left, const char *right)
{
    assert_same_file(left, right, "config.json");
    assert_same_file(left, right, "model.safetensors");
}

/* ---- Laws ------------------------------------------------------------------------------------ */

static void a_plain_conversion_is_the_identity(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f++)
        for (int d = 0; d < 3; d++) {
            const char *source = fresh_model(&families[f], dtypes[d], case_seed(families[f].name));
            const char *target = io_absent("target");
            struct convert_report report = convert_to(source, target, (struct convert_options){0});
            assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
            assert_int_equal(report.added + report.dropped, 0);
            assert_same_folder(source, target);
        }
}

/* In shards of a few tensors, and joined again. */
static void shards_join_to_the_same_file(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        const char *source = fresh_model(&families[f], dtypes[f % 3], case_seed(families[f].name));
        const char *shards = io_absent("shards"), *target = io_absent("target");
        struct convert_report report =
            convert_to(source, shards, (struct convert_options){.shard_bytes = 4000});
        assert_true(report.files > 3);
        assert_same_weights(source, shards);
        report = convert_to(shards, target, (struct convert_options){0});
        assert_int_equal(report.files, 1);
        assert_same_folder(source, target);
    }
}

/* Every half is a float, so widening and narrowing again loses nothing. */
static void widening_comes_back(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f++)
        for (int d = 1; d < 3; d++) {
            const char *source = fresh_model(&families[f], dtypes[d], case_seed(families[f].name));
            const char *wide = io_absent("wide"), *target = io_absent("target");
            struct convert_report report =
                convert_to(source, wide, (struct convert_options){.dtype = "F32"});
            assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
            convert_to(wide, target, (struct convert_options){.dtype = dtypes[d]});
            assert_same_folder(source, target);
        }
}

/* Both silent starts leave the logits alone, and without the probe the model is the old one. */
static void a_silent_probe_changes_nothing(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        if (families[f].probe) continue;
        for (int d = 0; d < 3; d++)
            for (int p = CONVERT_ZERO_GAIN; p <= CONVERT_ZERO_WEIGHT; p++) {
                const char *source =
                    fresh_model(&families[f], dtypes[d], case_seed(families[f].name));
                const char *probed = io_absent("probed"), *target = io_absent("target");
                struct convert_report report =
                    convert_to(source, probed,
                               (struct convert_options){.attention = CONVERT_TO_PARALLAX,
                                                        .probe = (enum convert_probe)p,
                                                        .seed = 3});
                assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
                assert_true(report.added >= 2 * 32 * 32);
                report = convert_to(probed, target,
                                    (struct convert_options){.attention = CONVERT_TO_SOFTMAX,
                                                             .drop_probe = true,
                                                             .to_family = true,
                                                             .family = families[f].family});
                assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
                assert_true(report.dropped >= 2 * 32 * 32);
                assert_same_folder(source, target);
            }
    }
}

/* The same where the head goes through in pieces, which must be those of a model without probes. */
static void a_silent_probe_changes_no_large_vocabulary(void **state)
{
    (void)state;
    struct error err = {0};
    struct convert_report report;
    const char *source = io_absent("source");
    struct model_config config = family_config(&families[2]);
    config.vocab_size = 40000;
    assert_ok(convert_init(&config, source,
                           &(struct convert_options){.seed = case_seed("vocabulary")}, &report,
                           &err),
              &err);
    report = convert_to(source, io_absent("target"),
                        (struct convert_options){.attention = CONVERT_TO_PARALLAX});
    assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
}

/* flash-linear-attention's layout and ours say the same model where both can. */
static void layouts_of_parallax_agree(void **state)
{
    (void)state;
    for (int d = 0; d < 3; d++) {
        const char *source = fresh_model(&families[4], dtypes[d], case_seed("fla"));
        const char *ours = io_absent("ours"), *target = io_absent("target");
        struct convert_report report = convert_to(
            source, ours, (struct convert_options){.to_family = true, .family = FAMILY_OURS});
        assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
        report = convert_to(ours, target,
                            (struct convert_options){.to_family = true, .family = FAMILY_FLA});
        assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
        assert_same_folder(source, target);
    }
}

/* r starts as q, so W_R and its norm are copies; and such a model is another one. */
static void copy_q_copies(void **state)
{
    (void)state;
    static const char *const parts[] = {"proj.weight", "norm.weight"};
    struct error err = {0};
    struct weights *weights;
    const char *source = fresh_model(&families[0], "BF16", case_seed("copy-q"));
    const char *target = io_absent("target");
    struct convert_report report = convert_to(
        source, target,
        (struct convert_options){.attention = CONVERT_TO_PARALLAX, .probe = CONVERT_COPY_Q});
    assert_int_equal(report.proof, CONVERT_LOGITS_DIFFER);
    assert_true(report.logit_difference > 1e-6);
    assert_ok(weights_open(target, &weights, &err), &err);
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < 2; p++) {
            char q[100], r[100];
            snprintf(q, sizeof q, "model.layers.%d.self_attn.q_%s", l, parts[p]);
            snprintf(r, sizeof r, "model.layers.%d.self_attn.r_%s", l, parts[p]);
            const struct safetensors_entry *a = weights_find(weights, q)->entry,
                                           *b = weights_find(weights, r)->entry;
            assert_int_equal(a->bytes, b->bytes);
            assert_memory_equal(a->data, b->data, a->bytes);
        }
    weights_close(weights);
}

/* ---- The proof ---- */

/* Every write of a conversion in turn changes a bit on its way: either the conversion fails, or it
 * was no write of weights. Shards, so that the index is written too. */
static void flipped_bits_are_noticed(void **state)
{
    (void)state;
    const char *source = fresh_model(&families[3], "BF16", case_seed("flipped"));
    const struct convert_options options = {
        .attention = CONVERT_TO_PARALLAX, .dtype = "F16", .seed = 2, .shard_bytes = 20000};
    const char *good = io_absent("good");
    convert_to(source, good, options);
    bool pending = false;
    int noticed = 0;
    for (int64_t call = 1; !pending; call++) {
        struct error err = {0};
        struct convert_report report;
        const char *target = io_absent("target");
        file_fault_after(FILE_FAULT_FLIP, call);
        plx_status status = convert_folder(source, target, &options, &report, &err);
        pending = file_fault_pending();
        file_fault_after(FILE_FAULT_NONE, 0);
        assert_int_equal(status == PLX_OK, file_exists(target));
        noticed += status != PLX_OK;
        if (status == PLX_OK) assert_same_weights(good, target);
    }
    /* One write a tensor at least: two layers of twelve, the table and the last norm. */
    assert_true(noticed >= 2 * 12 + 2);
}

/* Flips a bit in the middle of the fraction of the last number of every row. */
static void damage(const struct plx_tensor *value)
{
    const int64_t rows = value->shape[0], columns = plx_tensor_count(value) / rows;
    uint32_t bits;
    for (int64_t row = 0; row < rows; row++) {
        float *number = (float *)value->data + (row + 1) * columns - 1;
        memcpy(&bits, number, sizeof bits);
        bits ^= 1u << 12;
        memcpy(number, &bits, sizeof bits);
    }
}

/* The logits alone tell, too: whichever tensor is damaged, the comparison says so. An empty plan
 * knows of no sums. */
static void damaged_tensors_change_the_logits(void **state)
{
    (void)state;
    const uint64_t seed = case_seed("damaged");
    struct rng rng = rng_make(seed, 3);
    const struct convert_options options = {0};
    const struct convert_plan plan = {.exact = true};
    for (int f = 0; f < FAMILIES; f++) {
        struct error err = {0};
        struct case_model m;
        const struct model_config config = family_config(&families[f]);
        struct convert_report report = {.config = config};
        const char *source = io_absent("source"), *target = io_absent("target");
        case_open(&m, &config, &ops_ref, PLX_F32, seed);
        assert_ok(file_make_folder(source, &err), &err);
        assert_ok(file_make_folder(target, &err), &err);
        /* Biases begin as zero, which one bit of a fraction does not make a number that counts. */
        for (int i = 0; i < model_params(m.model)->count; i++)
            case_fill(&model_params(m.model)->items[i].value, &rng, 0.5);
        assert_ok(model_save(m.model, NULL, source, PLX_F32, &err), &err);
        for (int i = 0; i < model_params(m.model)->count; i++) {
            const struct param *param = &model_params(m.model)->items[i];
            damage(&param->value);
            assert_ok(model_save(m.model, NULL, target, PLX_F32, &err), &err);
            plx_status status = convert_prove(&plan, source, target, &options, &report, &err);
            if (status == PLX_OK) print_error("%s: damage is not seen\n", param->name);
            assert_refused(status, PLX_INTERNAL, "but they must be the same", &err);
            damage(&param->value);
        }
        assert_ok(model_save(m.model, NULL, target, PLX_F32, &err), &err);
        assert_ok(convert_prove(&plan, source, target, &options, &report, &err), &err);
        assert_int_equal(report.proof, CONVERT_LOGITS_EQUAL);
        case_close(&m);
    }
}

/* model_init and a folder of start values are the same model. */
static void fresh_weights_are_those_of_model_init(void **state)
{
    (void)state;
    struct case_model a, b = {0};
    struct model_config config = family_config(&families[0]);
    const char *source = fresh_model(&families[0], "F32", 11);
    const struct backend_config backend = {.ops = &ops_ref, .storage = PLX_F32, .threads = 1};
    case_open(&a, &config, &ops_ref, PLX_F32, 11);
    CASE_OK(&a, model_init(a.model, 11));
    CASE_OK(&b, backend_create(&b.be, &backend, &b.err));
    CASE_OK(&b, model_open(&b.be, source, &b.model, &b.err));
    const struct param_list *left = model_params(a.model), *right = model_params(b.model);
    assert_int_equal(left->count, right->count);
    for (int i = 0; i < left->count; i++)
        case_assert_same_bits(&left->items[i].value, &right->items[i].value);
    case_close(&a);
    case_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_conversion_is_the_identity),
        cmocka_unit_test(shards_join_to_the_same_file),
        cmocka_unit_test(widening_comes_back),
        cmocka_unit_test(a_silent_probe_changes_nothing),
        cmocka_unit_test(a_silent_probe_changes_no_large_vocabulary),
        cmocka_unit_test(layouts_of_parallax_agree),
        cmocka_unit_test(copy_q_copies),
        cmocka_unit_test(flipped_bits_are_noticed),
        cmocka_unit_test(damaged_tensors_change_the_logits),
        cmocka_unit_test(fresh_weights_are_those_of_model_init),
    };
    return cmocka_run_group_tests_name("conversions", tests, io_folder_make, io_folder_remove);
}
