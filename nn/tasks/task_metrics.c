/* task_metrics.c: from the scores of single tokens' sums to figures with standard errors.
 *
 * Every figure is finish(R) with R = sum of values / sum of weights over documents. Its standard
 * error is |finish'(R)| times that of R, which is sqrt(n/(n-1) sum (value - R weight)^2) / sum of
 * weights: for weights of 1 the standard error of a mean. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/task_parts.h"

/* ---- Values of a document ---- */

/* 1 where the right choice has the largest score over size; of equal ones the first is taken. */
static double picks_gold(const struct task_document *document, const struct score *scores,
                         double (*size)(const struct task_choice *choice))
{
    int best = 0;
    double largest = -INFINITY;
    for (int c = 0; c < document->count; c++) {
        double score = scores[c].logprob / size(&document->choices[c]);
        if (!(score > largest)) continue;
        largest = score;
        best = c;
    }
    return best == document->gold;
}

static double size_one(const struct task_choice *choice)
{
    (void)choice;
    return 1;
}

static double size_characters(const struct task_choice *choice)
{
    return choice->characters;
}

static double size_bytes(const struct task_choice *choice)
{
    return choice->bytes;
}

static double value_acc(const struct task_document *document, const struct score *scores)
{
    return picks_gold(document, scores, size_one);
}

static double value_acc_norm(const struct task_document *document, const struct score *scores)
{
    return picks_gold(document, scores, size_characters);
}

static double value_acc_bytes(const struct task_document *document, const struct score *scores)
{
    return picks_gold(document, scores, size_bytes);
}

static double value_greedy(const struct task_document *document, const struct score *scores)
{
    (void)document;
    return scores[0].greedy;
}

static double value_logprob(const struct task_document *document, const struct score *scores)
{
    (void)document;
    return scores[0].logprob;
}

static double weight_words(const struct task_document *document)
{
    return document->words;
}

static double weight_bytes(const struct task_document *document)
{
    return document->bytes;
}

/* ---- Figures of means ---- */

static double finish_mean(double mean)
{
    return mean;
}

static double slope_mean(double mean)
{
    (void)mean;
    return 1;
}

static double finish_perplexity(double mean)
{
    return exp(-mean);
}

static double finish_bits(double mean)
{
    return -mean / M_LN2;
}

static double slope_bits(double mean)
{
    (void)mean;
    return 1 / M_LN2;
}

/* The slope of a perplexity is, but for its sign, the perplexity. */
static const struct metric acc = {"acc", value_acc, NULL, finish_mean, slope_mean, true},
                           acc_norm = {"acc_norm",  value_acc_norm, NULL,
                                       finish_mean, slope_mean,     true},
                           acc_bytes = {"acc_bytes", value_acc_bytes, NULL,
                                        finish_mean, slope_mean,      true},
                           greedy = {"acc", value_greedy, NULL, finish_mean, slope_mean, true},
                           perplexity = {"perplexity",      value_logprob,     NULL,
                                         finish_perplexity, finish_perplexity, false},
                           word_perplexity = {"word_perplexity", value_logprob,     weight_words,
                                              finish_perplexity, finish_perplexity, false},
                           byte_perplexity = {"byte_perplexity", value_logprob,     weight_bytes,
                                              finish_perplexity, finish_perplexity, false},
                           bits_per_byte = {"bits_per_byte", value_logprob, weight_bytes,
                                            finish_bits,     slope_bits,    false};

const struct scoring scoring_accuracy = {.metrics = {&acc}};
const struct scoring scoring_accuracy_normed = {.metrics = {&acc, &acc_norm, &acc_bytes}};
const struct scoring scoring_last_word = {.metrics = {&greedy, &perplexity}, .one_choice = true};
const struct scoring scoring_whole_text = {
    .metrics = {&word_perplexity, &byte_perplexity, &bits_per_byte},
    .one_choice = true,
    .whole_text = true};

/* ---- Results ---- */

void task_result_clear(struct task_result *result)
{
    for (int m = 0; m < TASK_MAX_METRICS; m++) {
        free(result->values[m]);
        free(result->weights[m]);
    }
    *result = (struct task_result){0};
}

plx_status task_result_make(const struct task *task, const char *path, uint64_t hash,
                            int64_t documents, struct task_result *result, struct error *err)
{
    *result = (struct task_result){.task = task, .hash = hash, .documents = documents};
    snprintf(result->path, sizeof result->path, "%s", path);
    for (int m = 0; task->scoring->metrics[m] != NULL; m++) {
        const bool weighted = task->scoring->metrics[m]->weight != NULL;
        result->values[m] = calloc((size_t)documents, sizeof(double));
        if (weighted) result->weights[m] = calloc((size_t)documents, sizeof(double));
        if (result->values[m] != NULL && (!weighted || result->weights[m] != NULL)) continue;
        task_result_clear(result);
        return error_set(err, PLX_OUT_OF_MEMORY, "no memory for the scores of %lld documents",
                         (long long)documents);
    }
    return PLX_OK;
}

void task_result_fill(const struct task_set *set, const struct score *scores,
                      struct task_result *result)
{
    for (int m = 0; set->task->scoring->metrics[m] != NULL; m++) {
        const struct metric *metric = set->task->scoring->metrics[m];
        int64_t slot = 0;
        for (int64_t d = 0; d < set->count; d++) {
            result->values[m][d] = metric->value(&set->documents[d], scores + slot);
            if (metric->weight != NULL) result->weights[m][d] = metric->weight(&set->documents[d]);
            slot += set->documents[d].count;
        }
    }
}

double task_weight(const struct task_result *result, int index, int64_t document)
{
    return result->weights[index] != NULL ? result->weights[index][document] : 1;
}

double task_mean(const struct task_result *result, int index, double *weights)
{
    double sum = 0;
    *weights = 0;
    for (int64_t d = 0; d < result->documents; d++) {
        sum += result->values[index][d];
        *weights += task_weight(result, index, d);
    }
    return sum / *weights;
}

double task_standard_error(double squares, int64_t documents, double weights)
{
    const double n = (double)documents;
    return documents > 1 ? sqrt(squares * n / (n - 1)) / weights : NAN;
}

bool task_metric(const struct task_result *result, int index, struct task_value *value)
{
    if (index >= TASK_MAX_METRICS || result->task->scoring->metrics[index] == NULL) return false;
    const struct metric *metric = result->task->scoring->metrics[index];
    double weights, squares = 0, mean = task_mean(result, index, &weights);
    for (int64_t d = 0; d < result->documents; d++) {
        double rest = result->values[index][d] - mean * task_weight(result, index, d);
        squares += rest * rest;
    }
    double error = task_standard_error(squares, result->documents, weights);
    *value = (struct task_value){.name = metric->name,
                                 .value = metric->finish(mean),
                                 .error = fabs(metric->slope(mean)) * error,
                                 .percent = metric->right_or_wrong};
    return true;
}
