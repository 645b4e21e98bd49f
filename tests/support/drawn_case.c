/* drawn_case.c: see drawn_case.h. The host's reference decides how long a case takes, so cases are
 * large only in what they are about. */
#include "drawn_case.h"

#include <stdio.h>

/* A kernel's error is measured in units of the naive one, which must not be the luck of a few rows.
 */
enum { LEAST_ROWS = 24 };

#define PICK(random, list) (list)[seeded_between((random), 0, sizeof(list) / sizeof(list)[0] - 1)]

static bool chance(struct seeded *random, double probability)
{
    return seeded_uniform(random) < probability;
}

static void draw_lengths(struct seeded *random, int32_t *lengths, int64_t limit)
{
    for (int b = 0; b < DRAWN_MAX_BATCH; b++)
        lengths[b] = (int32_t)(chance(random, 0.2) ? limit : seeded_between(random, 0, limit));
}

static void draw_offsets(struct seeded *random, int32_t *offsets, int64_t limit)
{
    offsets[0] = 0;
    offsets[DRAWN_MAX_SEQUENCES] = (int32_t)limit;
    for (int n = 1; n < DRAWN_MAX_SEQUENCES; n++)
        offsets[n] = (int32_t)(chance(random, 0.2) ? offsets[n - 1]
                                                   : seeded_between(random, offsets[n - 1], limit));
}

/* A packed batch has offsets for its keys where their number differs, and now and then otherwise.
 */
static void draw_layout(struct seeded *random, bool packed, double ragged_q, double ragged_k,
                        struct drawn_case *d)
{
    struct attention_case *c = &d->c;
    draw_lengths(random, d->q_lengths, c->T);
    draw_lengths(random, d->k_lengths, c->S);
    draw_offsets(random, d->q_offsets, c->T);
    draw_offsets(random, d->k_offsets, c->S);
    if (packed) {
        c->sequences = DRAWN_MAX_SEQUENCES;
        c->q_offsets = d->q_offsets;
        if (c->S != c->T || chance(random, 0.3)) c->k_offsets = d->k_offsets;
        return;
    }
    if (chance(random, ragged_q)) c->q_lengths = d->q_lengths;
    if (chance(random, ragged_k)) c->k_lengths = d->k_lengths;
}

static enum case_values draw_values(struct seeded *random)
{
    static const enum case_values rare[] = {VALUES_LARGE, VALUES_CONSTANT, VALUES_ONE_HOT,
                                            VALUES_OFFSET, VALUES_NAN_QUERY};
    return chance(random, 0.7) ? VALUES_NORMAL : PICK(random, rare);
}

static void name_case(const char *kind, int number, struct drawn_case *d)
{
    const struct attention_case *c = &d->c;
    snprintf(d->name, sizeof d->name, "%s_%d_B%lld_T%lld_S%lld_H%lld_G%lld_D%lld_W%lld_P%lld%s",
             kind, number, (long long)c->B, (long long)c->T, (long long)c->S, (long long)c->H,
             (long long)c->G, (long long)c->D, (long long)c->window, (long long)c->page,
             c->f8 ? "_f8" : "");
    d->c.name = d->name;
}

/* So many pairs of a sequence and a head that a GPU has no room for all of them at once. */
static void draw_many(struct seeded *random, struct attention_case *c)
{
    c->B = seeded_between(random, 20, DRAWN_MAX_BATCH), c->G = seeded_between(random, 14, 19);
    c->H = c->G * seeded_between(random, 1, 2);
    c->T = seeded_between(random, 1, 2);
}

/* So many that blocks of a GPU keep two sets of eight rows: a head has two sets, or up to four. */
static void draw_deep_rows(struct seeded *random, struct attention_case *c)
{
    static const int ratios[] = {3, 4, 8, 12};
    const bool two = chance(random, 0.5);
    const int64_t ratio = PICK(random, ratios), least = two ? 9 : 17, most = two ? 16 : 32;
    c->B = two ? seeded_between(random, 17, 20) : 16, c->G = 8;
    c->H = c->G * ratio;
    c->T = seeded_between(random, (least + ratio - 1) / ratio, most / ratio);
    c->S = seeded_between(random, 100, 160);
}

