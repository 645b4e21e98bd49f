/* test_attention_layouts.c: the same attention said in another way gives the same result, for every
 * row.
 *
 * Packed, ragged and left-padded batches against separate sequences, decode against the forward,
 * shared against repeated key/value heads, a window that covers everything, permuted batches, other
 * thread counts, calls without statistics; and causality: what a query cannot see cannot change a
 * bit of its result. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "law.h"

static struct test_options options;

static struct case_data draw(const struct attention_case *c, const struct law_row *row,
                             struct seeded *random)
{
    return case_data_create(c, row->dtype, seeded_u64(random));
}

/* All outputs of the row's pass: equal to the bit. */
static void expect_same_outputs(const struct law_row *row, const struct case_data *a,
                                const struct case_data *b)
{
    for (int n = 0; n < CASE_TENSORS; n++)
        if (case_writes(row->mechanism, row->pass, (enum case_tensor)n))
            law_expect_same(row, case_tensor_names[n], a->values[n], b->values[n], a->counts[n]);
}

/* ---- To the bit ------------------------------------------------------------------------------ */

static void thread_counts_agree(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    struct case_data first = draw(&c, row, random);
    bool ran = law_run_as(row, row->mechanism, row->pass, 1, &c, &first);
    for (int threads = 1; ran && threads <= 3; threads++) {
        struct case_data again = case_data_copy(&first);
        law_run_as(row, row->mechanism, row->pass, threads, &c, &again);
        expect_same_outputs(row, &again, &first);
        case_data_destroy(&again);
    }
    case_data_destroy(&first);
}

static void wide_window_is_no_window(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, true), window = c;
    window.window = c.T + seeded_between(random, 0, 50);
    struct case_data without = draw(&c, row, random), with = case_data_copy(&without);
    if (law_run(row, &c, &without) && law_run(row, &window, &with))
        expect_same_outputs(row, &with, &without);
    case_data_destroy(&without);
    case_data_destroy(&with);
}

/* Rows from `first` on of the given tensors get new values. */
static void redraw_from(struct case_data *data, enum case_tensor tensor, int64_t first,
                        struct seeded *random)
{
    const int64_t *shape = data->shapes[tensor];
    for (int64_t n = 0; n < data->counts[tensor]; n++)
        if (n / (shape[2] * shape[3]) % shape[1] >= first)
            data->values[tensor][n] = 0.25 * (double)seeded_between(random, -20, 20);
}

static void expect_rows_same(const struct law_row *row, const struct case_data *a,
                             const struct case_data *b, enum case_tensor tensor, int64_t rows)
{
    const int64_t *shape = a->shapes[tensor];
    int64_t width = shape[2] * (a->ranks[tensor] == 4 ? shape[3] : 1);
    for (int64_t entry = 0; entry < shape[0]; entry++)
        law_expect_same(row, case_tensor_names[tensor],
                        a->values[tensor] + entry * shape[1] * width,
                        b->values[tensor] + entry * shape[1] * width, rows * width);
}

/* New keys, values and queries from `cut` on: earlier rows of o, lse, t, m, dq and dr keep their
 * bits. */
static void the_future_changes_nothing(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, true);
    int64_t cut = seeded_between(random, 0, c.T);
    struct case_data before = draw(&c, row, random), after = case_data_copy(&before);
    for (enum case_tensor n = CASE_Q; n <= CASE_D_O; n++) redraw_from(&after, n, cut, random);
    if (law_run(row, &c, &before) && law_run(row, &c, &after))
        for (int n = CASE_O; n <= CASE_DR; n++)
            if (case_writes(row->mechanism, row->pass, (enum case_tensor)n))
                expect_rows_same(row, &after, &before, (enum case_tensor)n, cut);
    case_data_destroy(&before);
    case_data_destroy(&after);
}

