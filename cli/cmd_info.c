/* cmd_info.c: `parallax info`: the build, the processor and which kernel every attention pass would
 * take, with the reasons of those that would not; `parallax info MODEL`: the model's configuration
 * and parameter table. */
#include "cli.h"

#include <stddef.h>
#include <string.h>

#include "core/device.h"
#include "kernel_choice.h"
#include "model_run.h"
#include "mixers/mixer.h"
#include "progress.h"

struct info_values {
    int64_t length, heads, kv_heads, head_dim, window, page;
    char *dtype;
    bool packed;
    int64_t threads;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Problem whose kernels are shown", "length", OPTION_INT, offsetof(struct info_values, length),
     "4096", "N", 1, 1 << 24, false, "queries and keys"},
    {NULL, "heads", OPTION_INT, offsetof(struct info_values, heads), "8", "N", 1, 4096, false,
     "query heads"},
    {NULL, "kv_heads", OPTION_INT, offsetof(struct info_values, kv_heads), "8", "N", 1, 4096, false,
     "key/value heads"},
    {NULL, "head_dim", OPTION_INT, offsetof(struct info_values, head_dim), "64", "N", 1, 256, false,
     "channels of a head"},
    {NULL, "window", OPTION_INT, offsetof(struct info_values, window), "0", "KEYS", 0, 1 << 24,
     false, "keys a query sees, its own included; 0: all before it"},
    {NULL, "page", OPTION_INT, offsetof(struct info_values, page), "0", "KEYS", 0, 1 << 24, false,
     "keys of a page of decode's cache; 0: not paged"},
    {NULL, "dtype", OPTION_STRING, offsetof(struct info_values, dtype), "f32", "f32|bf16|f16|f64",
     0, 0, false, "of queries, keys and values"},
    {NULL, "packed", OPTION_BOOL, offsetof(struct info_values, packed), "false", NULL, 0, 0, false,
     "two sequences packed by offsets"},
    {NULL, "threads", OPTION_INT, offsetof(struct info_values, threads), "0", "N", 0, 4096, false,
     "CPU threads; 0: all"},
};

static const struct option_table *info_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

/* ---- Kernels ---- */

/* Asks a context of a device which kernel it would take for the problem. */
static plx_status ask(plx_context *context, plx_device device, plx_mechanism mechanism,
                      plx_pass pass, const struct info_values *values, const char **name)
{
    static const plx_dtype dtypes[] = {PLX_F32, PLX_BF16, PLX_F16, PLX_F64};
    struct kernel_question question = {.device = device,
                                       .mechanism = mechanism,
                                       .pass = pass,
                                       .queries = pass == PLX_DECODE ? 1 : values->length,
                                       .keys = values->length,
                                       .heads = values->heads,
                                       .kv_heads = values->kv_heads,
                                       .head_dim = values->head_dim,
                                       .window = values->window,
                                       .page = pass == PLX_DECODE ? values->page : 0};
    for (size_t n = 0; n < COUNT_OF(dtypes); n++)
        if (strcmp(values->dtype, plx_dtype_name(dtypes[n])) == 0) question.dtype = dtypes[n];
    if (values->packed && pass != PLX_DECODE) question.sequences = 2;
    return kernel_choice(context, &question, name);
}

/* One line a kernel: the one that would run, those that could, and why the others refuse. */
static plx_status print_kernel(plx_device device, plx_mechanism mechanism, plx_pass pass,
                               const char *kernel, const char *chosen,
                               const struct info_values *values, struct error *err)
{
    struct plx_context_config config = {
        .device = device, .threads = (int)values->threads, .kernel = kernel};
    plx_context *context;
    plx_status status = plx_context_create(&config, &context);
    REQUIRE(err, status == PLX_OK, status, "kernel %s: %s", kernel, plx_status_text(status));
    const char *name = NULL;
    if (ask(context, device, mechanism, pass, values, &name) != PLX_OK)
        printf("    %-22s no: %s\n", kernel, plx_error(context));
    else
        printf("    %-22s %s\n", kernel,
               chosen && strcmp(chosen, kernel) == 0 ? "runs" : "could run");
    plx_context_destroy(context);
    return PLX_OK;
}

