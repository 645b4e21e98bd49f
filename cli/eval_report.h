/* eval_report.h: results of benchmarks: of a model, or of a file that an earlier run printed. */
#ifndef CLI_EVAL_REPORT_H
#define CLI_EVAL_REPORT_H

#include "model_run.h"
#include "tasks/task.h"
#include "train.h"

struct eval_report {
    char model[4096]; /* the folder */
    struct task_result *results;
    int count;
};

struct eval_report_options {
    const struct text_list *tasks; /* NAME, FILE.jsonl or NAME=FILE each */
    const char *folder;            /* where the files of names lie */
    int64_t limit;                 /* documents of a task; 0: all */
    struct task_options task;
    bool quiet; /* no progress line */
};

/* The caller clears report, also after a failure. */
plx_status eval_report_run(struct model_run *run, const struct eval_report_options *options,
                           struct eval_report *report, struct error *err);
plx_status eval_report_read(const char *path, struct eval_report *report, struct error *err);
void eval_report_clear(struct eval_report *report);

void eval_report_print(const struct eval_report *report);
plx_status eval_report_print_json(const struct eval_report *report, struct error *err);
/* The tasks of two reports side by side: in the same order, of the same documents. */
plx_status eval_report_compare(const struct eval_report *a, const struct eval_report *b, bool json,
                               struct error *err);

#endif
