/* attention_check.c: every rule of the public header about the arguments of an attention call.
 *
 * What each pass expects of each tensor is data (attention_rules); the code below walks it. The
 * query is checked first because its extents and dtype are what everything else is compared with.
 * Each failing rule leaves a sentence that names the argument and both values. */
#include "attention/attention_check.h"

#include <inttypes.h>
#include <math.h>

#include "core/dtype.h"
#include "core/tensor.h"

enum attention_extent { EXTENT_QUERY, EXTENT_KEY, EXTENT_ROW }; /* [B,T,H,D] [B,S,G,D] [B,T,H] */
enum attention_type { TYPE_SAME, TYPE_KEY, TYPE_SAME_OR_F32, TYPE_STATISTIC };

struct attention_rule {
    const char *name;
    size_t offset; /* of the tensor in struct attention_problem */
    /* Three letters for forward, backward, decode: r read, w written, o written where present, and
     * a dot where the pass does not look. */
    const char *use;
    bool probe; /* only Parallax has it */
    enum attention_extent extent;
    enum attention_type type;
};

#define RULE(member) #member, offsetof(struct attention_problem, member)

static const struct attention_rule attention_rules[] = {
    {RULE(q), "rrr", false, EXTENT_QUERY, TYPE_SAME},
    {RULE(r), "rrr", true, EXTENT_QUERY, TYPE_SAME},
    {RULE(k), "rrr", false, EXTENT_KEY, TYPE_KEY},
    {RULE(v), "rrr", false, EXTENT_KEY, TYPE_KEY},
    {RULE(o), "wrw", false, EXTENT_QUERY, TYPE_SAME_OR_F32},
    {RULE(lse), "oro", false, EXTENT_ROW, TYPE_STATISTIC},
    {RULE(probe_mean), "oro", true, EXTENT_ROW, TYPE_STATISTIC},
    {RULE(value_mean), "oro", true, EXTENT_QUERY, TYPE_SAME_OR_F32},
    {RULE(d_o), ".r.", false, EXTENT_QUERY, TYPE_SAME_OR_F32},
    {RULE(dq), ".w.", false, EXTENT_QUERY, TYPE_SAME_OR_F32},
    {RULE(dr), ".w.", true, EXTENT_QUERY, TYPE_SAME_OR_F32},
    {RULE(dk), ".w.", false, EXTENT_KEY, TYPE_SAME_OR_F32},
    {RULE(dv), ".w.", false, EXTENT_KEY, TYPE_SAME_OR_F32},
};

#undef RULE

/* The reference takes any D; this bound only keeps sizes sane. Tile kernels refuse more than 256.
 */
enum { ATTENTION_MAX_D = 65536 };

/* k and v share the dtype of q, or are f8e4m3 both. */
static plx_status attention_check_key_type(plx_context *context, const char *name,
                                           const struct plx_tensor *tensor,
                                           const struct attention_problem *p)
{
    const bool f8 = p->kv_dtype == PLX_F8E4M3;
    CHECK(context, !f8 || p->pass != PLX_BACKWARD, PLX_INVALID_ARGUMENT,
          "%s: dtype f8e4m3 is that of a cache, which backward does not take", name);
    CHECK(context, !f8 || p->dtype != PLX_F64, PLX_INVALID_ARGUMENT,
          "%s: dtype f8e4m3 is not taken beside a f64 q", name);
    CHECK(context, tensor->dtype == (f8 ? PLX_F8E4M3 : p->dtype), PLX_INVALID_ARGUMENT,
          "%s: dtype %s differs from the %s of %s", name, plx_dtype_name(tensor->dtype),
          plx_dtype_name(f8 ? PLX_F8E4M3 : p->dtype), f8 ? "k" : "q");
    return PLX_OK;
}

