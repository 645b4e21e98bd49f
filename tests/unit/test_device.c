/* test_device.c: every device that is present keeps what is copied to it, in stream order, and
 * times what runs on it; one that is absent says so. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/device.h"

enum { BYTES = 4099 }; /* no multiple of anything */

static const struct device *const devices[] = {&device_cpu, &device_cuda};

/* False where the machine or the build lacks the device, which must then be said. */
static bool present(const struct device *device)
{
    struct error err = {0};
    plx_status status = device->open(0, &err);
    if (status == PLX_OK) return true;
    assert_ptr_equal(device, &device_cuda);
    assert_true(status == PLX_INVALID_ARGUMENT || status == PLX_UNSUPPORTED);
    assert_non_null(strstr(err.text, "cuda"));
    return false;
}

static void test_names(void **state)
{
    (void)state;
    assert_ptr_equal(device_named("cpu"), &device_cpu);
    assert_ptr_equal(device_named("cuda"), &device_cuda);
    assert_null(device_named("gpu"));
}

static void test_facts(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) {
        struct device_facts facts;
        struct error err = {0};
        if (!present(devices[n])) continue;
        assert_int_equal(devices[n]->describe(0, &facts, &err), PLX_OK);
        assert_true(facts.name[0] != '\0' && !strpbrk(facts.name, "\"\\\n"));
        assert_int_equal(devices[n]->open(1000, &err), PLX_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "1000"));
    }
}

/* Up, from one buffer to another behind a fill, and down again. */
static void move_bytes(const struct device *device, size_t bytes)
{
    struct error err = {0};
    plx_stream stream;
    unsigned char *host = malloc(bytes), *back = malloc(bytes);
    void *a, *b, *fast;
    for (size_t i = 0; i < bytes; i++) host[i] = (unsigned char)(i * 7 + (i >> 12));
    assert_int_equal(device->stream_create(&stream, &err), PLX_OK);
    assert_int_equal(device->allocate(&a, bytes, stream, &err), PLX_OK);
    assert_int_equal(device->allocate(&b, bytes, stream, &err), PLX_OK);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal(device->upload(a, host, bytes, stream, &err), PLX_OK);
    assert_int_equal(device->fill(b, 0xab, bytes, stream, &err), PLX_OK);
    assert_int_equal(device->copy(b, a, bytes - 1, stream, &err), PLX_OK);
    assert_int_equal(device->download(back, b, bytes, stream, &err), PLX_OK);
    assert_memory_equal(back, host, bytes - 1);
    assert_int_equal(back[bytes - 1], 0xab);
    assert_int_equal(device->fill(b, 0xcd, bytes, stream, &err), PLX_OK);
    assert_int_equal(device->host_allocate(&fast, bytes, &err), PLX_OK);
    assert_int_equal(device->download(fast, b, bytes, stream, &err), PLX_OK);
    memset(back, 0xcd, bytes);
    assert_memory_equal(fast, back, bytes);
    device->host_release(fast);
    device->host_release(NULL);
    device->release(a, stream);
    device->release(b, stream);
    device->release(NULL, stream);
    assert_int_equal(device->wait(stream, &err), PLX_OK);
    device->stream_destroy(stream);
    free(host);
    free(back);
}

/* Little, and so much that pages are huge and threads share the filling. */
static void test_memory(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) {
        if (!present(devices[n])) continue;
        move_bytes(devices[n], BYTES);
        move_bytes(devices[n], (19 << 20) + 13);
    }
}

/* An allocation that is written to shows in what the process holds, and stays in the peak. */
static void test_memory_held(void **state)
{
    (void)state;
    enum { LARGE = 64 << 20 };
    for (int n = 0; n < 2; n++) {
        const struct device *device = devices[n];
        struct error err = {0};
        struct device_memory before, during, after;
        plx_stream stream;
        void *memory;
        if (!present(device)) continue;
        assert_int_equal(device->stream_create(&stream, &err), PLX_OK);
        assert_int_equal(device->memory(&before, &err), PLX_OK);
        assert_int_equal(device->allocate(&memory, LARGE, stream, &err), PLX_OK);
        assert_int_equal(device->fill(memory, 1, LARGE, stream, &err), PLX_OK);
        assert_int_equal(device->wait(stream, &err), PLX_OK);
        assert_int_equal(device->memory(&during, &err), PLX_OK);
        device->release(memory, stream);
        assert_int_equal(device->wait(stream, &err), PLX_OK);
        assert_int_equal(device->memory(&after, &err), PLX_OK);
        assert_true(during.held >= before.held + LARGE / 2);
        assert_true(after.held_peak >= before.held + LARGE / 2); /* the CPU's may lag a little */
        assert_true(before.available > 0);
        device->stream_destroy(stream);
    }
}

static void test_time(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) {
        const struct device *device = devices[n];
        struct error err = {0};
        plx_stream stream;
        device_event begin, end;
        void *memory;
        double seconds = -1;
        if (!present(device)) continue;
        assert_int_equal(device->stream_create(&stream, &err), PLX_OK);
        assert_int_equal(device->allocate(&memory, BYTES, stream, &err), PLX_OK);
        assert_int_equal(device->event_create(&begin, &err), PLX_OK);
        assert_int_equal(device->event_create(&end, &err), PLX_OK);
        assert_int_equal(device->event_record(begin, stream, &err), PLX_OK);
        assert_int_equal(device->fill(memory, 0, BYTES, stream, &err), PLX_OK);
        assert_int_equal(device->event_record(end, stream, &err), PLX_OK);
        assert_int_equal(device->event_elapsed(begin, end, &seconds, &err), PLX_OK);
        assert_true(seconds > 0 && seconds < 60);
        device->event_destroy(begin);
        device->event_destroy(end);
        device->release(memory, stream);
        device->stream_destroy(stream);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_facts),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_memory_held),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
