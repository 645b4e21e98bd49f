/* arena.c: carving one allocation in order; see arena.h.
 *
 * In debug builds every block is followed by a red zone that AddressSanitizer guards, and released
 * memory is filled with signalling patterns (all-ones words are NaN in f32, f64 and bf16), so that
 * reading what was never written shows in the results. */
#include "core/arena.h"

#include <string.h>

#ifdef NN_DEBUG_ARENA
#include <sanitizer/asan_interface.h>
enum { GUARD = 64 };
static void poison(void *start, size_t bytes)
{
    ASAN_UNPOISON_MEMORY_REGION(start, bytes); /* parts of released memory still are */
    memset(start, 0xff, bytes);
    ASAN_POISON_MEMORY_REGION(start, bytes);
}
static void unpoison(void *start, size_t bytes)
{
    ASAN_UNPOISON_MEMORY_REGION(start, bytes);
}
#else
enum { GUARD = 0 };
static void poison(void *start, size_t bytes)
{
    (void)start, (void)bytes;
}
static void unpoison(void *start, size_t bytes)
{
    (void)start, (void)bytes;
}
#endif

static size_t round_up(const struct arena *arena, size_t bytes)
{
    const size_t unit = arena->device->alignment;
    return (bytes + unit - 1) / unit * unit;
}

/* Only memory that the host may touch is guarded. */
static bool is_guarded(const struct arena *arena)
{
    return GUARD > 0 && arena->base != NULL && arena->device == &device_cpu;
}

struct arena arena_measuring(const struct device *device)
{
    return (struct arena){.device = device, .capacity = SIZE_MAX};
}

plx_status arena_create(struct arena *arena, const struct device *device, plx_stream stream,
                        size_t capacity, struct error *err)
{
    *arena = (struct arena){.device = device, .stream = stream, .capacity = capacity};
    size_t rounded = round_up(arena, capacity);
    REQUIRE(err, rounded >= capacity, PLX_OUT_OF_MEMORY, "cannot allocate %zu bytes", capacity);
    void *base = NULL;
    TRY(device->allocate(&base, rounded > 0 ? rounded : device->alignment, stream, err));
    arena->base = base;
    return device->fill(base, 0, rounded, stream, err);
}

void arena_destroy(struct arena *arena)
{
    if (is_guarded(arena)) unpoison(arena->base, arena->capacity);
    if (arena->base != NULL) arena->device->release(arena->base, arena->stream);
    *arena = (struct arena){0};
}

bool arena_is_measuring(const struct arena *arena)
{
    return arena->base == NULL && arena->capacity == SIZE_MAX;
}

void *arena_push(struct arena *arena, size_t bytes)
{
    size_t rounded = round_up(arena, bytes);
    if (arena->device == &device_cpu) rounded += GUARD;
    if (rounded < bytes || arena->used > SIZE_MAX - rounded) rounded = SIZE_MAX - arena->used;
    size_t start = arena->used;
    arena->used += rounded;
    if (arena->used > arena->peak) arena->peak = arena->used;
    if (arena->base == NULL || arena->used > arena->capacity) return NULL;
    if (is_guarded(arena)) {
        unpoison(arena->base + start, bytes);
        poison(arena->base + arena->used - GUARD, GUARD);
    }
    return arena->base + start;
}

bool arena_overflowed(const struct arena *arena)
{
    return arena->peak > arena->capacity;
}

struct plx_tensor arena_tensor(struct arena *arena, plx_dtype dtype, int rank, const int64_t *shape)
{
    struct plx_tensor tensor = plx_tensor_dense(NULL, dtype, rank, shape);
    tensor.device = arena->device->kind;
    tensor.data = arena_push(arena, (size_t)plx_tensor_count(&tensor) * plx_dtype_size(dtype));
    return tensor;
}

void arena_join(struct arena *arena)
{
    if (is_guarded(arena) && arena->used <= arena->capacity) unpoison(arena->base, arena->used);
}

size_t arena_mark(const struct arena *arena)
{
    return arena->used;
}

void arena_release(struct arena *arena, size_t mark)
{
    if (is_guarded(arena) && arena->used <= arena->capacity) {
        unpoison(arena->base + mark, arena->used - mark);
        poison(arena->base + mark, arena->used - mark);
    }
    arena->used = mark;
}
