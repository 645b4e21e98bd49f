/* bench_tensors.c: see bench_tensors.h. */
#include "bench_tensors.h"

#include <math.h>
#include <stdlib.h>

#include "core/random.h"

static const enum bench_slot inputs[] = {SLOT_Q, SLOT_R, SLOT_K, SLOT_V, SLOT_D_O};
enum { INPUTS = sizeof inputs / sizeof inputs[0] };

static bool is_input(int slot)
{
    return slot <= SLOT_V || slot == SLOT_D_O;
}

static bool is_key(enum bench_slot slot)
{
    return slot == SLOT_K || slot == SLOT_V;
}

void bench_tensors_reserve(struct bench_tensors *tensors, const struct bench_case *c)
{
    const plx_pass first = c->pass == PLX_BACKWARD ? PLX_FORWARD : c->pass;
    for (plx_pass pass = first; pass <= c->pass; pass++) {
        struct bench_arguments args = bench_arguments(c, pass, PLX_F32);
        for (int n = 0; n < SLOTS; n++) {
            const struct plx_tensor *tensor = &bench_slots(&args)[n];
            if (tensor->rank == 0) continue;
            size_t bytes = (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
            size_t pattern = (size_t)(BENCH_ROWS * c->shape.d) * plx_dtype_size(c->dtype);
            if (is_input(n) && bytes < pattern) bytes = pattern;
            if (bytes > tensors->bytes[n]) tensors->bytes[n] = bytes;
        }
    }
    const size_t pages = (size_t)(c->shape.b * bench_pages(c)), lengths = (size_t)c->shape.b;
    if (pages > tensors->pages_count) tensors->pages_count = pages;
    if (bench_lengths(c) && lengths > tensors->lengths_count) tensors->lengths_count = lengths;
}

plx_status bench_tensors_allocate(struct bench_tensors *tensors, struct error *err)
{
    const struct device *device = tensors->device;
    for (int n = 0; n < SLOTS; n++)
        if (tensors->bytes[n] > 0)
            TRY(device->allocate(&tensors->memory[n], tensors->bytes[n], tensors->stream, err));
    if (tensors->pages_count > 0)
        TRY(device->allocate(&tensors->pages, tensors->pages_count * sizeof(int32_t),
                             tensors->stream, err));
    if (tensors->lengths_count == 0) return PLX_OK;
    return device->allocate(&tensors->lengths, tensors->lengths_count * sizeof(int32_t),
                            tensors->stream, err);
}

void bench_tensors_destroy(struct bench_tensors *tensors)
{
    for (int n = 0; n < SLOTS; n++) {
        tensors->device->release(tensors->memory[n], tensors->stream);
        free(tensors->rows[n]);
    }
    tensors->device->release(tensors->workspace, tensors->stream);
    tensors->device->release(tensors->pages, tensors->stream);
    tensors->device->release(tensors->lengths, tensors->stream);
    *tensors = (struct bench_tensors){0};
}

/* ---- Inputs ------------------------------------------------------------------------------------
 */

/* A common component of probes and keys along a vector of ones and minus ones of length sqrt(D):
 * with one of the probe's own size, r.k has a standard deviation of sqrt(2 D), and its mean is
 * sqrt(D) times the length of the key's. Logits move by the same for every key of a row. */
static double component(enum bench_slot slot, int64_t channel, int64_t d, double probe_offset)
{
    const double sign = channel % 2 ? -1 : 1;
    if (probe_offset == 0) return 0;
    if (slot == SLOT_R) return sign;
    if (slot == SLOT_K) return sign * probe_offset * sqrt(2.0 / (double)d);
    return 0;
}

static void draw_row(enum bench_slot slot, int64_t n, int64_t d, double probe_offset, float *row)
{
    struct rng rng = rng_make((uint64_t)slot + 1, (uint64_t)n);
    double squares = 0;
    for (int64_t i = 0; i < d; i++) {
        row[i] = (float)rng_normal(&rng);
        squares += (double)row[i] * row[i];
    }
    if (slot == SLOT_V || slot == SLOT_D_O) return;
    const double scale = 1 / sqrt(squares / (double)d);
    for (int64_t i = 0; i < d; i++)
        row[i] = (float)(scale * row[i] + component(slot, i, d, probe_offset));
}

/* The pattern in the dtype of the case: on the host as rounded, on the device from the start of the
 * slot on, and from there in doubling steps to its end. */
static plx_status fill_slot(struct bench_tensors *tensors, enum bench_slot slot, void *rounded,
                            struct error *err)
{
    const struct device *device = tensors->device;
    const int64_t count[] = {BENCH_ROWS * tensors->d};
    struct plx_tensor wide = plx_tensor_dense(tensors->rows[slot], PLX_F32, 1, count);
    const plx_dtype dtype = is_key(slot) ? tensors->cache : tensors->dtype;
    struct plx_tensor narrow = plx_tensor_dense(rounded, dtype, 1, count);
    plx_context *context;
    plx_status status = plx_context_create(NULL, &context);
    REQUIRE(err, status == PLX_OK, status, "bench: no context");
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < BENCH_ROWS; n++)
        draw_row(slot, n, tensors->d, tensors->probe_offset, tensors->rows[slot] + n * tensors->d);
    status = plx_convert(context, &wide, &narrow);
    if (status == PLX_OK) status = plx_convert(context, &narrow, &wide);
    if (status != PLX_OK) error_set(err, status, "bench: %s", plx_error(context));
    plx_context_destroy(context);
    TRY(status);

    char *memory = tensors->memory[slot];
    const size_t total = tensors->bytes[slot];
    size_t done = (size_t)count[0] * plx_dtype_size(dtype);
    TRY(device->upload(memory, rounded, done, tensors->stream, err));
    while (done < total) {
        const size_t part = done < total - done ? done : total - done;
        TRY(device->copy(memory + done, memory, part, tensors->stream, err));
        done += part;
    }
    return device->wait(tensors->stream, err); /* before the host's copy is written anew */
}