/* Every kernel of every pass, in a context of the device. */
static plx_status print_passes(plx_context *context, plx_device device,
                               const struct info_values *values, struct error *err)
{
    static const char *const mechanisms[] = {"softmax", "parallax"};
    static const char *const passes[] = {"forward", "backward", "decode"};
    for (int n = 0; n < 6; n++) {
        const plx_mechanism mechanism = (plx_mechanism)(n / 3);
        const plx_pass pass = (plx_pass)(n % 3);
        const char *chosen = NULL, *kernel;
        printf("  %s %s\n", mechanisms[mechanism], passes[pass]);
        if (ask(context, device, mechanism, pass, values, &chosen) != PLX_OK)
            printf("    none runs: %s\n", plx_error(context));
        for (int i = 0; (kernel = plx_kernel_name(mechanism, pass, i)); i++)
            TRY(print_kernel(device, mechanism, pass, kernel, chosen, values, err));
    }
    return PLX_OK;
}

static plx_status print_kernels(const struct device *device, const struct info_values *values,
                                struct error *err)
{
    struct plx_context_config config = {.device = device->kind, .threads = (int)values->threads};
    plx_context *context;
    plx_status status = plx_context_create(&config, &context);
    REQUIRE(err, status == PLX_OK, status, "%s: %s", device->name, plx_status_text(status));
    printf("\nkernels on %s for %s, causal, %lld queries and keys, %lld query and %lld key/value "
           "heads of %lld channels\n",
           device->name, values->dtype, (long long)values->length, (long long)values->heads,
           (long long)values->kv_heads, (long long)values->head_dim);
    status = print_passes(context, device->kind, values, err);
    plx_context_destroy(context);
    return status;
}

/* The first GPU, or why there is none. */
static bool print_gpu(void)
{
    struct device_facts facts;
    struct error why = {0};
    const bool found = device_cuda.describe(0, &facts, &why) == PLX_OK;
    if (found)
        printf("gpu        %s, %s, %.1f GiB\n", facts.name, facts.details,
               (double)facts.memory_bytes * 0x1p-30);
    else
        printf("gpu        none: %s\n", why.text);
    return found;
}

static plx_status info_machine(const struct info_values *values, struct error *err)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } features[] = {{PLX_FEATURE_AVX2, "AVX2"},
                    {PLX_FEATURE_AVX512, "AVX-512 (F, BW, DQ, VL)"},
                    {PLX_FEATURE_AVX512_BF16, "AVX-512 bf16"},
                    {PLX_FEATURE_AVX512_VNNI, "AVX-512 VNNI"},
                    {PLX_FEATURE_AMX_BF16, "AMX bf16"}};
    struct plx_context_config config = {.threads = (int)values->threads};
    plx_context *context;
    plx_status status = plx_context_create(&config, &context);
    REQUIRE(err, status == PLX_OK, status, "--threads: %lld: %s", (long long)values->threads,
            plx_status_text(status));
    printf("build      %s\nthreads    %d\nprocessor\n", plx_build(), plx_context_threads(context));
    for (int i = 0; i < COUNT_OF(features); i++)
        printf("  %-26s %s\n", features[i].name,
               plx_context_features(context) & features[i].bit ? "yes" : "no");
    plx_context_destroy(context);
    const bool gpu = print_gpu();
    printf("mixers    ");
    for (int i = 0; mixer_at(i); i++) printf(" %s", mixer_at(i)->name);
    printf("\noptimisers muon adamw\n");
    TRY(print_kernels(&device_cpu, values, err));
    return gpu ? print_kernels(&device_cuda, values, err) : PLX_OK;
}

/* ---- A model ---- */

