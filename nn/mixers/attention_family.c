/* attention_family.c: softmax attention and Parallax as mixers.
 *
 *     q, k, r = heads(x)      v = x W_v^T + b_v      o = attend(q, r, k, v)      y = o W_o^T
 *
 * heads (layers/heads.c) projects, norms, gates and rotates. Parallax adds r, the probe: projected
 * like q, with its own norm gain, an optional gate, and q's positions. Softmax attention is the
 * same mixer without r, and both run through the same lines here; the mechanism is a member of the
 * row.
 *
 * A batch of equal sequences is dense [B,T]; any other is packed: attention sees one time axis of N
 * tokens and the offsets that cut it into sequences. Decoding keeps k (after norm and rope) and v
 * of every token; q and r are recomputed for new tokens only. */
#include "mixers/attention_family.h"

#include <stdlib.h>

#include "layers/layers.h"
#include "layers/view.h"

struct mixer {
    plx_mechanism mechanism;
    struct precision precision;
    int64_t window;
    struct heads q, k;
    struct heads r;    /* Parallax only */
    int value, output; /* weights [G D, E] and [E, H D] */
    int value_bias;    /* [G D]; -1: none */
};

struct attention_record {
    struct heads_record q, k, r;
    struct plx_tensor v;          /* [N,G,D] */
    struct plx_tensor o;          /* [N,H,D] */
    struct plx_tensor lse;        /* [N,H] */
    struct plx_tensor probe_mean; /* [N,H]   Parallax, as the next */
    struct plx_tensor value_mean; /* [N,H,D] */
};

struct attention_cache {
    struct plx_tensor k, v; /* [pages,page,G,D] */
};

static bool has_probe(const struct mixer *mixer)
{
    return mixer->mechanism == PLX_PARALLAX;
}

/* ---- Parameters ---- */

/* One of q, k, r; norm is "q_norm" and so on, or NULL for none. */
struct heads_plan {
    int64_t heads;
    const char *projection, *norm;
    double std;
    enum param_init gain;
    bool has_rope;
};

static bool heads_create(struct heads *heads, const struct heads_plan *plan,
                         const struct model_config *config, const char *prefix,
                         struct precision precision, struct param_list *params)
{
    const plx_dtype dtype = precision.storage;
    const int64_t D = config->head_dim;
    *heads = (struct heads){.heads = plan->heads,
                            .channels = D,
                            .precision = precision,
                            .has_norm = plan->norm != NULL,
                            .bias = -1,
                            .gate = -1,
                            .has_rope = plan->has_rope,
                            .rope = config->rope};
    heads->weight = linear_add(params, dtype, plan->heads * D, config->hidden_size, plan->std,
                               PARAM_MATRIX, prefix, plan->projection);
    if (heads->weight < 0) return false;
    if (config->qkv_bias) {
        heads->bias = bias_add(params, dtype, plan->heads * D, prefix, plan->projection);
        if (heads->bias < 0) return false;
    }
    return !heads->has_norm || rmsnorm_create(&heads->norm, params, dtype, D, config->qk_norm_eps,
                                              plan->gain, prefix, plan->norm);
}

/* r mirrors q but for how it starts: W_R = 0 or a zero gain make it zero, and Parallax with r = 0
 * is softmax attention bit for bit. */
static bool probe_create(struct mixer *mixer, const struct model_config *config, const char *prefix,
                         struct param_list *params)
{
    const int64_t H = config->heads;
    const double std = config->initializer_range;
    const int first = params->count;
    const struct heads_plan plan = {
        .heads = H,
        .projection = "r_proj",
        .norm = config->probe_norm ? "r_norm" : NULL,
        .std = config->probe_start == PROBE_START_ZERO_WEIGHT ? 0 : std,
        .gain = config->probe_start == PROBE_START_ZERO_GAIN ? PARAM_INIT_ZERO : PARAM_INIT_ONE,
        .has_rope = config->probe_rope};
    if (!heads_create(&mixer->r, &plan, config, prefix, mixer->precision, params)) return false;
    if (config->probe_gate) {
        mixer->r.gate = linear_add(params, mixer->precision.storage, H, config->hidden_size, std,
                                   H < 64 ? PARAM_THIN : PARAM_MATRIX, prefix, "r_gate");
        if (mixer->r.gate < 0) return false;
    }
    for (int i = first; i < params->count; i++) params->items[i].probe = true;
    return true;
}

