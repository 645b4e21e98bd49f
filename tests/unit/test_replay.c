/* test_replay.c: work that is repeated on a device with graphs is run once as it is, captured once,
 * and launched from then on; it is captured anew where scratch has moved, and only there. The
 * device is the CPU's, with graphs that count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ops/replay.h"

/* What has happened to the device, and what its graphs have done. */
static struct {
    int worked, begun, launched, destroyed;
    bool fails;
} counts;

static plx_status begin(plx_stream stream, struct error *err)
{
    (void)stream, (void)err;
    counts.begun++;
    return PLX_OK;
}

static plx_status end(plx_stream stream, device_graph *graph, struct error *err)
{
    (void)stream, (void)err;
    *graph = (device_graph)&counts;
    return PLX_OK;
}

static plx_status launch(device_graph graph, plx_stream stream, struct error *err)
{
    (void)stream, (void)err;
    assert_ptr_equal(graph, &counts);
    counts.launched++;
    return PLX_OK;
}

static void destroy(device_graph graph)
{
    assert_ptr_equal(graph, &counts);
    counts.destroyed++;
}

static const struct device graphs = {
    .capture_begin = begin, .capture_end = end, .graph_launch = launch, .graph_destroy = destroy};

/* Takes scratch and leaves it taken, as a pass does whose caller gives all of it back. */
static plx_status work(void *user)
{
    struct backend *be = user;
    counts.worked++;
    be->scratch.used += 64;
    return counts.fails ? PLX_OUT_OF_MEMORY : PLX_OK;
}

static unsigned char memory[2][1024];

static plx_status run(struct replay *replay, struct backend *be)
{
    be->scratch.used = 128;
    plx_status status = replay_run(replay, be, work, be);
    be->scratch.used = 0;
    return status;
}

static void expect(int worked, int begun, int launched, int destroyed)
{
    assert_int_equal(counts.worked, worked);
    assert_int_equal(counts.begun, begun);
    assert_int_equal(counts.launched, launched);
    assert_int_equal(counts.destroyed, destroyed);
}

static int reset(void **state)
{
    (void)state;
    memset(&counts, 0, sizeof counts);
    return 0;
}

static void it_is_captured_once(void **state)
{
    (void)state;
    struct backend be = {.device = &graphs, .scratch.base = memory[0]};
    struct replay replay = {0};
    assert_int_equal(run(&replay, &be), PLX_OK);
    expect(1, 0, 0, 0);
    for (int n = 1; n <= 5; n++) {
        assert_int_equal(run(&replay, &be), PLX_OK);
        expect(2, 1, n, 0);
    }
    replay_forget(&replay, &be);
    expect(2, 1, 5, 1);
}

static void it_is_captured_anew_where_scratch_has_moved(void **state)
{
    (void)state;
    struct backend be = {.device = &graphs, .scratch.base = memory[0]};
    struct replay replay = {0};
    for (int n = 0; n < 3; n++) assert_int_equal(run(&replay, &be), PLX_OK);
    expect(2, 1, 2, 0);
    be.scratch.base = memory[1];
    for (int n = 0; n < 3; n++) assert_int_equal(run(&replay, &be), PLX_OK);
    expect(3, 2, 5, 1);
    replay_forget(&replay, &be);
}

static void what_fails_is_not_launched(void **state)
{
    (void)state;
    struct backend be = {.device = &graphs, .scratch.base = memory[0]};
    struct replay replay = {0};
    assert_int_equal(run(&replay, &be), PLX_OK);
    counts.fails = true;
    assert_int_equal(run(&replay, &be), PLX_OUT_OF_MEMORY);
    expect(2, 1, 0, 1);
    counts.fails = false;
    assert_int_equal(run(&replay, &be), PLX_OK);
    expect(3, 2, 1, 1);
    replay_forget(&replay, &be);
}

static void a_device_without_graphs_runs_it_each_time(void **state)
{
    (void)state;
    static const struct device plain = {0};
    struct backend be = {.device = &plain, .scratch.base = memory[0]};
    struct replay replay = {0};
    for (int n = 1; n <= 3; n++) {
        assert_int_equal(run(&replay, &be), PLX_OK);
        expect(n, 0, 0, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(it_is_captured_once, reset),
        cmocka_unit_test_setup(it_is_captured_anew_where_scratch_has_moved, reset),
        cmocka_unit_test_setup(what_fails_is_not_launched, reset),
        cmocka_unit_test_setup(a_device_without_graphs_runs_it_each_time, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
