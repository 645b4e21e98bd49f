/* param.c: the table of a model's parameters; see param.h. */
#include "core/param.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/transfer.h"

int param_add(struct param_list *list, plx_dtype dtype, int rank, const int64_t *shape,
              enum param_init init, double init_std, enum param_group group,
              const char *name_format, ...)
{
    if (list->count == list->capacity) {
        int capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        struct param *items = realloc(list->items, (size_t)capacity * sizeof *items);
        if (items == NULL) return -1;
        list->items = items;
        list->capacity = capacity;
    }
    struct param *param = &list->items[list->count];
    *param = (struct param){.value = plx_tensor_dense(NULL, dtype, rank, shape),
                            .grad = plx_tensor_dense(NULL, dtype, rank, shape),
                            .init = init,
                            .init_std = init_std,
                            .group = group};
    va_list arguments;
    va_start(arguments, name_format);
    vsnprintf(param->name, sizeof param->name, name_format, arguments);
    va_end(arguments);
    return list->count++;
}

void param_list_destroy(struct param_list *list)
{
    free(list->items);
    *list = (struct param_list){0};
}

static size_t param_bytes(const struct plx_tensor *tensor)
{
    return (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
}

void param_list_pack(struct param_list *list, enum packing packing)
{
    for (int i = 0; i < list->count; i++) {
        const struct plx_tensor *value = &list->items[i].value;
        if (value->rank == 2 && !list->items[i].adapts)
            list->items[i].packed = (struct packed){
                .kind = packing, .rows = value->shape[0], .columns = value->shape[1]};
    }
}

static void carve(struct plx_tensor *tensor, struct arena *arena)
{
    tensor->device = arena->device->kind;
    tensor->data = arena_push(arena, param_bytes(tensor));
}

void param_list_carve_values(struct param_list *list, struct arena *arena)
{
    for (int i = 0; i < list->count; i++) {
        struct packed *packed = &list->items[i].packed;
        /* A gradient's place is known before it has memory: a dry run looks at it. */
        list->items[i].grad.device = arena->device->kind;
        if (packed->kind == PACKING_NONE) {
            carve(&list->items[i].value, arena);
            continue;
        }
        packed->data = arena_push(arena, packed_data_bytes(packed));
        packed->scale = arena_push(arena, packed_scale_bytes(packed));
    }
}

bool param_is_quantised(const struct param *param, struct precision precision)
{
    return precision.fp8_linear && param->group == PARAM_MATRIX && !param->adapts;
}

plx_status param_list_check_precision(const struct param_list *list, struct precision precision,
                                      struct error *err)
{
    for (int i = 0; i < list->count; i++) {
        const struct param *param = &list->items[i];
        const int64_t *shape = param->value.shape;
        if (!param_is_quantised(param, precision)) continue;
        REQUIRE(err, param->packed.kind == PACKING_NONE, PLX_UNSUPPORTED,
                "--dtype fp8: %s is packed in %s, and has no other copy in 8 bits", param->name,
                packing_name(param->packed.kind));
        REQUIRE(err, shape[0] % QUANTISED_UNIT == 0 && shape[1] % QUANTISED_UNIT == 0,
                PLX_UNSUPPORTED,
                "--dtype fp8: %s is [%lld,%lld], but both extents must be multiples of %d",
                param->name, (long long)shape[0], (long long)shape[1], QUANTISED_UNIT);
    }
    return PLX_OK;
}

static void carve_quantised(struct quantised *quantised, plx_dtype storage, int64_t rows,
                            int64_t columns, struct arena *arena)
{
    quantised->values = arena_tensor(arena, PLX_F8E4M3, 2, (int64_t[]){rows, columns});
    quantised->scale = arena_tensor(arena, storage, 1, &rows);
}

void param_list_carve_active(struct param_list *list, struct precision precision,
                             struct arena *arena)
{
    for (int i = 0; i < list->count; i++) {
        struct param *param = &list->items[i];
        const int64_t *shape = param->value.shape;
        param->active = param->value;
        if (param->packed.kind != PACKING_NONE || param->value.rank != 2) continue;
        if (param_is_quantised(param, precision)) {
            carve_quantised(&param->rows, precision.storage, shape[0], shape[1], arena);
            carve_quantised(&param->columns, precision.storage, shape[1], shape[0], arena);
        } else if (param->value.dtype != precision.activation) {
            param->active.dtype = precision.activation;
            carve(&param->active, arena);
        }
    }
}

void param_list_carve_grads(struct param_list *list, struct arena *arena)
{
    for (int i = 0; i < list->count; i++)
        if (param_has_grad(&list->items[i])) carve(&list->items[i].grad, arena);
}

/* FNV-1a: the stream number of a parameter's random values. */
static uint64_t name_hash(const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *name != '\0'; name++) hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return hash;
}

