/* seeded.c: see seeded.h. The generator adds an odd constant and scrambles the sum by
 * multiplications and shifts, which passes for random in tests and needs no more state than one
 * integer. */
#include "seeded.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t seeded_u64(struct seeded *random)
{
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

struct seeded seeded_make(uint64_t seed, uint64_t stream)
{
    struct seeded random = {seed};
    random.state = seeded_u64(&random) ^ (stream * 0xd1342543de82ef95u);
    seeded_u64(&random);
    return random;
}

double seeded_uniform(struct seeded *random)
{
    return (double)(seeded_u64(random) >> 11) * 0x1p-53;
}

int64_t seeded_between(struct seeded *random, int64_t first, int64_t last)
{
    return first + (int64_t)(seeded_uniform(random) * (double)(last - first + 1));
}

double seeded_normal(struct seeded *random)
{
    double radius = sqrt(-2 * log(1 - seeded_uniform(random)));
    return radius * cos(6.283185307179586 * seeded_uniform(random));
}

struct test_options test_options_read(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    struct test_options options = {.program = slash ? slash + 1 : argv[0], .seed = 1};
    for (int n = 1; n < argc; n++) {
        if (strcmp(argv[n], "--only") == 0 && n + 1 < argc) {
            options.only = argv[++n];
        } else if (strcmp(argv[n], "--seed") == 0 && n + 1 < argc) {
            options.seed = strtoull(argv[++n], NULL, 10);
        } else if (strcmp(argv[n], "--sanitize") == 0) {
            options.sanitize = true;
        } else {
            fprintf(stderr, "usage: %s [--only SUBSTRING,...] [--seed N] [--sanitize]\n",
                    options.program);
            exit(2);
        }
    }
    printf("%s: seed %llu\n", options.program, (unsigned long long)options.seed);
    return options;
}

bool test_options_match(const struct test_options *options, const char *name)
{
    for (const char *one = options->only; one;) {
        const size_t length = strcspn(one, ",");
        if (memmem(name, strlen(name), one, length)) return true;
        if (!one[length]) return false;
        one += length + 1;
    }
    return true;
}
