/* test_gpu_cache.c: caches on a GPU beside attention itself: the table of append_case.c to the bit,
 * and lists in the GPU's memory that validation finds wrong before anything is launched. Without a
 * GPU the program says "skipped, no GPU" and exits with 77. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "append_case.h"
#include "device_memory.h"

static void caches_hold_what_was_appended(void **state)
{
    (void)state;
    assert_int_equal(append_cases_run(PLX_CUDA), 0);
}

enum { B = 2, P = 2, PAGE = 4, POOL = 5, H = 2, D = 16 };

static struct plx_tensor on_device(const void *bytes, size_t count, struct plx_tensor view)
{
    view.data = device_upload(bytes, count);
    view.device = PLX_CUDA;
    return view;
}

/* Decode with these lists and validation; what it says about them, and o as it was before. */
static void expect(const int32_t *lengths, const int32_t *pages, const char *sentence)
{
    static float marks[B * H * D], zeros[POOL * PAGE * H * D];
    float after[B * H * D];
    static char workspace[64 << 10];
    plx_context *context;
    struct plx_context_config config = {.device = PLX_CUDA, .validate = true};
    const int64_t table[] = {B, P};
    for (int n = 0; n < B * H * D; n++) marks[n] = 7;
    struct plx_tensor q = on_device(zeros, sizeof marks, plx_tensor_4d(NULL, PLX_F32, B, 1, H, D));
    struct plx_tensor k =
        on_device(zeros, sizeof zeros, plx_tensor_4d(NULL, PLX_F32, POOL, PAGE, H, D));
    struct plx_tensor o = on_device(marks, sizeof marks, q);
    struct plx_attention attention = {
        .causal = true,
        .k_lengths =
            on_device(lengths, sizeof *lengths * B, plx_tensor_dense(NULL, PLX_I32, 1, table)),
        .k_pages =
            on_device(pages, sizeof *pages * B * P, plx_tensor_dense(NULL, PLX_I32, 2, table))};
    struct plx_parallax_args args = {.q = q, .r = q, .k = k, .v = k, .o = o};
    assert_int_equal(plx_context_create(&config, &context), PLX_OK);
    void *scratch = device_upload(workspace, sizeof workspace);
    plx_status status =
        plx_parallax_decode(context, &attention, &args, scratch, sizeof workspace, device_stream());
    device_download(after, o.data, sizeof after);
    assert_string_equal(plx_error(context), sentence);
    assert_int_equal(status, sentence[0] ? PLX_INVALID_ARGUMENT : PLX_OK);
    assert_true((after[0] == 7) == (sentence[0] != '\0'));
    void *const memory[] = {
        q.data, k.data, o.data, attention.k_lengths.data, scratch, attention.k_pages.data};
    for (size_t n = 0; n < sizeof memory / sizeof memory[0]; n++) device_free(memory[n]);
    plx_context_destroy(context);
}

static void validation_reads_the_lists(void **state)
{
    (void)state;
    const int32_t good[] = {8, 4}, negative[] = {8, -1}, many[] = {9, 4};
    expect(good, (const int32_t[]){4, 0, 2, -9}, "");
    expect(good, (const int32_t[]){4, 5, 2, 0},
           "k_pages: entry 1 of sequence 0 is 5, not one of the 5 pages of k");
    expect(good, (const int32_t[]){4, 0, -2, 0},
           "k_pages: entry 0 of sequence 1 is -2, not one of the 5 pages of k");
    expect(negative, (const int32_t[]){0, 1, 2, 3}, "k_lengths: entry 1 is -1, not in 0..8");
    expect(many, (const int32_t[]){0, 1, 2, 3}, "k_lengths: entry 0 is 9, not in 0..8");
}

int main(void)
{
    if (!device_ready()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches_hold_what_was_appended),
        cmocka_unit_test(validation_reads_the_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