/* Batch entries in reverse order give the results in reverse order. */
static void batch_order_does_not_matter(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    c.B = 3;
    struct case_data here = draw(&c, row, random), there = case_data_copy(&here);
    for (int n = CASE_Q; n <= CASE_D_O; n++)
        for (int64_t b = 0; b < c.B; b++)
            law_copy_rows(&here, b, 0, &there, c.B - 1 - b, 0, here.shapes[n][1],
                          (enum case_tensor)n);
    if (law_run(row, &c, &here) && law_run(row, &c, &there)) {
        struct case_data back = case_data_copy(&there);
        for (int n = CASE_O; n < CASE_TENSORS; n++)
            for (int64_t b = 0; b < c.B; b++)
                law_copy_rows(&there, b, 0, &back, c.B - 1 - b, 0, here.shapes[n][1],
                              (enum case_tensor)n);
        expect_same_outputs(row, &back, &here);
        case_data_destroy(&back);
    }
    case_data_destroy(&here);
    case_data_destroy(&there);
}

static void statistics_are_optional(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    struct case_data full = draw(&c, row, random), bare = case_data_copy(&full);
    char message[512];
    struct case_call call = {.mechanism = row->mechanism,
                             .pass = row->pass,
                             .kernel = row->kernel,
                             .dtype = row->dtype,
                             .bare = true};
    if (law_run(row, &c, &full)) {
        assert_int_equal(case_run(&c, &call, &bare, message, sizeof message), CASE_DONE);
        law_expect_same(row, "o", bare.values[CASE_O], full.values[CASE_O], full.counts[CASE_O]);
    }
    case_data_destroy(&full);
    case_data_destroy(&bare);
}

/* ---- Within the rule ------------------------------------------------------------------------- */

/* Cuts sequence n out of a batch into a dense case of one, runs it and puts the results back. */
struct piece {
    int64_t q_batch, q_first, q_count, k_batch, k_first, k_count;
};

static void run_piece(const struct law_row *row, const struct attention_case *c,
                      const struct piece *piece, struct case_data *batch, double *limits)
{
    struct attention_case one = *c;
    one.B = 1, one.T = piece->q_count, one.S = piece->k_count, one.sequences = 0;
    one.q_offsets = one.k_offsets = one.q_lengths = one.k_lengths = NULL;
    struct case_data data = case_data_create(&one, row->dtype, 1);
    for (int n = 0; n < CASE_TENSORS; n++) {
        bool key = n == CASE_K || n == CASE_V || n == CASE_DK || n == CASE_DV;
        if (n > CASE_D_O) break;
        law_copy_rows(batch, key ? piece->k_batch : piece->q_batch,
                      key ? piece->k_first : piece->q_first, &data, 0, 0,
                      key ? piece->k_count : piece->q_count, (enum case_tensor)n);
    }
    struct law_limits own = law_limits(row, &one, &data);
    law_run(row, &one, &data);
    for (int n = CASE_O; n < CASE_TENSORS; n++) {
        bool key = n == CASE_DK || n == CASE_DV;
        limits[n] = fmax(limits[n], own.of[n]);
        law_copy_rows(&data, 0, 0, batch, key ? piece->k_batch : piece->q_batch,
                      key ? piece->k_first : piece->q_first, key ? piece->k_count : piece->q_count,
                      (enum case_tensor)n);
    }
    case_data_destroy(&data);
}

/* Every output of `whole` is near what the pieces gave, and exactly the padding value elsewhere. */
static void expect_pieces(const struct law_row *row, const struct attention_case *c,
                          const struct piece *pieces, int count, struct case_data *whole)
{
    struct case_data separate = case_data_copy(whole);
    struct law_limits limits = law_limits(row, c, whole);
    double piece_limits[CASE_TENSORS] = {0};
    if (law_run(row, c, whole)) {
        for (int n = CASE_O; n < CASE_TENSORS; n++)
            for (int64_t i = 0; i < separate.counts[n]; i++)
                separate.values[n][i] = n == CASE_LSE ? -INFINITY : 0;
        for (int n = 0; n < count; n++) run_piece(row, c, &pieces[n], &separate, piece_limits);
        for (int n = CASE_O; n < CASE_TENSORS; n++)
            if (case_writes(row->mechanism, row->pass, (enum case_tensor)n))
                law_expect_near(row, case_tensor_names[n], whole->values[n], separate.values[n],
                                whole->counts[n], limits.of[n] + piece_limits[n]);
    }
    case_data_destroy(&separate);
}

