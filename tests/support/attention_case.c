/* attention_case.c: see attention_case.h. */
#include "attention_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "case_cache.h"
#include "core/dtype.h"
#include "device_memory.h"

const char *const case_tensor_names[CASE_TENSORS] = {
    "q", "r", "k", "v", "d_o", "o", "lse", "probe_mean", "value_mean", "dq", "dr", "dk", "dv"};

/* ---- Data ---------------------------------------------------------------------------------- */

static bool is_key(enum case_tensor tensor)
{
    return tensor == CASE_K || tensor == CASE_V || tensor == CASE_DK || tensor == CASE_DV;
}

static double rounded(double value, plx_dtype dtype)
{
    double stored = 0; /* room for any dtype */
    dtype_store(&stored, dtype, 0, value);
    return dtype_load(&stored, dtype, 0);
}

/* One row of an input: D numbers. */
static void fill_row(const struct attention_case *c, enum case_tensor tensor, struct seeded *random,
                     double *row)
{
    bool hot = c->values == VALUES_ONE_HOT && tensor != CASE_D_O;
    int64_t one = hot ? seeded_between(random, 0, c->D - 1) : -1;
    /* A probe of unit rows would give weights far from 1; half is the size after a trained norm. */
    double size = tensor == CASE_R ? 0.5 : 1;
    if (c->values == VALUES_LARGE && tensor == CASE_Q) size = 40;
    for (int64_t d = 0; d < c->D; d++) row[d] = hot ? d == one : size * seeded_normal(random);
    if (c->values == VALUES_OFFSET && tensor == CASE_K)
        for (int64_t d = 0; d < c->D; d++) row[d] += 20 * cos(1.7 * (double)d + 0.3);
}

static void fill_input(const struct attention_case *c, enum case_tensor tensor,
                       const struct case_dtypes *dtypes, uint64_t seed, double *values)
{
    struct seeded random = seeded_make(seed, (uint64_t)tensor);
    int64_t time = is_key(tensor) ? c->S : c->T, heads = is_key(tensor) ? c->G : c->H;
    const int32_t *lengths = is_key(tensor) ? c->k_lengths : c->q_lengths;
    for (int64_t n = 0; n < c->B * time * heads; n++) {
        double *row = values + n * c->D;
        fill_row(c, tensor, &random, row);
        if (c->values == VALUES_CONSTANT && n > 0) memcpy(row, values, sizeof *row * (size_t)c->D);
        const bool f8 = c->f8 && (tensor == CASE_K || tensor == CASE_V);
        for (int64_t d = 0; f8 && d < c->D; d++)
            row[d] = case_f8_rounded(row[d], tensor, n % heads);
        for (int t = 0; !f8 && t < dtypes->count; t++)
            for (int64_t d = 0; d < c->D; d++) row[d] = rounded(row[d], dtypes->of[t]);
        if (c->values == VALUES_NAN_QUERY && tensor == CASE_Q && n == (c->T / 2) * heads)
            for (int64_t d = 0; d < c->D; d++) row[d] = NAN;
    }
    for (int64_t n = 0; lengths && n < c->B * time * heads; n++)
        if (n / heads % time >= lengths[n / heads / time])
            for (int64_t d = 0; d < c->D; d++) values[n * c->D + d] = NAN;
}

struct case_data case_data_create_shared(const struct attention_case *c,
                                         const struct case_dtypes *dtypes, uint64_t seed)
{
    struct case_data data = {0};
    for (int n = 0; n < CASE_TENSORS; n++) {
        int64_t *shape = data.shapes[n];
        data.ranks[n] = n == CASE_LSE || n == CASE_PROBE_MEAN ? 3 : 4;
        shape[0] = c->B;
        shape[1] = is_key((enum case_tensor)n) ? c->S : c->T;
        shape[2] = is_key((enum case_tensor)n) ? c->G : c->H;
        shape[3] = c->D;
        data.counts[n] = shape[0] * shape[1] * shape[2] * (data.ranks[n] == 4 ? shape[3] : 1);
        data.values[n] = must_have(malloc(sizeof(double) * (size_t)data.counts[n] + 1));
        if (n <= CASE_D_O)
            fill_input(c, (enum case_tensor)n, dtypes, seed, data.values[n]);
        else
            for (int64_t i = 0; i < data.counts[n]; i++) data.values[n][i] = NAN;
    }
    return data;
}

