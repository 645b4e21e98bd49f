/* seeded.h: random numbers for tests: a small generator whose whole state is its seed, so that a
 * failing test is repeated from the number it printed. Tests take `--seed N`, `--only SUBSTRING`
 * and
 * `--sanitize`. */
#ifndef TEST_SEEDED_H
#define TEST_SEEDED_H

#include <stdbool.h>
#include <stdint.h>

struct seeded {
    uint64_t state;
};

/* An independent stream: the same seed with another number gives unrelated values. */
struct seeded seeded_make(uint64_t seed, uint64_t stream);
uint64_t seeded_u64(struct seeded *random);
/* Uniform in [0, 1). */
double seeded_uniform(struct seeded *random);
/* Uniform over first .. last, both included. */
int64_t seeded_between(struct seeded *random, int64_t first, int64_t last);
/* Standard normal. */
double seeded_normal(struct seeded *random);

/* What every test program accepts on its command line. */
struct test_options {
    const char *program;
    const char *only; /* run only what contains one of these, with commas between; NULL: all */
    uint64_t seed;
    bool sanitize; /* a small subset, for tools that slow everything down */
};

/* Reads the command line, prints the seed, and exits with 2 on an unknown word. */
struct test_options test_options_read(int argc, char **argv);
bool test_options_match(const struct test_options *options, const char *name);

#endif
