/* device.h: where tensors live: the memory, copies, streams, events and graphs of a kind of device,
 * as a table of functions, so that code above it is written once for all of them.
 *
 * On the CPU memory is the heap's (and what a process holds is what is resident), calls are
 * synchronous, streams are NULL and an event is the time at which it was recorded; there are no
 * graphs. CUDA's row is that of device_cuda.c in a build with CUDA and of device_none.c in one
 * without, whose `open` says so. Work is queued on a stream and ordered within it; `download`,
 * `wait` and `event_elapsed` are the calls that wait. */
#ifndef NN_DEVICE_H
#define NN_DEVICE_H

#include "core/error.h"

/* What a device is. */
struct device_facts {
    char name[128];       /* "NVIDIA H200" */
    char details[128];    /* "compute capability 9.0, driver for CUDA 13.0" */
    int64_t memory_bytes; /* 0 where it is not asked for */
};

/* Memory of the device that is open, in bytes; 0 where the system does not tell. */
struct device_memory {
    size_t held, held_peak; /* by this process, now and at most */
    size_t available;       /* to further allocations of this process */
};

typedef void *device_event;
typedef void *device_graph;

struct device {
    const char *name; /* "cpu", "cuda": what --device takes */
    plx_device kind;
    size_t alignment; /* of memory and of what arenas carve from it: a power of two */

    /* Makes the index-th device of this kind the calling thread's; every thread that makes other
     * calls opens it first. PLX_INVALID_ARGUMENT where the build lacks the kind or the machine has
     * fewer devices, PLX_UNSUPPORTED where the machine has none. */
    plx_status (*open)(int index, struct error *err);
    plx_status (*describe)(int index, struct device_facts *facts, struct error *err);
    plx_status (*memory)(struct device_memory *memory, struct error *err);

    /* Memory aligned at least so; released in stream order. release takes NULL. */
    plx_status (*allocate)(void **memory, size_t bytes, plx_stream stream, struct error *err);
    void (*release)(void *memory, plx_stream stream);
    /* Host memory that copies are fastest with; release_host takes NULL. */
    plx_status (*allocate_host)(void **memory, size_t bytes, struct error *err);
    void (*release_host)(void *memory);
    /* The host's bytes may change as soon as upload returns, and are there when download does. */
    plx_status (*upload)(void *memory, const void *host, size_t bytes, plx_stream stream,
                         struct error *err);
    plx_status (*download)(void *host, const void *memory, size_t bytes, plx_stream stream,
                           struct error *err);
    plx_status (*copy)(void *to, const void *from, size_t bytes, plx_stream stream,
                       struct error *err);
    plx_status (*fill)(void *memory, int byte, size_t bytes, plx_stream stream, struct error *err);

    plx_status (*stream_create)(plx_stream *stream, struct error *err);
    void (*stream_destroy)(plx_stream stream);
    /* Until everything on the stream is done; a failure of work queued before shows here. */
    plx_status (*wait)(plx_stream stream, struct error *err);

    plx_status (*event_create)(device_event *event, struct error *err);
    void (*event_destroy)(device_event event);
    plx_status (*event_record)(device_event event, plx_stream stream, struct error *err);
    /* What is queued on the stream from now on waits for what was queued before the event. */
    plx_status (*event_wait)(device_event event, plx_stream stream, struct error *err);
    /* Waits for the end and gives the seconds between the two. */
    plx_status (*event_elapsed)(device_event begin, device_event end, double *seconds,
                                struct error *err);

    /* What is queued on the stream between begin and end becomes a graph instead of running. All
     * four are NULL where a device has no graphs. */
    plx_status (*capture_begin)(plx_stream stream, struct error *err);
    plx_status (*capture_end)(plx_stream stream, device_graph *graph, struct error *err);
    plx_status (*graph_launch)(device_graph graph, plx_stream stream, struct error *err);
    void (*graph_destroy)(device_graph graph);
};

extern const struct device device_cpu, device_cuda;

/* The device of a name, or NULL. */
const struct device *device_named(const char *name);
/* What --device takes: "NAME" or "NAME:INDEX", which must be there, or "auto": the first GPU if
 * there is one, otherwise the CPU. Opens nothing. */
plx_status device_choose(const char *text, const struct device **device, int *index,
                         struct error *err);

#endif
