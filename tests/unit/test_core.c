/* test_core.c: the ground that everything in nn stands on: errors, arenas, random numbers, the
 * parameter list. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/arena.h"
#include "core/error.h"
#include "core/param.h"
#include "core/quantised.h"
#include "core/random.h"

/* AddressSanitizer would end the test where malloc is asked for the impossible. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* ---- Errors ---------------------------------------------------------------------------------- */

static void first_error_wins(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(error_set(&err, PLX_BAD_DATA, "%s is %d", "width", 3), PLX_BAD_DATA);
    assert_int_equal(error_set(&err, PLX_IO_ERROR, "later"), PLX_IO_ERROR);
    assert_int_equal(err.status, PLX_BAD_DATA);
    assert_string_equal(err.text, "width is 3");
    error_clear(&err);
    assert_int_equal(err.status, PLX_OK);
    assert_string_equal(err.text, "");
    assert_int_equal(error_set(&err, PLX_IO_ERROR, "later"), PLX_IO_ERROR);
    assert_string_equal(err.text, "later");
    assert_int_equal(error_set(NULL, PLX_INTERNAL, "nobody listens"), PLX_INTERNAL);
    error_clear(&err);
    error_set(&err, PLX_BAD_DATA, "a name with \033[2J, a line's end\n and \177");
    assert_string_equal(err.text, "a name with ?[2J, a line's end? and ?");
}