static double start_value(const struct param *param, struct rng *rng)
{
    switch (param->init) {
    case PARAM_INIT_NORMAL:
        return param->init_std * rng_normal(rng);
    case PARAM_INIT_ONE:
        return 1.0;
    case PARAM_INIT_ZERO:
        return 0.0;
    }
    return 0.0;
}

struct rng param_stream(const struct param *param, uint64_t seed)
{
    return rng_make(seed, name_hash(param->name));
}

void param_start(const struct param *param, struct rng *stream, plx_dtype dtype, void *values,
                 int64_t count)
{
    /* A normal number takes two words of its stream, so every block knows where it begins. */
    enum { BLOCK = 4096 };
    const uint64_t words = param->init == PARAM_INIT_NORMAL ? 2 : 0;
#pragma omp parallel for schedule(static) if (count > 4 * BLOCK)
    for (int64_t start = 0; start < count; start += BLOCK) {
        struct rng own = *stream;
        own.counter += words * (uint64_t)start;
        for (int64_t e = start; e < count && e < start + BLOCK; e++) {
            double value = start_value(param, &own);
            if (dtype == PLX_F64)
                ((double *)values)[e] = value;
            else
                ((float *)values)[e] = (float)value;
        }
    }
    stream->counter += words * (uint64_t)count;
}

/* A row being given its start values. */
struct starting {
    const struct param *param;
    struct rng stream;
};

static plx_status start_piece(void *user, void *elements, int64_t first, int64_t count,
                              struct error *err)
{
    struct starting *starting = user;
    (void)first; /* the stream stands there */
    (void)err;
    param_start(starting->param, &starting->stream, starting->param->value.dtype, elements, count);
    return PLX_OK;
}

plx_status param_init_value(const struct param *param, uint64_t seed, const struct device *device,
                            plx_stream stream, struct error *err)
{
    struct starting starting = {param, param_stream(param, seed)};
    return transfer_write(device, stream, &param->value, start_piece, &starting, err);
}

plx_status param_list_init(struct param_list *list, uint64_t seed, const struct device *device,
                           plx_stream stream, struct error *err)
{
    for (int i = 0; i < list->count; i++)
        if (list->items[i].value.data != NULL)
            TRY(param_init_value(&list->items[i], seed, device, stream, err));
    return PLX_OK;
}

struct param *param_find(struct param_list *list, const char *name)
{
    for (int i = 0; i < list->count; i++)
        if (strcmp(list->items[i].name, name) == 0) return &list->items[i];
    return NULL;
}

int64_t param_list_elements(const struct param_list *list)
{
    int64_t elements = 0;
    for (int i = 0; i < list->count; i++) elements += plx_tensor_count(&list->items[i].value);
    return elements;
}

bool param_has_grad(const struct param *param)
{
    return !param->frozen || param->value.rank < 2;
}

void param_list_train_only(struct param_list *list, bool probe, bool adapters)
{
    for (int i = 0; i < list->count; i++) {
        struct param *param = &list->items[i];
        param->frozen = !(param->adapts ? adapters : param->probe && probe);
    }
}

int64_t param_list_trained(const struct param_list *list)
{
    int64_t elements = 0;
    for (int i = 0; i < list->count; i++)
        if (!list->items[i].frozen) elements += plx_tensor_count(&list->items[i].value);
    return elements;
}

const char *param_group_name(enum param_group group)
{
    static const char *const names[PARAM_GROUPS] = {"matrix", "thin", "embedding",
                                                    "head",   "norm", "bias"};
    return group >= 0 && group < PARAM_GROUPS ? names[group] : "unknown";
}
