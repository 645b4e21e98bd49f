/* test_gpu_conformance.c: every CUDA kernel row x pass x dtype x case against the double oracle, on
 * copies of guarded memory (attention_case.c): red zones, poisoned outputs and paddings, the same
 * bits on a second run, a workspace of exactly the stated size.
 *
 * The lists: the table that the CPU runs too, once as it is and once on memory that tuned kernels
 * take; cases of several tiles a block; the shapes, windows and packed lists of
 * flash-linear-attention's tests of Parallax; and three drawn lists. A case's numbers fit every
 * dtype, so that one oracle serves them all; every fourth drawn case is drawn for each dtype alone,
 * in its full precision. The reference on the host takes nearly all of the time, so cases run in as
 * many threads as the machine has, each with a stream of its own. With --sanitize a small subset
 * runs that still touches every kernel, for tools that slow everything down. Without a GPU the
 * program says "skipped, no GPU" and exits with 77. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "conformance.h"
#include "device_memory.h"
#include "drawn_case.h"
#include "sanitize_cases.h"
#include "watch.h"

static struct test_options options;
static struct conformance all;

static const struct case_dtypes together = {3, {PLX_F32, PLX_F16, PLX_BF16}};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- One case ---- */

struct passes {
    plx_pass first, last;
};

static void run_together(const struct attention_case *c, struct passes passes, uint64_t seed)
{
    for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++)
        conformance_run(&all, c, mechanism, &together, passes.first, passes.last, seed);
}

static void run_apart(const struct attention_case *c, struct passes passes, uint64_t seed)
{
    for (int n = 0; n < together.count; n++) {
        const struct case_dtypes one = {1, {together.of[n]}};
        for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++)
            conformance_run(&all, c, mechanism, &one, passes.first, passes.last, seed);
    }
}

static int failures(void)
{
    int failed = 0;
    for (int mechanism = 0; mechanism < 2; mechanism++)
        for (int pass = 0; pass < 3; pass++) failed += all.tallies[mechanism][pass].failed;
    return failed;
}

/* ---- Lists that are written down ---- */

static const int32_t fla_15[] = {0, 15}, fla_256[] = {0, 256, 500, 1000}, fla_111[] = {0, 111};
static const int32_t fla_2000[] = {0, 15, 100, 300, 1200, 2000};

/* What flash-linear-attention tests its Parallax with; of its largest shapes one sequence instead
 * of three or four, for which the reference would need a minute. */