static void long_sentences_are_cut(void **state)
{
    (void)state;
    struct error err = {0};
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error_set(&err, PLX_BAD_DATA, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static plx_status needs(int value, struct error *err, int *reached)
{
    REQUIRE(err, value > 0, PLX_INVALID_ARGUMENT, "value is %d", value);
    ++*reached;
    return PLX_OK;
}

static plx_status passes_on(int value, struct error *err, int *reached)
{
    TRY(needs(value, err, reached));
    ++*reached;
    return PLX_OK;
}

static void control_macros(void **state)
{
    (void)state;
    struct error err = {0};
    int reached = 0;
    assert_int_equal(passes_on(1, &err, &reached), PLX_OK);
    assert_int_equal(reached, 2);
    assert_int_equal(passes_on(-1, &err, &reached), PLX_INVALID_ARGUMENT);
    assert_int_equal(reached, 2);
    assert_string_equal(err.text, "value is -1");
}

/* ---- Arena ----------------------------------------------------------------------------------- */

/* One carving, as a model would do it; pointers go to out where there are any. */
static void carve(struct arena *arena, void *out[4])
{
    const int64_t shape[] = {3, 5};
    out[0] = arena_push(arena, 1);
    out[1] = arena_push(arena, 64);
    size_t mark = arena_mark(arena);
    arena_push(arena, 1000);
    arena_release(arena, mark);
    out[2] = arena_tensor(arena, PLX_F64, 2, shape).data;
    out[3] = arena_push(arena, 0);
}

static void measuring_equals_real(void **state)
{
    (void)state;
    struct error err = {0};
    struct arena measuring = arena_measuring(&device_cpu), real;
    void *none[4], *blocks[4];
    assert_true(arena_is_measuring(&measuring));
    carve(&measuring, none);
    for (int i = 0; i < 4; i++) assert_null(none[i]);
    assert_false(arena_overflowed(&measuring));
    assert_true(measuring.peak > measuring.used);

    assert_int_equal(arena_create(&real, &device_cpu, NULL, measuring.peak, &err), PLX_OK);
    assert_false(arena_is_measuring(&real));
    carve(&real, blocks);
    assert_false(arena_overflowed(&real));
    assert_int_equal(real.used, measuring.used);
    assert_int_equal(real.peak, measuring.peak);
    for (int i = 0; i < 4; i++) {
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 64, 0);
    }
    /* Blocks are the caller's to the last byte and do not overlap. */
    memset(blocks[0], 1, 1);
    memset(blocks[1], 2, 64);
    memset(blocks[2], 3, 3 * 5 * 8);
    assert_int_equal(*(unsigned char *)blocks[0], 1);
    assert_int_equal(((unsigned char *)blocks[1])[63], 2);
    arena_destroy(&real);
    assert_null(real.base);
}

static void overflow_is_told_not_written(void **state)
{
    (void)state;
    struct error err = {0};
    struct arena arena;
    assert_int_equal(arena_create(&arena, &device_cpu, NULL, 256, &err), PLX_OK);
    assert_non_null(arena_push(&arena, 64));
    size_t mark = arena_mark(&arena);
    assert_null(arena_push(&arena, 257));
    assert_true(arena_overflowed(&arena));
    /* Releasing makes room again, but the overflow is remembered: the plan was wrong. */
    arena_release(&arena, mark);
    assert_non_null(arena_push(&arena, 64));
    assert_true(arena_overflowed(&arena));
    arena_destroy(&arena);
}

static void absurd_sizes_do_not_wrap(void **state)
{
    (void)state;
    struct error err = {0};
    struct arena measuring = arena_measuring(&device_cpu), arena;
    assert_null(arena_push(&measuring, SIZE_MAX));
    assert_null(arena_push(&measuring, SIZE_MAX - 32));
    assert_null(arena_push(&measuring, 64));
    assert_int_equal(measuring.used, SIZE_MAX);
    assert_int_equal(arena_create(&arena, &device_cpu, NULL, 128, &err), PLX_OK);
    assert_null(arena_push(&arena, SIZE_MAX - 8));
    assert_true(arena_overflowed(&arena));
    arena_destroy(&arena);
    assert_int_equal(arena_create(&arena, &device_cpu, NULL, SIZE_MAX - 8, &err),
                     PLX_OUT_OF_MEMORY);
    assert_null(arena.base);
    error_clear(&err);
    assert_int_equal(arena_create(&arena, &device_cpu, NULL, (size_t)1 << 62, &err),
                     PLX_OUT_OF_MEMORY);
    arena_destroy(&arena);
}

static void scratch_is_a_stack(void **state)
{
    (void)state;
    struct error err = {0};
    struct arena arena;
    assert_int_equal(arena_create(&arena, &device_cpu, NULL, 4096, &err), PLX_OK);
    size_t start = arena_mark(&arena);
    void *first = arena_push(&arena, 100);
    size_t inner = arena_mark(&arena);
    arena_push(&arena, 500);
    arena_release(&arena, inner);
    assert_int_equal(arena_mark(&arena), inner);
    arena_release(&arena, start);
    assert_int_equal(arena_mark(&arena), start);
    assert_ptr_equal(arena_push(&arena, 100), first);
    /* An empty arena is a valid one. */
    arena_destroy(&arena);
    assert_int_equal(arena_create(&arena, &device_cpu, NULL, 0, &err), PLX_OK);
    assert_false(arena_is_measuring(&arena));
    arena_destroy(&arena);
}

/* ---- Random numbers -------------------------------------------------------------------------- */

/* SplitMix64's finaliser, applied as random.c documents it, in another shape. */
static uint64_t finalise(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void words_are_the_documented_hash(void **state)
{
    (void)state;
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    for (uint64_t seed = 0; seed < 5; seed++)
        for (uint64_t stream = 0; stream < 5; stream++) {
            struct rng rng = rng_make(seed, stream);
            uint64_t key = finalise(finalise(seed + golden) ^ finalise(stream + 1));
            assert_true(rng.seed == key && rng.counter == 0);
            for (uint64_t i = 1; i <= 10; i++) {
                uint64_t word = finalise(finalise(key + i * golden) ^ key);
                assert_true(rng_u64(&rng) == word);
                assert_true(rng.counter == i);
            }
        }
}

static void first_words_stay(void **state)
{
    (void)state;
    /* Frozen: other values would change every run that is repeated from its seed. */
    static const uint64_t golden[2][3] = {
        {UINT64_C(0x1c33ee220339edc7), UINT64_C(0xa9ced1e04964e869), UINT64_C(0x8432d70d7679cc59)},
        {UINT64_C(0x6ce397e74d58f693), UINT64_C(0x8fac397aebbf7a8e), UINT64_C(0xec8a10bf6145af29)}};
    const struct rng starts[2] = {rng_make(0, 0), rng_make(42, 7)};
    for (int s = 0; s < 2; s++) {
        struct rng rng = starts[s];
        for (int i = 0; i < 3; i++) {
            uint64_t word = rng_u64(&rng);
            if (word != golden[s][i]) print_error("0x%016llx\n", (unsigned long long)word);
            assert_true(word == golden[s][i]);
        }
    }
}

static void any_position_is_reached_at_once(void **state)
{
    (void)state;
    struct rng walk = rng_make(3, 4), jump = walk;
    for (int i = 0; i < 1000; i++) rng_u64(&walk);
    jump.counter = 1000;
    assert_true(rng_u64(&walk) == rng_u64(&jump));
}

static void streams_differ(void **state)
{
    (void)state;
    uint64_t seen[64];
    for (int i = 0; i < 64; i++) {
        struct rng rng = rng_make((uint64_t)(i / 8), (uint64_t)(i % 8));
        seen[i] = rng_u64(&rng);
        for (int j = 0; j < i; j++) assert_true(seen[i] != seen[j]);
    }
}

static void uniform_is_uniform(void **state)
{
    (void)state;
    enum { DRAWS = 200000, BINS = 100 };
    struct rng rng = rng_make(11, 0);
    int bins[BINS] = {0}, bits[64] = {0};
    double sum = 0, products = 0, last = 0.5;
    for (int i = 0; i < DRAWS; i++) {
        double u = rng_uniform(&rng);
        assert_true(u >= 0 && u < 1);
        bins[(int)(u * BINS)]++;
        sum += u;
        products += (u - 0.5) * (last - 0.5);
        last = u;
    }
    /* Chi-squared of 99 degrees of freedom stays below 160 in all but one of 10,000 seeds. */
    double chi = 0, expected = (double)DRAWS / BINS;
    for (int b = 0; b < BINS; b++) chi += (bins[b] - expected) * (bins[b] - expected) / expected;
    assert_true(chi > 50 && chi < 160);
    assert_true(fabs(sum / DRAWS - 0.5) < 4 * sqrt(1.0 / 12 / DRAWS));
    assert_true(fabs(products / DRAWS) < 4 * (1.0 / 12) / sqrt(DRAWS));
    for (int i = 0; i < DRAWS; i++) {
        uint64_t word = rng_u64(&rng);
        for (int b = 0; b < 64; b++) bits[b] += (int)(word >> b & 1);
    }
    for (int b = 0; b < 64; b++) assert_true(abs(bits[b] - DRAWS / 2) < 5 * sqrt(DRAWS) / 2);
}

static void below_has_no_bias(void **state)
{
    (void)state;
    struct rng rng = rng_make(12, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(rng_below(&rng, 1), 0);
    int counts[7] = {0};
    for (int i = 0; i < 70000; i++) counts[rng_below(&rng, 7)]++;
    for (int c = 0; c < 7; c++) assert_true(abs(counts[c] - 10000) < 5 * 93);
    /* A bound of 3/4 of all words: by the remainder alone the lower third of the results would come
     * twice as often as the rest; without bias each third gets a third. */
    const uint64_t bound = UINT64_C(3) << 62;
    int thirds[3] = {0};
    for (int i = 0; i < 30000; i++) {
        uint64_t draw = rng_below(&rng, bound);
        assert_true(draw < bound);
        thirds[draw >> 62]++;
    }
    for (int t = 0; t < 3; t++) assert_true(abs(thirds[t] - 10000) < 5 * 82);
    /* Powers of two reject nothing: one word a draw. */
    uint64_t before = rng.counter;
    for (int i = 0; i < 100; i++)
        assert_true(rng_below(&rng, UINT64_C(1) << 63) < UINT64_C(1) << 63);
    assert_int_equal(rng.counter - before, 100);
    /* The largest bound. */
    for (int i = 0; i < 100; i++) assert_true(rng_below(&rng, UINT64_MAX) < UINT64_MAX);
}

static void normal_has_the_right_moments(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    struct rng rng = rng_make(13, 0);
    double moments[5] = {0};
    int beyond_two = 0;
    for (int i = 0; i < DRAWS; i++) {
        double x = rng_normal(&rng), power = 1;
        assert_true(isfinite(x));
        for (int m = 0; m < 5; m++, power *= x) moments[m] += power / DRAWS;
        beyond_two += fabs(x) > 2;
    }
    assert_int_equal(rng.counter, 2 * DRAWS);
    assert_true(fabs(moments[1]) < 4 / sqrt(DRAWS));
    assert_true(fabs(moments[2] - 1) < 4 * sqrt(2.0 / DRAWS));
    assert_true(fabs(moments[3]) < 4 * sqrt(15.0 / DRAWS));
    assert_true(fabs(moments[4] - 3) < 4 * sqrt(96.0 / DRAWS));
    assert_true(fabs((double)beyond_two / DRAWS - 0.0455003) < 0.002);
}

/* ---- Parameters ------------------------------------------------------------------------------ */

static const int64_t matrix_shape[] = {4, 6}, vector_shape[] = {6};

static void add(struct param_list *list, const char *name, enum param_init init)
{
    bool matrix = init == PARAM_INIT_NORMAL;
    int index = param_add(list, PLX_F32, matrix ? 2 : 1, matrix ? matrix_shape : vector_shape, init,
                          0.5, matrix ? PARAM_MATRIX : PARAM_NORM, "%s.%s", name, "weight");
    assert_int_equal(index, list->count - 1);
}

/* Carves and initialises; the arena goes to the caller. */
static void start(struct param_list *list, struct arena *arena, uint64_t seed)
{
    struct error err = {0};
    struct arena measuring = arena_measuring(&device_cpu);
    param_list_carve_values(list, &measuring);
    param_list_carve_grads(list, &measuring);
    assert_int_equal(arena_create(arena, &device_cpu, NULL, measuring.peak, &err), PLX_OK);
    param_list_carve_values(list, arena);
    param_list_carve_grads(list, arena);
    assert_false(arena_overflowed(arena));
    assert_int_equal(param_list_init(list, seed, &device_cpu, NULL, &err), PLX_OK);
}

static void assert_same_start(struct param_list *a, struct param_list *b, const char *name)
{
    const struct param *left = param_find(a, name), *right = param_find(b, name);
    assert_non_null(left);
    assert_non_null(right);
    assert_memory_equal(left->value.data, right->value.data,
                        (size_t)plx_tensor_count(&left->value) * sizeof(float));
}

static void start_does_not_depend_on_order(void **state)
{
    (void)state;
    struct param_list a = {0}, b = {0}, c = {0};
    struct arena arenas[3];
    add(&a, "q", PARAM_INIT_NORMAL);
    add(&a, "k", PARAM_INIT_NORMAL);
    add(&a, "norm", PARAM_INIT_ONE);
    add(&b, "norm", PARAM_INIT_ONE);
    add(&b, "k", PARAM_INIT_NORMAL);
    add(&b, "extra", PARAM_INIT_ZERO);
    add(&b, "q", PARAM_INIT_NORMAL);
    add(&c, "q", PARAM_INIT_NORMAL);
    add(&c, "k", PARAM_INIT_NORMAL);
    start(&a, &arenas[0], 5);
    start(&b, &arenas[1], 5);
    start(&c, &arenas[2], 6);
    assert_same_start(&a, &b, "q.weight");
    assert_same_start(&a, &b, "k.weight");
    assert_same_start(&a, &b, "norm.weight");
    const float *q = param_find(&a, "q.weight")->value.data,
                *k = param_find(&a, "k.weight")->value.data;
    const float *other = param_find(&c, "q.weight")->value.data;
    assert_true(memcmp(q, k, 24 * sizeof(float)) != 0);
    assert_true(memcmp(q, other, 24 * sizeof(float)) != 0);
    for (int i = 0; i < 6; i++) {
        assert_true(((float *)param_find(&a, "norm.weight")->value.data)[i] == 1);
        assert_true(((float *)param_find(&b, "extra.weight")->value.data)[i] == 0);
    }
    struct param_list *lists[] = {&a, &b, &c};
    for (int i = 0; i < 3; i++) {
        arena_destroy(&arenas[i]);
        param_list_destroy(lists[i]);
        assert_int_equal(lists[i]->count, 0);
    }
}

static void start_has_the_asked_deviation(void **state)
{
    (void)state;
    struct param_list list = {0};
    struct arena arena;
    const int64_t shape[] = {200, 500};
    assert_int_equal(
        param_add(&list, PLX_F64, 2, shape, PARAM_INIT_NORMAL, 0.02, PARAM_EMBEDDING, "e"), 0);
    start(&list, &arena, 1);
    double sum = 0, squares = 0;
    for (int i = 0; i < 100000; i++) {
        double value = ((double *)list.items[0].value.data)[i];
        sum += value;
        squares += value * value;
    }
    assert_true(fabs(sum / 100000) < 4 * 0.02 / sqrt(100000));
    assert_true(fabs(sqrt(squares / 100000) / 0.02 - 1) < 0.01);
    arena_destroy(&arena);
    param_list_destroy(&list);
}

static void list_grows_and_counts(void **state)
{
    (void)state;
    struct param_list list = {0};
    for (int i = 0; i < 300; i++) {
        assert_int_equal(param_add(&list, PLX_F32, 2, matrix_shape, PARAM_INIT_NORMAL, 0.1,
                                   (enum param_group)(i % PARAM_GROUPS), "layer.%d.weight", i),
                         i);
        assert_null(list.items[i].value.data);
        assert_null(list.items[i].grad.data);
    }
    assert_int_equal(param_list_elements(&list), 300 * 24);
    assert_string_equal(param_find(&list, "layer.299.weight")->name, "layer.299.weight");
    assert_int_equal(param_find(&list, "layer.8.weight")->group, 8 % PARAM_GROUPS);
    assert_null(param_find(&list, "layer.300.weight"));
    param_list_destroy(&list);
    assert_int_equal(param_list_elements(&list), 0);
}

static void groups_have_names(void **state)
{
    (void)state;
    static const char *const names[] = {"matrix", "thin", "embedding", "head", "norm", "bias"};
    for (int g = 0; g < PARAM_GROUPS; g++)
        assert_string_equal(param_group_name((enum param_group)g), names[g]);
    assert_string_equal(param_group_name(PARAM_GROUPS), "unknown");
}

/* ---- 8-bit floats ---------------------------------------------------------------------------- */

/* The least power of two with which a row reaches no further than 448. */
static void scales_are_the_least_powers_of_two(void **state)
{
    (void)state;
    struct rng rng = rng_make(12, 0);
    for (int i = 0; i < 10000; i++) {
        int exponent;
        double largest = exp2(200 * rng_uniform(&rng) - 100);
        if (i % 4 == 0) largest = ldexp(1.75, i % 200 - 100);
        double scale = quantised_scale(largest);
        assert_true(frexp(scale, &exponent) == 0.5);
        assert_true(largest <= 448 * scale && largest > 224 * scale);
    }
    assert_true(quantised_scale(448) == 1 && quantised_scale(nextafter(448, 500)) == 2);
    assert_true(quantised_scale(0) == 0x1p-126 && quantised_scale(1e-45) == 0x1p-126);
    assert_true(isnan(quantised_scale(INFINITY)) && isnan(quantised_scale(NAN)));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_wins),
        cmocka_unit_test(long_sentences_are_cut),
        cmocka_unit_test(control_macros),
        cmocka_unit_test(measuring_equals_real),
        cmocka_unit_test(overflow_is_told_not_written),
        cmocka_unit_test(absurd_sizes_do_not_wrap),
        cmocka_unit_test(scratch_is_a_stack),
        cmocka_unit_test(words_are_the_documented_hash),
        cmocka_unit_test(first_words_stay),
        cmocka_unit_test(any_position_is_reached_at_once),
        cmocka_unit_test(streams_differ),
        cmocka_unit_test(uniform_is_uniform),
        cmocka_unit_test(below_has_no_bias),
        cmocka_unit_test(normal_has_the_right_moments),
        cmocka_unit_test(start_does_not_depend_on_order),
        cmocka_unit_test(start_has_the_asked_deviation),
        cmocka_unit_test(list_grows_and_counts),
        cmocka_unit_test(groups_have_names),
        cmocka_unit_test(scales_are_the_least_powers_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