static void print_config(const struct model_config *config)
{
    printf("model type %s, ", model_family_name(model_config_family(config)));
    printf("layers %lld, width %lld, FFN %lld, vocabulary %lld, context %lld\n",
           (long long)config->layers, (long long)config->hidden_size,
           (long long)config->intermediate_size, (long long)config->vocab_size,
           (long long)config->max_position);
    printf("heads %lld, key/value heads %lld, channels %lld, rope base %g, norm eps %g\n",
           (long long)config->heads, (long long)config->kv_heads, (long long)config->head_dim,
           config->rope.theta, config->norm_eps);
    if (config->rope.factor > 0)
        printf("rope stretched %g times beyond %g positions\n", config->rope.factor,
               config->rope.original_positions);
    printf("tied embeddings %s, q/k/v bias %s, q/k norm %s, probe norm %s, probe rope %s, probe "
           "gate %s\n",
           config->tie_embeddings ? "yes" : "no", config->qkv_bias ? "yes" : "no",
           config->qk_norm ? "yes" : "no", config->probe_norm ? "yes" : "no",
           config->probe_rope ? "yes" : "no", config->probe_gate ? "yes" : "no");
    printf("mixers");
    for (int64_t i = 0; i < config->layers; i++) {
        printf(" %s", config->layer[i].mixer->name);
        if (config->layer[i].window > 0) printf("(%lld)", (long long)config->layer[i].window);
    }
    printf("\n\n");
}

static void print_params(const struct param_list *params)
{
    char shape[64], count[32];
    int64_t by_group[PARAM_GROUPS] = {0};
    printf("%-52s %-16s %-10s %14s\n", "name", "shape", "group", "count");
    for (int i = 0; i < params->count; i++) {
        const struct param *param = &params->items[i];
        const struct plx_tensor *value = &param->value;
        int used = snprintf(shape, sizeof shape, "%lld", (long long)value->shape[0]);
        for (int axis = 1; axis < value->rank; axis++)
            used += snprintf(shape + used, sizeof shape - (size_t)used, " x %lld",
                             (long long)value->shape[axis]);
        printf("%-52s %-16s %-10s %14s\n", param->name, shape, param_group_name(param->group),
               format_count(plx_tensor_count(value), count));
        by_group[param->group] += plx_tensor_count(value);
    }
    printf("\n");
    for (int group = 0; group < PARAM_GROUPS; group++)
        if (by_group[group] > 0)
            printf("%-52s %-16s %-10s %14s\n", "", "", param_group_name((enum param_group)group),
                   format_count(by_group[group], count));
    printf("%-52s %-16s %-10s %14s\n", "parameters", "", "",
           format_count(param_list_elements(params), count));
}

static plx_status info_model(const char *path, struct error *err)
{
    struct model_run_options options = {.device = "cpu", .dtype = "f32", .kernel = ""};
    struct model_run run;
    TRY(model_run_open(&run, path, &options, err));
    printf("%s\n", run.folder);
    print_config(model_get_config(run.model));
    print_params(model_params(run.model));
    model_run_close(&run);
    return PLX_OK;
}

static plx_status info(const struct option_settings *settings, struct error *err)
{
    struct info_values values = {0};
    plx_status status = options_read(info_table(), settings, &values, err);
    if (status == PLX_OK)
        status = settings->positional_count > 0 ? info_model(settings->positionals[0], err)
                                                : info_machine(&values, err);
    options_clear(info_table(), &values);
    return status;
}

const struct command command_info = {
    .name = "info",
    .summary = "show the build, the processor and its kernels, or a model's parameters",
    .usage = "[MODEL] [OPTION...]",
    .explanation =
        "Without a model: which build this is, what the processor can do, which GPU was found, and "
        "for every attention\n"
        "pass on each of them which kernel would run the problem described by the options, and why "
        "the others refuse it.\n"
        "With a model folder or a run folder: its configuration and every parameter with shape, "
        "optimiser group and count.",
    .examples = {"parallax info --dtype bf16 --head-dim 80", "parallax info run"},
    .table = info_table,
    .max_words = 1,
    .run = info,
};