static struct mixer *attention_create(const struct mixer_kind *kind,
                                      const struct model_config *config, int layer,
                                      const char *prefix, struct precision precision,
                                      struct param_list *params)
{
    const int64_t E = config->hidden_size, H = config->heads, G = config->kv_heads,
                  D = config->head_dim;
    const double std = config->initializer_range;
    const plx_dtype dtype = precision.storage;
    const struct heads_plan q = {.heads = H,
                                 .projection = "q_proj",
                                 .norm = config->qk_norm ? "q_norm" : NULL,
                                 .std = std,
                                 .gain = PARAM_INIT_ONE,
                                 .has_rope = true};
    struct heads_plan k = q;
    k.heads = G;
    k.projection = "k_proj";
    k.norm = config->qk_norm ? "k_norm" : NULL;
    struct mixer *mixer = calloc(1, sizeof *mixer);
    if (mixer == NULL) return NULL;
    mixer->mechanism = kind->mechanism;
    mixer->precision = precision;
    mixer->window = config->layer[layer].window;
    bool complete = heads_create(&mixer->q, &q, config, prefix, precision, params) &&
                    heads_create(&mixer->k, &k, config, prefix, precision, params) &&
                    (!has_probe(mixer) || probe_create(mixer, config, prefix, params));
    mixer->value = linear_add(params, dtype, G * D, E, std, PARAM_MATRIX, prefix, "v_proj");
    mixer->value_bias = -1;
    if (config->qkv_bias) {
        mixer->value_bias = bias_add(params, dtype, G * D, prefix, "v_proj");
        complete = complete && mixer->value_bias >= 0;
    }
    mixer->output = linear_add(params, dtype, E, H * D, std, PARAM_MATRIX, prefix, "o_proj");
    if (complete && mixer->value >= 0 && mixer->output >= 0) return mixer;
    free(mixer);
    return NULL;
}

static void attention_destroy(struct mixer *mixer)
{
    free(mixer);
}

/* ---- Records ---- */

static void attention_carve(const struct mixer *mixer, int64_t tokens, enum record_parts parts,
                            struct arena *arena, void *record)
{
    struct attention_record *keep = record;
    const int64_t values[3] = {tokens, mixer->k.heads, mixer->k.channels};
    const int64_t outputs[3] = {tokens, mixer->q.heads, mixer->q.channels};
    const plx_dtype storage = mixer->precision.storage, activation = mixer->precision.activation;
    if (parts & RECORD_KEPT) *keep = (struct attention_record){0};
    heads_carve(&mixer->q, tokens, parts, arena, &keep->q);
    heads_carve(&mixer->k, tokens, parts, arena, &keep->k);
    if (has_probe(mixer)) heads_carve(&mixer->r, tokens, parts, arena, &keep->r);
    if (!(parts & RECORD_KEPT)) return;
    keep->v = arena_tensor(arena, activation, 3, values);
    keep->o = arena_tensor(arena, activation, 3, outputs);
    keep->lse = arena_tensor(arena, storage, 2, outputs);
    if (!has_probe(mixer)) return;
    keep->probe_mean = arena_tensor(arena, storage, 2, outputs);
    keep->value_mean = arena_tensor(arena, activation, 3, outputs);
}

static void attention_carve_cache(const struct mixer *mixer, plx_dtype dtype, int64_t pages,
                                  int64_t page, struct arena *arena, void *cache)
{
    struct attention_cache *keep = cache;
    const int64_t shape[4] = {pages, page, mixer->k.heads, mixer->k.channels};
    keep->k = arena_tensor(arena, dtype, 4, shape);
    keep->v = arena_tensor(arena, dtype, 4, shape);
}

/* ---- The mechanism's call ---- */

/* A [N,heads,...] tensor as attention expects it: [rows, N / rows, heads, ...] of a dense batch, or
 * with a batch axis of 1 in front; absent stays absent. */
static struct plx_tensor batched(const struct batch_view *batch, const struct plx_tensor *tensor)
{
    const int64_t rows = batch->rows > 0 ? batch->rows : 1;
    int64_t shape[4] = {rows, tensor->shape[0] / rows, tensor->shape[1], tensor->shape[2]};
    if (tensor->rank == 0) return *tensor;
    return view_shaped(tensor, tensor->rank + 1, shape);
}

static struct plx_attention batch_attention(const struct backend *be, const struct mixer *mixer,
                                            const struct batch_view *batch)
{
    struct plx_attention attention = {
        .causal = true, .window = mixer->window, .deterministic = be->deterministic};
    if (batch->rows == 0) attention.q_offsets = batch->offsets;
    if (batch->keys.rank > 0) attention.k_offsets = batch->key_offsets;
    return attention;
}

