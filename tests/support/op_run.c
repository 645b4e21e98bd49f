/* op_run.c: see op_run.h. */
#include "op_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "core/dtype.h"

static int failures;

int op_run_failures(void)
{
    return failures;
}

void op_run_complain(const struct op_run *run, const char *name, const char *what)
{
    fprintf(stderr, "%s at n %lld, e %lld%s on %s: %s\n    repeat: %s --only %s --seed %llu\n",
            run->c->name, (long long)run->n, (long long)run->e, run->wild ? ", wild" : "", name,
            what, run->options->program, run->c->name, (unsigned long long)run->options->seed);
    failures++;
}

/* A test whose machinery fails cannot say anything; it stops. */
static void must(const struct backend *be, plx_status status)
{
    if (status == PLX_OK) return;
    fprintf(stderr, "%s\n", be->err->text);
    abort();
}

static double *numbers_create(int64_t count)
{
    double *numbers = malloc((size_t)(count + 1) * sizeof *numbers);
    if (numbers == NULL) abort();
    return numbers;
}

/* ---- Operands -------------------------------------------------------------------------------- */

int64_t op_operand_count(const struct operand *operand)
{
    int64_t count = 1;
    for (int axis = 0; axis < operand->rank; axis++) count *= operand->shape[axis];
    return operand->rank > 0 ? count : 0;
}

static bool is_integer(const struct operand *operand)
{
    return operand->values >= FILL_IDS;
}

static bool is_activation(const struct operand *operand)
{
    return !operand->stored && !is_integer(operand);
}

static bool is_output(const struct operand *operand)
{
    return operand->rank > 0 && operand->role != ROLE_IN;
}

plx_dtype op_operand_dtype(const struct operand *operand, const struct backend *be)
{
    if (is_integer(operand)) return PLX_I32;
    if (operand->halved && be->storage == PLX_F32) return PLX_BF16;
    return operand->stored ? be->storage : be->activation;
}

double op_operand_draw(struct seeded *random, const struct operand *operand, bool wild)
{
    double normal = seeded_normal(random);
    switch (operand->values) {
    case FILL_NORMAL:
        break;
    case FILL_WEIGHTS:
        return (float)normal;
    case FILL_SQUARES:
        return (float)(normal * normal);
    case FILL_IDS:
        return floor(pow(seeded_uniform(random), 3) * (double)operand->bound);
    case FILL_TARGETS:
        return (double)seeded_between(random, -1, operand->bound - 1);
    case FILL_POSITIONS:
        return (double)seeded_between(random, 0, 40000);
    case FILL_LENGTH:
        return (double)operand->bound;
    }
    int64_t kind = wild ? seeded_between(random, 0, 63) : 0;
    if (kind == 1) return NAN;
    if (kind == 2) return normal > 0 ? 1e4 : -1e4;
    if (kind == 3) return normal > 0 ? 88.0 : -88.0;
    if (kind == 4) return 0.0;
    return (float)(kind > 4 && kind < 20 ? 10 * normal : normal);
}

static void round_numbers(const struct operand *operand, double *values, plx_dtype dtype)
{
    double stored;
    for (int64_t j = 0; j < op_operand_count(operand); j++) {
        dtype_store(&stored, dtype, 0, values[j]);
        values[j] = dtype_load(&stored, dtype, 0);
    }
}

struct op_run op_run_create(const struct op_case *c, int number, const struct test_options *options,
                            int64_t n, int64_t e, bool wild)
{
    struct op_run run = {
        .c = c, .number = number, .options = options, .n = n, .e = e, .wild = wild};
    struct seeded random =
        seeded_make(options->seed, (uint64_t)number * 1000000 + (uint64_t)(n * 1000 + e));
    c->operands(run.operands, n, e);
    for (int i = 0; i < OPERANDS; i++) {
        int64_t count = op_operand_count(&run.operands[i]);
        run.before[i] = numbers_create(count);
        for (int64_t j = 0; j < count; j++)
            run.before[i][j] = op_operand_draw(&random, &run.operands[i], wild);
        if (run.operands[i].halved) round_numbers(&run.operands[i], run.before[i], PLX_BF16);
    }
    return run;
}

void op_run_destroy(struct op_run *run)
{
    for (int i = 0; i < OPERANDS; i++) free(run->before[i]);
}

void op_result_destroy(struct op_result *result)
{
    for (int i = 0; i < OPERANDS; i++) free(result->values[i]);
}

void op_run_round(struct op_run *run, plx_dtype activation)
{
    for (int i = 0; i < OPERANDS; i++)
        if (is_activation(&run->operands[i]))
            round_numbers(&run->operands[i], run->before[i], activation);
}