static plx_status attention_check_type(plx_context *context, const struct attention_rule *rule,
                                       const struct plx_tensor *tensor,
                                       const struct attention_problem *p)
{
    const plx_dtype dtype = p->dtype, statistic = dtype == PLX_F64 ? PLX_F64 : PLX_F32;
    const char *have = plx_dtype_name(tensor->dtype);
    if (rule->type == TYPE_KEY) return attention_check_key_type(context, rule->name, tensor, p);
    if (rule->type == TYPE_SAME)
        CHECK(context, tensor->dtype == dtype, PLX_INVALID_ARGUMENT,
              "%s: dtype %s differs from the %s of q", rule->name, have, plx_dtype_name(dtype));
    if (rule->type == TYPE_SAME_OR_F32 && dtype == PLX_F32)
        CHECK(context, tensor->dtype == PLX_F32, PLX_INVALID_ARGUMENT,
              "%s: dtype %s must be f32 beside a f32 q", rule->name, have);
    else if (rule->type == TYPE_SAME_OR_F32)
        CHECK(context, tensor->dtype == dtype || tensor->dtype == PLX_F32, PLX_INVALID_ARGUMENT,
              "%s: dtype %s is neither f32 nor the %s of q", rule->name, have,
              plx_dtype_name(dtype));
    if (rule->type == TYPE_STATISTIC)
        CHECK(context, tensor->dtype == statistic, PLX_INVALID_ARGUMENT,
              "%s: dtype %s must be %s beside a %s q", rule->name, have, plx_dtype_name(statistic),
              plx_dtype_name(dtype));
    return PLX_OK;
}

static plx_status attention_check_extents(plx_context *context, const struct attention_rule *rule,
                                          const struct plx_tensor *tensor,
                                          const struct attention_problem *p)
{
    static const char *const words[3][4] = {{"batch", "time", "heads", "channels"},
                                            {"batch", "keys", "heads", "channels"},
                                            {"pages", "page size", "heads", "channels"}};
    const bool is_key = rule->extent == EXTENT_KEY, paged = is_key && p->k_pages.rank != 0;
    const int64_t query[4] = {p->B, p->T, p->H, p->D};
    const int64_t key[4] = {paged ? p->pages : p->B, paged ? p->page : p->S, p->G, p->D};
    int rank = rule->extent == EXTENT_ROW ? 3 : 4;
    CHECK(context, tensor->rank == rank, PLX_INVALID_ARGUMENT, "%s: rank is %d but must be %d",
          rule->name, tensor->rank, rank);
    for (int axis = 0; axis < rank; axis++) {
        int64_t want = is_key ? key[axis] : query[axis];
        bool from_k = is_key && (axis == 1 || axis == 2 || (axis == 0 && paged));
        CHECK(context, tensor->shape[axis] == want, PLX_INVALID_ARGUMENT,
              "%s: %s %" PRId64 " differs from the %" PRId64 " of %s", rule->name,
              words[is_key + paged][axis], tensor->shape[axis], want, from_k ? "k" : "q");
    }
    return PLX_OK;
}

static plx_status attention_check_tensor(plx_context *context, const struct attention_rule *rule,
                                         struct plx_tensor *tensor,
                                         const struct attention_problem *p, bool shapes_only)
{
    char use = rule->use[p->pass];
    if (use == '.' || (use == 'o' && tensor->rank == 0) || (rule->probe && !p->probe)) {
        *tensor = (struct plx_tensor){0};
        return PLX_OK;
    }
    TRY(tensor_check(context, rule->name, tensor));
    TRY(attention_check_extents(context, rule, tensor, p));
    TRY(attention_check_type(context, rule, tensor, p));
    if (use != 'r') TRY(tensor_check_written(context, rule->name, tensor));
    CHECK(context, shapes_only || tensor->data || plx_tensor_count(tensor) == 0,
          PLX_INVALID_ARGUMENT, "%s: data is NULL", rule->name);
    return PLX_OK;
}