static struct plx_parallax_args batch_args(const struct batch_view *batch,
                                           const struct attention_record *keep)
{
    return (struct plx_parallax_args){.q = batched(batch, &keep->q.out),
                                      .r = batched(batch, &keep->r.out),
                                      .k = batched(batch, &keep->k.out),
                                      .v = batched(batch, &keep->v),
                                      .o = batched(batch, &keep->o),
                                      .lse = batched(batch, &keep->lse),
                                      .probe_mean = batched(batch, &keep->probe_mean),
                                      .value_mean = batched(batch, &keep->value_mean)};
}

/* Where sequences see more than their own tokens: keys and values in the order of batch->keys, in
 * scratch. A list of tokens picks rows as ids pick rows of a table. */
static plx_status gather_keys(struct backend *be, const struct batch_view *batch,
                              const struct attention_record *keep, struct plx_parallax_args *args)
{
    const struct plx_tensor *from[2] = {&keep->k.out, &keep->v};
    struct plx_tensor *to[2] = {&args->k, &args->v};
    if (batch->keys.rank == 0) return PLX_OK;
    for (int i = 0; i < 2; i++) {
        const int64_t count = batch->keys.shape[0];
        const int64_t shape[4] = {1, count, from[i]->shape[1], from[i]->shape[2]};
        *to[i] = arena_tensor(&be->scratch, from[i]->dtype, 4, shape);
        struct plx_tensor table = view_matrix(from[i], batch->tokens),
                          rows = view_matrix(to[i], count);
        TRY(be->ops->embed(be, &rows, &table, &batch->keys));
    }
    return PLX_OK;
}

/* ---- Forward and backward ---- */

/* q, k and, where there is one, r; returns how many. */
static int heads_passes(const struct mixer *mixer, const struct attention_record *keep,
                        struct heads_pass passes[NORM_ROPE_MOST])
{
    passes[0] = (struct heads_pass){&mixer->q, &keep->q};
    passes[1] = (struct heads_pass){&mixer->k, &keep->k};
    passes[2] = (struct heads_pass){&mixer->r, &keep->r};
    return has_probe(mixer) ? 3 : 2;
}

static plx_status project(struct backend *be, const struct mixer *mixer, struct param_list *params,
                          const struct plx_tensor *positions, const struct rmsnorm *norm,
                          const struct plx_tensor *x, const struct attention_record *keep)
{
    struct projection projections[7] = {{.weight = mixer->value, .y = &keep->v}};
    struct heads_pass passes[NORM_ROPE_MOST];
    const int kinds = heads_passes(mixer, keep, passes);
    int count = 1;
    for (int i = 0; i < kinds; i++)
        count += heads_projections(passes[i].heads, passes[i].record, projections + count);
    TRY(linear_project(be, params, norm, x, projections, count));
    TRY(heads_forward(be, passes, kinds, params, positions));
    return bias_forward(be, mixer->value_bias, params, &keep->v);
}

static plx_status attention_forward(struct backend *be, const struct mixer *mixer,
                                    struct param_list *params, const struct batch_view *batch,
                                    const struct plx_tensor *x, void *record,
                                    const struct plx_tensor *residual, const struct plx_tensor *y)
{
    const struct attention_record *keep = record;
    TRY(project(be, mixer, params, &batch->positions, NULL, x, keep));
    const struct plx_attention attention = batch_attention(be, mixer, batch);
    struct plx_parallax_args args = batch_args(batch, keep);
    const size_t mark = arena_mark(&be->scratch);
    TRY(gather_keys(be, batch, keep, &args));
    TRY(be->ops->attend_forward(be, &(struct attend){mixer->mechanism, &attention, &args}));
    arena_release(&be->scratch, mark);
    return linear_residual(be, mixer->output, params, &keep->o, residual, y);
}

static plx_status attention_recompute(struct backend *be, const struct mixer *mixer,
                                      struct param_list *params, const struct batch_view *batch,
                                      void *record)
{
    struct heads_pass passes[NORM_ROPE_MOST];
    const int kinds = heads_passes(mixer, record, passes);
    return heads_recompute(be, passes, kinds, params, &batch->positions);
}

/* Gradients of what the mechanism reads, in scratch. */
struct attention_gradients {
    struct plx_tensor o, q, r, k, v;
};

static struct attention_gradients
gradients_carve(const struct mixer *mixer, const struct attention_record *keep, struct arena *arena)
{
    const plx_dtype dtype = mixer->precision.activation;
    const int64_t *queries = keep->q.out.shape, *keys = keep->k.out.shape;
    struct attention_gradients d = {.o = arena_tensor(arena, dtype, 3, queries),
                                    .q = arena_tensor(arena, dtype, 3, queries),
                                    .k = arena_tensor(arena, dtype, 3, keys),
                                    .v = arena_tensor(arena, dtype, 3, keys)};
    if (has_probe(mixer)) d.r = arena_tensor(arena, dtype, 3, queries);
    return d;
}