void drawn_decode(struct seeded *random, int number, struct drawn_case *d)
{
    static const int keys[] = {0,   1,   2,   15,  16,  17,  31,  32,  33,   48,   63,   64,  65,
                               127, 128, 129, 255, 257, 400, 511, 640, 1000, 1025, 2049, 4096};
    static const int ratios[] = {1, 1, 2, 3, 4, 5, 7, 8, 16}, windows[] = {1, 7, 16, 65, 500, 9999};
    static const int pages[] = {1, 16, 16, 32, 48, 64, 64, 100, 256};
    static const enum view_kind views[] = {VIEW_ALIGNED, VIEW_ALIGNED, VIEW_SLICED, VIEW_DENSE,
                                           VIEW_HEAD_MAJOR};
    struct attention_case *c = &d->c;
    *c = (struct attention_case){.causal = chance(random, 0.8), .view = PICK(random, views)};
    c->S = PICK(random, keys);
    c->B = seeded_between(random, 1, c->S > 600 ? 2 : 4);
    c->T = chance(random, 0.5) ? 1 : seeded_between(random, 2, 9);
    c->G = seeded_between(random, 1, c->S > 600 ? 1 : 3);
    c->H = c->G * PICK(random, ratios);
    int64_t heads = c->T * c->H, least = (LEAST_ROWS + heads - 1) / heads;
    if (c->S <= 600 && c->B < least) c->B = least;
    if (c->S > 600 && c->B * heads < LEAST_ROWS) c->H = c->G * 16;
    if (c->S < 300 && chance(random, 0.1))
        draw_many(random, c);
    else if (c->S < 300 && chance(random, 0.06))
        draw_deep_rows(random, c);
    c->D = chance(random, 0.5) ? 128 : 64;
    c->values = draw_values(random);
    c->wide = chance(random, 0.3);
    if (chance(random, 0.1)) c->scale = chance(random, 0.5) ? -0.1 : 0.04;
    if (c->causal && chance(random, 0.3)) c->window = PICK(random, windows);
    draw_layout(random, false, 0.2, 0.4, d);
    if (c->q_lengths) d->q_lengths[0] = (int32_t)c->T;
    if (chance(random, 0.35)) c->page = PICK(random, pages);
    c->f8 = chance(random, 0.15);
    name_case("decode", number, d);
}

void drawn_any(struct seeded *random, int number, struct drawn_case *d)
{
    static const int channels[] = {1, 7, 16, 32, 60, 64, 64, 80, 96, 100, 128, 128, 192, 256};
    static const int ratios[] = {1, 1, 2, 3, 4, 5, 7, 8}, windows[] = {1, 7, 16, 33, 64, 500};
    static const enum view_kind views[] = {VIEW_DENSE, VIEW_PADDED, VIEW_HEAD_MAJOR, VIEW_ALIGNED,
                                           VIEW_SLICED};
    struct attention_case *c = &d->c;
    *c = (struct attention_case){.causal = chance(random, 0.7), .view = PICK(random, views)};
    c->D = PICK(random, channels);
    c->G = seeded_between(random, 1, 2);
    c->H = c->G * PICK(random, ratios);
    bool packed = chance(random, 0.25);
    c->B = packed ? 1 : seeded_between(random, 1, 3);
    int64_t most = c->H * c->B * c->D > 1000 ? 40 : 100;
    c->T = seeded_between(random, 0, most);
    c->S = chance(random, 0.5) ? c->T : seeded_between(random, 0, most);
    c->values = draw_values(random);
    c->wide = chance(random, 0.3);
    if (c->causal && chance(random, 0.4)) c->window = PICK(random, windows);
    draw_layout(random, packed, 0.25, 0.3, d);
    name_case("any", number, d);
}

/* Around tiles of 64 and 128, seldom more than three of the larger ones. */
static int64_t draw_length(struct seeded *random)
{
    static const int64_t edges[] = {1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 256, 257};
    if (chance(random, 0.05)) return seeded_between(random, 258, 420);
    return chance(random, 0.5) ? PICK(random, edges) : seeded_between(random, 1, 260);
}

/* Few queries that see so many keys that backward chooses the way it has for that, and hardly more:
 * the host's reference walks over all of them. */
static void draw_deep(struct seeded *random, bool packed, struct attention_case *c)
{
    const int64_t group = chance(random, 0.3) ? seeded_between(random, 2, 3) : 1;
    const int64_t sequences = packed ? DRAWN_MAX_SEQUENCES : 1;
    const int64_t least = (c->D == 64 ? 64 : 256) * (group > 2 ? group * group : 4);
    c->B = 1, c->H = c->G * group;
    c->T = seeded_between(random, LEAST_ROWS, group == 1 ? 80 : 40);
    c->S = sequences * (least + c->T / 2 + seeded_between(random, 0, 200));
}

void drawn_tiles(struct seeded *random, int number, struct drawn_case *d)
{
    static const int64_t windows[] = {1, 7, 63, 64, 65, 130, 9999};
    struct attention_case *c = &d->c;
    *c = (struct attention_case){.causal = chance(random, 0.7),
                                 .view = chance(random, 0.5) ? VIEW_ALIGNED : VIEW_SLICED};
    c->D = chance(random, 0.5) ? 128 : 64;
    c->T = draw_length(random);
    c->S = chance(random, 0.5) ? c->T : draw_length(random);
    const bool packed = chance(random, 0.25), ragged = chance(random, 0.3);
    const bool large = c->T * c->S > 16000;
    c->B = packed ? 1 : seeded_between(random, 1, large ? 1 : 3);
    c->G = seeded_between(random, 1, 2);
    c->H = c->G * seeded_between(random, 1, large ? 1 : 3);
    if (c->T * c->H * c->B < LEAST_ROWS) c->H = c->G * 8;
    if (chance(random, 0.2)) draw_deep(random, packed, c);
    c->values = draw_values(random);
    c->wide = chance(random, 0.3);
    if (c->causal && chance(random, 0.4)) c->window = PICK(random, windows);
    if (chance(random, 0.1)) c->scale = 0.04;
    draw_layout(random, packed, ragged ? 0.5 : 0, ragged ? 1 : 0, d);
    name_case("tiles", number, d);
}
