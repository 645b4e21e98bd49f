/* staging.h: the way of a batch to the device. A copy from ordinary memory makes the host wait
 * until the device has come so far; so what is to be copied is written into memory that the device
 * reads by itself, of which there are some places in turn, and the host waits only when it is so
 * many copies ahead. */
#ifndef NN_STAGING_H
#define NN_STAGING_H

#include "core/device.h"

enum { STAGING_PLACES = 4 };

/* Zero-initialised: there is none. */
struct staging {
    const struct device *device;
    plx_stream stream;
    struct staging_place {
        void *memory;
        device_event sent; /* its last copy is done */
    } places[STAGING_PLACES];
    int next;
};

/* For copies of at most so many bytes, queued on the stream. On failure nothing is held. */
plx_status staging_create(struct staging *staging, const struct device *device, plx_stream stream,
                          size_t bytes, struct error *err);
void staging_destroy(struct staging *staging);
/* Where to write what is sent next; its earlier contents have arrived. */
plx_status staging_open(struct staging *staging, void **memory, struct error *err);
/* Queues the copy of the first bytes written there. */
plx_status staging_send(struct staging *staging, void *to, size_t bytes, struct error *err);

#endif