static plx_status attention_backward(struct backend *be, const struct mixer *mixer,
                                     struct param_list *params, const struct batch_view *batch,
                                     const struct plx_tensor *x, void *record,
                                     const struct plx_tensor *dy, const struct plx_tensor *dx)
{
    const struct attention_record *keep = record;
    const struct plx_tensor *positions = &batch->positions;
    size_t mark = arena_mark(&be->scratch);
    const struct attention_gradients d = gradients_carve(mixer, keep, &be->scratch);
    TRY(linear_backward(be, mixer->output, params, dy, &keep->o, &d.o, false));
    const struct plx_attention attention = batch_attention(be, mixer, batch);
    struct plx_parallax_args args = batch_args(batch, keep);
    args.d_o = batched(batch, &d.o);
    args.dq = batched(batch, &d.q);
    args.dr = batched(batch, &d.r);
    args.dk = batched(batch, &d.k);
    args.dv = batched(batch, &d.v);
    TRY(be->ops->attend_backward(be, &(struct attend){mixer->mechanism, &attention, &args}));
    /* q, k, r and v all come from x: the first of the four overwrites dx. */
    TRY(bias_backward(be, mixer->value_bias, params, &d.v));
    TRY(linear_backward(be, mixer->value, params, &d.v, x, dx, false));
    if (has_probe(mixer))
        TRY(heads_backward(be, &mixer->r, params, positions, x, &keep->r, &d.r, dx, true));
    TRY(heads_backward(be, &mixer->k, params, positions, x, &keep->k, &d.k, dx, true));
    TRY(heads_backward(be, &mixer->q, params, positions, x, &keep->q, &d.q, dx, true));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

/* ---- Decoding ---- */

/* So many new tokens of a sequence keep every core busy only if work is split over keys, as decode
 * does; more are a forward over the cache. */
enum { FEW_TOKENS = 16 };

/* [sequences * count, heads, D] as [sequences, count, heads, D]; absent stays absent. */
static struct plx_tensor unpacked(const struct plx_tensor *tensor, const struct decode_view *step)
{
    if (tensor->rank == 0) return *tensor;
    return view_4d(tensor, step->sequences, step->count, tensor->shape[1], tensor->shape[2]);
}

static plx_status attention_decode(struct backend *be, const struct mixer *mixer,
                                   struct param_list *params, const struct decode_view *step,
                                   const struct rmsnorm *norm, const struct plx_tensor *x,
                                   void *cache, const struct plx_tensor *y)
{
    const struct attention_cache *cached = cache;
    struct attention_record keep;
    size_t mark = arena_mark(&be->scratch);
    attention_carve(mixer, x->shape[0], RECORD_ALL, &be->scratch, &keep);
    TRY(project(be, mixer, params, &step->positions, norm, x, &keep));
    const struct plx_attention attention = {.causal = true,
                                            .window = mixer->window,
                                            .k_lengths = step->k_lengths,
                                            .k_pages = step->k_pages};
    const struct plx_cache_append_args rows = {.k = unpacked(&keep.k.out, step),
                                               .v = unpacked(&keep.v, step),
                                               .k_cache = cached->k,
                                               .v_cache = cached->v};
    TRY(be->ops->attend_append(be, &(struct append){&attention, &rows}));
    const struct plx_parallax_args args = {.q = unpacked(&keep.q.out, step),
                                           .r = unpacked(&keep.r.out, step),
                                           .k = cached->k,
                                           .v = cached->v,
                                           .o = unpacked(&keep.o, step)};
    const struct attend attend = {mixer->mechanism, &attention, &args};
    TRY(step->count > FEW_TOKENS ? be->ops->attend_forward(be, &attend)
                                 : be->ops->attend_decode(be, &attend));
    TRY(linear_residual(be, mixer->output, params, &keep.o, x, y));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

#define ATTENTION_KIND(text, kind, count)                                                          \
    {                                                                                              \
        .name = text, .mechanism = kind, .products = count, .create = attention_create,            \
        .destroy = attention_destroy, .record_size = sizeof(struct attention_record),              \
        .carve = attention_carve, .forward = attention_forward, .recompute = attention_recompute,  \
        .backward = attention_backward, .cache_record_size = sizeof(struct attention_cache),       \
        .carve_cache = attention_carve_cache, .decode = attention_decode                           \
    }

const struct mixer_kind attention_softmax = ATTENTION_KIND("softmax", PLX_SOFTMAX, 2 + 4);
const struct mixer_kind attention_parallax = ATTENTION_KIND("parallax", PLX_PARALLAX, 4 + 6);
