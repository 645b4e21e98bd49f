/* bench_attention.c: which cases are timed, on which device, and against what.
 *
 * A case is one pass, mechanism, dtype, shape and mask. The tensors of all cases share memory that
 * is allocated once (bench_tensors.c); each case is checked and timed (bench_measure.c) and told
 * (bench_report.c). Next: bench_peak.c for the limits of the CPU, bench_exact.c for the error. */
#include "bench_attention.h"

#include <string.h>

#include "bench_measure.h"
#include "bench_peak.h"
#include "bench_peer.h"
#include "bench_report.h"
#include "core/card.h"

/* Memory larger than any cache in use, so that reading it measures the memory, and writing it
 * empties the caches. */
#define READ_BYTES ((int64_t)256 << 20)

/* ---- Devices: what a case is where the options do not say --------------------------------------
 */

struct platform {
    const struct device *device;
    plx_dtype dtype;
    bool causal, full;
    const struct bench_shape *shapes[3]; /* by pass */
    int shape_counts[3];
    struct bench_method method;
    const char *rival; /* a kernel */
    struct bench_units units;
    plx_status (*limits)(const struct device_facts *facts, int threads, struct bench_limits *limits,
                         struct error *err);
};

/* Measured in this process: multiply-adds of f32 in registers, and reading memory. */
static plx_status cpu_limits(const struct device_facts *facts, int threads,
                             struct bench_limits *limits, struct error *err)
{
    plx_context *context;
    (void)facts;
    plx_status status = plx_context_create(NULL, &context);
    REQUIRE(err, status == PLX_OK, status, "bench: no context");
    const double gflops = bench_peak_gflops(threads, plx_context_features(context));
    const double gb_s = bench_peak_read(threads, READ_BYTES);
    plx_context_destroy(context);
    REQUIRE(err, gb_s > 0, PLX_OUT_OF_MEMORY,
            "bench: %lld bytes for measuring memory are not available", (long long)READ_BYTES);
    *limits = (struct bench_limits){.tflops = gflops * 1e-3, .tb_s = gb_s * 1e-3};
    snprintf(limits->text, sizeof limits->text,
             "%.1f GFLOP/s of f32 multiply-adds and %.2f GB/s read, measured", gflops, gb_s);
    return PLX_OK;
}

/* By the data sheet of the card. */
static plx_status cuda_limits(const struct device_facts *facts, int threads,
                              struct bench_limits *limits, struct error *err)
{
    const struct card *card = card_named(facts->name);
    (void)threads;
    (void)err;
    *limits = (struct bench_limits){.text = "this card's are not in the table"};
    if (card == NULL) return PLX_OK;
    limits->tflops = card->tflops;
    limits->tb_s = card->tb_s;
    snprintf(limits->text, sizeof limits->text,
             "%g TFLOP/s of dense bf16 products and %g TB/s, by the data sheet", limits->tflops,
             limits->tb_s);
    return PLX_OK;
}

static const struct bench_shape cpu_shapes[] = {{1, 4, 4, 4096, 64}, {1, 4, 4, 4096, 128}};
static const struct bench_shape cpu_decode[] = {{1, 8, 1, 32768, 128}};
static const struct bench_shape cuda_shapes[] = {{4, 16, 16, 4096, 128},  {4, 16, 8, 4096, 128},
                                                 {1, 16, 16, 16384, 128}, {4, 16, 16, 4096, 64},
                                                 {16, 16, 16, 1024, 128}, {1, 16, 8, 16384, 64}};
static const struct bench_shape cuda_decode[] = {
    {1, 8, 8, 512, 128},   {1, 8, 8, 1024, 128},   {1, 8, 8, 4096, 128},   {1, 8, 8, 16384, 128},
    {32, 8, 8, 512, 128},  {32, 8, 8, 1024, 128},  {32, 8, 8, 4096, 128},  {32, 8, 8, 16384, 128},
    {8, 16, 8, 4096, 128}, {1, 16, 8, 32768, 128}, {64, 32, 8, 4096, 128}, {32, 8, 8, 4096, 64},
    {1, 8, 8, 4096, 64}};

#define SHAPES(list) (int)(sizeof(list) / sizeof(list)[0])

