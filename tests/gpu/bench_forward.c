/* bench_forward.c: how long the forward pass takes on this GPU, through the public interface.
 *
 *     bench_forward [--full] [--kernel NAME] [B,HQ,HKV,L,D ...]
 *
 * Both mechanisms, bf16, causal unless --full, with everything that backward needs saved. Prints
 * one JSON object a line: median time, TFLOP/s (two products for softmax attention, four for
 * Parallax, half of each when causal), and err, the largest difference to the simple kernel
 * "cuda_any" on the first 256 queries' worth of a shape with f32 outputs, as a share of its largest
 * value. Exit code 77 without a GPU. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "parallax/parallax.h"

enum { MAX_SHAPES = 32, RUNS = 15, CALLS = 5, PATTERN = 4194301 };

struct shape {
    long long B, H, G, L, D;
};

static void check_cuda(cudaError_t error)
{
    if (error == cudaSuccess) return;
    fprintf(stderr, "%s\n", cudaGetErrorString(error));
    exit(1);
}

static void check(plx_context *context, plx_status status)
{
    if (status == PLX_OK) return;
    fprintf(stderr, "%s: %s\n", plx_status_name(status), plx_error(context));
    exit(1);
}

/* Normal values, rounded to bf16. */
static uint16_t *pattern_create(void)
{
    uint16_t *pattern = malloc(PATTERN * sizeof *pattern);
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (int n = 0; pattern && n < PATTERN; n++) {
        double sum = -6;
        for (int i = 0; i < 12; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(state >> 40) * 0x1p-24;
        }
        float value = (float)sum;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        pattern[n] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    return pattern;
}

/* [B,L,H,D] of the pattern from some place on, again and again; its odd length keeps heads apart.
 */
static struct plx_tensor tensor_create(plx_dtype dtype, int rank, const int64_t *shape,
                                       const uint16_t *pattern, size_t place)
{
    struct plx_tensor view = plx_tensor_dense(NULL, dtype, rank, shape);
    size_t count = (size_t)plx_tensor_count(&view), size = plx_dtype_size(dtype);
    view.device = PLX_CUDA;
    check_cuda(cudaMalloc(&view.data, count * size));
    if (!pattern) {
        check_cuda(cudaMemset(view.data, 0xff, count * size));
        return view;
    }
    for (size_t done = 0; done < count;) {
        size_t part = PATTERN - place < count - done ? PATTERN - place : count - done;
        check_cuda(cudaMemcpy((uint16_t *)view.data + done, pattern + place, part * 2,
                              cudaMemcpyHostToDevice));
        done += part;
        place = 0;
    }
    return view;
}

static struct plx_parallax_args args_create(struct shape s, const uint16_t *pattern, plx_dtype out)
{
    const int64_t query[] = {s.B, s.L, s.H, s.D}, key[] = {s.B, s.L, s.G, s.D};
    return (struct plx_parallax_args){
        .q = tensor_create(PLX_BF16, 4, query, pattern, 0),
        .r = tensor_create(PLX_BF16, 4, query, pattern, 1000003),
        .k = tensor_create(PLX_BF16, 4, key, pattern, 2000003),
        .v = tensor_create(PLX_BF16, 4, key, pattern, 3000017),
        .o = tensor_create(out, 4, query, NULL, 0),
        .lse = tensor_create(PLX_F32, 3, query, NULL, 0),
        .probe_mean = tensor_create(PLX_F32, 3, query, NULL, 0),
        .value_mean = tensor_create(out, 4, query, NULL, 0),
    };
}

static void args_destroy(const struct plx_parallax_args *a)
{
    const struct plx_tensor *all[] = {&a->q, &a->r,   &a->k,          &a->v,
                                      &a->o, &a->lse, &a->probe_mean, &a->value_mean};
    for (int n = 0; n < 8; n++) check_cuda(cudaFree(all[n]->data));
}

static plx_status forward(plx_context *context, plx_mechanism mechanism,
                          const struct plx_attention *attention, const struct plx_parallax_args *a)
{
    struct plx_softmax_args plain = {.q = a->q, .k = a->k, .v = a->v, .o = a->o, .lse = a->lse};
    if (mechanism == PLX_SOFTMAX)
        return plx_softmax_forward(context, attention, &plain, NULL, 0, NULL);
    return plx_parallax_forward(context, attention, a, NULL, 0, NULL);
}

static int compare(const void *a, const void *b)
{
    return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b);
}

