/* sample.c: what draws tokens is told. What it does with that is the operation draw of op.h, on the
 * device where the logits are; the loop that continues prompts is sample_run.c. */
#include "sample.h"

#include <math.h>

struct sample_options sample_options_default(void)
{
    return (struct sample_options){
        .temperature = 0.8, .top_p = 0.95, .repetition_penalty = 1.0, .max_tokens = 256};
}

plx_status sample_options_check(const struct sample_options *options, struct error *err)
{
    REQUIRE(err, options->temperature >= 0.0 && isfinite(options->temperature),
            PLX_INVALID_ARGUMENT, "temperature is %g but must be 0 (greedy) or above",
            options->temperature);
    REQUIRE(err, options->top_k >= 0, PLX_INVALID_ARGUMENT,
            "top-k is %lld but must be 0 (off) or above", (long long)options->top_k);
    REQUIRE(err, options->top_p > 0.0 && options->top_p <= 1.0, PLX_INVALID_ARGUMENT,
            "top-p is %g but must be above 0 and at most 1 (off)", options->top_p);
    REQUIRE(err, options->min_p >= 0.0 && options->min_p <= 1.0, PLX_INVALID_ARGUMENT,
            "min-p is %g but must be 0 (off) to 1", options->min_p);
    REQUIRE(err, options->repetition_penalty > 0.0 && isfinite(options->repetition_penalty),
            PLX_INVALID_ARGUMENT, "repetition penalty is %g but must be above 0; 1 is off",
            options->repetition_penalty);
    REQUIRE(err, options->max_tokens >= 0, PLX_INVALID_ARGUMENT,
            "the number of new tokens is %lld but must be 0 or above",
            (long long)options->max_tokens);
    REQUIRE(err, options->side >= 0 && options->cache_tokens >= 0, PLX_INVALID_ARGUMENT,
            "%lld texts side by side with %lld tokens in the cache: must be 0 (all) or above",
            (long long)options->side, (long long)options->cache_tokens);
    return PLX_OK;
}

struct draw_numbers sample_numbers(const struct sample_options *options, struct rng *rng)
{
    const bool greedy = options->temperature == 0.0, floor = options->min_p > 0.0;
    return (struct draw_numbers){.uniform = greedy ? 0.0 : rng_uniform(rng),
                                 .temperature = options->temperature,
                                 .top_k = (double)options->top_k,
                                 .top_p = options->top_p,
                                 .floor = floor ? options->temperature * log(options->min_p)
                                                : -INFINITY};
}
