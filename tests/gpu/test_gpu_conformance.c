/* test_gpu_conformance.c: every CUDA kernel row x pass x dtype x case against the double oracle, on
 * copies of guarded memory (attention_case.c): red zones, poisoned outputs and paddings, the same
 * bits on a second run, a workspace of exactly the stated size.
 *
 * Four lists: the table that the CPU runs too; decode drawn from every length, ratio, window and
 * layout that its kernels treat differently; drawn shapes of all passes; and the shapes, windows
 * and packed lists of flash-linear-attention's tests of Parallax. Without a GPU the program says
 * "skipped, no GPU" and exits with 77. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "conformance.h"
#include "device/device_memory.h"

enum { DECODE_CASES = 700, DRAWN_CASES = 500, MAX_BATCH = 24, MAX_SEQUENCES = 5, LEAST_ROWS = 24 };

static struct test_options options;
static struct conformance all;

/* A drawn case and the lists that it points to. */
struct drawn {
    struct attention_case c;
    char name[96];
    int32_t q_lengths[MAX_BATCH], k_lengths[MAX_BATCH];
    int32_t q_offsets[MAX_SEQUENCES + 1], k_offsets[MAX_SEQUENCES + 1];
};

#define PICK(random, list) (list)[seeded_between((random), 0, sizeof(list) / sizeof(list)[0] - 1)]

static bool chance(struct seeded *random, double probability)
{
    return seeded_uniform(random) < probability;
}

static void draw_lengths(struct seeded *random, int32_t *lengths, int64_t limit)
{
    for (int b = 0; b < MAX_BATCH; b++)
        lengths[b] = (int32_t)(chance(random, 0.2) ? limit : seeded_between(random, 0, limit));
}

static void draw_offsets(struct seeded *random, int32_t *offsets, int64_t limit)
{
    offsets[0] = 0;
    offsets[MAX_SEQUENCES] = (int32_t)limit;
    for (int n = 1; n < MAX_SEQUENCES; n++)
        offsets[n] = (int32_t)(chance(random, 0.2) ? offsets[n - 1]
                                                   : seeded_between(random, offsets[n - 1], limit));
}

static enum case_values draw_values(struct seeded *random)
{
    static const enum case_values rare[] = {VALUES_LARGE, VALUES_CONSTANT, VALUES_ONE_HOT,
                                            VALUES_OFFSET, VALUES_NAN_QUERY};
    return chance(random, 0.7) ? VALUES_NORMAL : PICK(random, rare);
}

static void name_drawn(struct drawn *d, const char *kind, int number)
{
    const struct attention_case *c = &d->c;
    snprintf(d->name, sizeof d->name, "%s_%d_B%lld_T%lld_S%lld_H%lld_G%lld_D%lld", kind, number,
             (long long)c->B, (long long)c->T, (long long)c->S, (long long)c->H, (long long)c->G,
             (long long)c->D);
    d->c.name = d->name;
}

/* Few queries against a cache. */
static void draw_decode(struct seeded *random, int number, struct drawn *d)
{
    static const int keys[] = {0,   1,   2,   15,  16,  17,  31,  32,  33,   48,   63,   64,  65,
                               127, 128, 129, 255, 257, 400, 511, 640, 1000, 1025, 2049, 4096};
    static const int ratios[] = {1, 1, 2, 3, 4, 5, 7, 8, 16}, windows[] = {1, 7, 16, 65, 500, 9999};
    static const int pages[] = {1, 16, 16, 32, 48, 64, 64, 100, 256};
    static const enum view_kind views[] = {VIEW_ALIGNED, VIEW_ALIGNED, VIEW_SLICED, VIEW_DENSE,
                                           VIEW_HEAD_MAJOR};
    struct attention_case *c = &d->c;
    *c = (struct attention_case){.causal = chance(random, 0.8), .view = PICK(random, views)};
    c->S = PICK(random, keys);
    c->B = seeded_between(random, 1, c->S > 600 ? 2 : 4);
    c->T = chance(random, 0.5) ? 1 : seeded_between(random, 2, 9);
    c->G = seeded_between(random, 1, c->S > 600 ? 1 : 3);
    c->H = c->G * PICK(random, ratios);
    /* A kernel's error is measured in units of the naive one, which must not be the luck of a few
     * rows. */
    int64_t heads = c->T * c->H, least = (LEAST_ROWS + heads - 1) / heads;
    if (c->S <= 600 && c->B < least) c->B = least;
    if (c->S > 600 && c->B * heads < LEAST_ROWS) c->H = c->G * 16;
    c->D = chance(random, 0.5) ? 128 : 64;
    c->values = draw_values(random);
    c->wide = chance(random, 0.3);
    if (chance(random, 0.1)) c->scale = chance(random, 0.5) ? -0.1 : 0.04;
    if (c->causal && chance(random, 0.3)) c->window = PICK(random, windows);
    if (chance(random, 0.4)) c->k_lengths = d->k_lengths;
    if (chance(random, 0.2)) c->q_lengths = d->q_lengths;
    draw_lengths(random, d->k_lengths, c->S);
    draw_lengths(random, d->q_lengths, c->T);
    if (c->q_lengths) d->q_lengths[0] = (int32_t)c->T;
    if (chance(random, 0.35)) c->page = PICK(random, pages);
    c->f8 = chance(random, 0.15);
    name_drawn(d, "decode", number);
}