static const struct attention_case fla_cases[] = {
    {"fla_63", 1, 63, 63, 1, 1, 64, .causal = true, .scale = 1},
    {"fla_111", 3, 111, 111, 2, 2, 100, .causal = true, .scale = 1},
    {"fla_1024_D60", 1, 1024, 1024, 8, 2, 60, .causal = true, .scale = .1},
    {"fla_1024", 1, 1024, 1024, 8, 2, 128, .causal = true, .scale = .1},
    {"fla_2048", 1, 2048, 2048, 8, 2, 64, .causal = true, .scale = .1},
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

/* More tiles than a card has multiprocessors, so that blocks take several; and long sequences. */
static const int32_t several[] = {0, 130, 130, 261, 400, 530}, paged[] = {700, 0, 513};
static const struct attention_case large_cases[] = {
    {"items_64", 2, 193, 193, 40, 8, 64, .causal = true, .view = VIEW_ALIGNED},
    {"items_128", 4, 193, 193, 20, 5, 128, .causal = true, .view = VIEW_SLICED},
    {"items_full", 8, 130, 65, 16, 2, 128, .view = VIEW_ALIGNED},
    /* The first queries see no key: items without a tile, one after the other. */
    {"items_unseen", 4, 700, 100, 20, 5, 64, .causal = true, .view = VIEW_ALIGNED},
    {"items_unseen_128", 4, 700, 100, 20, 5, 128, .causal = true, .view = VIEW_ALIGNED},
    {"items_window", 2, 700, 700, 16, 2, 64, .causal = true, .window = 100, .view = VIEW_ALIGNED},
    {"items_packed", 1, 530, 530, 20, 4, 64, .causal = true, .q_offsets = several, .sequences = 5,
     .view = VIEW_ALIGNED},
    {"long_4096", 1, 4096, 4096, 1, 1, 64, .causal = true, .view = VIEW_ALIGNED},
    {"prefill_4096", 1, 130, 4096, 2, 1, 128, .causal = true, .view = VIEW_SLICED},
    /* Prompts in pieces, from pages that divide a tile, that it divides, and that do neither. */
    {"page_64_prefill", 3, 256, 700, 8, 4, 128, .causal = true, .k_lengths = paged, .page = 64,
     .view = VIEW_ALIGNED},
    {"page_64_prefill_64", 3, 256, 700, 8, 4, 64, .causal = true, .k_lengths = paged, .page = 64,
     .view = VIEW_ALIGNED},
    {"page_32_window", 3, 300, 700, 4, 2, 128, .causal = true, .window = 200, .k_lengths = paged,
     .page = 32, .view = VIEW_ALIGNED},
    {"page_96_full", 3, 130, 700, 6, 2, 64, .k_lengths = paged, .page = 96, .view = VIEW_SLICED},
    {"page_256_items", 3, 193, 700, 40, 10, 128, .causal = true, .k_lengths = paged, .page = 256,
     .view = VIEW_ALIGNED},
    {"page_64_items", 3, 193, 700, 40, 10, 64, .causal = true, .page = 64, .view = VIEW_ALIGNED},
};

/* The table of all devices, with its memory where tuned kernels take it. */
static struct attention_case on_aligned_memory(struct attention_case c)
{
    if (c.view == VIEW_DENSE) c.view = VIEW_ALIGNED;
    if (c.view == VIEW_PADDED) c.view = VIEW_SLICED;
    return c;
}

/* For tools that slow everything down (sanitize_cases.h): one call after the other, so that what a
 * tool says follows the name of the call. */
static void the_small_ones(void **state)
{
    static const struct case_dtypes tuned = {2, {PLX_BF16, PLX_F16}}, plain = {1, {PLX_F32}};
    (void)state;
    for (int n = 0; n < sanitize_case_count; n++) {
        const struct sanitize_case *s = &sanitize_cases[n];
        all.kernel = s->tuned ? "cuda_sm90" : "cuda_any";
        for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++)
            conformance_run(&all, &s->c, mechanism, s->tuned ? &tuned : &plain, s->first, s->last,
                            options.seed + (uint64_t)n);
    }
    assert_int_equal(failures(), 0);
}

enum { FLA = sizeof fla_cases / sizeof fla_cases[0] };
enum { LARGE = sizeof large_cases / sizeof large_cases[0] };
static const struct case_dtypes bf16 = {1, {PLX_BF16}}, f16 = {1, {PLX_F16}};

static void run_fla(int n)
{
    conformance_run(&all, &fla_cases[n], PLX_PARALLAX, &bf16, PLX_FORWARD, PLX_BACKWARD,
                    options.seed + (uint64_t)n);
}

static void run_large(int n)
{
    conformance_run(&all, &large_cases[n / 2], (plx_mechanism)(n % 2), n / 2 % 2 ? &f16 : &bf16,
                    PLX_FORWARD, PLX_BACKWARD, options.seed + (uint64_t)n);
}

/* Every case of the table as it is, then on aligned memory if that is something else. */
static void run_written(int n)
{
    static const struct passes passes = {PLX_FORWARD, PLX_DECODE};
    const struct attention_case *written = &attention_cases[n / 2];
    const struct attention_case aligned = on_aligned_memory(*written);
    const uint64_t seed = options.seed * 1000 + (uint64_t)n;
    if (n % 2 == 0)
        run_apart(written, passes, seed);
    else if (aligned.view != written->view)
        run_together(&aligned, passes, seed);
}