struct case_data case_data_create(const struct attention_case *c, plx_dtype dtype, uint64_t seed)
{
    const struct case_dtypes one = {.count = 1, .of = {dtype}};
    return case_data_create_shared(c, &one, seed);
}

struct case_data case_data_copy(const struct case_data *data)
{
    struct case_data copy = *data;
    for (int n = 0; n < CASE_TENSORS; n++) {
        copy.values[n] = must_have(malloc(sizeof(double) * (size_t)data->counts[n] + 1));
        memcpy(copy.values[n], data->values[n], sizeof(double) * (size_t)data->counts[n]);
    }
    return copy;
}

void case_data_destroy(struct case_data *data)
{
    for (int n = 0; n < CASE_TENSORS; n++) free(data->values[n]);
    *data = (struct case_data){0};
}

/* ---- Calls --------------------------------------------------------------------------------- */

bool case_has_pass(const struct attention_case *c, plx_pass pass)
{
    return pass != PLX_BACKWARD || (c->page == 0 && !c->f8);
}

bool case_uses(plx_mechanism mechanism, plx_pass pass, enum case_tensor tensor)
{
    bool probe = tensor == CASE_R || tensor == CASE_PROBE_MEAN || tensor == CASE_VALUE_MEAN ||
                 tensor == CASE_DR;
    if (probe && mechanism == PLX_SOFTMAX) return false;
    if (pass == PLX_BACKWARD) return true;
    return tensor <= CASE_VALUE_MEAN && tensor != CASE_D_O;
}

bool case_writes(plx_mechanism mechanism, plx_pass pass, enum case_tensor tensor)
{
    enum case_tensor first = pass == PLX_BACKWARD ? CASE_DQ : CASE_O;
    return case_uses(mechanism, pass, tensor) && tensor >= first;
}

plx_dtype case_dtype(const struct attention_case *c, const struct case_call *call,
                     enum case_tensor tensor)
{
    if (call->dtype == PLX_F64) return PLX_F64;
    if (tensor == CASE_LSE || tensor == CASE_PROBE_MEAN) return PLX_F32;
    if (c->f8 && (tensor == CASE_K || tensor == CASE_V)) return PLX_F8E4M3;
    return c->wide && tensor > CASE_V ? PLX_F32 : call->dtype;
}

void case_call_name(char *text, size_t size, const struct case_call *call, const char *case_name)
{
    static const char *const passes[] = {"forward", "backward", "decode"};
    snprintf(text, size, "%s/%s/%s/%s/%s", call->mechanism == PLX_PARALLAX ? "parallax" : "softmax",
             passes[call->pass], call->kernel ? call->kernel : "any", plx_dtype_name(call->dtype),
             case_name);
}

/* Everything one call needs: the arguments of both mechanisms, of which one is used. */
struct call_memory {
    struct test_tensor tensors[CASE_TENSORS];
    const double *written[CASE_TENSORS]; /* what the inputs contain */
    struct case_cache cache;
    struct plx_attention attention;
    struct plx_parallax_args parallax;
    struct plx_softmax_args softmax;
};

static struct plx_tensor list_view(const int32_t *list, int64_t count, plx_device device)
{
    /* The library only reads lists; a view has no const because outputs are views too. */
    if (!list) return (struct plx_tensor){0};
    struct plx_tensor view = plx_tensor_dense((void *)(uintptr_t)list, PLX_I32, 1, &count);
    view.device = device;
    return view;
}

/* The argument structs from the views. */
static void fill_arguments(struct call_memory *m)
{
    const struct test_tensor *t = m->tensors;
    m->parallax = (struct plx_parallax_args){
        t[CASE_Q].view,   t[CASE_R].view,   t[CASE_K].view,          t[CASE_V].view,
        t[CASE_O].view,   t[CASE_LSE].view, t[CASE_PROBE_MEAN].view, t[CASE_VALUE_MEAN].view,
        t[CASE_D_O].view, t[CASE_DQ].view,  t[CASE_DR].view,         t[CASE_DK].view,
        t[CASE_DV].view};
    m->softmax = (struct plx_softmax_args){t[CASE_Q].view,  t[CASE_K].view,   t[CASE_V].view,
                                           t[CASE_O].view,  t[CASE_LSE].view, t[CASE_D_O].view,
                                           t[CASE_DQ].view, t[CASE_DK].view,  t[CASE_DV].view};
}