static void packed_is_separate(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    int32_t q[6] = {0}, k[6] = {0};
    struct piece pieces[5];
    for (int n = 0; n < 5; n++) {
        q[n + 1] = q[n] + (int32_t)seeded_between(random, 0, 30);
        k[n + 1] = k[n] + (int32_t)seeded_between(random, 0, 30);
        pieces[n] = (struct piece){0, q[n], q[n + 1] - q[n], 0, k[n], k[n + 1] - k[n]};
    }
    c.B = 1, c.T = q[5], c.S = k[5], c.q_offsets = q, c.k_offsets = k, c.sequences = 5;
    struct case_data whole = draw(&c, row, random);
    expect_pieces(row, &c, pieces, 5, &whole);
    case_data_destroy(&whole);
}

static void ragged_is_separate(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false);
    int32_t q[3], k[3];
    struct piece pieces[3];
    c.B = 3;
    for (int b = 0; b < 3; b++) {
        q[b] = (int32_t)seeded_between(random, 0, c.T);
        k[b] = (int32_t)seeded_between(random, 0, c.S);
        pieces[b] = (struct piece){b, 0, q[b], b, 0, k[b]};
    }
    c.q_lengths = q, c.k_lengths = k;
    struct case_data whole = draw(&c, row, random);
    expect_pieces(row, &c, pieces, 3, &whole);
    case_data_destroy(&whole);
}

/* ---- Left padding: what stands before a sequence in memory is not part of it ----------------- */

/* Views of the last T of more rows, whose padding reads as NaN and must stay as it is. */
static void left_padded_view_is_dense(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false), padded = c;
    padded.view = VIEW_LEFT_PADDED;
    struct case_data dense = draw(&c, row, random), view = case_data_copy(&dense);
    if (law_run(row, &c, &dense) && law_run(row, &padded, &view))
        expect_same_outputs(row, &view, &dense);
    case_data_destroy(&dense);
    case_data_destroy(&view);
}

static void fill_rows(struct case_data *data, enum case_tensor tensor, int64_t first, int64_t count,
                      double value)
{
    int64_t width = data->shapes[tensor][2] * data->shapes[tensor][3];
    for (int64_t n = first * width; n < (first + count) * width; n++)
        data->values[tensor][n] = value;
}

/* A flat batch of sequences that end together and begin after padding of their own length: offsets
 * make the padding a sequence, whose NaN reach nothing else. */
static void left_padded_batch_is_separate(const struct law_row *row, struct seeded *random)
{
    enum { ENTRIES = 3 };
    struct attention_case c = law_case(random, true);
    if (seeded_between(random, 0, 1)) c.window = seeded_between(random, 1, 40);
    const int64_t length = c.T;
    int32_t offsets[2 * ENTRIES + 1] = {0};
    for (int n = 0; n < ENTRIES; n++) {
        offsets[2 * n + 1] = offsets[2 * n] + (int32_t)seeded_between(random, 0, length);
        offsets[2 * n + 2] = (int32_t)(length * (n + 1));
    }
    c.B = 1, c.T = c.S = ENTRIES * length, c.q_offsets = offsets, c.sequences = 2 * ENTRIES;
    struct case_data whole = draw(&c, row, random);
    for (int n = 0; n < ENTRIES; n++)
        for (enum case_tensor i = CASE_Q; i <= CASE_D_O; i++)
            fill_rows(&whole, i, offsets[2 * n], offsets[2 * n + 1] - offsets[2 * n], NAN);
    const int entries = law_run(row, &c, &whole) ? ENTRIES : 0;
    for (int n = 0; n < entries; n++) {
        const int64_t first = offsets[2 * n + 1], count = offsets[2 * n + 2] - first;
        struct piece piece = {0, first, count, 0, first, count};
        struct case_data separate = case_data_copy(&whole);
        double limits[CASE_TENSORS] = {0};
        run_piece(row, &c, &piece, &separate, limits);
        for (int i = CASE_O; i < CASE_TENSORS; i++) {
            int64_t width = whole.counts[i] / c.T;
            if (case_writes(row->mechanism, row->pass, (enum case_tensor)i))
                law_expect_same(row, case_tensor_names[i], whole.values[i] + first * width,
                                separate.values[i] + first * width, count * width);
        }
        case_data_destroy(&separate);
    }
    case_data_destroy(&whole);
}

