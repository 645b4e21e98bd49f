/* op_times.h: how long operations take on a GPU, at the shapes of a training step of Qwen3-0.6B
 * with 8 sequences of 4,096 tokens, activations in bf16; and what share of the memory's bandwidth
 * that is. */
#ifndef TEST_OP_TIMES_H
#define TEST_OP_TIMES_H

#include "core/card.h"
#include "op_cases.h"

enum { TOKENS = 8 * 4096, VOCABULARY = 151936, CALLS = 20, REPEATS = 5, BLOCK = 1 << 20 };

static const struct op_time {
    const char *name; /* of op_cases.h */
    int64_t n, e;
    double bytes; /* 0: every operand once, twice where it is read and written */
} op_times[] = {
    {"copy/from-stored", VOCABULARY, 1024, 0},
    {"add", TOKENS, 1024, 0},
    {"sum", 1, TOKENS, 0},
    {"rmsnorm", TOKENS, 1024, 0},
    {"rmsnorm", TOKENS, 2048, 0},
    {"rmsnorm", TOKENS * 16, 128, 0},
    {"rmsnorm_backward", TOKENS, 1024, 0},
    {"rmsnorm_backward/in-place", TOKENS, 1024, 0},
    {"rmsnorm_backward", TOKENS, 2048, 0},
    {"rmsnorm_backward", TOKENS * 16, 128, 0},
    {"bias_backward", TOKENS, 2048, 0},
    {"rope/in-place", TOKENS, 64, 0},
    {"norm_rope", TOKENS, 64, 0},
    {"norm_rope_backward", TOKENS, 64, 0},
    {"norm_rope_backward/in-place", TOKENS, 64, 0},
    {"swiglu", TOKENS, 3072, 0},
    {"swiglu_backward", TOKENS, 3072, 0},
    {"embed", TOKENS, 1024, 4.0 * TOKENS * 1024},
    {"embed_backward", TOKENS, 1024, 10.0 * TOKENS * 1024},
    {"cross_entropy", 4096, VOCABULARY, 0},
    {"cross_entropy/in-place", 4096, VOCABULARY, 0},
    {"cross_entropy/in-place", 65536, 260, 0},
    {"sum_squares", VOCABULARY, 1024, 0},
    {"adamw/later", VOCABULARY, 1024, 0},
    {"adamw/bf16-later", VOCABULARY, 1024, 0},
    {"momentum/ema", 3072, 1024, 0},
    {"momentum/bf16-ema", 3072, 1024, 0},
};

static const struct op_case *op_case_named(const char *name)
{
    for (int k = 0; k < OP_CASES; k++)
        if (strcmp(op_cases[k].name, name) == 0) return &op_cases[k];
    fprintf(stderr, "op_times: no case %s\n", name);
    abort();
}

static void op_time_must(const struct backend *be, plx_status status)
{
    if (status == PLX_OK) return;
    fprintf(stderr, "op_times: %s\n", be->err->text);
    abort();
}

/* Fills an operand with numbers that repeat every BLOCK. */
static struct plx_tensor op_time_place(struct backend *be, const struct operand *operand)
{
    struct seeded random = seeded_make(1, (uint64_t)operand->shape[0]);
    const plx_dtype dtype = op_operand_dtype(operand, be);
    int64_t count = op_operand_count(operand), block = count < BLOCK ? count : BLOCK;
    struct test_tensor some = test_tensor_create(dtype, VIEW_ALIGNED, 1, &block);
    double *values = malloc((size_t)(block + 1) * sizeof *values);
    struct plx_tensor tensor = plx_tensor_dense(NULL, dtype, operand->rank, operand->shape);
    for (int64_t j = 0; j < block; j++) values[j] = op_operand_draw(&random, operand, false);
    test_tensor_write(&some, values);
    tensor.device = be->device->kind;
    size_t size = plx_dtype_size(dtype);
    op_time_must(be,
                 be->device->allocate(&tensor.data, (size_t)count * size + 1, be->stream, be->err));
    for (int64_t first = 0; first < count; first += block) {
        int64_t left = count - first < block ? count - first : block;
        op_time_must(be,
                     be->device->upload((char *)tensor.data + (size_t)first * size, some.view.data,
                                        (size_t)left * size, be->stream, be->err));
    }
    op_time_must(be, be->device->wait(be->stream, be->err));
    free(values);
    test_tensor_destroy(&some);
    return tensor;
}

static int op_time_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of a call: the median of REPEATS times CALLS back to back. */
static double op_time_call(struct backend *be, const struct op_case *c,
                           const struct plx_tensor *views)
{
    double seconds[REPEATS];
    device_event begin, end;
    op_time_must(be, be->device->event_create(&begin, be->err));
    op_time_must(be, be->device->event_create(&end, be->err));
    for (int repeat = -1; repeat < REPEATS; repeat++) {
        op_time_must(be, be->device->event_record(begin, be->stream, be->err));
        for (int call = 0; call < CALLS; call++) op_time_must(be, c->run(be, views));
        op_time_must(be, be->device->event_record(end, be->stream, be->err));
        double elapsed;
        op_time_must(be, be->device->event_elapsed(begin, end, &elapsed, be->err));
        if (repeat >= 0) seconds[repeat] = elapsed / CALLS;
    }
    be->device->event_destroy(begin);
    be->device->event_destroy(end);
    qsort(seconds, REPEATS, sizeof *seconds, op_time_order);
    return seconds[REPEATS / 2];
}

static void op_time_row(struct backend *be, const struct op_time *row, double peak)
{
    const struct op_case *c = op_case_named(row->name);
    struct operand operands[OPERANDS] = {0};
    struct plx_tensor views[OPERANDS] = {0};
    double bytes = 0;
    c->operands(operands, row->n, row->e);
    for (int i = 0; i < OPERANDS && operands[i].rank > 0; i++) {
        views[i] = op_time_place(be, &operands[i]);
        bytes += (double)op_operand_count(&operands[i]) * (double)plx_dtype_size(views[i].dtype) *
                 (operands[i].role == ROLE_BOTH ? 2 : 1);
    }
    struct backend dry = backend_dry(be);
    op_time_must(be, c->run(&dry, views));
    op_time_must(be, backend_reserve(be, dry.scratch.peak));
    double seconds = op_time_call(be, c, views);
    if (row->bytes > 0) bytes = row->bytes;
    printf("%-24s %8lld %8lld %10.1f %8.0f %6.0f\n", row->name, (long long)row->n,
           (long long)row->e, 1e6 * seconds, 1e-9 * bytes / seconds, 100 * bytes / seconds / peak);
    for (int i = 0; i < OPERANDS; i++)
        if (views[i].data != NULL) be->device->release(views[i].data, be->stream);
}

static int op_times_print(void)
{
    const struct backend_config config = {
        .ops = &ops_cuda, .storage = PLX_F32, .compute = PLX_BF16, .bf16_activations = true};
    struct error err = {0};
    struct backend be;
    struct device_facts facts;
    if (backend_create(&be, &config, &err) != PLX_OK ||
        be.device->describe(0, &facts, &err) != PLX_OK) {
        fprintf(stderr, "op_times: %s\n", err.text);
        return 1;
    }
    const struct card *card = card_named(facts.name);
    printf("%-24s %8s %8s %10s %8s %6s\n", "operation", "n", "e", "us", "GB/s", "% peak");
    for (size_t i = 0; i < sizeof op_times / sizeof *op_times; i++)
        op_time_row(&be, &op_times[i], card != NULL ? 1e12 * card->tb_s : 0);
    backend_destroy(&be);
    return 0;
}

#endif