static const struct platform platforms[] = {
    {.device = &device_cpu,
     .dtype = PLX_F32,
     .causal = true,
     .full = true,
     .shapes = {cpu_shapes, cpu_shapes, cpu_decode},
     .shape_counts = {SHAPES(cpu_shapes), SHAPES(cpu_shapes), SHAPES(cpu_decode)},
     .method = {.graph_calls = 1, .calls = 1, .samples = 3, .seconds = 1, .most_seconds = 60},
     .rival = "portable",
     .units = {"ms", "GFLOP/s", "GB/s", 1e3, 1e3, 1e3, "the fastest call", .best = true},
     .limits = cpu_limits},
    {.device = &device_cuda,
     .dtype = PLX_BF16,
     .causal = true,
     .shapes = {cuda_shapes, cuda_shapes, cuda_decode},
     .shape_counts = {SHAPES(cuda_shapes), SHAPES(cuda_shapes), SHAPES(cuda_decode)},
     .method = {.graph_calls = 20, .calls = 5, .samples = 20, .most_seconds = 2},
     .units =
         {"us", "TFLOP/s", "TB/s", 1e6, 1, 1,
          "median; decode: replays of a graph of 20 calls, else 5 calls back to back between two "
          "events; cold: one call"},
     .limits = cuda_limits},
};

/* ---- All cases ---------------------------------------------------------------------------------
 */

/* A benchmark on its way. */
struct bench {
    struct bench_attention_options options;
    const struct platform *platform;
    struct bench_method method;
    struct bench_tensors tensors;
    struct bench_peers peers;
    struct bench_report report;
    const char *rival; /* a kernel to time beside each case, or NULL */
};

typedef plx_status (*case_action)(struct bench *bench, const struct bench_case *c,
                                  struct error *err);

static plx_status for_masks(struct bench *bench, struct bench_case c, case_action action,
                            struct error *err)
{
    const bool decode = c.pass == PLX_DECODE;
    if (bench->options.full && !decode) TRY(action(bench, &c, err));
    c.causal = true;
    if (bench->options.causal || decode) TRY(action(bench, &c, err));
    return PLX_OK;
}

static plx_status for_shapes(struct bench *bench, struct bench_case c, case_action action,
                             struct error *err)
{
    const struct bench_attention_options *o = &bench->options;
    const struct bench_shape *shapes = o->shape_count ? o->shapes : bench->platform->shapes[c.pass];
    const int count = o->shape_count ? o->shape_count : bench->platform->shape_counts[c.pass];
    for (int n = 0; n < count; n++) {
        c.shape = shapes[n];
        REQUIRE(err, bench_time(&c) <= c.shape.l, PLX_INVALID_ARGUMENT,
                "--tokens: %lld queries a sequence are more than its %lld keys",
                (long long)bench_time(&c), (long long)c.shape.l);
        TRY(for_masks(bench, c, action, err));
    }
    return PLX_OK;
}

static plx_status for_cases(struct bench *bench, case_action action, struct error *err)
{
    const struct bench_attention_options *o = &bench->options;
    for (int p = 0; p < o->pass_count; p++)
        for (int m = 0; m < o->mechanism_count; m++)
            for (int t = 0; t < o->dtype_count; t++) {
                const bool decode = o->passes[p] == PLX_DECODE;
                const struct bench_case c = {.pass = o->passes[p],
                                             .mechanism = o->mechanisms[m],
                                             .dtype = o->dtypes[t],
                                             .cache = decode && o->f8 ? PLX_F8E4M3 : o->dtypes[t],
                                             .cold = o->cold,
                                             .page = decode ? o->page : 0,
                                             .lengths = decode && o->lengths,
                                             .tokens = o->tokens > 0 ? o->tokens : 1,
                                             .deterministic =
                                                 o->deterministic && o->passes[p] == PLX_BACKWARD};
                TRY(for_shapes(bench, c, action, err));
            }
    return PLX_OK;
}

static plx_status reserve(struct bench *bench, const struct bench_case *c, struct error *err)
{
    (void)err;
    bench_tensors_reserve(&bench->tensors, c);
    return PLX_OK;
}

static plx_status plan(struct bench *bench, const struct bench_case *c, struct error *err)
{
    struct bench_result result = {0};
    TRY(bench_measure_plan(&bench->tensors, c, bench->options.kernel, bench->options.threads,
                           &result, err));
    bench_report_plan(&bench->report, c, &result);
    return PLX_OK;
}

/* A kernel that serves as rival is timed on the same inputs, unless it is the one that the case
 * takes anyway; its own line comes first. */
static plx_status time_rival(struct bench *bench, const struct bench_case *c,
                             struct bench_rival *rival, struct error *err)
{
    struct bench_result result = {0};
    rival->seconds = bench_peers_find(&bench->peers, c) * 1e-6;
    rival->name = "cuDNN";
    if (!bench->rival) return PLX_OK;
    TRY(bench_measure_plan(&bench->tensors, c, bench->options.kernel, bench->options.threads,
                           &result, err));
    if (strcmp(result.kernel, bench->rival) == 0) return PLX_OK;
    TRY(bench_measure(&bench->tensors, c, bench->rival, bench->options.threads, &bench->method,
                      &result, err));
    bench_report_case(&bench->report, c, &result, &(struct bench_rival){0});
    rival->seconds = bench->platform->units.best ? result.best : result.median;
    rival->name = bench->rival;
    return PLX_OK;
}

