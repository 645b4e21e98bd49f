/* bench_attention.c: timing the attention kernels against stated limits.
 *
 * A case is one pass, mechanism, dtype, shape and mask. Its tensors hold normal random numbers
 * (drawn once for the largest case), a forward runs before a backward is timed, and calls repeat
 * until both the number and the time asked for are reached. Next: bench_peak.c for the limits. */
#include "bench_attention.h"

#include <stdlib.h>
#include <string.h>

#include "bench_peak.h"
#include "core/random.h"

/* Memory larger than any cache in use, so that reading it measures the memory. */
#define READ_BYTES ((int64_t)256 << 20)

struct bench_case {
    plx_pass pass;
    plx_mechanism mechanism;
    plx_dtype dtype;
    struct bench_shape shape;
    bool causal;
};

struct bench_limits {
    double gflops, gb_s;
    char machine[128];
};

struct bench_result {
    const char *kernel;
    double best, median; /* seconds */
};

/* ---- Tensors -----------------------------------------------------------------------------------
 */

/* The tensors of a case in the order of struct plx_parallax_args, which is how many there are. */
enum { TENSORS = sizeof(struct plx_parallax_args) / sizeof(struct plx_tensor) };

struct bench_data {
    struct plx_parallax_args args;
    void *workspace;
    size_t workspace_bytes;
};

static void bench_data_destroy(struct bench_data *data)
{
    struct plx_tensor *tensors = &data->args.q;
    for (int n = 0; n < TENSORS; n++) free(tensors[n].data);
    free(data->workspace);
}