/* A window hides the padding in front from row W - 1 of the sequence on. The padding moves every
 * row to another place in its tile. */
static void window_hides_left_padding(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, true), padded;
    c.window = seeded_between(random, 1, c.T);
    padded = c;
    const int64_t ahead = seeded_between(random, 1, 70), seen = c.window - 1;
    padded.T = padded.S = ahead + c.T;
    struct case_data alone = draw(&c, row, random), behind = draw(&padded, row, random);
    struct case_data want = case_data_copy(&behind);
    for (enum case_tensor n = CASE_Q; n <= CASE_D_O; n++)
        for (int64_t b = 0; b < c.B; b++) law_copy_rows(&alone, b, 0, &behind, b, ahead, c.T, n);
    struct law_limits a = law_limits(row, &c, &alone), p = law_limits(row, &padded, &behind);
    if (law_run(row, &c, &alone) && law_run(row, &padded, &behind)) {
        for (int n = CASE_O; n <= CASE_DR; n++) {
            if (!case_writes(row->mechanism, row->pass, (enum case_tensor)n)) continue;
            memcpy(want.values[n], behind.values[n], sizeof(double) * (size_t)want.counts[n]);
            for (int64_t b = 0; b < c.B; b++)
                law_copy_rows(&alone, b, seen, &want, b, ahead + seen, c.T - seen,
                              (enum case_tensor)n);
            law_expect_near(row, case_tensor_names[n], behind.values[n], want.values[n],
                            want.counts[n], a.of[n] + p.of[n]);
        }
    }
    case_data_destroy(&alone);
    case_data_destroy(&behind);
    case_data_destroy(&want);
}

/* ---- Calls of another shape ------------------------------------------------------------------ */

/* Decode of the last n queries equals the last n rows of the forward. */
static void decode_is_the_end_of_forward(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, true), last = c;
    if (seeded_between(random, 0, 1)) c.window = last.window = seeded_between(random, 1, 40);
    last.T = seeded_between(random, 1, c.T < 9 ? c.T : 9);
    struct law_row forward = *row;
    forward.pass = PLX_FORWARD;
    struct case_data whole = draw(&c, row, random), end = draw(&last, row, random);
    struct case_data want = case_data_copy(&end);
    for (int n = CASE_Q; n <= CASE_V; n++)
        for (int64_t b = 0; b < c.B; b++)
            law_copy_rows(&whole, b, whole.shapes[n][1] - end.shapes[n][1], &end, b, 0,
                          end.shapes[n][1], (enum case_tensor)n);
    struct law_limits a = law_limits(&forward, &c, &whole), d = law_limits(row, &last, &end);
    if (law_run(&forward, &c, &whole) && law_run(row, &last, &end)) {
        for (int n = CASE_O; n <= CASE_VALUE_MEAN; n++) {
            if (!case_writes(row->mechanism, row->pass, (enum case_tensor)n)) continue;
            for (int64_t b = 0; b < c.B; b++)
                law_copy_rows(&whole, b, c.T - last.T, &want, b, 0, last.T, (enum case_tensor)n);
            law_expect_near(row, case_tensor_names[n], end.values[n], want.values[n], end.counts[n],
                            a.of[n] + d.of[n]);
        }
    }
    case_data_destroy(&whole);
    case_data_destroy(&end);
    case_data_destroy(&want);
}

/* Heads of `shared` repeated for every query head of `repeated`, or gathered back with a sum. */
static void repeat_heads(const struct attention_case *c, const struct case_data *shared,
                         struct case_data *repeated, enum case_tensor tensor)
{
    int64_t group = c->H / c->G, D = c->D;
    for (int64_t row = 0; row < c->B * c->S * c->H; row++)
        memcpy(repeated->values[tensor] + row * D,
               shared->values[tensor] + (row / c->H * c->G + row % c->H / group) * D,
               sizeof(double) * (size_t)D);
}