void op_result_round(const struct op_run *run, struct op_result *result, plx_dtype activation)
{
    for (int i = 0; i < OPERANDS; i++)
        if (is_output(&run->operands[i]) && is_activation(&run->operands[i]))
            round_numbers(&run->operands[i], result->values[i], activation);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* An operand's guarded memory on the host, and its copy where the backend's device has its own. */
struct place {
    struct test_tensor host;
    void *device; /* NULL where the host's serves */
    struct plx_tensor view;
};

static struct place place_create(const struct op_run *run, int i, struct backend *be,
                                 enum op_placement placement)
{
    static const enum view_kind kinds[] = {
        [PLACE_ODD] = VIEW_DENSE, [PLACE_ALIGNED] = VIEW_ALIGNED, [PLACE_PADDED] = VIEW_PADDED};
    const struct operand *operand = &run->operands[i];
    struct place place = {.host =
                              test_tensor_create(op_operand_dtype(operand, be), kinds[placement],
                                                 operand->rank, operand->shape)};
    if (operand->role != ROLE_OUT) test_tensor_write(&place.host, run->before[i]);
    place.view = place.host.view;
    if (be->device->kind == PLX_CPU) return place;
    const struct guarded *memory = &place.host.memory;
    const size_t total = guarded_total(memory);
    must(be, be->device->allocate(&place.device, total, be->stream, be->err));
    must(be, be->device->upload(place.device, memory->base, total, be->stream, be->err));
    place.view.data =
        (unsigned char *)place.device + ((unsigned char *)place.view.data - memory->base);
    place.view.device = be->device->kind;
    return place;
}

static void place_read(struct place *place, struct backend *be, double *values)
{
    const struct guarded *memory = &place->host.memory;
    if (place->device != NULL)
        must(be, be->device->download(memory->base, place->device, guarded_total(memory),
                                      be->stream, be->err));
    test_tensor_read(&place->host, values);
}

static void place_destroy(struct place *place, struct backend *be)
{
    be->device->release(place->device, be->stream);
    test_tensor_destroy(&place->host);
}

/* What a dry run says the call needs: the same views, without memory. */
static size_t measured_scratch(const struct op_run *run, struct backend *be,
                               const struct plx_tensor *views)
{
    struct backend dry = backend_dry(be);
    struct plx_tensor empty[OPERANDS];
    memcpy(empty, views, sizeof empty);
    for (int i = 0; i < OPERANDS; i++) empty[i].data = NULL;
    if (run->c->run(&dry, empty) != PLX_OK) op_run_complain(run, "dry", be->err->text);
    if (dry.scratch.used != 0) op_run_complain(run, "dry", "scratch is not as it was");
    return dry.scratch.peak;
}

/* ---- A run ----------------------------------------------------------------------------------- */

/* Inputs must be as they were (NaN compares as bits). */
static bool unchanged(const struct op_run *run, int i, const double *after)
{
    const struct operand *operand = &run->operands[i];
    if (operand->role != ROLE_IN) return true;
    for (int64_t j = 0; j < op_operand_count(operand); j++) {
        double was = run->before[i][j];
        if (was != after[j] && !(isnan(was) && isnan(after[j]))) return false;
    }
    return true;
}

static void run_call(const struct op_run *run, struct backend *be, const char *name,
                     const struct plx_tensor *views)
{
    size_t needed = measured_scratch(run, be, views);
    must(be, backend_reserve(be, needed));
    if (be->device->kind != PLX_CPU) /* on the CPU the arena does it in builds that look */
        must(be,
             be->device->fill(be->scratch.base, 0xff, be->scratch.capacity, be->stream, be->err));
    be->scratch.peak = 0;
    plx_status status = run->c->run(be, views);
    if (status == PLX_OK) status = be->device->wait(be->stream, be->err);
    if (status != PLX_OK) op_run_complain(run, name, be->err->text);
    error_clear(be->err);
    if (be->scratch.used != 0) op_run_complain(run, name, "scratch is not as it was");
    if (be->scratch.peak == needed) return;
    char text[128];
    snprintf(text, sizeof text, "used %zu bytes of scratch, but a dry run measured %zu",
             be->scratch.peak, needed);
    op_run_complain(run, name, text);
}

struct op_result op_run_on(const struct op_run *run, struct backend *be, const char *name,
                           enum op_placement placement)
{
    struct place places[OPERANDS] = {0};
    struct plx_tensor views[OPERANDS] = {0};
    struct op_result result = {0};
    for (int i = 0; i < OPERANDS && run->operands[i].rank > 0; i++) {
        places[i] = place_create(run, i, be, placement);
        views[i] = places[i].view;
    }
    run_call(run, be, name, views);
    for (int i = 0; i < OPERANDS && run->operands[i].rank > 0; i++) {
        result.values[i] = numbers_create(op_operand_count(&run->operands[i]));
        place_read(&places[i], be, result.values[i]);
        if (!test_tensor_intact(&places[i].host))
            op_run_complain(run, name, "a red zone or gap was written");
        if (!unchanged(run, i, result.values[i]))
            op_run_complain(run, name, "an input was changed");
        place_destroy(&places[i], be);
    }
    return result;
}

/* ---- Comparisons ----------------------------------------------------------------------------- */

/* As many numbers as an output must have for its errors to be more than luck; draws of attention's
 * gradients; the distance between the numbers of draws, which no case has. */
enum { ENOUGH = 24, GRADIENT_DRAWS = 8, APART = 1000 };

/* How many draws have enough of each output. The largest error of attention's gradients is that of
 * the one row whose stored statistics were rounded worst, in f32 like everyone's, so that is luck
 * however many numbers there are. */
static int draws_of(const struct op_run *run)
{
    int64_t fewest = ENOUGH;
    for (int i = 0; i < OPERANDS; i++) {
        const int64_t count =
            is_output(&run->operands[i]) ? op_operand_count(&run->operands[i]) : 0;
        if (count > 0 && count < fewest) fewest = count;
    }
    const int draws = (int)((ENOUGH + fewest - 1) / fewest);
    const bool gradients = run->c->member == offsetof(struct ops, attend_backward);
    return gradients && draws < GRADIENT_DRAWS ? GRADIENT_DRAWS : draws;
}

/* The naive errors of draw d join those of the earlier ones, whose mean square is squares; sizes
 * remain those of the first, and so does its error where that is the larger, because a kernel may
 * round as the naive implementation does. */
static void add_errors(const struct op_run *run, const struct op_result *naive,
                       const struct op_result *oracle, int d, struct comparison *errors,
                       double *squares)
{
    for (int i = 0; i < OPERANDS; i++) {
        if (!is_output(&run->operands[i])) continue;
        const struct comparison more = compare_values(naive->values[i], oracle->values[i],
                                                      op_operand_count(&run->operands[i]));
        if (d == 0) errors[i] = more;
        squares[i] = (d * squares[i] + more.rms * more.rms) / (d + 1);
        errors[i].max_abs = fmax(errors[i].max_abs, more.max_abs);
    }
}

struct op_yardstick op_yardstick_create(const struct op_run *run, struct backend *oracle,
                                        struct backend *naive, plx_dtype activation)
{
    struct op_yardstick yardstick = {0};
    double squares[OPERANDS] = {0};
    const int draws = draws_of(run);
    for (int d = 0; d < draws; d++) {
        struct op_run draw =
            op_run_create(run->c, run->number + d * APART, run->options, run->n, run->e, run->wild);
        op_run_round(&draw, activation);
        struct op_result exact = op_run_on(&draw, oracle, "the oracle", PLACE_ODD),
                         rounded = op_run_on(&draw, naive, "the naive reference", PLACE_ODD);
        op_result_round(&draw, &rounded, activation);
        add_errors(&draw, &rounded, &exact, d, yardstick.naive, squares);
        op_result_destroy(&rounded);
        if (d == 0)
            yardstick.oracle = exact;
        else
            op_result_destroy(&exact);
        op_run_destroy(&draw);
    }
    for (int i = 0; i < OPERANDS; i++)
        yardstick.naive[i].rms = fmax(yardstick.naive[i].rms, sqrt(squares[i]));
    return yardstick;
}

void op_yardstick_destroy(struct op_yardstick *yardstick)
{
    op_result_destroy(&yardstick->oracle);
}

void op_run_compare(const struct op_run *run, const struct backend *be, const char *name,
                    const struct op_result *got, const struct op_yardstick *yardstick)
{
    for (int i = 0; i < OPERANDS; i++) {
        const struct operand *operand = &run->operands[i];
        if (!is_output(operand)) continue;
        const double *oracle = yardstick->oracle.values[i];
        const struct comparison *allowed = &yardstick->naive[i];
        struct comparison error = compare_values(got->values[i], oracle, op_operand_count(operand));
        if (compare_within(&error, allowed, op_operand_dtype(operand, be), NULL)) continue;
        char text[512];
        int used =
            snprintf(text, sizeof text, "operand %d, naive max abs %.3g: ", i, allowed->max_abs);
        compare_describe(text + used, sizeof text - (size_t)used, &error, got->values[i], oracle,
                         operand->rank, operand->shape);
        op_run_complain(run, name, text);
    }
}

void op_run_same_bits(const struct op_run *run, const char *name, const struct op_result *one,
                      const struct op_result *other, const char *what)
{
    for (int i = 0; i < OPERANDS; i++) {
        size_t bytes = (size_t)op_operand_count(&run->operands[i]) * sizeof(double);
        if (is_output(&run->operands[i]) && memcmp(one->values[i], other->values[i], bytes) != 0)
            op_run_complain(run, name, what);
    }
}
