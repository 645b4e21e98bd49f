/* law.h: running a law over every kernel row that may obey it.
 *
 * A law is a function of a row (mechanism, pass, kernel name, dtype) and a random generator; it
 * draws its own shapes and values, makes calls and compares. Two computations of the same exact
 * value may differ by the sum of what the rule of compare.h allows each of them: law_limits
 * computes that allowance from the oracle and the naive result on the very input, so no law has an
 * epsilon of its own. Laws that hold bit for bit use law_expect_same. */
#ifndef TEST_LAW_H
#define TEST_LAW_H

#include "attention_case.h"

struct law_row {
    plx_mechanism mechanism;
    plx_pass pass;
    const char *kernel;
    plx_dtype dtype;
    const char *law;
    const struct test_options *options;
};

/* Every row of the mechanism and pass in f32, bf16 and f16, a few rounds each; fails the cmocka
 * test at the end where a round failed. */
typedef void (*law_function)(const struct law_row *row, struct seeded *random);
void law_check(const struct test_options *options, const char *name, plx_mechanism mechanism,
               plx_pass pass, law_function law);

/* Failures counted since the last law_check began. */
int law_failures(void);

/* A random shape: small, with remainders on every tile. T equals S where square is set. */
struct attention_case law_case(struct seeded *random, bool square);

/* Runs the row's kernel on the data; backward is preceded by the forward of the same name.
 * False where the row refuses this case (the law then has nothing to say). */
bool law_run(const struct law_row *row, const struct attention_case *c, struct case_data *data);
/* The same with a number of threads, or for another mechanism or pass. */
bool law_run_as(const struct law_row *row, plx_mechanism mechanism, plx_pass pass, int threads,
                const struct attention_case *c, struct case_data *data);

/* How far each output of the row's call may be from its exact value on this input. */
struct law_limits {
    double of[CASE_TENSORS];
};
struct law_limits law_limits(const struct law_row *row, const struct attention_case *c,
                             const struct case_data *data);

/* Comparisons; a difference is printed with the law, row and command line, and counted. */
void law_expect_near(const struct law_row *row, const char *what, const double *a, const double *b,
                     int64_t count, double limit);
void law_expect_same(const struct law_row *row, const char *what, const double *a, const double *b,
                     int64_t count);

/* Copies the rows [b, first .. first + count) of one tensor, over all heads, into another. */
void law_copy_rows(const struct case_data *from, int64_t from_b, int64_t from_first,
                   struct case_data *to, int64_t to_b, int64_t to_first, int64_t count,
                   enum case_tensor tensor);

#endif