/* Any pass. */
static void draw_any(struct seeded *random, int number, struct drawn *d)
{
    static const int channels[] = {1, 7, 16, 32, 60, 64, 64, 80, 96, 100, 128, 128, 192, 256};
    static const int ratios[] = {1, 1, 2, 3, 4, 5, 7, 8}, windows[] = {1, 7, 16, 33, 64, 500};
    static const enum view_kind views[] = {VIEW_DENSE, VIEW_PADDED, VIEW_HEAD_MAJOR, VIEW_ALIGNED,
                                           VIEW_SLICED};
    struct attention_case *c = &d->c;
    *c = (struct attention_case){.causal = chance(random, 0.7), .view = PICK(random, views)};
    c->D = PICK(random, channels);
    c->G = seeded_between(random, 1, 2);
    c->H = c->G * PICK(random, ratios);
    bool packed = chance(random, 0.25);
    c->B = packed ? 1 : seeded_between(random, 1, 3);
    int64_t most = c->H * c->B * c->D > 1000 ? 40 : 100;
    c->T = seeded_between(random, 0, most);
    c->S = chance(random, 0.5) ? c->T : seeded_between(random, 0, most);
    c->values = draw_values(random);
    c->wide = chance(random, 0.3);
    if (chance(random, 0.1)) c->scale = chance(random, 0.5) ? -0.1 : 0.04;
    if (c->causal && chance(random, 0.4)) c->window = PICK(random, windows);
    if (packed) {
        draw_offsets(random, d->q_offsets, c->T);
        draw_offsets(random, d->k_offsets, c->S);
        c->sequences = MAX_SEQUENCES;
        c->q_offsets = d->q_offsets;
        if (c->S != c->T || chance(random, 0.5)) c->k_offsets = d->k_offsets;
    } else {
        if (chance(random, 0.3)) c->k_lengths = d->k_lengths;
        if (chance(random, 0.2)) c->q_lengths = d->q_lengths;
        draw_lengths(random, d->k_lengths, c->S);
        draw_lengths(random, d->q_lengths, c->T);
    }
    name_drawn(d, "drawn", number);
}

/* Runs one case in both mechanisms and every dtype. */
static void run_both(const struct attention_case *c, plx_pass first, plx_pass last, uint64_t seed)
{
    for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++) {
        conformance_run(&all, c, mechanism, PLX_BF16, first, last, seed);
        conformance_run(&all, c, mechanism, PLX_F16, first, last, seed);
        conformance_run(&all, c, mechanism, PLX_F32, first, last, seed);
    }
}

static int failures(void)
{
    int failed = 0;
    for (int mechanism = 0; mechanism < 2; mechanism++)
        for (int pass = 0; pass < 3; pass++) failed += all.tallies[mechanism][pass].failed;
    return failed;
}

static void the_table(void **state)
{
    (void)state;
    int before = failures();
    for (int n = 0; n < attention_case_count; n++)
        run_both(&attention_cases[n], PLX_FORWARD, PLX_DECODE, options.seed * 1000 + (uint64_t)n);
    assert_int_equal(failures() - before, 0);
}

static void drawn_decode(void **state)
{
    (void)state;
    int before = failures();
    for (int n = 0; n < DECODE_CASES; n++) {
        struct seeded random = seeded_make(options.seed, 1000000 + (uint64_t)n);
        struct drawn d;
        draw_decode(&random, n, &d);
        uint64_t seed = seeded_u64(&random);
        for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++) {
            conformance_run(&all, &d.c, mechanism, PLX_BF16, PLX_DECODE, PLX_DECODE, seed);
            if (n % 4 == 0)
                conformance_run(&all, &d.c, mechanism, PLX_F32, PLX_DECODE, PLX_DECODE, seed);
            if (n % 4 == 2)
                conformance_run(&all, &d.c, mechanism, PLX_F16, PLX_DECODE, PLX_DECODE, seed);
        }
    }
    assert_int_equal(failures() - before, 0);
}

