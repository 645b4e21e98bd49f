/* random.c: a counter hashed twice by the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
 * Counter-based generators need no state beyond the counter, so any position of any stream can be
 * reached at once. */
#include "core/random.h"

#include <math.h>

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

struct rng rng_make(uint64_t seed, uint64_t stream)
{
    struct rng rng = {mix(mix(seed + UINT64_C(0x9e3779b97f4a7c15)) ^ mix(stream + 1)), 0};
    return rng;
}

uint64_t rng_u64(struct rng *rng)
{
    rng->counter++;
    return mix(mix(rng->seed + rng->counter * UINT64_C(0x9e3779b97f4a7c15)) ^ rng->seed);
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    /* Words under the remainder of 2^64 / bound would favour small results; draw again. */
    uint64_t reject = (0 - bound) % bound, word;
    do word = rng_u64(rng);
    while (word < reject);
    return word % bound;
}

double rng_uniform(struct rng *rng)
{
    return (double)(rng_u64(rng) >> 11) * 0x1p-53;
}

double rng_normal(struct rng *rng)
{
    double radius = sqrt(-2.0 * log(1.0 - rng_uniform(rng)));
    return radius * cos(6.283185307179586476925286766559 * rng_uniform(rng));
}