static enum view_kind view_of(const struct attention_case *c, enum case_tensor tensor)
{
    const bool key = tensor == CASE_K || tensor == CASE_V;
    if (c->view != VIEW_ODD_QUERIES) return c->view;
    return key ? VIEW_ALIGNED : VIEW_DENSE;
}

static void prepare(const struct attention_case *c, const struct case_call *call,
                    const struct case_data *data, struct call_memory *m)
{
    const bool cached = case_is_cached(c, call->dtype);
    if (cached) m->cache = case_cache_create(c, data);
    for (int n = 0; n < CASE_TENSORS; n++) {
        enum case_tensor tensor = (enum case_tensor)n;
        bool statistic = n >= CASE_LSE && n <= CASE_VALUE_MEAN;
        int64_t shape[PLX_MAX_RANK];
        memcpy(shape, data->shapes[n], sizeof shape);
        m->written[n] = data->values[n];
        if (cached && (tensor == CASE_K || tensor == CASE_V)) {
            case_cache_shape(&m->cache, c, shape);
            m->written[n] = m->cache.stored[tensor == CASE_V];
        }
        if (!case_uses(call->mechanism, call->pass, tensor)) continue;
        if (call->bare && statistic && call->pass != PLX_BACKWARD) continue;
        m->tensors[n] = test_tensor_create(case_dtype(c, call, tensor), view_of(c, tensor),
                                           data->ranks[n], shape);
        m->tensors[n].view.device = call->device;
        if (!case_writes(call->mechanism, call->pass, tensor))
            test_tensor_write(&m->tensors[n], m->written[n]);
    }
    m->attention = (struct plx_attention){
        .causal = c->causal,
        .window = c->window,
        .scale = c->scale,
        .deterministic = call->deterministic,
        .q_lengths = list_view(c->q_lengths, c->B, call->device),
        .k_lengths = list_view(c->k_lengths, c->B, call->device),
        .q_offsets = list_view(c->q_offsets, c->sequences + 1, call->device),
        .k_offsets = list_view(c->k_offsets, c->sequences + 1, call->device)};
    if (cached) case_cache_attention(&m->cache, c, call->device, &m->attention);
    fill_arguments(m);
}

static plx_status call_workspace(plx_context *context, const struct case_call *call,
                                 const struct call_memory *m, size_t *bytes)
{
    if (call->mechanism == PLX_PARALLAX)
        return plx_parallax_workspace(context, &m->attention, call->pass, &m->parallax, bytes);
    return plx_softmax_workspace(context, &m->attention, call->pass, &m->softmax, bytes);
}

static plx_status call_pass(plx_context *context, const struct case_call *call,
                            const struct call_memory *m, void *workspace, size_t bytes)
{
    typedef plx_status (*parallax_verb)(plx_context *, const struct plx_attention *,
                                        const struct plx_parallax_args *, void *, size_t,
                                        plx_stream);
    typedef plx_status (*softmax_verb)(plx_context *, const struct plx_attention *,
                                       const struct plx_softmax_args *, void *, size_t, plx_stream);
    static const parallax_verb parallax[] = {plx_parallax_forward, plx_parallax_backward,
                                             plx_parallax_decode};
    static const softmax_verb softmax[] = {plx_softmax_forward, plx_softmax_backward,
                                           plx_softmax_decode};
    const plx_stream stream = call->device == PLX_CPU ? NULL : device_stream();
    if (call->mechanism == PLX_PARALLAX)
        return parallax[call->pass](context, &m->attention, &m->parallax, workspace, bytes, stream);
    return softmax[call->pass](context, &m->attention, &m->softmax, workspace, bytes, stream);
}

/* The arguments of a call on a GPU: every guarded allocation, red zones included, has a copy there,
 * and views point into the copies. */