static plx_status allocate(struct plx_tensor *tensor, struct error *err)
{
    const size_t bytes = (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
    tensor->data = aligned_alloc(64, (bytes + 127) / 64 * 64);
    REQUIRE(err, tensor->data, PLX_OUT_OF_MEMORY, "bench: %zu bytes for a tensor are not available",
            bytes);
    memset(tensor->data, 0, bytes);
    return PLX_OK;
}

/* Normal values; those of a short pattern are repeated, which a kernel cannot know. */
static void fill(struct plx_tensor *tensor, struct rng *rng)
{
    enum { PATTERN = 65521 };
    static float pattern[PATTERN];
    const int64_t count = plx_tensor_count(tensor), distinct = count < PATTERN ? count : PATTERN;
    for (int64_t n = 0; n < distinct; n++) pattern[n] = (float)rng_normal(rng);
    for (int64_t n = 0; n < count; n++) {
        if (tensor->dtype == PLX_F32) {
            ((float *)tensor->data)[n] = pattern[n % PATTERN];
        } else {
            uint32_t bits;
            memcpy(&bits, &pattern[n % PATTERN], sizeof bits);
            ((uint16_t *)tensor->data)[n] = (uint16_t)(bits >> 16);
        }
    }
}

static plx_status bench_data_create(const struct bench_case *c, struct bench_data *data,
                                    struct error *err)
{
    const struct bench_shape s = c->shape;
    const int64_t time = c->pass == PLX_DECODE ? 1 : s.l, rows[] = {s.b, time, s.hq};
    const struct plx_tensor query = plx_tensor_4d(NULL, c->dtype, s.b, time, s.hq, s.d);
    const struct plx_tensor key = plx_tensor_4d(NULL, c->dtype, s.b, s.l, s.hkv, s.d);
    const struct plx_tensor row = plx_tensor_dense(NULL, PLX_F32, 3, rows);
    struct rng rng = rng_make(1, 0);
    *data = (struct bench_data){.args = {.q = query,
                                         .r = query,
                                         .k = key,
                                         .v = key,
                                         .o = query,
                                         .lse = row,
                                         .probe_mean = row,
                                         .value_mean = query,
                                         .d_o = query,
                                         .dq = query,
                                         .dr = query,
                                         .dk = key,
                                         .dv = key}};
    struct plx_tensor *const tensors = &data->args.q;
    for (int n = 0; n < TENSORS; n++) TRY(allocate(&tensors[n], err));
    struct plx_tensor *const inputs[] = {&data->args.q, &data->args.r, &data->args.k, &data->args.v,
                                         &data->args.d_o};
    for (int n = 0; n < 5; n++) fill(inputs[n], &rng);
    return PLX_OK;
}

/* ---- Calls -------------------------------------------------------------------------------------
 */

static struct plx_softmax_args softmax_args(const struct plx_parallax_args *a)
{
    return (struct plx_softmax_args){.q = a->q,
                                     .k = a->k,
                                     .v = a->v,
                                     .o = a->o,
                                     .lse = a->lse,
                                     .d_o = a->d_o,
                                     .dq = a->dq,
                                     .dk = a->dk,
                                     .dv = a->dv};
}

static plx_status call(plx_context *context, const struct bench_case *c, plx_pass pass,
                       const struct bench_data *data)
{
    static plx_status (*const parallax[])(
        plx_context *, const struct plx_attention *, const struct plx_parallax_args *, void *,
        size_t, plx_stream) = {plx_parallax_forward, plx_parallax_backward, plx_parallax_decode};
    static plx_status (*const softmax[])(
        plx_context *, const struct plx_attention *, const struct plx_softmax_args *, void *,
        size_t, plx_stream) = {plx_softmax_forward, plx_softmax_backward, plx_softmax_decode};
    const struct plx_attention attention = {.causal = c->causal};
    const struct plx_softmax_args args = softmax_args(&data->args);
    if (c->mechanism == PLX_PARALLAX)
        return parallax[pass](context, &attention, &data->args, data->workspace,
                              data->workspace_bytes, NULL);
    return softmax[pass](context, &attention, &args, data->workspace, data->workspace_bytes, NULL);
}

/* The name of the kernel of a pass, and room for its workspace. */
static plx_status prepare(plx_context *context, const struct bench_case *c, plx_pass pass,
                          struct bench_data *data, const char **kernel)
{
    const struct plx_attention attention = {.causal = c->causal};
    const struct plx_softmax_args args = softmax_args(&data->args);
    size_t bytes = 0;
    if (c->mechanism == PLX_PARALLAX) {
        TRY(plx_parallax_kernel(context, &attention, pass, &data->args, kernel));
        TRY(plx_parallax_workspace(context, &attention, pass, &data->args, &bytes));
    } else {
        TRY(plx_softmax_kernel(context, &attention, pass, &args, kernel));
        TRY(plx_softmax_workspace(context, &attention, pass, &args, &bytes));
    }
    if (bytes <= data->workspace_bytes) return PLX_OK;
    free(data->workspace);
    data->workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    data->workspace_bytes = data->workspace ? bytes : 0;
    return data->workspace ? PLX_OK : PLX_OUT_OF_MEMORY;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

enum { MOST_CALLS = 1000 };

static plx_status time_calls(plx_context *context, const struct bench_attention_options *options,
                             const struct bench_case *c, struct bench_data *data,
                             struct bench_result *result)
{
    double times[MOST_CALLS], total = 0;
    const int least = options->repetitions > 0 ? options->repetitions : 3;
    const double long_enough = options->seconds > 0 ? options->seconds : 1;
    int count = 0;
    if (c->pass == PLX_BACKWARD) {
        TRY(prepare(context, c, PLX_FORWARD, data, &result->kernel));
        TRY(call(context, c, PLX_FORWARD, data));
    }
    TRY(prepare(context, c, c->pass, data, &result->kernel));
    TRY(call(context, c, c->pass, data));
    while (count < MOST_CALLS && (count < least || total < long_enough)) {
        const double start = bench_now();
        TRY(call(context, c, c->pass, data));
        times[count] = bench_now() - start;
        total += times[count++];
    }
    qsort(times, (size_t)count, sizeof *times, by_size);
    result->best = times[0];
    result->median = times[count / 2];
    return PLX_OK;
}

static plx_status time_kernel(const struct bench_attention_options *options, const char *kernel,
                              const struct bench_case *c, struct bench_data *data,
                              struct bench_result *result, struct error *err)
{
    const struct plx_context_config config = {.threads = options->threads, .kernel = kernel};
    plx_context *context;
    plx_status status = plx_context_create(&config, &context);
    REQUIRE(err, status == PLX_OK, status, "bench: no context for kernel \"%s\" and %d threads",
            kernel ? kernel : "", options->threads);
    status = time_calls(context, options, c, data, result);
    if (status != PLX_OK) error_set(err, status, "bench: %s", plx_error(context));
    plx_context_destroy(context);
    return status;
}

/* ---- Report ------------------------------------------------------------------------------------
 */

static const char *const pass_names[] = {"forward", "backward", "decode"};
static const char *const mechanism_names[] = {"softmax", "parallax"};

/* Products of T x S x D a head: see the header. */
static double case_flops(const struct bench_case *c)
{
    static const double products[2][3] = {{2, 5, 2}, {4, 8, 4}};
    const struct bench_shape s = c->shape;
    const double time = c->pass == PLX_DECODE ? 1 : (double)s.l;
    const double half = c->causal && c->pass != PLX_DECODE ? 0.5 : 1;
    return products[c->mechanism][c->pass] * half * 2 * (double)s.b * (double)s.hq * time *
           (double)s.l * (double)s.d;
}

static double case_bytes(const struct bench_case *c)
{
    const struct bench_shape s = c->shape;
    return 2 * (double)plx_dtype_size(c->dtype) * (double)s.b * (double)s.hkv * (double)s.l *
           (double)s.d;
}

static void print_json(FILE *file, const struct bench_case *c, int threads,
                       const struct bench_limits *limits, const struct bench_result *own,
                       const struct bench_result *peer)
{
    const struct bench_shape s = c->shape;
    const double gflops = case_flops(c) / own->best * 1e-9, gb_s = case_bytes(c) / own->best * 1e-9;
    const double share = c->pass == PLX_DECODE ? gb_s / limits->gb_s : gflops / limits->gflops;
    fprintf(file, "{\"what\": \"attention_%s\", \"mechanism\": \"%s\", \"kernel\": \"%s\", ",
            pass_names[c->pass], mechanism_names[c->mechanism], own->kernel);
    fprintf(file, "\"b\": %lld, \"hq\": %lld, \"hkv\": %lld, \"l\": %lld, \"d\": %lld, ",
            (long long)s.b, (long long)s.hq, (long long)s.hkv, (long long)s.l, (long long)s.d);
    fprintf(file, "\"dtype\": \"%s\", \"causal\": %s, \"threads\": %d, ", plx_dtype_name(c->dtype),
            c->causal ? "true" : "false", threads);
    fprintf(file, "\"us\": %.2f, \"median_us\": %.2f, \"gflops\": %.2f, \"gb_s\": %.3f, ",
            own->best * 1e6, own->median * 1e6, gflops, gb_s);
    fprintf(file, "\"limit_pct\": %.1f, \"peak_gflops\": %.1f, \"peak_gb_s\": %.2f, ", 100 * share,
            limits->gflops, limits->gb_s);
    if (peer->kernel)
        fprintf(file, "\"peer\": \"%s\", \"peer_us\": %.2f, \"speedup\": %.2f, ", peer->kernel,
                peer->best * 1e6, peer->best / own->best);
    fprintf(file, "\"machine\": \"%s\", \"build\": \"%s\"}\n", limits->machine, plx_build());
    fflush(file);
}

static void print_row(FILE *file, const struct bench_case *c, const struct bench_limits *limits,
                      const struct bench_result *own, const struct bench_result *peer)
{
    const struct bench_shape s = c->shape;
    const bool decode = c->pass == PLX_DECODE;
    const double rate = (decode ? case_bytes(c) : case_flops(c)) / own->best * 1e-9;
    char shape[64];
    snprintf(shape, sizeof shape, "%lld,%lld/%lld,%lld,%lld", (long long)s.b, (long long)s.hq,
             (long long)s.hkv, (long long)s.l, (long long)s.d);
    fprintf(file, "%-9s %-9s %-12s %-18s %-5s %-6s %11.3f ms %9.2f %-8s %5.1f %%",
            mechanism_names[c->mechanism], pass_names[c->pass], own->kernel, shape,
            plx_dtype_name(c->dtype), c->causal ? "causal" : "full", own->best * 1e3, rate,
            decode ? "GB/s" : "GFLOP/s", 100 * rate / (decode ? limits->gb_s : limits->gflops));
    if (peer->kernel) fprintf(file, "  %.1fx %s", peer->best / own->best, peer->kernel);
    fputc('\n', file);
    fflush(file);
}

/* The processor's own name, without what JSON would have to escape. */
static void read_machine(char *name, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(name, size, "%s", colon[1] == ' ' ? colon + 2 : colon + 1);
        name[strcspn(name, "\n\"\\")] = '\0';
        break;
    }
    if (file) fclose(file);
}

/* ---- All cases ---------------------------------------------------------------------------------
 */

static plx_status run_case(const struct bench_attention_options *options,
                           const struct bench_case *c, const struct bench_limits *limits,
                           FILE *json, FILE *table, struct error *err)
{
    struct bench_data data;
    struct bench_result own = {0}, peer = {0};
    plx_status status = bench_data_create(c, &data, err);
    if (status == PLX_OK) status = time_kernel(options, options->kernel, c, &data, &own, err);
    if (status == PLX_OK && options->peer)
        status = time_kernel(options, options->peer, c, &data, &peer, err);
    if (status == PLX_OK && json) print_json(json, c, options->threads, limits, &own, &peer);
    if (status == PLX_OK && table) print_row(table, c, limits, &own, &peer);
    bench_data_destroy(&data);
    return status;
}

/* All shapes with one pass, mechanism and dtype, each with the masks asked for. */
static plx_status run_shapes(const struct bench_attention_options *options, struct bench_case c,
                             const struct bench_limits *limits, FILE *json, FILE *table,
                             struct error *err)
{
    static const struct bench_shape square[] = {{1, 4, 4, 4096, 64}, {1, 4, 4, 4096, 128}};
    static const struct bench_shape decode[] = {{1, 8, 1, 32768, 128}, {1, 8, 8, 8192, 128}};
    const bool is_decode = c.pass == PLX_DECODE;
    const struct bench_shape *shapes = is_decode ? decode : square;
    const int count = options->shape_count > 0 ? options->shape_count : 2;
    if (options->shape_count > 0) shapes = options->shapes;
    const bool both = !options->causal && !options->full;
    for (int n = 0; n < count; n++)
        for (int causal = 0; causal < 2; causal++) {
            if (is_decode ? !causal : !(both || (causal ? options->causal : options->full)))
                continue;
            c.shape = shapes[n];
            c.causal = causal;
            TRY(run_case(options, &c, limits, json, table, err));
        }
    return PLX_OK;
}

plx_status bench_attention(const struct bench_attention_options *given, FILE *json, FILE *table,
                           struct error *err)
{
    static const plx_pass passes[] = {PLX_FORWARD, PLX_BACKWARD};
    static const plx_mechanism mechanisms[] = {PLX_PARALLAX, PLX_SOFTMAX};
    static const plx_dtype dtypes[] = {PLX_F32};
    struct bench_attention_options options = *given;
    if (options.pass_count == 0) options.passes = passes, options.pass_count = 2;
    if (options.mechanism_count == 0) options.mechanisms = mechanisms, options.mechanism_count = 2;
    if (options.dtype_count == 0) options.dtypes = dtypes, options.dtype_count = 1;

    const struct plx_context_config config = {.threads = options.threads};
    plx_context *context;
    plx_status status = plx_context_create(&config, &context);
    REQUIRE(err, status == PLX_OK, status, "bench: no context for %d threads", options.threads);
    options.threads = plx_context_threads(context);
    struct bench_limits limits = {
        .gflops = bench_peak_gflops(options.threads, plx_context_features(context)),
        .gb_s = bench_peak_read(options.threads, READ_BYTES)};
    plx_context_destroy(context);
    REQUIRE(err, limits.gb_s > 0, PLX_OUT_OF_MEMORY,
            "bench: %lld bytes for measuring memory are not available", (long long)READ_BYTES);
    read_machine(limits.machine, sizeof limits.machine);
    if (table)
        fprintf(table, "%s, %d threads: %.1f GFLOP/s of f32 multiply-adds, %.2f GB/s read\n",
                limits.machine, options.threads, limits.gflops, limits.gb_s);

    for (int p = 0; p < options.pass_count; p++)
        for (int m = 0; m < options.mechanism_count; m++)
            for (int t = 0; t < options.dtype_count; t++) {
                const struct bench_case c = {.pass = options.passes[p],
                                             .mechanism = options.mechanisms[m],
                                             .dtype = options.dtypes[t]};
                TRY(run_shapes(&options, c, &limits, json, table, err));
            }
    return PLX_OK;
}
