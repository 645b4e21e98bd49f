/* attention_check.c: every rule of the public header about the arguments of an attention call.
 *
 * What each pass expects of each tensor is data (attention_rules); the code below walks it. The
 * query is checked first because its extents and dtype are what everything else is compared with.
 * Each failing rule leaves a sentence that names the argument and both values. */
#include "attention/attention.h"

#include <inttypes.h>
#include <math.h>

#include "core/tensor.h"

enum attention_extent { EXTENT_QUERY, EXTENT_KEY, EXTENT_ROW }; /* [B,T,H,D] [B,S,G,D] [B,T,H] */
enum attention_type { TYPE_SAME, TYPE_SAME_OR_F32, TYPE_STATISTIC };

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
    {RULE(k), "rrr", false, EXTENT_KEY, TYPE_SAME},
    {RULE(v), "rrr", false, EXTENT_KEY, TYPE_SAME},
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

static plx_status attention_check_type(plx_context *context, const struct attention_rule *rule,
                                       const struct plx_tensor *tensor, plx_dtype dtype)
{
    const char *have = plx_dtype_name(tensor->dtype);
    plx_dtype statistic = dtype == PLX_F64 ? PLX_F64 : PLX_F32;
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
    static const char *const words[2][4] = {{"batch", "time", "heads", "channels"},
                                            {"batch", "keys", "heads", "channels"}};
    const int64_t query[4] = {p->B, p->T, p->H, p->D}, key[4] = {p->B, p->S, p->G, p->D};
    bool is_key = rule->extent == EXTENT_KEY;
    int rank = rule->extent == EXTENT_ROW ? 3 : 4;
    CHECK(context, tensor->rank == rank, PLX_INVALID_ARGUMENT, "%s: rank is %d but must be %d",
          rule->name, tensor->rank, rank);
    for (int axis = 0; axis < rank; axis++) {
        int64_t want = is_key ? key[axis] : query[axis];
        bool from_k = is_key && (axis == 1 || axis == 2);
        CHECK(context, tensor->shape[axis] == want, PLX_INVALID_ARGUMENT,
              "%s: %s %" PRId64 " differs from the %" PRId64 " of %s", rule->name,
              words[is_key][axis], tensor->shape[axis], want, from_k ? "k" : "q");
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
    TRY(attention_check_type(context, rule, tensor, p->dtype));
    if (use != 'r' && plx_tensor_count(tensor) > 0)
        for (int axis = 0; axis < tensor->rank; axis++)
            CHECK(context, tensor->shape[axis] <= 1 || tensor->stride[axis] > 0,
                  PLX_INVALID_ARGUMENT,
                  "%s: stride 0 of axis %d makes its %" PRId64 " entries share memory", rule->name,
                  axis, tensor->shape[axis]);
    CHECK(context, shapes_only || tensor->data || plx_tensor_count(tensor) == 0,
          PLX_INVALID_ARGUMENT, "%s: data is NULL", rule->name);
    return PLX_OK;
}

/* q and k give the extents that every other tensor is compared with. */
static plx_status attention_check_leaders(plx_context *context, struct attention_problem *p)
{
    const struct plx_tensor *q = &p->q, *k = &p->k;
    TRY(tensor_check(context, "q", q));
    CHECK(context, q->rank == 4, PLX_INVALID_ARGUMENT, "q: rank is %d but must be 4", q->rank);
    CHECK(context, q->dtype != PLX_I32, PLX_INVALID_ARGUMENT,
          "q: dtype i32 is not one of f32, bf16, f64");
    TRY(tensor_check(context, "k", k));
    CHECK(context, k->rank == 4, PLX_INVALID_ARGUMENT, "k: rank is %d but must be 4", k->rank);
    p->dtype = q->dtype;
    p->B = q->shape[0], p->T = q->shape[1], p->H = q->shape[2], p->D = q->shape[3];
    p->S = k->shape[1], p->G = k->shape[2];
    CHECK(context, p->G == 0 ? p->H == 0 : p->H % p->G == 0, PLX_INVALID_ARGUMENT,
          "k: %" PRId64 " heads do not divide the %" PRId64 " heads of q", p->G, p->H);
    CHECK(context, p->D <= ATTENTION_MAX_D, PLX_INVALID_ARGUMENT,
          "q: %" PRId64 " channels are more than %d", p->D, ATTENTION_MAX_D);
    return PLX_OK;
}

/* An i32 list of the given count; absent (rank 0) becomes all zero. */
static plx_status attention_check_list(plx_context *context, const char *name,
                                       struct plx_tensor *list, int64_t count, bool shapes_only)
{
    if (list->rank == 0) {
        *list = (struct plx_tensor){0};
        return PLX_OK;
    }
    TRY(tensor_check(context, name, list));
    CHECK(context, list->rank == 1, PLX_INVALID_ARGUMENT, "%s: rank is %d but must be 1", name,
          list->rank);
    CHECK(context, list->dtype == PLX_I32, PLX_INVALID_ARGUMENT, "%s: dtype %s must be i32", name,
          plx_dtype_name(list->dtype));
    CHECK(context, list->shape[0] == count, PLX_INVALID_ARGUMENT,
          "%s: %" PRId64 " entries must be %" PRId64, name, list->shape[0], count);
    CHECK(context, shapes_only || list->data || count == 0, PLX_INVALID_ARGUMENT,
          "%s: data is NULL", name);
    return PLX_OK;
}

static plx_status attention_check_lengths(plx_context *context, const char *name,
                                          const struct plx_tensor *lengths, int64_t limit)
{
    const int32_t *length = lengths->data;
    for (int64_t b = 0; b < lengths->shape[0]; b++)
        CHECK(context, length[b] >= 0 && length[b] <= limit, PLX_INVALID_ARGUMENT,
              "%s: entry %" PRId64 " is %d, not in 0..%" PRId64, name, b, length[b], limit);
    return PLX_OK;
}

static plx_status attention_check_offsets(plx_context *context, const char *name,
                                          const struct plx_tensor *offsets, int64_t limit)
{
    const int32_t *offset = offsets->data;
    int64_t last = offsets->shape[0] - 1;
    CHECK(context, offset[0] == 0, PLX_INVALID_ARGUMENT, "%s: entry 0 is %d but must be 0", name,
          offset[0]);
    for (int64_t n = 1; n <= last; n++)
        CHECK(context, offset[n] >= offset[n - 1], PLX_INVALID_ARGUMENT,
              "%s: entry %" PRId64 " is %d, less than the %d before it", name, n, offset[n],
              offset[n - 1]);
    CHECK(context, offset[last] == limit, PLX_INVALID_ARGUMENT,
          "%s: entry %" PRId64 " is %d but must be %" PRId64, name, last, offset[last], limit);
    return PLX_OK;
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
    TRY(attention_check_list(context, "q_lengths", &p->q_lengths, p->B, shapes_only));
    TRY(attention_check_list(context, "k_lengths", &p->k_lengths, p->B, shapes_only));
    TRY(attention_check_list(context, "q_offsets", &p->q_offsets, p->sequences + 1, shapes_only));
    TRY(attention_check_list(context, "k_offsets", &p->k_offsets, p->sequences + 1, shapes_only));
    /* On a GPU the lists are in its memory; kernels clamp what they read. */
    if (shapes_only || context->device != PLX_CPU) return PLX_OK;
    if (p->q_lengths.rank) TRY(attention_check_lengths(context, "q_lengths", &p->q_lengths, p->T));
    if (p->k_lengths.rank) TRY(attention_check_lengths(context, "k_lengths", &p->k_lengths, p->S));
    if (p->q_offsets.rank) TRY(attention_check_offsets(context, "q_offsets", &p->q_offsets, p->T));
    if (p->k_offsets.rank) TRY(attention_check_offsets(context, "k_offsets", &p->k_offsets, p->S));
    return PLX_OK;
}

plx_status attention_check(plx_context *context, const struct plx_attention *attention,
                           struct attention_problem *problem, bool shapes_only)
{
    struct attention_problem *p = problem;
    CHECK(context, attention, PLX_INVALID_ARGUMENT, "attention: is NULL");
    CHECK(context, p->pass >= PLX_FORWARD && p->pass <= PLX_DECODE, PLX_INVALID_ARGUMENT,
          "pass: %d is not a pass", (int)p->pass);
    TRY(attention_check_leaders(context, p));
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
    p->q_lengths = attention->q_lengths;
    p->k_lengths = attention->k_lengths;
    p->q_offsets = attention->q_offsets;
    p->k_offsets = attention->k_offsets;
    return attention_check_layout(context, p, shapes_only);
}
