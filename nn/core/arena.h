/* arena.h: one allocation per lifetime, carved in order.
 *
 * The same carving code runs twice: first on a measuring arena (base NULL), which only counts, then
 * on one of exactly the counted size. So sizes and layout cannot disagree. Scratch is used as a
 * stack:
 *
 *     size_t mark = arena_mark(&be->scratch);
 *     struct plx_tensor t = arena_tensor(&be->scratch, PLX_F32, 2, shape);
 *     ...
 *     arena_release(&be->scratch, mark);
 *
 * Under NN_DEBUG_ARENA (the sanitizer presets), on the CPU, red zones stand between blocks,
 * released scratch is filled with NaN, and AddressSanitizer is told what may not be touched. */
#ifndef NN_ARENA_H
#define NN_ARENA_H

#include "core/device.h"

struct arena {
    const struct device *device; /* where the memory is */
    plx_stream stream;           /* orders its allocation and release */
    unsigned char *base;         /* NULL while measuring */
    size_t capacity;
    size_t used;
    size_t peak; /* most ever used: the size to allocate after a measuring run */
};

/* A measuring arena: pushes return NULL data and always succeed. */
struct arena arena_measuring(const struct device *device);
/* Allocates capacity bytes, zeroed and aligned, ordered on a stream of the device. */
plx_status arena_create(struct arena *arena, const struct device *device, plx_stream stream,
                        size_t capacity, struct error *err);
void arena_destroy(struct arena *arena);
bool arena_is_measuring(const struct arena *arena);

/* bytes rounded up to the device's alignment; NULL while measuring. Running past the capacity of a
 * real arena is a bug in the caller's plan: push returns NULL and sets used past capacity, and
 * arena_overflowed tells.
 */
void *arena_push(struct arena *arena, size_t bytes);
bool arena_overflowed(const struct arena *arena);
/* A dense tensor on the arena's device; contents undefined. */
struct plx_tensor arena_tensor(struct arena *arena, plx_dtype dtype, int rank,
                               const int64_t *shape);
/* Lets all that has been carved be written as one piece, and gives up what debug builds have
 * between its blocks. */
void arena_join(struct arena *arena);
size_t arena_mark(const struct arena *arena);
void arena_release(struct arena *arena, size_t mark);

#endif
