/* closed_device.h: a device of the CPU whose memory the host cannot touch: it is open only while an
 * operation or a copy runs, and any other access is a fault. So whatever a test runs on it reaches
 * a device's memory through the operations and the device's calls alone, as it must on a GPU. */
#ifndef TESTS_CLOSED_DEVICE_H
#define TESTS_CLOSED_DEVICE_H

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "ops/ops_watched.h"

/* ---- Memory ---- */

enum { CLOSED_REGIONS = 256, CLOSED_PAGE = 4096 };

static struct closed_region {
    unsigned char *base;
    size_t bytes;
} closed_regions[CLOSED_REGIONS];

static int closed_depth; /* operations that are running: they may call one another */

static inline void closed_protect(int protection)
{
    for (int r = 0; r < CLOSED_REGIONS; r++)
        if (closed_regions[r].base != NULL)
            assert(mprotect(closed_regions[r].base, closed_regions[r].bytes, protection) == 0);
}

static inline void closed_enter(void)
{
    if (closed_depth++ == 0) closed_protect(PROT_READ | PROT_WRITE);
}

static inline void closed_leave(void)
{
    if (--closed_depth == 0) closed_protect(PROT_NONE);
}

/* Whether bytes from there on are the device's. */
static inline bool closed_holds(const void *memory, size_t bytes)
{
    const unsigned char *from = memory;
    for (int r = 0; r < CLOSED_REGIONS; r++) {
        const struct closed_region *region = &closed_regions[r];
        if (region->base != NULL && from >= region->base &&
            from + bytes <= region->base + region->bytes)
            return true;
    }
    return false;
}

static inline plx_status closed_allocate(void **memory, size_t bytes, plx_stream stream,
                                         struct error *err)
{
    (void)stream;
    const size_t rounded = (bytes / CLOSED_PAGE + 1) * CLOSED_PAGE;
    *memory = mmap(NULL, rounded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(err, *memory != MAP_FAILED, PLX_OUT_OF_MEMORY, "closed: no memory");
    for (int r = 0; r < CLOSED_REGIONS; r++)
        if (closed_regions[r].base == NULL) {
            closed_regions[r] = (struct closed_region){*memory, rounded};
            return PLX_OK;
        }
    return error_set(err, PLX_OUT_OF_MEMORY, "closed: no region is free");
}

static inline void closed_release(void *memory, plx_stream stream)
{
    (void)stream;
    for (int r = 0; memory != NULL && r < CLOSED_REGIONS; r++)
        if (closed_regions[r].base == memory) {
            munmap(memory, closed_regions[r].bytes);
            closed_regions[r] = (struct closed_region){0};
        }
}

/* ---- Copies: each side where it belongs ---- */

static inline plx_status closed_move(void *to, const void *from, size_t bytes)
{
    closed_enter();
    if (bytes > 0) memcpy(to, from, bytes);
    closed_leave();
    return PLX_OK;
}

static inline plx_status closed_upload(void *memory, const void *host, size_t bytes,
                                       plx_stream stream, struct error *err)
{
    (void)stream;
    REQUIRE(err, closed_holds(memory, bytes) && !closed_holds(host, 1), PLX_INTERNAL,
            "closed: an upload does not go from the host to the device");
    return closed_move(memory, host, bytes);
}

static inline plx_status closed_download(void *host, const void *memory, size_t bytes,
                                         plx_stream stream, struct error *err)
{
    (void)stream;
    REQUIRE(err, closed_holds(memory, bytes) && !closed_holds(host, 1), PLX_INTERNAL,
            "closed: a download does not go from the device to the host");
    return closed_move(host, memory, bytes);
}

static inline plx_status closed_copy(void *to, const void *from, size_t bytes, plx_stream stream,
                                     struct error *err)
{
    (void)stream;
    REQUIRE(err, closed_holds(to, bytes) && closed_holds(from, bytes), PLX_INTERNAL,
            "closed: a copy leaves the device");
    return closed_move(to, from, bytes);
}

static inline plx_status closed_fill(void *memory, int byte, size_t bytes, plx_stream stream,
                                     struct error *err)
{
    (void)stream;
    REQUIRE(err, closed_holds(memory, bytes), PLX_INTERNAL, "closed: a fill leaves the device");
    closed_enter();
    memset(memory, byte, bytes);
    closed_leave();
    return PLX_OK;
}

/* ---- The device, and its operations: those of the CPU ---- */

static inline const struct device *closed_device(void)
{
    static struct device device;
    device = device_cpu;
    device.name = "closed";
    device.allocate = closed_allocate;
    device.release = closed_release;
    device.upload = closed_upload;
    device.download = closed_download;
    device.copy = closed_copy;
    device.fill = closed_fill;
    return &device;
}

static inline void closed_before(struct backend *be, size_t member)
{
    (void)be, (void)member;
    closed_enter();
}

static inline void closed_after(struct backend *be, size_t member)
{
    (void)be, (void)member;
    closed_leave();
}

static inline const struct ops *closed_ops(void)
{
    static struct ops_watch watch = {
        .inner = &ops_cpu, .before = closed_before, .after = closed_after};
    watch.device = closed_device();
    return ops_watched(&watch);
}

#endif
