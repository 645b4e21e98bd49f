/* test_gpu_forward.c: the tuned forward and backward on a GPU against the double oracle, on drawn
 * cases that their tiles treat differently: rows on multiples of 16 bytes, lengths around tiles of
 * 64 and 128, long enough for several turns of the ring, windows, ragged and packed batches,
 * poisoned memory behind every sequence. The rules and the guarded memory are those of
 * test_gpu_conformance.c.
 *
 * Without a GPU the program says "skipped, no GPU" and exits with 77. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>

#include "conformance.h"
#include "device/device_memory.h"

enum { CASES = 400, MAX_BATCH = 3, MAX_SEQUENCES = 5 };

static struct test_options options;
static struct conformance all;

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

static int64_t draw_length(struct seeded *random)
{
    static const int64_t edges[] = {1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 256, 257, 400};
    return chance(random, 0.5) ? PICK(random, edges) : seeded_between(random, 1, 420);
}

static void draw_lists(struct seeded *random, struct drawn *d)
{
    struct attention_case *c = &d->c;
    for (int b = 0; b < MAX_BATCH; b++) {
        d->q_lengths[b] = (int32_t)seeded_between(random, 0, c->T);
        d->k_lengths[b] = (int32_t)(chance(random, 0.2) ? c->S : seeded_between(random, 0, c->S));
    }
    d->q_offsets[0] = d->k_offsets[0] = 0;
    for (int n = 1; n <= MAX_SEQUENCES; n++) {
        bool empty = chance(random, 0.2);
        int32_t q = d->q_offsets[n - 1], k = d->k_offsets[n - 1];
        d->q_offsets[n] = (int32_t)(empty ? q : seeded_between(random, q, c->T));
        d->k_offsets[n] = (int32_t)(chance(random, 0.2) ? k : seeded_between(random, k, c->S));
    }
    d->q_offsets[MAX_SEQUENCES] = (int32_t)c->T;
    d->k_offsets[MAX_SEQUENCES] = (int32_t)c->S;
}

static void draw(struct seeded *random, int number, struct drawn *d)
{
    static const enum case_values rare[] = {VALUES_LARGE, VALUES_CONSTANT, VALUES_ONE_HOT,
                                            VALUES_OFFSET, VALUES_NAN_QUERY};
    static const int64_t windows[] = {1, 7, 63, 64, 65, 130, 9999};
    struct attention_case *c = &d->c;
    *c = (struct attention_case){.name = d->name, .causal = chance(random, 0.7)};
    c->view = chance(random, 0.5) ? VIEW_ALIGNED : VIEW_SLICED;
    c->D = chance(random, 0.5) ? 128 : 64;
    c->T = draw_length(random);
    c->S = chance(random, 0.5) ? c->T : draw_length(random);
    bool packed = chance(random, 0.25), ragged = !packed && chance(random, 0.3);
    c->B = packed ? 1 : seeded_between(random, 1, c->T > 200 ? 1 : MAX_BATCH);
    c->G = seeded_between(random, 1, 2);
    c->H = c->G * seeded_between(random, 1, c->T > 200 ? 1 : 3);
    c->wide = chance(random, 0.3);
    if (c->causal && chance(random, 0.4)) c->window = PICK(random, windows);
    if (chance(random, 0.3)) c->values = PICK(random, rare);
    if (chance(random, 0.1)) c->scale = 0.04;
    draw_lists(random, d);
    if (ragged && chance(random, 0.5)) c->q_lengths = d->q_lengths;
    if (ragged) c->k_lengths = d->k_lengths;
    if (packed) {
        c->sequences = MAX_SEQUENCES;
        c->q_offsets = d->q_offsets;
        if (c->S != c->T || chance(random, 0.5)) c->k_offsets = d->k_offsets;
    }
    snprintf(d->name, sizeof d->name, "%s_%d_B%lld_T%lld_S%lld_H%lld_G%lld_D%lld_W%lld",
             packed   ? "packed"
             : ragged ? "ragged"
                      : "dense",
             number, (long long)c->B, (long long)c->T, (long long)c->S, (long long)c->H,
             (long long)c->G, (long long)c->D, (long long)c->window);
}

static int failures(void)
{
    int failed = 0;
    for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++)
        for (plx_pass pass = PLX_FORWARD; pass <= PLX_BACKWARD; pass++)
            failed += all.tallies[mechanism][pass].failed;
    return failed;
}

static void run_both(const struct attention_case *c, plx_dtype dtype, uint64_t seed)
{
    for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++)
        conformance_run(&all, c, mechanism, dtype, PLX_FORWARD, PLX_BACKWARD, seed);
}

/* The table of all devices, with its dense memory moved to where the kernels take it. */
static void the_table(void **state)
{
    (void)state;
    int before = failures();
    for (int n = 0; n < attention_case_count; n++) {
        struct attention_case c = attention_cases[n];
        if (c.D != 64 && c.D != 128) continue;
        if (c.view == VIEW_DENSE) c.view = VIEW_ALIGNED;
        if (c.view == VIEW_PADDED) c.view = VIEW_SLICED;
        run_both(&c, PLX_BF16, options.seed * 1000 + (uint64_t)n);
        run_both(&c, PLX_F16, options.seed * 1000 + (uint64_t)n);
    }
    assert_int_equal(failures() - before, 0);
}