plx_status attention_check_pages(plx_context *context, struct attention_problem *p,
                                 bool shapes_only)
{
    const struct plx_tensor *table = &p->k_pages, *k = &p->k;
    CHECK(context, p->pass != PLX_BACKWARD, PLX_INVALID_ARGUMENT,
          "k_pages: given although backward takes no paged cache");
    TRY(tensor_check(context, "k_pages", table));
    CHECK(context, table->rank == 2, PLX_INVALID_ARGUMENT, "k_pages: rank is %d but must be 2",
          table->rank);
    CHECK(context, table->dtype == PLX_I32, PLX_INVALID_ARGUMENT, "k_pages: dtype %s must be i32",
          plx_dtype_name(table->dtype));
    CHECK(context, table->shape[0] == p->B, PLX_INVALID_ARGUMENT,
          "k_pages: %" PRId64 " sequences must be %" PRId64, table->shape[0], p->B);
    CHECK(context, shapes_only || table->data || plx_tensor_count(table) == 0, PLX_INVALID_ARGUMENT,
          "k_pages: data is NULL");
    CHECK(context, p->k_lengths.rank != 0, PLX_INVALID_ARGUMENT,
          "k_lengths: absent although k_pages is given");
    CHECK(context, table->shape[1] * k->shape[1] <= INT32_MAX, PLX_INVALID_ARGUMENT,
          "k_pages: %" PRId64 " pages of %" PRId64 " keys are more than %d keys", table->shape[1],
          k->shape[1], INT32_MAX);
    p->pages = k->shape[0];
    p->page = (int32_t)k->shape[1];
    p->S = table->shape[1] * k->shape[1];
    return PLX_OK;
}

/* q and k give the extents that every other tensor is compared with. */
static plx_status attention_check_leaders(plx_context *context, struct attention_problem *p,
                                          bool shapes_only)
{
    const struct plx_tensor *q = &p->q, *k = &p->k;
    TRY(tensor_check(context, "q", q));
    CHECK(context, q->rank == 4, PLX_INVALID_ARGUMENT, "q: rank is %d but must be 4", q->rank);
    CHECK(context, dtype_is_float(q->dtype) && q->dtype != PLX_F8E4M3, PLX_INVALID_ARGUMENT,
          "q: dtype %s is not one of f32, bf16, f16, f64", plx_dtype_name(q->dtype));
    TRY(tensor_check(context, "k", k));
    CHECK(context, k->rank == 4, PLX_INVALID_ARGUMENT, "k: rank is %d but must be 4", k->rank);
    p->dtype = q->dtype;
    p->B = q->shape[0], p->T = q->shape[1], p->H = q->shape[2], p->D = q->shape[3];
    p->S = k->shape[1], p->G = k->shape[2], p->kv_dtype = k->dtype;
    if (p->k_pages.rank != 0) TRY(attention_check_pages(context, p, shapes_only));
    CHECK(context, p->G == 0 ? p->H == 0 : p->H % p->G == 0, PLX_INVALID_ARGUMENT,
          "k: %" PRId64 " heads do not divide the %" PRId64 " heads of q", p->G, p->H);
    CHECK(context, p->D >= 1 && p->D <= ATTENTION_MAX_D, PLX_INVALID_ARGUMENT,
          "q: %" PRId64 " channels are not in 1..%d", p->D, ATTENTION_MAX_D);
    return PLX_OK;
}

plx_status attention_check_list(plx_context *context, const char *name, struct plx_tensor *list,
                                plx_dtype dtype, int64_t count, bool shapes_only)
{
    if (list->rank == 0) {
        *list = (struct plx_tensor){0};
        return PLX_OK;
    }
    TRY(tensor_check(context, name, list));
    CHECK(context, list->rank == 1, PLX_INVALID_ARGUMENT, "%s: rank is %d but must be 1", name,
          list->rank);
    CHECK(context, list->dtype == dtype, PLX_INVALID_ARGUMENT, "%s: dtype %s must be %s", name,
          plx_dtype_name(list->dtype), plx_dtype_name(dtype));
    CHECK(context, list->shape[0] == count, PLX_INVALID_ARGUMENT,
          "%s: %" PRId64 " entries must be %" PRId64, name, list->shape[0], count);
    CHECK(context, shapes_only || list->data || count == 0, PLX_INVALID_ARGUMENT,
          "%s: data is NULL", name);
    return PLX_OK;
}

plx_status attention_check_scales(plx_context *context, struct attention_problem *p,
                                  bool shapes_only)
{
    const bool scaled = p->k_scales.rank != 0 || p->v_scales.rank != 0;
    CHECK(context, !scaled || p->kv_dtype == PLX_F8E4M3, PLX_INVALID_ARGUMENT,
          "%s: given although k and v are %s, not f8e4m3",
          p->k_scales.rank ? "k_scales" : "v_scales", plx_dtype_name(p->kv_dtype));
    TRY(attention_check_list(context, "k_scales", &p->k_scales, PLX_F32, p->G, shapes_only));
    return attention_check_list(context, "v_scales", &p->v_scales, PLX_F32, p->G, shapes_only);
}

