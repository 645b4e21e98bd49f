/* append_case.c: see append_case.h. */
#include "append_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "case_cache.h"
#include "core/dtype.h"
#include "device_memory.h"
#include "guarded.h"

struct append_case {
    const char *name;
    int64_t B, T, S, G, H, D; /* H 0: neither q nor r */
    plx_dtype dtype, cache;   /* of the new rows and of the cache */
    int64_t page;             /* 0: not paged */
    bool rotary, in_place;    /* turned; q and r where they are */
    enum view_kind view;
    const int32_t *lengths; /* [B], after the append */
};

static const int32_t full[] = {40, 40, 40}, ragged[] = {7, 0, 40}, short_of_T[] = {3, 1, 2};

static const struct append_case append_cases[] = {
    {"one_token", 3, 1, 40, 2, 0, 64, PLX_F32, PLX_F32, .lengths = ragged},
    {"bf16", 3, 1, 40, 2, 4, 64, PLX_BF16, PLX_BF16, .rotary = true, .lengths = ragged},
    {"f16", 3, 1, 40, 2, 4, 128, PLX_F16, PLX_F16, .rotary = true, .lengths = full},
    {"f32_to_bf16", 3, 5, 40, 2, 0, 64, PLX_F32, PLX_BF16, .lengths = full},
    {"bf16_to_f32", 3, 5, 40, 1, 3, 80, PLX_BF16, PLX_F32, .rotary = true, .lengths = full},
    {"short_of_T", 3, 9, 40, 2, 2, 32, PLX_F32, PLX_F32, .rotary = true, .lengths = short_of_T},
    {"in_place", 3, 2, 40, 2, 6, 64, PLX_BF16, PLX_BF16, .rotary = true, .in_place = true,
     .lengths = ragged},
    {"page_1", 3, 4, 40, 2, 0, 64, PLX_BF16, PLX_BF16, .page = 1, .lengths = ragged},
    {"page_16", 3, 1, 40, 2, 8, 128, PLX_BF16, PLX_BF16, .page = 16, .rotary = true,
     .lengths = ragged},
    {"page_7_prefill", 3, 40, 40, 2, 2, 60, PLX_F16, PLX_F16, .page = 7, .rotary = true,
     .lengths = full},
    {"page_64", 3, 3, 40, 4, 0, 64, PLX_F32, PLX_F16, .page = 64, .lengths = full},
    {"f8", 3, 2, 40, 2, 4, 128, PLX_BF16, PLX_F8E4M3, .rotary = true, .lengths = ragged},
    {"f8_page_16", 3, 2, 40, 3, 3, 64, PLX_F16, PLX_F8E4M3, .page = 16, .rotary = true,
     .lengths = full},
    {"padded", 3, 3, 40, 2, 4, 34, PLX_BF16, PLX_BF16, .rotary = true, .view = VIEW_PADDED,
     .lengths = full},
    {"head_major", 3, 3, 40, 2, 4, 64, PLX_F32, PLX_F32, .page = 16, .rotary = true,
     .view = VIEW_HEAD_MAJOR, .lengths = full},
    {"odd_channels", 3, 3, 40, 2, 0, 33, PLX_F32, PLX_BF16, .lengths = full},
    {"nothing_new", 3, 0, 40, 2, 2, 64, PLX_F32, PLX_F32, .rotary = true, .lengths = full},
};

enum { APPEND_CASES = sizeof append_cases / sizeof append_cases[0] };

enum append_tensor {
    NEW_K,
    NEW_V,
    NEW_Q,
    NEW_R,
    COSINES,
    SINES,
    K_CACHE,
    V_CACHE,
    Q_ROTATED,
    R_ROTATED,
    APPEND_TENSORS
};

static const char *const append_names[APPEND_TENSORS] = {
    "k", "v", "q", "r", "cosines", "sines", "k_cache", "v_cache", "q_rotated", "r_rotated"};

/* One call: its tensors, what they contain before and what they must contain after it. */
struct append_memory {
    struct attention_case like; /* whose cache this is */
    struct case_data data;
    struct case_cache cache;
    struct test_tensor tensors[APPEND_TENSORS];
    double *values[APPEND_TENSORS];
    struct plx_attention attention;
};

static void add_tensor(struct append_memory *m, enum append_tensor tensor, plx_dtype dtype,
                       enum view_kind view, int rank, const int64_t *shape)
{
    m->tensors[tensor] = test_tensor_create(dtype, view, rank, shape);
    const size_t count = (size_t)plx_tensor_count(&m->tensors[tensor].view);
    m->values[tensor] = calloc(count + 1, sizeof(double));
    if (!m->values[tensor]) abort();
}

/* Random numbers of the dtype. */
static void draw_tensor(struct append_memory *m, enum append_tensor tensor, struct seeded *random)
{
    const int64_t count = plx_tensor_count(&m->tensors[tensor].view);
    for (int64_t n = 0; n < count; n++) m->values[tensor][n] = seeded_normal(random);
    test_tensor_write(&m->tensors[tensor], m->values[tensor]);
    test_tensor_read(&m->tensors[tensor], m->values[tensor]);
}