static void sum_heads(const struct attention_case *c, const struct case_data *repeated,
                      struct case_data *shared, enum case_tensor tensor)
{
    int64_t group = c->H / c->G, D = c->D;
    memset(shared->values[tensor], 0, sizeof(double) * (size_t)shared->counts[tensor]);
    for (int64_t row = 0; row < c->B * c->S * c->H; row++)
        for (int64_t d = 0; d < D; d++)
            shared->values[tensor][(row / c->H * c->G + row % c->H / group) * D + d] +=
                repeated->values[tensor][row * D + d];
}

static void shared_heads_are_repeated_heads(const struct law_row *row, struct seeded *random)
{
    struct attention_case c = law_case(random, false), all = c;
    all.G = c.H;
    struct case_data shared = draw(&c, row, random), repeated = draw(&all, row, random);
    for (int n = CASE_Q; n <= CASE_D_O; n++) {
        if (n == CASE_K || n == CASE_V)
            repeat_heads(&c, &shared, &repeated, (enum case_tensor)n);
        else
            memcpy(repeated.values[n], shared.values[n], sizeof(double) * (size_t)shared.counts[n]);
    }
    struct law_limits a = law_limits(row, &c, &shared), b = law_limits(row, &all, &repeated);
    if (law_run(row, &c, &shared) && law_run(row, &all, &repeated)) {
        struct case_data gathered = case_data_copy(&shared);
        sum_heads(&c, &repeated, &gathered, CASE_DK);
        sum_heads(&c, &repeated, &gathered, CASE_DV);
        for (int n = CASE_O; n < CASE_TENSORS; n++) {
            bool key = n == CASE_DK || n == CASE_DV;
            const double *want = key ? gathered.values[n] : repeated.values[n];
            if (!case_writes(row->mechanism, row->pass, (enum case_tensor)n)) continue;
            law_expect_near(row, case_tensor_names[n], shared.values[n], want, shared.counts[n],
                            a.of[n] + b.of[n] * (key ? (double)(c.H / c.G) : 1));
        }
        case_data_destroy(&gathered);
    }
    case_data_destroy(&shared);
    case_data_destroy(&repeated);
}

/* ---- The list -------------------------------------------------------------------------------- */

static void check_pass(plx_mechanism mechanism, plx_pass pass)
{
    law_check(&options, "threads", mechanism, pass, thread_counts_agree);
    law_check(&options, "wide_window", mechanism, pass, wide_window_is_no_window);
    law_check(&options, "causality", mechanism, pass, the_future_changes_nothing);
    law_check(&options, "batch_order", mechanism, pass, batch_order_does_not_matter);
    law_check(&options, "packed", mechanism, pass, packed_is_separate);
    law_check(&options, "ragged", mechanism, pass, ragged_is_separate);
    law_check(&options, "left_padded_view", mechanism, pass, left_padded_view_is_dense);
    law_check(&options, "left_padded_batch", mechanism, pass, left_padded_batch_is_separate);
    law_check(&options, "left_padding_window", mechanism, pass, window_hides_left_padding);
    law_check(&options, "gqa", mechanism, pass, shared_heads_are_repeated_heads);
    if (pass != PLX_BACKWARD)
        law_check(&options, "statistics", mechanism, pass, statistics_are_optional);
    if (pass == PLX_DECODE)
        law_check(&options, "decode", mechanism, pass, decode_is_the_end_of_forward);
}

static void layouts_of_the_forward(void **state)
{
    (void)state;
    check_pass(PLX_SOFTMAX, PLX_FORWARD);
    check_pass(PLX_PARALLAX, PLX_FORWARD);
}

static void layouts_of_the_backward(void **state)
{
    (void)state;
    check_pass(PLX_SOFTMAX, PLX_BACKWARD);
    check_pass(PLX_PARALLAX, PLX_BACKWARD);
}

static void layouts_of_decode(void **state)
{
    (void)state;
    check_pass(PLX_SOFTMAX, PLX_DECODE);
    check_pass(PLX_PARALLAX, PLX_DECODE);
}

int main(int argc, char **argv)
{
    options = test_options_read(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts_of_the_forward),
        cmocka_unit_test(layouts_of_the_backward),
        cmocka_unit_test(layouts_of_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
