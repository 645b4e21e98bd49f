/* task.h: benchmarks of language models, scored as lm-evaluation-harness scores them.
 *
 *     struct task_set set = {0};                     documents of a file
 *     struct task_result result = {0};
 *     TRY(task_load("arc_easy", "ARC-Easy-Test.jsonl", 0, &set, err));
 *     TRY(task_run(model, tokenizer, &set, &options, progress, user, &result, err));
 *     task_metric(&result, 0, &value);               "acc", 0.61, standard error 0.01
 *
 * A document is one or more requests (context, continuation), and a request's score is the sum of
 * the log-probabilities of the continuation's tokens. Reading order: task_table.c (which tasks
 * there are), task_layouts.c (from JSON to documents), task_requests.c (from texts to tokens),
 * task_run.c (from tokens to scores), task_metrics.c, task_compare.c, task_json.c. */
#ifndef NN_TASK_H
#define NN_TASK_H

#include <jansson.h>

#include "model.h"
#include "tokenizer/tokenizer.h"

/* ---- Documents ---- */

struct task; /* a row of the table in task_table.c */

struct task_choice {
    char *context;      /* may be empty */
    char *continuation; /* with the space that it begins with */
    double characters;  /* of the choice without that space, */
    double bytes;       /* and in UTF-8 */
};

struct task_document {
    long long line; /* of the file */
    struct task_choice *choices;
    int count;
    int gold;            /* the right choice */
    double words, bytes; /* of the page that a text was made from; where a whole text is scored */
};

struct task_set {
    const struct task *task;
    char path[4096];
    uint64_t hash; /* XXH64 of the file */
    struct task_document *documents;
    int64_t count, capacity;
};

enum { TASK_MAX_CHOICES = 256, TASK_MAX_METRICS = 3 };

/* name NULL: found by the file's name, or by the fields of its first line. limit 0: all documents.
 * The caller clears set, also after a failure. */
plx_status task_load(const char *name, const char *path, int64_t limit, struct task_set *set,
                     struct error *err);
/* The same from memory. */
plx_status task_parse(const char *name, const char *json, size_t size, const char *path,
                      int64_t limit, struct task_set *set, struct error *err);
void task_set_clear(struct task_set *set);
const char *task_name(const struct task *task);
/* Name number index of the table; NULL behind the last. */
const char *task_name_at(int index);
/* The file of a named task in a folder: NAME.jsonl, or what else it is commonly called. */
plx_status task_find_file(const char *name, const char *folder, char *path, size_t size,
                          struct error *err);

/* ---- Scores ---- */

struct task_options {
    int64_t context; /* most tokens the model reads; 0: the model's context */
    int64_t rows;    /* longest requests that one batch holds; as many shorter ones as fill it */
};

/* Called after every batch with the tokens that went through the model, and all. */
typedef void (*task_progress)(void *user, int64_t tokens, int64_t total);

struct task_result {
    const struct task *task;
    char path[4096];
    uint64_t hash;
    int64_t documents, tokens; /* that the model read */
    double seconds;
    double *values[TASK_MAX_METRICS];  /* [documents] of each of the task's metrics */
    double *weights[TASK_MAX_METRICS]; /* NULL: all 1 */
};

plx_status task_run(struct model *model, const struct tokenizer *tokenizer,
                    const struct task_set *set, const struct task_options *options,
                    task_progress progress, void *user, struct task_result *result,
                    struct error *err);
void task_result_clear(struct task_result *result);

struct task_value {
    const char *name;
    double value;
    double error; /* standard error of the value; NaN for one document */
    bool percent; /* a share, as accuracies are */
};
/* Metric number index of a result; false behind the last. */
bool task_metric(const struct task_result *result, int index, struct task_value *value);

/* A result as JSON with the values of every document, and back. */
json_t *task_result_write(const struct task_result *result);
plx_status task_result_read(const json_t *object, const char *where, struct task_result *result,
                            struct error *err);

/* ---- Two models on the same documents ---- */

struct task_difference {
    const char *name;
    double a, b;
    double error; /* standard error of a - b, from the differences of single documents */
    double p;     /* that the models are equally good and differ so much by chance */
    const char *test;
};
/* Metric number index, one that task_metric has, of two results, which must be of the same
 * documents. Right and wrong answers are compared by McNemar's exact test, other values by the
 * normal approximation of their paired differences. */
plx_status task_compare(const struct task_result *a, const struct task_result *b, int index,
                        struct task_difference *difference, struct error *err);

#endif
