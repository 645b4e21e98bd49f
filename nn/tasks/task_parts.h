/* task_parts.h: what the files of the tasks share: the rows of the table, layouts of files, metrics
 * and requests. */
#ifndef NN_TASK_PARTS_H
#define NN_TASK_PARTS_H

#include "io/fields.h"
#include "tasks/task.h"

/* ---- task_metrics.c ---- */

/* A document's score times a weight; the metric is finish(sum of values / sum of weights). */
struct metric {
    const char *name;
    double (*value)(const struct task_document *document, const struct score *scores);
    double (*weight)(const struct task_document *document); /* NULL: 1 */
    double (*finish)(double mean);
    double (*slope)(double mean); /* derivative of finish, for the standard error */
    bool right_or_wrong;          /* values are 0 and 1 */
};

/* What is measured, of documents of several choices or of one. */
struct scoring {
    const struct metric *metrics[TASK_MAX_METRICS + 1]; /* ends with NULL */
    bool one_choice;
    bool whole_text; /* the choice has no context and is scored in windows as long as the model's */
};
extern const struct scoring scoring_accuracy, scoring_accuracy_normed, scoring_last_word,
    scoring_whole_text;

/* Zeroed values for so many documents; cleared where it fails. */
plx_status task_result_make(const struct task *task, const char *path, uint64_t hash,
                            int64_t documents, struct task_result *result, struct error *err);
/* The metrics of every document from the scores of its choices, document after document. */
void task_result_fill(const struct task_set *set, const struct score *scores,
                      struct task_result *result);
double task_weight(const struct task_result *result, int index, int64_t document);
/* Sum of a metric's values over that of its weights. */
double task_mean(const struct task_result *result, int index, double *weights);
/* Of a mean over weights, from the sum of squares of what remains of each document; NaN for one. */
double task_standard_error(double squares, int64_t documents, double weights);

/* ---- task_table.c ---- */

/* opening and ending stand around the question; a file's own question that has them already keeps
 * its own. */
struct task {
    const char *name;
    const char *alias;  /* what a file's name may begin with besides; or NULL */
    const char *family; /* of the public layouts that are read for it; NULL: none */
    const struct scoring *scoring;
    const char *opening, *ending;
};
/* The row of that name, or NULL. */
const struct task *task_find(const char *name);

/* ---- task_layouts.c ---- */

struct task_line {
    struct fields fields; /* where is "FILE:LINE" */
    const struct layout *layout;
    const struct task *task;
    struct task_document *document;
};

/* A layout is recognised by its fields, all of which must be there. */
struct layout {
    const char *fields[7]; /* ends with NULL */
    const char *family;    /* NULL: fits every task with as many choices */
    bool one_choice;
    const char *task; /* what such a file is where nothing else tells; NULL: that must be told */
    plx_status (*read)(const struct task_line *line);
};
/* The layout of an object for a task, or (*task NULL) for any, which is then set. */
plx_status layout_find(const json_t *object, const char *where, const struct task **task,
                       const struct layout **layout, struct error *err);

/* ---- task_requests.c ---- */

struct request {
    int64_t first;  /* its tokens in requests.ids: context and continuation */
    int32_t length; /* how many of them the model reads: all but the last */
    int32_t scored; /* how many at the end are the continuation */
    int64_t slot;   /* document and choice, counted through */
    int64_t document;
};
struct requests {
    int32_t *ids;
    int64_t id_count, id_capacity;
    struct request *items;
    int64_t count, capacity;
    int64_t slots;
};
/* Requests for every choice of every document, for a model that reads context tokens at most and
 * whose texts begin with prefix. */
plx_status requests_create(const struct task_set *set, const struct tokenizer *tokenizer,
                           int32_t prefix, int64_t context, struct requests *requests,
                           struct error *err);
void requests_clear(struct requests *requests);

/* Scores [slots], added up in the order of a request's tokens. */
plx_status requests_run(struct model *model, const struct requests *requests, int64_t rows,
                        task_progress progress, void *user, int64_t *tokens, struct score *scores,
                        struct error *err);

#endif
