/* device_memory.c: see device_memory.h. Every buffer is an allocation of its own, small as it may
 * be: a memory checker then sees the bounds of each. */
#include "device_memory.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/device.h"
#include "watch.h"

static _Thread_local const char *announced = "nothing";

static void check(plx_status status, const struct error *err)
{
    if (status == PLX_OK) return;
    fprintf(stderr, "FAILED %s: %s\n", announced, err->text);
    abort();
}

bool device_ready(void)
{
    struct device_facts facts;
    struct error err = {0};
    plx_status status = device_cuda.describe(0, &facts, &err);
    if (status == PLX_DEVICE_ERROR) check(status, &err);
    if (status == PLX_OK)
        printf("%s, %s\n", facts.name, facts.details);
    else
        printf("skipped, no GPU\n");
    return status == PLX_OK;
}

void device_describe(char *text, size_t size)
{
    struct device_facts facts;
    struct error err = {0};
    check(device_cuda.describe(0, &facts, &err), &err);
    snprintf(text, size, "%s, %s", facts.name, facts.details);
}

void device_announce(const char *call)
{
    announced = call ? call : "nothing";
    watch_call(call);
}

plx_stream device_stream(void)
{
    static _Thread_local plx_stream stream;
    struct error err = {0};
    if (stream) return stream;
    check(device_cuda.open(0, &err), &err);
    check(device_cuda.stream_create(&stream, &err), &err);
    return stream;
}

void *device_upload(const void *bytes, size_t count)
{
    void *memory;
    struct error err = {0};
    check(device_cuda.allocate(&memory, count, device_stream(), &err), &err);
    check(device_cuda.upload(memory, bytes, count, device_stream(), &err), &err);
    return memory;
}

void device_download(void *bytes, const void *memory, size_t count)
{
    struct error err = {0};
    /* A copy to pageable memory that waits for a kernel keeps the driver from all other threads. */
    check(device_cuda.wait(device_stream(), &err), &err);
    check(device_cuda.download(bytes, memory, count, device_stream(), &err), &err);
}

void device_free(void *memory)
{
    device_cuda.release(memory, device_stream());
}
