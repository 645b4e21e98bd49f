/* eval_report.c: see eval_report.h. */
#include "eval_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "io/fields.h"
#include "io/file.h"
#include "progress.h"

/* ---- From a model ---- */

/* A name that no task has is met with the nearest that one has. */
static plx_status check_name(const char *name, struct error *err)
{
    const char *names[64];
    int count = 0;
    for (; count < COUNT_OF(names) - 1 && task_name_at(count) != NULL; count++) {
        names[count] = task_name_at(count);
        if (strcmp(names[count], name) == 0) return PLX_OK;
    }
    names[count] = NULL;
    return error_set(err, PLX_INVALID_ARGUMENT,
                     "--task: there is no task \"%s\"; the nearest is \"%s\"", name,
                     nearest_word(name, names));
}

/* NAME=FILE, a file by its looks, or a name. */
static plx_status load_task(const char *word, const struct eval_report_options *options,
                            struct task_set *set, struct error *err)
{
    const char *equals = strchr(word, '='), *suffix = strrchr(word, '.');
    char name[64] = "", path[4096];
    if (equals == NULL &&
        (strchr(word, '/') != NULL || (suffix != NULL && strcmp(suffix, ".jsonl") == 0)))
        return task_load(NULL, word, options->limit, set, err);
    snprintf(name, sizeof name, "%.*s", equals != NULL ? (int)(equals - word) : (int)strlen(word),
             word);
    TRY(check_name(name, err));
    if (equals != NULL) return task_load(name, equals + 1, options->limit, set, err);
    TRY(task_find_file(name, options->folder, path, sizeof path, err));
    return task_load(name, path, options->limit, set, err);
}

struct task_watch {
    struct progress progress;
    const char *name;
};

static void on_tokens(void *user, int64_t tokens, int64_t total)
{
    struct task_watch *watch = user;
    progress_share(&watch->progress, watch->name, tokens, total);
}

static plx_status run_word(struct model_run *run, const char *word,
                           const struct eval_report_options *options, struct task_result *result,
                           struct error *err)
{
    struct task_set set = {0};
    plx_status status = load_task(word, options, &set, err);
    if (status == PLX_OK) {
        struct task_watch watch = {progress_make(1), task_name(set.task)};
        watch.progress.terminal = watch.progress.terminal && !options->quiet;
        status = task_run(run->model, run->tokenizer, &set, &options->task, on_tokens, &watch,
                          result, err);
        progress_end(&watch.progress);
    }
    task_set_clear(&set);
    return status;
}

static plx_status make_room(struct eval_report *report, size_t count, struct error *err)
{
    report->results = calloc(count > 0 ? count : 1, sizeof *report->results);
    REQUIRE(err, report->results != NULL, PLX_OUT_OF_MEMORY, "no memory for %zu results", count);
    return PLX_OK;
}

plx_status eval_report_run(struct model_run *run, const struct eval_report_options *options,
                           struct eval_report *report, struct error *err)
{
    *report = (struct eval_report){0};
    snprintf(report->model, sizeof report->model, "%s", run->folder);
    REQUIRE(err, run->tokenizer != NULL, PLX_BAD_DATA,
            "%s: holds no tokenizer, which a task's texts need", run->folder);
    TRY(make_room(report, (size_t)options->tasks->count, err));
    for (int t = 0; t < options->tasks->count; t++, report->count++)
        TRY(run_word(run, options->tasks->items[t], options, &report->results[t], err));
    return PLX_OK;
}

void eval_report_clear(struct eval_report *report)
{
    for (int t = 0; t < report->count; t++) task_result_clear(&report->results[t]);
    free(report->results);
    *report = (struct eval_report){0};
}

/* ---- From a file ---- */

static plx_status read_tasks(const json_t *root, const char *path, struct eval_report *report,
                             struct error *err)
{
    const struct fields fields = {root, path, err};
    const char *model;
    TRY(fields_require(&fields, "model"));
    TRY(fields_require(&fields, "tasks"));
    TRY(fields_text(&fields, "model", &model));
    const json_t *tasks = fields_get(&fields, "tasks"), *task;
    size_t index;
    if (!json_is_array(tasks))
        return fields_refuse(&fields, "tasks", tasks,
                             "the list of results that --task --json prints");
    snprintf(report->model, sizeof report->model, "%s", model);
    TRY(make_room(report, json_array_size(tasks), err));
    json_array_foreach(tasks, index, task)
    {
        char where[4200];
        snprintf(where, sizeof where, "%s: tasks[%zu]", path, index);
        TRY(task_result_read(task, where, &report->results[index], err));
        report->count++;
    }
    return PLX_OK;
}

