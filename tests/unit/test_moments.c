/* test_moments.c: optimiser state in bf16: what rounding at random keeps and what it may not touch,
 * moments that follow those in f32 on average where rounding to nearest would leave them standing,
 * and half of the memory. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/dtype.h"
#include "ops/rounding.h"
#include "optim/optim.h"

/* ---- Rounding -------------------------------------------------------------------------------- */

static void bf16_numbers_stay(void **state)
{
    (void)state;
    const uint32_t words[] = {0, 1, 0x7fff, 0x8000, 0xffff, 0xffffffff};
    for (uint32_t half = 0; half < 0x10000; half++)
        for (int w = 0; w < 6; w++) {
            const float before = bits_float(half << 16);
            const uint16_t after = rounding_bf16(half << 16, words[w]);
            if (isnan(before))
                assert_true(isnan(dtype_bf16_to_f32(after)));
            else
                assert_int_equal(after, half);
        }
    for (uint32_t low = 1; low < 0x10000; low *= 2)
        assert_true(isnan(dtype_bf16_to_f32(rounding_bf16(0x7f800000u + low, 0xffff))));
    assert_true(isnan(dtype_bf16_to_f32(rounding_bf16(0x7fffffffu, 0xffff))));
}

/* Of all random words, as many round away from zero as the part that is cut off says. */
static void the_share_rounded_up_is_what_is_cut_off(void **state)
{
    (void)state;
    const float values[] = {1.0039f, -1.0039f, 3.14159f, -2e-30f, 6.6e20f, 0x1p-130f * 1.3f};
    for (int v = 0; v < 6; v++) {
        const uint32_t bits = float_bits(values[v]);
        uint32_t away = 0;
        for (uint32_t random = 0; random < 0x10000; random++) {
            const uint16_t half = rounding_bf16(bits, random);
            assert_true(half == bits >> 16 || half == (bits >> 16) + 1);
            away += half != bits >> 16;
        }
        assert_int_equal(away, bits & 0xffff);
    }
}

/* Means of the halves of words and of their product, in standard deviations from those of
 * independent uniform numbers. */
static void check_words(uint32_t first_key, uint32_t key_step, uint32_t element_step)
{
    enum { COUNT = 1 << 16 };
    double low = 0, high = 0, both = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t word =
            rounding_word(rounding_key(1 + first_key + i * key_step, 3), i * element_step);
        const double a = (word & 0xffff) / 65536.0 - 0.5, b = (word >> 16) / 65536.0 - 0.5;
        low += a, high += b, both += a * b;
    }
    const double deviation = sqrt(COUNT / 12.0);
    assert_true(fabs(low) < 5 * deviation && fabs(high) < 5 * deviation);
    assert_true(fabs(both) < 5 * sqrt(COUNT / 144.0));
}

static void words_look_random(void **state)
{
    (void)state;
    for (uint32_t key = 0; key < 8; key++) check_words(key, 0, 1); /* the elements of a step */
    check_words(0, 1, 0);                                          /* the steps of an element */
    check_words(0, 1, 1);
}

/* ---- Moments --------------------------------------------------------------------------------- */

enum { ROWS = 128, COLUMNS = 160, COUNT = ROWS * COLUMNS };

struct fixture {
    struct error err;
    struct backend be;
    struct param_list params;
    struct arena values, grads;
    struct optim *optim;
};

static void setup(struct fixture *f, const struct ops *ops, const char *optimizer, bool halved)
{
    const struct backend_config backend = {.ops = ops, .threads = 2};
    const int64_t shape[2] = {ROWS, COLUMNS};
    struct optim_config config = optim_config_default(optimizer);
    config.bf16_moments = halved;
    config.clip = 0;
    config.beta2 = 0.999;
    config.ns_steps = 0; /* costs most, and comes after the momentum */
    *f = (struct fixture){.optim = NULL};
    assert_int_equal(backend_create(&f->be, &backend, &f->err), PLX_OK);
    assert_int_equal(
        param_add(&f->params, PLX_F32, 2, shape, PARAM_INIT_ZERO, 0, PARAM_MATRIX, "w"), 0);
    const size_t room = COUNT * sizeof(float) + 256;
    assert_int_equal(arena_create(&f->values, &device_cpu, NULL, room, &f->err), PLX_OK);
    assert_int_equal(arena_create(&f->grads, &device_cpu, NULL, room, &f->err), PLX_OK);
    param_list_carve_values(&f->params, &f->values);
    param_list_carve_active(&f->params, backend_precision(&f->be), &f->values);
    param_list_carve_grads(&f->params, &f->grads);
    assert_int_equal(optim_create(&f->be, &config, &f->params, &f->optim), PLX_OK);
}