static void prepare(const struct append_case *c, uint64_t seed, struct append_memory *m)
{
    const int64_t fresh[] = {c->B, c->T, c->G, c->D}, query[] = {c->B, c->T, c->H, c->D};
    int64_t cached[4];
    struct seeded random = seeded_make(seed, 5);
    m->like = (struct attention_case){.B = c->B, .S = c->S, .H = c->G, .G = c->G, .D = c->D};
    m->like.page = c->page, m->like.f8 = c->cache == PLX_F8E4M3, m->like.k_lengths = c->lengths;
    m->data = case_data_create(&m->like, c->cache, seed);
    m->cache = case_cache_create(&m->like, &m->data);
    case_cache_shape(&m->cache, &m->like, cached);
    add_tensor(m, NEW_K, c->dtype, c->view, 4, fresh);
    add_tensor(m, NEW_V, c->dtype, c->view, 4, fresh);
    add_tensor(m, K_CACHE, c->cache, c->view, 4, cached);
    add_tensor(m, V_CACHE, c->cache, c->view, 4, cached);
    draw_tensor(m, NEW_K, &random);
    draw_tensor(m, NEW_V, &random);
    for (int n = 0; n < 2; n++) {
        test_tensor_write(&m->tensors[K_CACHE + n], m->cache.stored[n]);
        test_tensor_read(&m->tensors[K_CACHE + n], m->values[K_CACHE + n]);
    }
    m->attention.k_lengths = plx_tensor_dense((void *)(uintptr_t)c->lengths, PLX_I32, 1, &c->B);
    case_cache_attention(&m->cache, &m->like, PLX_CPU, &m->attention);
    if (!c->rotary) return;
    const int64_t table[] = {c->S + 65, c->D / 2};
    for (int n = COSINES; n <= SINES; n++) {
        add_tensor(m, (enum append_tensor)n, PLX_F32, c->view, 2, table);
        draw_tensor(m, (enum append_tensor)n, &random);
    }
    for (int n = 0; c->H > 0 && n < 2; n++) {
        add_tensor(m, NEW_Q + n, c->dtype, c->view, 4, query);
        draw_tensor(m, NEW_Q + n, &random);
        if (!c->in_place) add_tensor(m, Q_ROTATED + n, c->dtype, c->view, 4, query);
    }
}

static double rounded(double value, plx_dtype dtype)
{
    double stored = 0;
    dtype_store(&stored, dtype, 0, value);
    return dtype_load(&stored, dtype, 0);
}

/* The header's words for one row of D numbers: turned in f32, divided by the scale, rounded once.
 */
static void expect_row(const struct append_case *c, const struct append_memory *m, bool turned,
                       int64_t position, const double *in, float scale, plx_dtype dtype,
                       double *out)
{
    const int64_t half = c->D / 2;
    for (int64_t d = 0; d < c->D; d++) out[d] = rounded((double)((float)in[d] / scale), dtype);
    for (int64_t d = 0; turned && d < half; d++) {
        volatile float xc, ys, yc, xs; /* no fused product */
        const float x = (float)in[d], y = (float)in[half + d];
        const float cosine = (float)m->values[COSINES][position * half + d];
        const float sine = (float)m->values[SINES][position * half + d];
        xc = x * cosine, ys = y * sine, yc = y * cosine, xs = x * sine;
        out[d] = rounded((double)((xc - ys) / scale), dtype);
        out[half + d] = rounded((double)((yc + xs) / scale), dtype);
    }
}

/* Brings the values of the outputs to what the call must make of them. */
static void expect(const struct append_case *c, struct append_memory *m)
{
    double *row = calloc((size_t)c->D, sizeof *row);
    if (!row) abort();
    for (int64_t n = 0; n < c->B * c->T; n++) {
        const int64_t b = n / c->T, key = c->lengths[b] - c->T + n % c->T;
        for (int64_t g = 0; key >= 0 && g < 2 * c->G; g++) {
            const int tensor = (int)(g / c->G);
            const int64_t head = g % c->G, place = case_cache_row(&m->cache, &m->like, b, key);
            const float scale = m->like.f8 ? case_scale(tensor == 0 ? CASE_K : CASE_V, head) : 1.0f;
            expect_row(c, m, c->rotary && tensor == 0, key,
                       m->values[NEW_K + tensor] + (n * c->G + head) * c->D, scale, c->cache,
                       m->values[K_CACHE + tensor] + (place * c->G + head) * c->D);
        }
        for (int64_t h = 0; c->rotary && h < 2 * c->H; h++) {
            const int tensor = (int)(h / c->H);
            const int64_t at = (n * c->H + h % c->H) * c->D;
            expect_row(c, m, true, key < 0 ? 0 : key, m->values[NEW_Q + tensor] + at, 1.0f,
                       c->dtype, row);
            memcpy(m->values[(c->in_place ? NEW_Q : Q_ROTATED) + tensor] + at, row,
                   sizeof *row * (size_t)c->D);
        }
    }
    free(row);
}