/* ---- Lists that are drawn ---- */

/* The stream of random numbers is the list's, so that a case is the same whatever else runs. */
static void run_drawn(int stream, case_drawer draw, struct passes passes, int number)
{
    struct seeded random = seeded_make(options.seed, (uint64_t)stream * 1000000 + (uint64_t)number);
    struct drawn_case d;
    draw(&random, number, &d);
    const uint64_t seed = seeded_u64(&random);
    (number % 4 == 3 ? run_apart : run_together)(&d.c, passes, seed);
}

static void run_drawn_decode(int n)
{
    run_drawn(1, drawn_decode, (struct passes){PLX_DECODE, PLX_DECODE}, n);
}

static void run_drawn_any(int n)
{
    run_drawn(2, drawn_any, (struct passes){PLX_FORWARD, PLX_DECODE}, n);
}

static void run_drawn_tiles(int n)
{
    run_drawn(3, drawn_tiles, (struct passes){PLX_FORWARD, PLX_BACKWARD}, n);
}

/* ---- All lists ---- */

struct list {
    const char *name;
    void (*run)(int number);
    int count;
    double seconds; /* of all threads together */
};

/* Case n of all: the long ones of the first two lists one at a time among the others, from the
 * beginning on, because a thread that began one last would keep the rest waiting. */
static int spread(int n)
{
    enum { LONG = FLA + 2 * LARGE, APART = 12 };
    if (n >= LONG * APART) return n;
    const int others = n / APART * (APART - 1) + n % APART - 1;
    return n % APART == 0 ? n / APART : LONG + others;
}

/* A call that takes a minute, reference apart, hangs. */
static void every_list(void **state)
{
    enum { CALL_SECONDS = 60 };
    struct list lists[] = {
        {"of flash-linear-attention", run_fla, FLA, 0},
        {"large", run_large, 2 * LARGE, 0},
        {"drawn of several tiles", run_drawn_tiles, 600, 0},
        {"of the table", run_written, 2 * attention_case_count, 0},
        {"drawn for decode", run_drawn_decode, 900, 0},
        {"drawn of any kind", run_drawn_any, 500, 0},
    };
    enum { LISTS = sizeof lists / sizeof lists[0] };
    int total = 0;
    (void)state;
    for (int n = 0; n < LISTS; n++) total += lists[n].count;
    watch_begin(total, CALL_SECONDS);
#pragma omp parallel for schedule(dynamic)
    for (int n = 0; n < total; n++) {
        int number = spread(n), list = 0;
        while (number >= lists[list].count) number -= lists[list++].count;
        const double start = seconds();
        lists[list].run(number);
        const double took = seconds() - start;
#pragma omp atomic
        lists[list].seconds += took;
        watch_case_done();
    }
    watch_end();
    for (int n = 0; n < LISTS; n++)
        print_message("  %4d %s: %.0f s of all threads\n", lists[n].count, lists[n].name,
                      lists[n].seconds);
    assert_int_equal(failures(), 0);
}

/* ---- The count ---- */

/* Every CUDA row must have run, or nothing was proven about it. */
static void every_row_was_covered(void **state)
{
    int missing = 0, calls = 0;
    (void)state;
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
    printf("%d cases, %d failed\n", calls, failures());
    assert_int_equal(missing, 0);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    all = (struct conformance){.options = &options, .device = PLX_CUDA};
    if (!device_ready()) return 77;
    printf("%s\n", plx_build());
    const struct CMUnitTest small[] = {
        cmocka_unit_test(the_small_ones),
        cmocka_unit_test(every_row_was_covered),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_list),
        cmocka_unit_test(every_row_was_covered),
    };
    const double start = seconds();
    int failed = options.sanitize ? cmocka_run_group_tests(small, NULL, NULL)
                                  : cmocka_run_group_tests(tests, NULL, NULL);
    printf("%.1f s\n", seconds() - start);
    return failed;
}