static void drawn_cases(void **state)
{
    (void)state;
    int before = failures();
    for (int n = 0; n < CASES; n++) {
        struct seeded random = seeded_make(options.seed, 3000000 + (uint64_t)n);
        struct drawn d;
        draw(&random, n, &d);
        run_both(&d.c, n % 4 == 3 ? PLX_F16 : PLX_BF16, seeded_u64(&random));
    }
    assert_int_equal(failures() - before, 0);
}

/* More tiles than the card has multiprocessors, so that blocks take several items. */
static void several_items_a_block(void **state)
{
    static const int32_t offsets[] = {0, 300, 300, 431, 1000, 1100};
    static const struct attention_case cases[] = {
        {"items_64", 2, 513, 513, 20, 4, 64, .causal = true, .view = VIEW_ALIGNED},
        {"items_128", 4, 300, 300, 16, 2, 128, .causal = true, .view = VIEW_SLICED},
        {"items_full", 8, 130, 200, 16, 2, 128, .view = VIEW_ALIGNED},
        {"items_window", 2, 700, 700, 16, 2, 64, .causal = true, .window = 100,
         .view = VIEW_ALIGNED},
        {"items_packed", 1, 1100, 1100, 16, 4, 64, .causal = true, .q_offsets = offsets,
         .sequences = 5, .view = VIEW_ALIGNED},
        {"long", 1, 2048, 2048, 1, 1, 128, .causal = true, .view = VIEW_ALIGNED},
    };
    (void)state;
    int before = failures();
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++)
        run_both(&cases[n], n % 2 ? PLX_F16 : PLX_BF16, options.seed + n);
    assert_int_equal(failures() - before, 0);
}

static void the_tuned_row_was_covered(void **state)
{
    (void)state;
    for (plx_mechanism mechanism = PLX_SOFTMAX; mechanism <= PLX_PARALLAX; mechanism++) {
        printf("  %s\n", mechanism == PLX_PARALLAX ? "parallax" : "softmax");
        conformance_report(&all, mechanism);
        if (options.only) continue;
        assert_true(all.tallies[mechanism][PLX_FORWARD].ran[0] > CASES);
        assert_true(all.tallies[mechanism][PLX_BACKWARD].ran[0] > CASES / 3);
    }
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
        cmocka_unit_test(several_items_a_block),
        cmocka_unit_test(drawn_cases),
        cmocka_unit_test(the_tuned_row_was_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