static plx_status measure(struct bench *bench, const struct bench_case *c, struct error *err)
{
    struct bench_result result = {0};
    struct bench_rival rival = {0};
    TRY(time_rival(bench, c, &rival, err));
    TRY(bench_measure(&bench->tensors, c, bench->options.kernel, bench->options.threads,
                      &bench->method, &result, err));
    bench_report_case(&bench->report, c, &result, &rival);
    return PLX_OK;
}

/* ---- From options to a benchmark ---------------------------------------------------------------
 */

static void set_defaults(struct bench *bench)
{
    static const plx_pass passes[] = {PLX_FORWARD, PLX_BACKWARD};
    static const plx_mechanism mechanisms[] = {PLX_PARALLAX, PLX_SOFTMAX};
    struct bench_attention_options *o = &bench->options;
    const struct platform *platform = bench->platform;
    if (o->pass_count == 0) o->passes = passes, o->pass_count = 2;
    if (o->mechanism_count == 0) o->mechanisms = mechanisms, o->mechanism_count = 2;
    if (o->dtype_count == 0) o->dtypes = &platform->dtype, o->dtype_count = 1;
    if (!o->causal && !o->full) o->causal = platform->causal, o->full = platform->full;
    if (!o->peer) o->peer = platform->rival;
    bench->method = platform->method;
    if (o->repetitions > 0) bench->method.samples = o->repetitions;
    if (o->seconds > 0) bench->method.seconds = o->seconds;
}

/* The peer is a file of lines, a kernel, or none. */
static plx_status open_peer(struct bench *bench, struct error *err)
{
    const char *peer = bench->options.peer;
    const size_t length = peer ? strlen(peer) : 0, suffix = strlen(".jsonl");
    if (length == 0 || strcmp(peer, "none") == 0) return PLX_OK;
    if (length > suffix && strcmp(peer + length - suffix, ".jsonl") == 0)
        return bench_peers_read(&bench->peers, peer, err);
    bench->rival = peer;
    return PLX_OK;
}

static plx_status open_device(struct bench *bench, struct error *err)
{
    const struct platform *platform = bench->platform;
    struct device_facts facts;
    plx_context *context;
    TRY(platform->device->open(0, err));
    TRY(platform->device->describe(0, &facts, err));
    const struct plx_context_config config = {.threads = bench->options.threads};
    plx_status status = plx_context_create(&config, &context);
    REQUIRE(err, status == PLX_OK, status, "bench: no context for %d threads",
            bench->options.threads);
    bench->options.threads = plx_context_threads(context);
    plx_context_destroy(context);
    TRY(platform->device->stream_create(&bench->tensors.stream, err));
    bench->tensors.device = platform->device;
    bench->tensors.probe_offset = bench->options.probe_offset;
    bench->report.units = &platform->units;
    TRY(platform->limits(&facts, bench->options.threads, &bench->report.limits, err));
    bench_report_device(&bench->report, &facts, bench->options.threads);
    return PLX_OK;
}

static plx_status run(struct bench *bench, struct error *err)
{
    const struct device *device = bench->platform->device;
    TRY(open_peer(bench, err));
    TRY(open_device(bench, err));
    if (bench->options.plan) return for_cases(bench, plan, err);
    TRY(for_cases(bench, reserve, err));
    TRY(bench_tensors_allocate(&bench->tensors, err));
    if (bench->options.cold) {
        bench->method.flush_bytes = READ_BYTES;
        TRY(device->allocate(&bench->method.flush, READ_BYTES, bench->tensors.stream, err));
    }
    TRY(for_cases(bench, measure, err));
    bench_report_summary(&bench->report);
    return PLX_OK;
}

plx_status bench_attention(const struct bench_attention_options *options, FILE *json, FILE *table,
                           struct error *err)
{
    struct bench bench = {.options = *options, .report = {.json = json, .table = table}};
    for (size_t n = 0; n < sizeof platforms / sizeof platforms[0]; n++)
        if (strcmp(platforms[n].device->name, options->device) == 0) bench.platform = &platforms[n];
    REQUIRE(err, bench.platform, PLX_INVALID_ARGUMENT, "bench: there is no device \"%s\"",
            options->device);
    set_defaults(&bench);
    plx_status status = run(&bench, err);
    if (bench.tensors.device) {
        const plx_stream stream = bench.tensors.stream;
        bench.tensors.device->release(bench.method.flush, stream);
        bench_tensors_destroy(&bench.tensors);
        bench.platform->device->stream_destroy(stream);
    }
    bench_peers_destroy(&bench.peers);
    return status;
}
