/* task_compare.c: whether two models differ on the same documents by more than chance.
 *
 * Both models see every document, so what counts is the difference document by document: most of
 * the spread between documents is common to both and falls out. */
#include <math.h>
#include <string.h>

#include "tasks/task_parts.h"

static plx_status check_pair(const struct task_result *a, const struct task_result *b,
                             struct error *err)
{
    REQUIRE(err, a->task == b->task, PLX_INVALID_ARGUMENT, "%s is a result of %s but %s one of %s",
            a->path, a->task->name, b->path, b->task->name);
    REQUIRE(err, a->hash == b->hash, PLX_INVALID_ARGUMENT,
            "%s: %s and %s were not the same file when they were scored (%016llx, %016llx)",
            a->task->name, a->path, b->path, (unsigned long long)a->hash,
            (unsigned long long)b->hash);
    REQUIRE(err, a->documents == b->documents, PLX_INVALID_ARGUMENT,
            "%s: %lld documents were scored for one model but %lld for the other", a->task->name,
            (long long)a->documents, (long long)b->documents);
    return PLX_OK;
}

/* Two-sided: of the documents that only one model has right, a fair coin says which. Twice the
 * probability of at most the smaller count of heads, at most 1. */
static double mcnemar_exact(int64_t only_a, int64_t only_b)
{
    const int64_t n = only_a + only_b, few = only_a < only_b ? only_a : only_b;
    const double all = lgamma((double)n + 1) - (double)n * M_LN2;
    double sum = 0;
    for (int64_t k = 0; k <= few; k++)
        sum += exp(all - lgamma((double)k + 1) - lgamma((double)(n - k) + 1));
    return fmin(1, 2 * sum);
}

static double compare_right(const struct task_result *a, const struct task_result *b, int index)
{
    int64_t only_a = 0, only_b = 0;
    for (int64_t d = 0; d < a->documents; d++) {
        only_a += a->values[index][d] > b->values[index][d];
        only_b += a->values[index][d] < b->values[index][d];
    }
    return mcnemar_exact(only_a, only_b);
}

plx_status task_compare(const struct task_result *a, const struct task_result *b, int index,
                        struct task_difference *difference, struct error *err)
{
    TRY(check_pair(a, b, err));
    const struct metric *metric = a->task->scoring->metrics[index];
    double weights, b_weights, squares = 0;
    const double mean_a = task_mean(a, index, &weights), mean_b = task_mean(b, index, &b_weights);
    const double slope_a = metric->slope(mean_a), slope_b = metric->slope(mean_b);
    for (int64_t d = 0; d < a->documents; d++) {
        double rest_a = a->values[index][d] - mean_a * task_weight(a, index, d),
               rest_b = b->values[index][d] - mean_b * task_weight(b, index, d);
        double rest = slope_a * rest_a - slope_b * rest_b;
        squares += rest * rest;
    }
    const double error = task_standard_error(squares, a->documents, weights);
    const double gap = metric->finish(mean_a) - metric->finish(mean_b);
    double p = gap == 0 ? 1 : erfc(fabs(gap) / error * M_SQRT1_2);
    if (metric->right_or_wrong) p = compare_right(a, b, index);
    *difference = (struct task_difference){.name = metric->name,
                                           .a = metric->finish(mean_a),
                                           .b = metric->finish(mean_b),
                                           .error = error,
                                           .p = p,
                                           .test = metric->right_or_wrong ? "McNemar, exact"
                                                                          : "paired, normal"};
    return PLX_OK;
}