static double milliseconds(plx_context *context, plx_mechanism mechanism,
                           const struct plx_attention *attention, const struct plx_parallax_args *a)
{
    cudaEvent_t begin, end;
    float times[RUNS];
    check_cuda(cudaEventCreate(&begin));
    check_cuda(cudaEventCreate(&end));
    check(context, forward(context, mechanism, attention, a));
    for (int run = 0; run < RUNS; run++) {
        check_cuda(cudaEventRecord(begin, NULL));
        for (int call = 0; call < CALLS; call++)
            check(context, forward(context, mechanism, attention, a));
        check_cuda(cudaEventRecord(end, NULL));
        check_cuda(cudaEventSynchronize(end));
        check_cuda(cudaEventElapsedTime(&times[run], begin, end));
    }
    check_cuda(cudaEventDestroy(begin));
    check_cuda(cudaEventDestroy(end));
    qsort(times, RUNS, sizeof times[0], compare);
    return times[RUNS / 2] / CALLS;
}

static plx_context *context_create(const char *kernel)
{
    plx_context *context;
    struct plx_context_config config = {.device = PLX_CUDA, .kernel = kernel};
    plx_status status = plx_context_create(&config, &context);
    if (status == PLX_UNSUPPORTED) {
        printf("skipped, no GPU\n");
        exit(77);
    }
    if (status != PLX_OK) exit(1);
    return context;
}

/* The output of one kernel on a small relative of the shape: one batch entry, few heads. */
static float *output_of(const char *kernel, plx_mechanism mechanism,
                        const struct plx_attention *attention, struct shape s,
                        const uint16_t *pattern, size_t count)
{
    plx_context *context = context_create(kernel);
    struct plx_parallax_args a = args_create(s, pattern, PLX_F32);
    float *host = malloc(count * sizeof *host);
    check(context, forward(context, mechanism, attention, &a));
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaMemcpy(host, a.o.data, count * sizeof *host, cudaMemcpyDeviceToHost));
    args_destroy(&a);
    plx_context_destroy(context);
    return host;
}

static double error_of(const char *kernel, plx_mechanism mechanism,
                       const struct plx_attention *attention, struct shape s,
                       const uint16_t *pattern)
{
    s.G = 1, s.H = s.H < 2 ? s.H : 2, s.B = 1, s.L = s.L < 4096 ? s.L : 4096;
    size_t count = (size_t)(s.L * s.H * s.D);
    float *got = output_of(kernel, mechanism, attention, s, pattern, count);
    float *want = output_of("cuda_any", mechanism, attention, s, pattern, count);
    double error = 0, largest = 0;
    for (size_t n = 0; n < count; n++) {
        double difference = fabs((double)got[n] - want[n]);
        error = difference >= 0 ? fmax(error, difference) : INFINITY;
        largest = fmax(largest, fabs((double)want[n]));
    }
    free(got);
    free(want);
    return error / largest;
}

static void bench(const char *kernel, plx_mechanism mechanism, bool causal, struct shape s,
                  const uint16_t *pattern)
{
    plx_context *context = context_create(kernel);
    struct plx_attention attention = {.causal = causal};
    struct plx_parallax_args a = args_create(s, pattern, PLX_BF16);
    double ms = milliseconds(context, mechanism, &attention, &a);
    args_destroy(&a);
    plx_context_destroy(context);
    double products = mechanism == PLX_PARALLAX ? 8 : 4;
    double flops = products * (double)(s.B * s.H) * (double)(s.L * s.L) * (double)s.D;
    double error = error_of(kernel, mechanism, &attention, s, pattern);
    printf("{\"what\": \"forward\", \"mechanism\": \"%s\", \"kernel\": \"%s\", \"b\": %lld, "
           "\"hq\": %lld, \"hkv\": %lld, \"l\": %lld, \"d\": %lld, \"dtype\": \"bf16\", "
           "\"causal\": %s, \"us\": %.1f, \"tflops\": %.1f, \"err\": %.2e}\n",
           mechanism == PLX_PARALLAX ? "parallax" : "softmax", kernel, s.B, s.H, s.G, s.L, s.D,
           causal ? "true" : "false", ms * 1e3, flops / (causal ? 2 : 1) / ms * 1e-9, error);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct shape shapes[MAX_SHAPES] = {
        {4, 16, 16, 4096, 128}, {1, 16, 16, 16384, 128}, {4, 16, 16, 4096, 64}};
    int count = 0;
    bool causal = true;
    const char *kernel = "cuda_sm90";
    for (int n = 1; n < argc; n++) {
        struct shape *s = &shapes[count];
        if (strcmp(argv[n], "--full") == 0)
            causal = false;
        else if (strcmp(argv[n], "--kernel") == 0 && n + 1 < argc)
            kernel = argv[++n];
        else if (count < MAX_SHAPES && sscanf(argv[n], "%lld,%lld,%lld,%lld,%lld", &s->B, &s->H,
                                              &s->G, &s->L, &s->D) == 5)
            count++;
        else
            return fprintf(stderr, "%s: not understood\n", argv[n]), 2;
    }
    if (count == 0) count = 3;
    uint16_t *pattern = pattern_create();
    if (!pattern) return 1;
    for (int n = 0; n < count; n++)
        for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++)
            bench(kernel, mechanism, causal, shapes[n], pattern);
    free(pattern);
    return 0;
}
