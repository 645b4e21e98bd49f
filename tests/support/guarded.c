/* guarded.c: see guarded.h. */
#include "guarded.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"

enum { ZONE_BYTES = 256, POISON = 0xff, LEFT_PADDING = 5 };

void *must_have(void *pointer)
{
    if (!pointer) {
        fprintf(stderr, "out of memory in a test\n");
        abort();
    }
    return pointer;
}

struct guarded guarded_create(size_t bytes, size_t alignment)
{
    size_t shift = alignment < 64 ? alignment : 0;
    size_t total = (ZONE_BYTES + shift + bytes + ZONE_BYTES + 63) / 64 * 64;
    struct guarded memory = {.bytes = bytes};
    memory.base = must_have(aligned_alloc(64, total));
    memset(memory.base, POISON, total);
    memory.data = memory.base + ZONE_BYTES + shift;
    return memory;
}

size_t guarded_total(const struct guarded *memory)
{
    return (size_t)(memory->data - memory->base) + memory->bytes + ZONE_BYTES;
}

void guarded_destroy(struct guarded *memory)
{
    free(memory->base);
    *memory = (struct guarded){0};
}

static bool all_poison(const unsigned char *bytes, size_t count)
{
    for (size_t n = 0; n < count; n++)
        if (bytes[n] != POISON) return false;
    return true;
}

bool guarded_zones_intact(const struct guarded *memory)
{
    size_t front = (size_t)(memory->data - memory->base);
    return all_poison(memory->base, front) && all_poison(memory->data + memory->bytes, ZONE_BYTES);
}

/* Strides of a kind; the gaps are odd so that rows also change their alignment, but those of sliced
 * tensors keep it on 16 bytes. */
static void set_strides(struct plx_tensor *view, enum view_kind kind)
{
    int rank = view->rank;
    int64_t stride = 1, unit = view->dtype == PLX_F8E4M3 ? 16 : 8;
    for (int axis = rank - 1; axis >= 0; axis--) {
        view->stride[axis] = stride;
        stride *= view->shape[axis];
        if (kind == VIEW_PADDED) stride += 3 + 2 * axis;
        if (kind == VIEW_SLICED) stride = (stride + unit - 1) / unit * unit + unit * axis;
        if (kind == VIEW_LEFT_PADDED && rank > 2 && axis == 1)
            stride += LEFT_PADDING * view->stride[1];
    }
    if (kind == VIEW_HEAD_MAJOR && rank == 4) {
        view->stride[1] = view->shape[3];
        view->stride[2] = view->shape[3] * view->shape[1];
        view->stride[0] = view->stride[2] * view->shape[2];
    }
}

struct test_tensor test_tensor_create(plx_dtype dtype, enum view_kind kind, int rank,
                                      const int64_t *shape)
{
    struct test_tensor tensor = {.view = {.dtype = dtype, .device = PLX_CPU, .rank = rank}};
    size_t size = plx_dtype_size(dtype);
    memcpy(tensor.view.shape, shape, sizeof *shape * (size_t)rank);
    set_strides(&tensor.view, kind);
    int64_t elements = plx_tensor_count(&tensor.view) > 0;
    for (int axis = 0; elements && axis < rank; axis++)
        elements += (shape[axis] - 1) * tensor.view.stride[axis];
    bool aligned = kind == VIEW_ALIGNED || kind == VIEW_SLICED;
    int64_t ahead = kind == VIEW_LEFT_PADDED && rank > 2 ? LEFT_PADDING * tensor.view.stride[1] : 0;
    tensor.memory = guarded_create((size_t)(ahead + elements) * size, aligned ? 64 : size);
    tensor.view.data = tensor.memory.data + (size_t)ahead * size;
    return tensor;
}

void test_tensor_destroy(struct test_tensor *tensor)
{
    guarded_destroy(&tensor->memory);
    tensor->view = (struct plx_tensor){0};
}

/* Position in memory, in elements, of the n-th element in row-major order. */
static int64_t element_offset(const struct plx_tensor *view, int64_t n)
{
    int64_t offset = 0;
    for (int axis = view->rank - 1; axis >= 0; axis--) {
        offset += n % view->shape[axis] * view->stride[axis];
        n /= view->shape[axis];
    }
    return offset;
}

static void write_row(const struct plx_tensor *view, int64_t offset, const double *values,
                      int64_t count)
{
    for (int64_t n = 0; n < count; n++) {
        if (view->dtype == PLX_I32)
            ((int32_t *)view->data)[offset + n] = (int32_t)values[n];
        else
            dtype_store(view->data, view->dtype, offset + n, values[n]);
    }
}

static void read_row(const struct plx_tensor *view, int64_t offset, double *values, int64_t count)
{
    for (int64_t n = 0; n < count; n++)
        values[n] = view->dtype == PLX_I32 ? ((const int32_t *)view->data)[offset + n]
                                           : dtype_load(view->data, view->dtype, offset + n);
}

/* Elements of the last axis, which lie side by side. */
static int64_t row_length(const struct plx_tensor *view)
{
    return view->shape[view->rank - 1];
}

void test_tensor_write(struct test_tensor *tensor, const double *values)
{
    int64_t width = row_length(&tensor->view);
    for (int64_t n = 0, count = plx_tensor_count(&tensor->view); n < count; n += width)
        write_row(&tensor->view, element_offset(&tensor->view, n), values + n, width);
}

void test_tensor_read(const struct test_tensor *tensor, double *values)
{
    int64_t width = row_length(&tensor->view);
    for (int64_t n = 0, count = plx_tensor_count(&tensor->view); n < count; n += width)
        read_row(&tensor->view, element_offset(&tensor->view, n), values + n, width);
}

bool test_tensor_intact(const struct test_tensor *tensor)
{
    const struct plx_tensor *view = &tensor->view;
    size_t size = plx_dtype_size(view->dtype);
    if (!guarded_zones_intact(&tensor->memory)) return false;
    if (tensor->memory.bytes == (size_t)plx_tensor_count(view) * size) return true; /* no gaps */
    unsigned char *covered = must_have(calloc(tensor->memory.bytes + 1, 1));
    size_t ahead = (size_t)((unsigned char *)view->data - tensor->memory.data);
    int64_t width = row_length(view);
    for (int64_t n = 0, count = plx_tensor_count(view); n < count; n += width)
        memset(covered + ahead + (size_t)element_offset(view, n) * size, 1, size * (size_t)width);
    bool intact = true;
    for (size_t byte = 0; byte < tensor->memory.bytes; byte++)
        if (!covered[byte] && tensor->memory.data[byte] != POISON) intact = false;
    free(covered);
    return intact;
}