/* Which of the three layouts, and its lists. */
static plx_status attention_check_layout(plx_context *context, struct attention_problem *p,
                                         bool shapes_only)
{
    bool packed = p->q_offsets.rank != 0;
    bool ragged = p->q_lengths.rank != 0 || p->k_lengths.rank != 0;
    CHECK(context, packed || p->k_offsets.rank == 0, PLX_INVALID_ARGUMENT,
          "k_offsets: given without q_offsets");
    CHECK(context, !(packed && ragged), PLX_INVALID_ARGUMENT,
          "%s: lengths and offsets exclude each other",
          p->q_lengths.rank ? "q_lengths" : "k_lengths");
    CHECK(context, !packed || p->B == 1, PLX_INVALID_ARGUMENT,
          "q_offsets: the batch of a packed q is %" PRId64 " but must be 1", p->B);
    CHECK(context, !packed || p->k_offsets.rank != 0 || p->S == p->T, PLX_INVALID_ARGUMENT,
          "k_offsets: absent although the %" PRId64 " keys differ from the %" PRId64 " queries",
          p->S, p->T);
    CHECK(context, !packed || p->q_offsets.shape[0] >= 2, PLX_INVALID_ARGUMENT,
          "q_offsets: %" PRId64 " entries are fewer than 2", p->q_offsets.shape[0]);
    p->sequences = packed ? p->q_offsets.shape[0] - 1 : p->B;
    const struct {
        const char *name;
        struct plx_tensor *list;
        int64_t count;
    } lists[] = {
        {"q_lengths", &p->q_lengths, p->B},
        {"k_lengths", &p->k_lengths, p->B},
        {"q_offsets", &p->q_offsets, p->sequences + 1},
        {"k_offsets", &p->k_offsets, p->sequences + 1},
    };
    for (size_t n = 0; n < sizeof lists / sizeof lists[0]; n++)
        TRY(attention_check_list(context, lists[n].name, lists[n].list, PLX_I32, lists[n].count,
                                 shapes_only));
    return PLX_OK;
}

plx_status attention_check(plx_context *context, const struct plx_attention *attention,
                           struct attention_problem *problem, bool shapes_only)
{
    struct attention_problem *p = problem;
    CHECK(context, attention, PLX_INVALID_ARGUMENT, "attention: is NULL");
    CHECK(context, p->pass >= PLX_FORWARD && p->pass <= PLX_DECODE, PLX_INVALID_ARGUMENT,
          "pass: %d is not a pass", (int)p->pass);
    p->k_lengths = attention->k_lengths;
    p->k_pages = attention->k_pages;
    TRY(attention_check_leaders(context, p, shapes_only));
    for (size_t n = 0; n < sizeof attention_rules / sizeof attention_rules[0]; n++) {
        struct plx_tensor *tensor =
            (struct plx_tensor *)(void *)((char *)p + attention_rules[n].offset);
        TRY(attention_check_tensor(context, &attention_rules[n], tensor, p, shapes_only));
    }

    CHECK(context, attention->window >= 0, PLX_INVALID_ARGUMENT, "window: %" PRId64 " is negative",
          attention->window);
    CHECK(context, attention->window == 0 || attention->causal, PLX_INVALID_ARGUMENT,
          "window: %" PRId64 " keys require causal attention", attention->window);
    CHECK(context, isfinite(attention->scale), PLX_INVALID_ARGUMENT, "scale: %g is not finite",
          attention->scale);
    p->causal = attention->causal;
    p->window = attention->window;
    p->scale = attention->scale != 0 ? attention->scale : 1 / sqrt(p->D > 0 ? (double)p->D : 1);
    p->threads = context->threads;
    p->deterministic = attention->deterministic;
    p->q_lengths = attention->q_lengths;
    p->q_offsets = attention->q_offsets;
    p->k_offsets = attention->k_offsets;
    p->k_scales = attention->k_scales;
    p->v_scales = attention->v_scales;
    TRY(attention_check_scales(context, p, shapes_only));
    return attention_check_layout(context, p, shapes_only);
}
