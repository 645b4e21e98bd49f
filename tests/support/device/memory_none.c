/* memory_none.c: device_memory.h in a build without CUDA. */
#include "device/device_memory.h"

#include <stdio.h>
#include <stdlib.h>

bool device_present(void)
{
    return false;
}

void device_describe(char *text, size_t size)
{
    snprintf(text, size, "none");
}

void device_announce(const char *call)
{
    (void)call;
}

static void no_device(void)
{
    fprintf(stderr, "a test used a GPU in a build without CUDA\n");
    abort();
}

void *device_upload(const void *bytes, size_t count)
{
    (void)bytes;
    (void)count;
    no_device();
    return NULL;
}

void device_download(void *bytes, const void *memory, size_t count)
{
    (void)bytes;
    (void)memory;
    (void)count;
    no_device();
}

void device_free(void *memory)
{
    if (memory) no_device();
}