static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static bool compare(const struct append_memory *m, char *message, size_t size)
{
    bool good = true;
    for (int n = 0; good && n < APPEND_TENSORS; n++) {
        const int64_t count = plx_tensor_count(&m->tensors[n].view);
        if (m->tensors[n].view.rank == 0) continue;
        double *got = calloc((size_t)count + 1, sizeof *got);
        if (!got) abort();
        test_tensor_read(&m->tensors[n], got);
        if (!test_tensor_intact(&m->tensors[n])) {
            snprintf(message, size, "%s: memory outside the view was written", append_names[n]);
            good = false;
        }
        for (int64_t i = 0; good && i < count; i++) {
            if (same(got[i], m->values[n][i])) continue;
            snprintf(message, size, "%s: element %lld is %.9g but must be %.9g", append_names[n],
                     (long long)i, got[i], m->values[n][i]);
            good = false;
        }
        free(got);
    }
    return good;
}

/* The views of a call; on a GPU those of copies. */
struct append_views {
    struct plx_tensor of[APPEND_TENSORS];
    struct plx_attention attention;
    void *copies[APPEND_TENSORS], *lists[4];
};

static struct plx_tensor copy_list(struct plx_tensor list, void **copy)
{
    if (list.rank == 0) return list;
    *copy = device_upload(list.data, 4 * (size_t)plx_tensor_count(&list));
    list.data = *copy;
    list.device = PLX_CUDA;
    return list;
}

static void views_copy(const struct append_memory *m, struct append_views *views)
{
    struct plx_attention *attention = &views->attention;
    attention->k_lengths = copy_list(attention->k_lengths, &views->lists[0]);
    attention->k_pages = copy_list(attention->k_pages, &views->lists[1]);
    attention->k_scales = copy_list(attention->k_scales, &views->lists[2]);
    attention->v_scales = copy_list(attention->v_scales, &views->lists[3]);
    for (int n = 0; n < APPEND_TENSORS; n++) {
        const struct guarded *memory = &m->tensors[n].memory;
        if (views->of[n].rank == 0) continue;
        views->copies[n] = device_upload(memory->base, guarded_total(memory));
        views->of[n].data = (char *)views->copies[n] + (memory->data - memory->base);
        views->of[n].device = PLX_CUDA;
    }
}

static void views_collect(struct append_views *views, struct append_memory *m)
{
    for (int n = 0; n < APPEND_TENSORS; n++)
        if (views->copies[n])
            device_download(m->tensors[n].memory.base, views->copies[n],
                            guarded_total(&m->tensors[n].memory));
    for (int n = 0; n < APPEND_TENSORS; n++) device_free(views->copies[n]);
    for (int n = 0; n < 4; n++) device_free(views->lists[n]);
}

static plx_status call(plx_context *context, const struct append_case *c, plx_device device,
                       struct append_memory *m)
{
    struct append_views views = {.attention = m->attention};
    for (int n = 0; n < APPEND_TENSORS; n++) views.of[n] = m->tensors[n].view;
    if (device == PLX_CUDA) views_copy(m, &views);
    const struct plx_tensor *of = views.of;
    const struct plx_cache_append_args args = {
        .k = of[NEW_K],
        .v = of[NEW_V],
        .k_cache = of[K_CACHE],
        .v_cache = of[V_CACHE],
        .cosines = of[COSINES],
        .sines = of[SINES],
        .q = of[NEW_Q],
        .r = of[NEW_R],
        .q_rotated = of[c->in_place ? NEW_Q : Q_ROTATED],
        .r_rotated = of[c->in_place ? NEW_R : R_ROTATED],
    };
    const plx_stream stream = device == PLX_CPU ? NULL : device_stream();
    plx_status status = plx_cache_append(context, &views.attention, &args, stream);
    if (device == PLX_CUDA) views_collect(&views, m);
    return status;
}

/* False with a message where something is not as it must be. */
static bool run(const struct append_case *c, plx_device device, uint64_t seed, char *message,
                size_t size)
{
    plx_context *context;
    struct append_memory m = {0};
    struct plx_context_config config = {.device = device, .threads = 2, .validate = true};
    if (plx_context_create(&config, &context) != PLX_OK) {
        snprintf(message, size, "no context");
        return false;
    }
    prepare(c, seed, &m);
    device_announce(c->name);
    bool good = call(context, c, device, &m) == PLX_OK;
    if (!good) snprintf(message, size, "%s", plx_error(context));
    if (good) {
        expect(c, &m);
        good = compare(&m, message, size);
    }
    for (int n = 0; n < APPEND_TENSORS; n++) {
        if (m.tensors[n].view.rank) test_tensor_destroy(&m.tensors[n]);
        free(m.values[n]);
    }
    case_cache_destroy(&m.cache);
    case_data_destroy(&m.data);
    plx_context_destroy(context);
    return good;
}

int append_cases_run(plx_device device)
{
    int failed = 0;
    char message[512];
    for (int n = 0; n < APPEND_CASES; n++) {
        if (run(&append_cases[n], device, 40 + (uint64_t)n, message, sizeof message)) continue;
        fprintf(stderr, "FAILED %s: %s\n", append_cases[n].name, message);
        failed++;
    }
    return failed;
}