plx_status eval_report_read(const char *path, struct eval_report *report, struct error *err)
{
    struct file_map map;
    json_t *root = NULL;
    *report = (struct eval_report){0};
    TRY(file_map(path, &map, err));
    plx_status status = fields_parse((const char *)map.data, map.size, path, &root, err);
    file_unmap(&map);
    if (status == PLX_OK) status = read_tasks(root, path, report, err);
    json_decref(root);
    return status;
}

/* ---- Printing ---- */

/* Shares as percentages. */
static const char *format_value(double value, bool percent, char text[32])
{
    snprintf(text, 32, percent ? "%.2f %%" : "%.4f", percent ? 100 * value : value);
    return text;
}

void eval_report_print(const struct eval_report *report)
{
    char value_text[32], error_text[32], tokens[32];
    struct task_value value;
    printf("model  %s\n", report->model);
    printf("%-16s %9s %12s %9s  %-16s %12s %12s\n", "task", "documents", "tokens", "seconds",
           "metric", "value", "std. error");
    for (int t = 0; t < report->count; t++) {
        const struct task_result *result = &report->results[t];
        for (int m = 0; task_metric(result, m, &value); m++) {
            if (m == 0)
                printf("%-16s %9lld %12s %9.2f", task_name(result->task),
                       (long long)result->documents, format_count(result->tokens, tokens),
                       result->seconds);
            else
                printf("%-49s", "");
            printf("  %-16s %12s %12s\n", value.name,
                   format_value(value.value, value.percent, value_text),
                   format_value(value.error, value.percent, error_text));
        }
    }
}

static plx_status print_object(json_t *object, const char *name, struct error *err)
{
    char *text =
        object != NULL ? fields_print(object, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    REQUIRE(err, text != NULL, PLX_INTERNAL, "%s: JSON cannot hold the results", name);
    printf("%s\n", text);
    free(text);
    return PLX_OK;
}

plx_status eval_report_print_json(const struct eval_report *report, struct error *err)
{
    json_t *tasks = json_array();
    for (int t = 0; t < report->count; t++)
        json_array_append_new(tasks, task_result_write(&report->results[t]));
    return print_object(json_pack("{s:s, s:o}", "model", report->model, "tasks", tasks),
                        report->model, err);
}

/* ---- Comparing ---- */

static void print_difference(const struct task_result *result,
                             const struct task_difference *difference, bool percent)
{
    char a[32], b[32], gap[32], error[32];
    printf("%-16s %-16s %12s %12s %12s %12s  %-8.4g %s\n", task_name(result->task),
           difference->name, format_value(difference->a, percent, a),
           format_value(difference->b, percent, b),
           format_value(difference->a - difference->b, percent, gap),
           format_value(difference->error, percent, error), difference->p, difference->test);
}

static json_t *write_difference(const struct task_result *result,
                                const struct task_difference *difference)
{
    json_t *object =
        json_pack("{s:s, s:s, s:f, s:f, s:f, s:s}", "task", task_name(result->task), "metric",
                  difference->name, "a", difference->a, "b", difference->b, "difference",
                  difference->a - difference->b, "test", difference->test);
    if (!isnan(difference->error))
        json_object_set_new(object, "error", json_real(difference->error));
    if (!isnan(difference->p)) json_object_set_new(object, "p", json_real(difference->p));
    return object;
}

static plx_status compare_task(const struct task_result *a, const struct task_result *b,
                               json_t *list, struct error *err)
{
    struct task_value value;
    for (int m = 0; task_metric(a, m, &value); m++) {
        struct task_difference difference;
        TRY(task_compare(a, b, m, &difference, err));
        if (list != NULL)
            json_array_append_new(list, write_difference(a, &difference));
        else
            print_difference(a, &difference, value.percent);
    }
    return PLX_OK;
}

plx_status eval_report_compare(const struct eval_report *a, const struct eval_report *b, bool json,
                               struct error *err)
{
    REQUIRE(err, a->count == b->count, PLX_INVALID_ARGUMENT,
            "%s has %d tasks but %s has %d: only the same can be compared", a->model, a->count,
            b->model, b->count);
    json_t *list = json ? json_array() : NULL;
    if (!json)
        printf("a  %s\nb  %s\n%-16s %-16s %12s %12s %12s %12s  %-8s %s\n", a->model, b->model,
               "task", "metric", "a", "b", "a - b", "std. error", "p", "test");
    plx_status status = PLX_OK;
    for (int t = 0; status == PLX_OK && t < a->count; t++)
        status = compare_task(&a->results[t], &b->results[t], list, err);
    if (status == PLX_OK && json)
        return print_object(
            json_pack("{s:s, s:s, s:o}", "a", a->model, "b", b->model, "differences", list),
            "--compare", err);
    json_decref(list);
    return status;
}