struct call_copies {
    void *base[CASE_TENSORS], *lists[7];
    struct call_memory memory;
};

static struct plx_tensor copy_list(struct plx_tensor list, void **copy)
{
    if (list.rank == 0) return list;
    *copy = device_upload(list.data, plx_dtype_size(list.dtype) * (size_t)plx_tensor_count(&list));
    list.data = *copy;
    return list;
}

static struct plx_tensor copy_view(const struct test_tensor *tensor, void **copy)
{
    struct plx_tensor view = tensor->view;
    if (view.rank == 0) return view;
    *copy = device_upload(tensor->memory.base, guarded_total(&tensor->memory));
    view.data = (char *)*copy + ((unsigned char *)view.data - tensor->memory.base);
    return view;
}

static void copies_create(const struct call_memory *m, struct call_copies *copies)
{
    *copies = (struct call_copies){.memory.attention = m->attention};
    struct plx_attention *attention = &copies->memory.attention;
    attention->q_lengths = copy_list(m->attention.q_lengths, &copies->lists[0]);
    attention->k_lengths = copy_list(m->attention.k_lengths, &copies->lists[1]);
    attention->q_offsets = copy_list(m->attention.q_offsets, &copies->lists[2]);
    attention->k_offsets = copy_list(m->attention.k_offsets, &copies->lists[3]);
    attention->k_pages = copy_list(m->attention.k_pages, &copies->lists[4]);
    attention->k_scales = copy_list(m->attention.k_scales, &copies->lists[5]);
    attention->v_scales = copy_list(m->attention.v_scales, &copies->lists[6]);
    for (int n = 0; n < CASE_TENSORS; n++)
        copies->memory.tensors[n].view = copy_view(&m->tensors[n], &copies->base[n]);
    fill_arguments(&copies->memory);
}

/* Back into the host's guarded memory, where everything is checked. */
static void copies_collect(struct call_copies *copies, struct call_memory *m)
{
    for (int n = 0; n < CASE_TENSORS; n++)
        if (copies->base[n])
            device_download(m->tensors[n].memory.base, copies->base[n],
                            guarded_total(&m->tensors[n].memory));
    for (int n = 0; n < CASE_TENSORS; n++) device_free(copies->base[n]);
    for (int n = 0; n < 7; n++) device_free(copies->lists[n]);
}

/* A call of the pass with its workspace, which on a GPU is a copy too. */
static plx_status call_with(plx_context *context, const struct case_call *call,
                            const struct call_memory *m, struct guarded *workspace, size_t bytes)
{
    if (call->device == PLX_CPU) return call_pass(context, call, m, workspace->data, bytes);
    size_t total = guarded_total(workspace);
    char *copy = device_upload(workspace->base, total);
    plx_status status =
        call_pass(context, call, m, copy + (workspace->data - workspace->base), bytes);
    device_download(workspace->base, copy, total);
    device_free(copy);
    return status;
}

/* Bytes of workspace; refused where the forced kernel does not take the problem. */
static enum case_result ask_workspace(plx_context *context, const struct case_call *call,
                                      const struct call_memory *m, size_t *bytes, char *message,
                                      size_t size)
{
    plx_status status = call_workspace(context, call, m, bytes);
    if (status == PLX_OK) return CASE_DONE;
    if (status == PLX_UNSUPPORTED && call->kernel) return CASE_REFUSED;
    snprintf(message, size, "workspace: %s: %s", plx_status_name(status), plx_error(context));
    return CASE_FAILED;
}

/* Runs with a workspace of exactly the stated size; with one byte less the call must refuse. */
static enum case_result run_guarded(plx_context *context, const struct case_call *call,
                                    const struct call_memory *m, size_t bytes, char *message,
                                    size_t size)
{
    struct guarded workspace = guarded_create(bytes, 64);
    enum case_result result = CASE_FAILED;
    plx_status status = PLX_OK;
    if (bytes > 0 &&
        call_with(context, call, m, &workspace, bytes - 1) != PLX_WORKSPACE_TOO_SMALL) {
        snprintf(message, size, "a workspace of %zu - 1 bytes was not refused", bytes);
        goto cleanup;
    }
    status = call_with(context, call, m, &workspace, bytes);
    if (status != PLX_OK) {
        snprintf(message, size, "%s: %s", plx_status_name(status), plx_error(context));
        goto cleanup;
    }
    if (!guarded_zones_intact(&workspace)) {
        snprintf(message, size, "wrote outside a workspace of %zu bytes", bytes);
        goto cleanup;
    }
    result = CASE_DONE;
cleanup:
    guarded_destroy(&workspace);
    return result;
}

