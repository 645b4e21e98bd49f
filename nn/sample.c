/* sample.c: from logits to a token.
 *
 * The chain: repetition penalty, then weights exp((logit - largest) / temperature), then the
 * filters. Top-k, top-p and min-p each keep a prefix of the candidates in falling order of logit
 * (ties: rising id), so together they keep the shortest of the prefixes:
 *
 *     top-k   the first k
 *     top-p   up to and including the one whose cumulative probability reaches p, of those top-k
 * kept min-p   while the probability is at least min_p times the first one's
 *
 * Candidates come off a heap one at a time, so only what is kept is ever put in order; without
 * filters nothing is. One uniform number a draw, none where greedy: a stream is repeated by its
 * seed alone.
 * The loop that continues prompts is sample_run.c. */
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

/* ---- One draw ---- */

/* Every token that occurs in the history is made less likely once, however often it occurs. */
static void sample_penalise(float *logits, int64_t vocab, const int32_t *history, int64_t count,
                            double penalty, struct sample_candidate *seen)
{
    if (penalty == 1.0) return;
    for (int64_t i = 0; i < vocab; i++) seen[i].id = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t id = history[i];
        if (id < 0 || id >= vocab || seen[id].id != 0) continue;
        seen[id].id = 1;
        double logit = logits[id];
        logits[id] = (float)(logit > 0.0 ? logit / penalty : logit * penalty);
    }
}

static int32_t sample_argmax(const float *logits, int64_t vocab)
{
    float largest = logits[0];
    int32_t best = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 1; i < vocab; i++) largest = logits[i] > largest ? logits[i] : largest;
    while (logits[best] != largest) best++;
    return best;
}

/* The order of candidates: falling logit, rising id. It is total, so the result of sorting is
 * unique. */
static bool sample_before(struct sample_candidate a, struct sample_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sample_sift(struct sample_candidate *heap, int64_t count, int64_t parent)
{
    struct sample_candidate moving = heap[parent];
    for (;;) {
        int64_t child = 2 * parent + 1;
        if (child >= count) break;
        if (child + 1 < count && sample_before(heap[child + 1], heap[child])) child++;
        if (!sample_before(heap[child], moving)) break;
        heap[parent] = heap[child];
        parent = child;
    }
    heap[parent] = moving;
}

static void sample_heapify(struct sample_candidate *work, const float *logits, int64_t vocab)
{
    for (int64_t i = 0; i < vocab; i++) work[i] = (struct sample_candidate){logits[i], (int32_t)i};
    for (int64_t i = vocab / 2 - 1; i >= 0; i--) sample_sift(work, vocab, i);
}

/* The first of a heap of count; afterwards it sits at heap[count - 1], so those taken lie in
 * falling order from the end of the array. */
static struct sample_candidate sample_pop(struct sample_candidate *heap, int64_t count)
{
    struct sample_candidate first = heap[0];
    heap[0] = heap[count - 1];
    sample_sift(heap, count - 1, 0);
    heap[count - 1] = first;
    return first;
}

/* Sum of the weights that top-p's share refers to: of the first k, or of all. */
static double sample_total(struct sample_candidate *work, const float *logits, int64_t vocab,
                           int64_t kept, double largest, double temperature)
{
    double total = 0.0;
    if (kept == vocab) {
        for (int64_t i = 0; i < vocab; i++) total += exp((logits[i] - largest) / temperature);
        return total;
    }
    for (int64_t i = 0; i < kept; i++)
        total += exp((work[vocab - 1 - i].logit - largest) / temperature);
    return total;
}

/* Draws from the prefix that all filters keep. */
static int32_t sample_filtered(const float *logits, int64_t vocab,
                               const struct sample_options *options, double uniform,
                               struct sample_candidate *work)
{
    sample_heapify(work, logits, vocab);
    bool limited = options->top_k > 0 && options->top_k < vocab;
    int64_t kept = limited ? options->top_k : vocab;
    int64_t taken = 0;
    double largest = work[0].logit;
    while (limited && taken < kept) sample_pop(work, vocab - taken++);
    double total = sample_total(work, logits, vocab, kept, largest, options->temperature);

    double sum = 0.0;
    int64_t count = 0;
    while (count < kept && (options->top_p >= 1.0 || sum < options->top_p * total)) {
        if (count == taken) sample_pop(work, vocab - taken++);
        double weight = exp((work[vocab - 1 - count].logit - largest) / options->temperature);
        if (weight < options->min_p) break; /* the first one's weight is 1 */
        sum += weight;
        count++;
    }
    /* Summing again in the same order reaches the same sum, so the loop ends inside the prefix
     * unless uniform * sum rounds up to it. */
    double target = uniform * sum, reached = 0.0;
    for (int64_t i = 0; i < count; i++) {
        reached += exp((work[vocab - 1 - i].logit - largest) / options->temperature);
        if (reached > target) return work[vocab - 1 - i].id;
    }
    return work[vocab - 1].id;
}

/* Sums of the weights of neighbours: the draw is found with the exponentials of one of them, so
 * that those of a large vocabulary are computed once. */
enum { SAMPLE_BLOCKS = 256 };

static int64_t sample_block(int64_t vocab)
{
    return (vocab + SAMPLE_BLOCKS - 1) / SAMPLE_BLOCKS;
}

static void sample_weigh(const float *logits, int64_t vocab, double largest, double temperature,
                         double sums[SAMPLE_BLOCKS])
{
    const int64_t length = sample_block(vocab);
    for (int64_t b = 0; b < SAMPLE_BLOCKS; b++) {
        const int64_t end = (b + 1) * length < vocab ? (b + 1) * length : vocab;
        sums[b] = 0;
        for (int64_t i = b * length; i < end; i++)
            sums[b] += exp((logits[i] - largest) / temperature);
    }
}

/* Draws from all candidates, in the order of their ids: first a block, then one of it. */
static int32_t sample_unfiltered(const float *logits, int64_t vocab, double temperature,
                                 double uniform)
{
    const int64_t length = sample_block(vocab);
    int32_t likeliest = sample_argmax(logits, vocab);
    double sums[SAMPLE_BLOCKS], largest = logits[likeliest], sum = 0.0, reached = 0.0;
    sample_weigh(logits, vocab, largest, temperature, sums);
    for (int64_t b = 0; b < SAMPLE_BLOCKS; b++) sum += sums[b];
    const double target = uniform * sum;
    for (int64_t b = 0; b < SAMPLE_BLOCKS; reached += sums[b++]) {
        if (reached + sums[b] <= target) continue;
        double within = reached;
        for (int64_t i = b * length; i < vocab && i < (b + 1) * length; i++) {
            within += exp((logits[i] - largest) / temperature);
            if (within > target) return (int32_t)i;
        }
    }
    return likeliest;
}

int32_t sample_token(float *logits, int64_t vocab, const int32_t *history, int64_t history_count,
                     const struct sample_options *options, struct rng *rng,
                     struct sample_candidate *work)
{
    sample_penalise(logits, vocab, history, history_count, options->repetition_penalty, work);
    if (options->temperature == 0.0) return sample_argmax(logits, vocab);
    double uniform = rng_uniform(rng);
    bool filters = options->top_k > 0 || options->top_p < 1.0 || options->min_p > 0.0;
    return filters ? sample_filtered(logits, vocab, options, uniform, work)
                   : sample_unfiltered(logits, vocab, options->temperature, uniform);
}
