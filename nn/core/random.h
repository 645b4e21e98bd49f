/* random.h: the one source of randomness: a counter-based generator whose state is two integers, so
 * that checkpoints can hold it and any stream can be repeated from its seed. */
#ifndef NN_RANDOM_H
#define NN_RANDOM_H

#include <stdint.h>

struct rng {
    uint64_t seed;    /* which sequence */
    uint64_t counter; /* how many 64-bit words were drawn */
};

/* Independent streams of one seed: weights, data order, sampling. */
struct rng rng_make(uint64_t seed, uint64_t stream);
uint64_t rng_u64(struct rng *rng);
/* Uniform in [0, bound), without bias; bound > 0. */
uint64_t rng_below(struct rng *rng, uint64_t bound);
/* Uniform in [0, 1), 53 bits. */
double rng_uniform(struct rng *rng);
/* Standard normal (Box-Muller, one value a call, two words). */
double rng_normal(struct rng *rng);

#endif