/* After a call: nothing outside the views was written, inputs are what they were; outputs go to
 * data. */
static enum case_result collect(const struct case_call *call, const struct call_memory *m,
                                struct case_data *data, char *message, size_t size)
{
    for (int n = 0; n < CASE_TENSORS; n++) {
        const struct test_tensor *tensor = &m->tensors[n];
        if (tensor->view.rank == 0) continue;
        if (!test_tensor_intact(tensor)) {
            snprintf(message, size, "%s: memory outside the view was written",
                     case_tensor_names[n]);
            return CASE_FAILED;
        }
        if (case_writes(call->mechanism, call->pass, (enum case_tensor)n)) {
            test_tensor_read(tensor, data->values[n]);
            continue;
        }
        struct test_tensor again = test_tensor_create(tensor->view.dtype, VIEW_DENSE,
                                                      tensor->view.rank, tensor->view.shape);
        const int64_t count = plx_tensor_count(&tensor->view);
        test_tensor_write(&again, m->written[n]);
        double *now = must_have(malloc(sizeof(double) * (size_t)count + 1));
        double *before = must_have(malloc(sizeof(double) * (size_t)count + 1));
        test_tensor_read(tensor, now);
        test_tensor_read(&again, before);
        bool same = true;
        for (int64_t i = 0; i < count; i++)
            same &= now[i] == before[i] || (isnan(now[i]) && isnan(before[i]));
        free(now);
        free(before);
        test_tensor_destroy(&again);
        if (!same) {
            snprintf(message, size, "%s: an input was modified", case_tensor_names[n]);
            return CASE_FAILED;
        }
    }
    return CASE_DONE;
}

enum case_result case_run(const struct attention_case *c, const struct case_call *call,
                          struct case_data *data, char *message, size_t message_size)
{
    plx_context *context;
    struct plx_context_config config = {
        .device = call->device, .kernel = call->kernel, .threads = call->threads};
    plx_status status = plx_context_create(&config, &context);
    if (status != PLX_OK) {
        snprintf(message, message_size, "context: %s", plx_status_name(status));
        return CASE_FAILED;
    }
    struct call_memory memory = {0};
    size_t bytes = 0;
    prepare(c, call, data, &memory);
    enum case_result result = ask_workspace(context, call, &memory, &bytes, message, message_size);
    if (result == CASE_DONE && call->device == PLX_CPU) {
        result = run_guarded(context, call, &memory, bytes, message, message_size);
    } else if (result == CASE_DONE) {
        struct call_copies copies;
        copies_create(&memory, &copies);
        result = run_guarded(context, call, &copies.memory, bytes, message, message_size);
        copies_collect(&copies, &memory);
    }
    if (result == CASE_DONE) result = collect(call, &memory, data, message, message_size);
    for (int n = 0; n < CASE_TENSORS; n++)
        if (memory.tensors[n].view.rank) test_tensor_destroy(&memory.tensors[n]);
    case_cache_destroy(&memory.cache);
    plx_context_destroy(context);
    return result;
}

void case_oracle(const struct attention_case *c, plx_mechanism mechanism, plx_pass last,
                 struct case_data *data)
{
    char message[512];
    struct case_call call = {.mechanism = mechanism, .kernel = "reference", .dtype = PLX_F64};
    plx_pass end = last == PLX_BACKWARD ? PLX_BACKWARD : PLX_FORWARD;
    for (call.pass = PLX_FORWARD; call.pass <= end; call.pass++) {
        if (case_run(c, &call, data, message, sizeof message) == CASE_DONE) continue;
        fprintf(stderr, "the oracle failed on %s: %s\n", c->name, message);
        abort();
    }
}
