/* staging.c: see staging.h. */
#include "core/staging.h"

plx_status staging_create(struct staging *staging, const struct device *device, plx_stream stream,
                          size_t bytes, struct error *err)
{
    *staging = (struct staging){.device = device, .stream = stream};
    plx_status status = PLX_OK;
    for (int p = 0; status == PLX_OK && p < STAGING_PLACES; p++) {
        struct staging_place *place = &staging->places[p];
        status = device->host_allocate(&place->memory, bytes, err);
        if (status == PLX_OK) status = device->event_create(&place->sent, err);
    }
    if (status != PLX_OK) staging_destroy(staging);
    return status;
}

/* Copies may be under way still. */
void staging_destroy(struct staging *staging)
{
    const struct device *device = staging->device;
    if (device == NULL) return;
    for (int p = 0; p < STAGING_PLACES; p++) {
        struct staging_place *place = &staging->places[p];
        if (place->sent != NULL) {
            device->event_finish(place->sent, NULL);
            device->event_destroy(place->sent);
        }
        device->host_release(place->memory);
    }
    *staging = (struct staging){.device = NULL};
}

plx_status staging_open(struct staging *staging, void **memory, struct error *err)
{
    struct staging_place *place = &staging->places[staging->next];
    *memory = place->memory;
    return staging->device->event_finish(place->sent, err);
}

plx_status staging_send(struct staging *staging, void *to, size_t bytes, struct error *err)
{
    struct staging_place *place = &staging->places[staging->next];
    staging->next = (staging->next + 1) % STAGING_PLACES;
    TRY(staging->device->upload(to, place->memory, bytes, staging->stream, err));
    return staging->device->event_record(place->sent, staging->stream, err);
}