/* Lengths, and the page table where there is one. */
static plx_status fill_lists(struct bench_tensors *tensors, const struct bench_case *c,
                             struct error *err)
{
    const struct device *device = tensors->device;
    const int64_t pages = c->shape.b * bench_pages(c);
    int32_t *list = malloc((size_t)(pages + c->shape.b) * sizeof *list);
    REQUIRE(err, list, PLX_OUT_OF_MEMORY, "bench: no memory for a list of %lld pages",
            (long long)pages);
    for (int64_t n = 0; n < pages; n++) list[n] = (int32_t)bench_page(c, n);
    for (int64_t b = 0; b < c->shape.b; b++) list[pages + b] = (int32_t)c->shape.l;
    plx_status status = PLX_OK;
    if (pages > 0)
        status = device->upload(tensors->pages, list, (size_t)pages * sizeof *list, tensors->stream,
                                err);
    if (status == PLX_OK)
        status = device->upload(tensors->lengths, list + pages, (size_t)c->shape.b * sizeof *list,
                                tensors->stream, err);
    if (status == PLX_OK) status = device->wait(tensors->stream, err);
    free(list);
    return status;
}

static plx_status fill_inputs(struct bench_tensors *tensors, const struct bench_case *c,
                              struct error *err)
{
    if (tensors->d == c->shape.d && tensors->dtype == c->dtype && tensors->cache == c->cache)
        return PLX_OK;
    const size_t count = (size_t)(BENCH_ROWS * c->shape.d);
    void *rounded = malloc(count * plx_dtype_size(c->dtype));
    plx_status status = rounded ? PLX_OK : PLX_OUT_OF_MEMORY;
    tensors->d = c->shape.d;
    tensors->dtype = c->dtype;
    tensors->cache = c->cache;
    for (int i = 0; status == PLX_OK && i < INPUTS; i++) {
        if (!tensors->memory[inputs[i]]) continue;
        free(tensors->rows[inputs[i]]);
        tensors->rows[inputs[i]] = malloc(count * sizeof(float));
        status = tensors->rows[inputs[i]] ? fill_slot(tensors, inputs[i], rounded, err)
                                          : PLX_OUT_OF_MEMORY;
    }
    free(rounded);
    REQUIRE(err, status != PLX_OUT_OF_MEMORY, status, "bench: no memory for %zu numbers", count);
    return status;
}

plx_status bench_tensors_fill(struct bench_tensors *tensors, const struct bench_case *c,
                              struct error *err)
{
    TRY(fill_inputs(tensors, c, err));
    return bench_lengths(c) ? fill_lists(tensors, c, err) : PLX_OK;
}

/* ---- Views -------------------------------------------------------------------------------------
 */

struct bench_arguments bench_tensors_arguments(const struct bench_tensors *tensors,
                                               const struct bench_case *c, plx_pass pass,
                                               plx_dtype written)
{
    struct bench_arguments args = bench_arguments(c, pass, written);
    for (int n = 0; n < SLOTS; n++) {
        struct plx_tensor *tensor = &bench_slots(&args)[n];
        tensor->device = tensors->device->kind;
        if (tensor->rank > 0) tensor->data = tensors->memory[n];
    }
    args.attention.k_pages.device = args.attention.k_lengths.device = tensors->device->kind;
    args.attention.k_pages.data = tensors->pages;
    args.attention.k_lengths.data = tensors->lengths;
    return args;
}

plx_status bench_tensors_workspace(struct bench_tensors *tensors, size_t bytes, struct error *err)
{
    if (bytes <= tensors->workspace_bytes) return PLX_OK;
    tensors->device->release(tensors->workspace, tensors->stream);
    tensors->workspace = NULL;
    tensors->workspace_bytes = 0;
    TRY(tensors->device->allocate(&tensors->workspace, bytes, tensors->stream, err));
    tensors->workspace_bytes = bytes;
    return PLX_OK;
}

const float *bench_tensors_row(const struct bench_tensors *tensors, enum bench_slot slot, int64_t n)
{
    return tensors->rows[slot] + n % BENCH_ROWS * tensors->d;
}