static void teardown(struct fixture *f)
{
    optim_destroy(f->optim);
    param_list_destroy(&f->params);
    arena_destroy(&f->values);
    arena_destroy(&f->grads);
    backend_destroy(&f->be);
}

/* A step on one gradient for all elements. */
static void step(struct fixture *f, float gradient)
{
    float *grad = f->params.items[0].grad.data;
    for (int i = 0; i < COUNT; i++) grad[i] = gradient;
    assert_int_equal(optim_step(f->optim, 1e-3, 0), PLX_OK);
}

static double mean_of(struct fixture *f, int index, double *smallest, double *largest)
{
    struct optim_tensor state;
    assert_true(optim_state(f->optim, index, &state));
    double sum = 0;
    *smallest = INFINITY, *largest = -INFINITY;
    for (int64_t i = 0; i < COUNT; i++) {
        const double value = state.tensor.dtype == PLX_BF16
                                 ? dtype_bf16_to_f32(((uint16_t *)state.tensor.data)[i])
                                 : ((float *)state.tensor.data)[i];
        sum += value;
        *smallest = fmin(*smallest, value), *largest = fmax(*largest, value);
    }
    return sum / COUNT;
}

/* A large gradient, then small ones: with beta2 of 0.999 v falls by a thousandth a step, less than
 * half of bf16's last place, so that rounding to nearest would leave it standing. */
static void small_changes_are_not_lost(void **state)
{
    (void)state;
    static const struct ops *const tables[] = {&ops_ref, &ops_cpu};
    assert_int_equal((float_bits(0.999f) + 0x8000) >> 16, 0x3f80);
    for (int t = 0; t < 2; t++)
        for (int o = 0; o < 2; o++) {
            const char *optimizer = o == 0 ? "adamw" : "muon";
            struct fixture exact, halved;
            setup(&exact, tables[t], optimizer, false);
            setup(&halved, tables[t], optimizer, true);
            for (int s = 0; s < 300; s++) {
                step(&exact, s == 0 ? 31.7f : 0.01f);
                step(&halved, s == 0 ? 31.7f : 0.01f);
            }
            for (int index = 0; index < (o == 0 ? 2 : 1); index++) {
                double low, high, expected = mean_of(&exact, index, &low, &high),
                                  mean = mean_of(&halved, index, &low, &high);
                print_message("%s, %s, state %d: %.6g, in bf16 %.6g, from %.6g to %.6g\n",
                              tables[t]->name, optimizer, index, expected, mean, low, high);
                assert_true(fabs(mean / expected - 1) < 2e-3);
                assert_true(low > 0.7 * expected && high < 1.3 * expected);
            }
            teardown(&exact);
            teardown(&halved);
        }
}

static void states_are_half_as_large(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "muon"};
    for (int o = 0; o < 2; o++) {
        struct fixture exact, halved;
        struct optim_tensor tensor;
        setup(&exact, &ops_cpu, optimizers[o], false);
        setup(&halved, &ops_cpu, optimizers[o], true);
        const size_t saved = optim_bytes(exact.optim) - optim_bytes(halved.optim);
        assert_int_equal(saved, (o == 0 ? 2 : 1) * COUNT * 2);
        for (int i = 0; optim_state(halved.optim, i, &tensor); i++)
            assert_int_equal(tensor.tensor.dtype, PLX_BF16);
        teardown(&exact);
        teardown(&halved);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_numbers_stay),
        cmocka_unit_test(the_share_rounded_up_is_what_is_cut_off),
        cmocka_unit_test(words_look_random),
        cmocka_unit_test(small_changes_are_not_lost),
        cmocka_unit_test(states_are_half_as_large),
    };
    return cmocka_run_group_tests_name("moments in bf16", tests, NULL, NULL);
}