static void drawn_shapes(void **state)
{
    (void)state;
    int before = failures();
    for (int n = 0; n < DRAWN_CASES; n++) {
        struct seeded random = seeded_make(options.seed, 2000000 + (uint64_t)n);
        struct drawn d;
        draw_any(&random, n, &d);
        run_both(&d.c, PLX_FORWARD, PLX_DECODE, seeded_u64(&random));
    }
    assert_int_equal(failures() - before, 0);
}

static const int32_t fla_15[] = {0, 15}, fla_256[] = {0, 256, 500, 1000}, fla_111[] = {0, 111};
static const int32_t fla_2000[] = {0, 15, 100, 300, 1200, 2000};

/* What flash-linear-attention tests its Parallax with, in its own words and numbers. */
static const struct attention_case fla_cases[] = {
    {"fla_63", 1, 63, 63, 1, 1, 64, .causal = true, .scale = 1},
    {"fla_111", 3, 111, 111, 2, 2, 100, .causal = true, .scale = 1},
    {"fla_1024_D60", 3, 1024, 1024, 8, 2, 60, .causal = true, .scale = .1},
    {"fla_1024", 3, 1024, 1024, 8, 2, 128, .causal = true, .scale = .1},
    {"fla_2048", 4, 2048, 2048, 8, 2, 64, .causal = true, .scale = .1},
    {"fla_window_16", 1, 63, 63, 1, 1, 64, .causal = true, .window = 16},
    {"fla_window_32", 1, 111, 111, 2, 2, 100, .causal = true, .window = 32},
    {"fla_window_64", 1, 1024, 1024, 8, 2, 128, .causal = true, .window = 64},
    {"fla_window_256", 1, 2048, 2048, 2, 1, 64, .causal = true, .window = 256},
    {"fla_window_200", 1, 1024, 1024, 2, 1, 64, .causal = true, .window = 200},
    {"fla_packed_15", 1, 15, 15, 2, 1, 64, .causal = true, .q_offsets = fla_15, .sequences = 1},
    {"fla_packed_1000", 1, 1000, 1000, 2, 1, 64, .causal = true, .q_offsets = fla_256,
     .sequences = 3},
    {"fla_packed_2000", 1, 2000, 2000, 2, 1, 64, .causal = true, .q_offsets = fla_2000,
     .sequences = 5},
    {"fla_packed_111", 1, 111, 111, 2, 1, 64, .causal = true, .window = 16, .q_offsets = fla_111,
     .sequences = 1},
    {"fla_packed_window", 1, 1000, 1000, 2, 1, 64, .causal = true, .window = 32,
     .q_offsets = fla_256, .sequences = 3},
};

static void shapes_of_flash_linear_attention(void **state)
{
    (void)state;
    int before = failures();
    for (size_t n = 0; n < sizeof fla_cases / sizeof fla_cases[0]; n++)
        conformance_run(&all, &fla_cases[n], PLX_PARALLAX, PLX_BF16, PLX_FORWARD, PLX_BACKWARD,
                        options.seed + n);
    assert_int_equal(failures() - before, 0);
}

/* Every CUDA row must have run, or nothing was proven about it. */
static void every_row_was_covered(void **state)
{
    (void)state;
    int missing = 0, calls = 0;
    for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++) {
        printf("  %s\n", mechanism == PLX_PARALLAX ? "parallax" : "softmax");
        conformance_report(&all, mechanism);
        for (int pass = 0; pass < 3; pass++) {
            for (int row = 0; plx_kernel_name(mechanism, (plx_pass)pass, row); row++) {
                const char *name = plx_kernel_name(mechanism, (plx_pass)pass, row);
                int ran = all.tallies[mechanism][pass].ran[row];
                calls += ran;
                if (options.only || ran > 0 || strncmp(name, "cuda", 4) != 0) continue;
                fprintf(stderr, "FAILED %s accepted no case\n", name);
                missing++;
            }
        }
    }
    printf("  %d cases on the GPU, %d failed\n", calls, failures());
    assert_int_equal(missing, 0);
}

int main(int argc, char **argv)
{
    char text[256];
    options = test_options_read(argc, argv);
    all = (struct conformance){.options = &options, .device = PLX_CUDA};
    if (!device_present()) {
        printf("skipped, no GPU\n");
        return 77;
    }
    device_describe(text, sizeof text);
    printf("%s\n%s\n", plx_build(), text);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table),
        cmocka_unit_test(drawn_decode),
        cmocka_unit_test(drawn_shapes),
        cmocka_unit_test(shapes_of_flash_linear_attention),
        cmocka_unit_test(every_row_was_covered),
    };
    time_t start = time(NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("%.0f s\n", difftime(time(NULL), start));
    return failed;
}
