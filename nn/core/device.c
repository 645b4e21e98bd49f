/* device.c: the CPU's row of device.h, and the rows by name. */
#include "core/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "process.h"

static plx_status cpu_open(int index, struct error *err)
{
    REQUIRE(err, index == 0, PLX_INVALID_ARGUMENT, "device: cpu %d does not exist, only cpu 0",
            index);
    return PLX_OK;
}

/* The processor's own name, without what a line of JSON would have to escape. */
static plx_status cpu_describe(int index, struct device_facts *facts, struct error *err)
{
    TRY(cpu_open(index, err));
    *facts = (struct device_facts){.name = "unknown"};
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(facts->name, sizeof facts->name, "%.127s",
                 colon[1] == ' ' ? colon + 2 : colon + 1);
        facts->name[strcspn(facts->name, "\n\"\\")] = '\0';
        break;
    }
    if (file) fclose(file);
    return PLX_OK;
}

static plx_status cpu_memory(struct device_memory *memory, struct error *err)
{
    const size_t now = process_resident(), peak = process_resident_peak();
    (void)err;
    /* Linux counts the two apart, so its peak may lie a little below what is held now. */
    *memory = (struct device_memory){
        .held = now, .held_peak = peak > now ? peak : now, .available = process_available()};
    return PLX_OK;
}

/* Where pages of 4 KiB end, processors stop fetching ahead and look the next one up, in a virtual
 * machine twice over: weights are read half as fast again from pages of this size. Smaller blocks
 * than these find room in the caches. */
enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 8 * HUGE_PAGE };

/* Only pages that the block fills are huge, so that none takes more memory than it would have; a
 * system without them keeps to its own. */
static plx_status cpu_allocate(void **memory, size_t bytes, plx_stream stream, struct error *err)
{
    (void)stream;
    const size_t alignment = bytes < HUGE_FROM ? 64 : HUGE_PAGE;
    const size_t rounded = (bytes / alignment + 1) * alignment;
    *memory = rounded > bytes ? aligned_alloc(alignment, rounded) : NULL;
    REQUIRE(err, *memory, PLX_OUT_OF_MEMORY, "cpu: %zu bytes of memory are not available", bytes);
    if (alignment == HUGE_PAGE) madvise(*memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return PLX_OK;
}

static void cpu_release(void *memory, plx_stream stream)
{
    (void)stream;
    free(memory);
}

static plx_status cpu_host_allocate(void **memory, size_t bytes, struct error *err)
{
    return cpu_allocate(memory, bytes, NULL, err);
}

/* Upload, download and copy are one thing here. */
static plx_status cpu_copy(void *to, const void *from, size_t bytes, plx_stream stream,
                           struct error *err)
{
    (void)stream;
    (void)err;
    if (bytes > 0) memcpy(to, from, bytes);
    return PLX_OK;
}

/* Memory that is filled for the first time is found page by page, so all threads share that. */
static plx_status cpu_fill(void *memory, int byte, size_t bytes, plx_stream stream,
                           struct error *err)
{
    (void)stream;
    (void)err;
#pragma omp parallel for schedule(static) if (bytes >= HUGE_FROM)
    for (size_t begin = 0; begin < bytes; begin += HUGE_PAGE)
        memset((char *)memory + begin, byte, bytes - begin < HUGE_PAGE ? bytes - begin : HUGE_PAGE);
    return PLX_OK;
}

static plx_status cpu_stream_create(plx_stream *stream, struct error *err)
{
    (void)err;
    *stream = NULL;
    return PLX_OK;
}

static void cpu_stream_destroy(plx_stream stream)
{
    (void)stream;
}

static plx_status cpu_wait(plx_stream stream, struct error *err)
{
    (void)stream;
    (void)err;
    return PLX_OK;
}

static plx_status cpu_event_create(device_event *event, struct error *err)
{
    *event = calloc(1, sizeof(struct timespec));
    REQUIRE(err, *event, PLX_OUT_OF_MEMORY, "cpu: no memory for an event");
    return PLX_OK;
}

static plx_status cpu_event_record(device_event event, plx_stream stream, struct error *err)
{
    (void)stream;
    (void)err;
    clock_gettime(CLOCK_MONOTONIC, event);
    return PLX_OK;
}

/* Whatever was queued has been done at once. */
static plx_status cpu_event_wait(device_event event, plx_stream stream, struct error *err)
{
    (void)event, (void)stream, (void)err;
    return PLX_OK;
}

static plx_status cpu_event_finish(device_event event, struct error *err)
{
    (void)event, (void)err;
    return PLX_OK;
}

static plx_status cpu_event_elapsed(device_event begin, device_event end, double *seconds,
                                    struct error *err)
{
    const struct timespec *from = begin, *to = end;
    (void)err;
    *seconds = (double)(to->tv_sec - from->tv_sec) + 1e-9 * (double)(to->tv_nsec - from->tv_nsec);
    return PLX_OK;
}

const struct device device_cpu = {
    .name = "cpu",
    .kind = PLX_CPU,
    .alignment = 64,
    .open = cpu_open,
    .describe = cpu_describe,
    .memory = cpu_memory,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .host_allocate = cpu_host_allocate,
    .host_release = free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .fill = cpu_fill,
    .stream_create = cpu_stream_create,
    .stream_destroy = cpu_stream_destroy,
    .wait = cpu_wait,
    .event_create = cpu_event_create,
    .event_destroy = free,
    .event_record = cpu_event_record,
    .event_wait = cpu_event_wait,
    .event_finish = cpu_event_finish,
    .event_elapsed = cpu_event_elapsed,
};

const struct device *device_named(const char *name)
{
    static const struct device *const devices[] = {&device_cpu, &device_cuda};
    for (size_t n = 0; n < sizeof devices / sizeof devices[0]; n++)
        if (strcmp(devices[n]->name, name) == 0) return devices[n];
    return NULL;
}

plx_status device_choose(const char *text, const struct device **device, int *index,
                         struct error *err)
{
    char name[16];
    const size_t length = strcspn(text, ":");
    char *end = (char *)text + length;
    struct device_facts facts;
    *index = 0;
    if (strcmp(text, "auto") == 0) {
        *device = device_cuda.describe(0, &facts, NULL) == PLX_OK ? &device_cuda : &device_cpu;
        return PLX_OK;
    }
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : 0), text);
    *device = device_named(name);
    bool complete = true;
    if (*end == ':') {
        const char *digits = end + 1;
        const long number = strtol(digits, &end, 10);
        complete = digits[0] >= '0' && digits[0] <= '9' && number < 1024;
        *index = complete ? (int)number : 0;
    }
    complete = complete && *end == '\0';
    REQUIRE(err, *device != NULL && complete, PLX_INVALID_ARGUMENT,
            "--device: \"%s\" is none of auto, cpu, cuda, cuda:N", text);
    return (*device)->describe(*index, &facts, err);
}
