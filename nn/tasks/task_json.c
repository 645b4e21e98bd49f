/* task_json.c: results as JSON, with a value for every document so that two models can be compared
 * later, and back, believing nothing. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "data/utf8.h"
#include "tasks/task_parts.h"

/* ---- Writing ---- */

static json_t *write_list(const double *values, int64_t count)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++) {
        bool whole = values[i] == floor(values[i]) && fabs(values[i]) < 1e15;
        json_array_append_new(list,
                              whole ? json_integer((json_int_t)values[i]) : json_real(values[i]));
    }
    return list;
}

json_t *task_result_write(const struct task_result *result)
{
    char hash[24];
    struct task_value value;
    json_t *metrics = json_object(), *values = json_object(), *weights = json_object();
    for (int m = 0; task_metric(result, m, &value); m++) {
        json_t *figure = json_pack("{s:f}", "value", value.value);
        if (!isnan(value.error)) json_object_set_new(figure, "error", json_real(value.error));
        json_object_set_new(metrics, value.name, figure);
        json_object_set_new(values, value.name, write_list(result->values[m], result->documents));
        if (result->weights[m] == NULL) continue;
        json_object_set_new(weights, value.name, write_list(result->weights[m], result->documents));
    }
    snprintf(hash, sizeof hash, "%" PRIu64, result->hash);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:f, s:o, s:o, s:o}", "task", result->task->name,
                     "file", result->path, "xxh64", hash, "documents",
                     (json_int_t)result->documents, "tokens", (json_int_t)result->tokens, "seconds",
                     result->seconds, "metrics", metrics, "values", values, "weights", weights);
}

/* ---- Reading ---- */

/* Member key of an object of lists: a number for every document. */
static plx_status read_numbers(const struct fields *lists, const char *key, int64_t count,
                               const struct metric *metric, bool weights, double *values)
{
    TRY(fields_require(lists, key));
    const json_t *list = fields_get(lists, key), *item;
    size_t index;
    REQUIRE(lists->err, json_is_array(list) && (int64_t)json_array_size(list) == count,
            PLX_BAD_DATA, "%s: %s has %zu values but there are %" PRId64 " documents", lists->where,
            key, json_array_size(list), count);
    json_array_foreach(list, index, item)
    {
        values[index] = json_number_value(item);
        bool good =
            json_is_number(item) && isfinite(values[index]) && (!weights || values[index] > 0) &&
            (weights || !metric->right_or_wrong || values[index] == 0 || values[index] == 1);
        REQUIRE(lists->err, good, PLX_BAD_DATA, "%s: %s of document %zu is no %s", lists->where,
                key, index,
                weights                  ? "number above 0"
                : metric->right_or_wrong ? "0 or 1"
                                         : "number");
    }
    return PLX_OK;
}

static plx_status read_metrics(const struct fields *fields, struct task_result *result)
{
    const struct metric *const *metrics = result->task->scoring->metrics;
    const struct fields values = {fields_get(fields, "values"), fields->where, fields->err},
                        weights = {fields_get(fields, "weights"), fields->where, fields->err};
    for (int m = 0; metrics[m] != NULL; m++) {
        TRY(read_numbers(&values, metrics[m]->name, result->documents, metrics[m], false,
                         result->values[m]));
        if (metrics[m]->weight == NULL) continue;
        TRY(read_numbers(&weights, metrics[m]->name, result->documents, metrics[m], true,
                         result->weights[m]));
    }
    return PLX_OK;
}

plx_status task_result_read(const json_t *object, const char *where, struct task_result *result,
                            struct error *err)
{
    const struct fields fields = {object, where, err};
    const char *const keys[] = {"task", "file", "xxh64", "documents", "values"};
    const char *name, *path;
    uint64_t hash = 0;
    int64_t documents = 0;
    *result = (struct task_result){0};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) TRY(fields_require(&fields, keys[k]));
    TRY(fields_text(&fields, "task", &name));
    TRY(fields_text(&fields, "file", &path));
    TRY(fields_word(&fields, "xxh64", &hash));
    TRY(fields_integer(&fields, "documents", 1, INT32_MAX, &documents));
    const struct task *task = task_find(name);
    REQUIRE(err, task != NULL, PLX_BAD_DATA, "%s: there is no task \"%s\"", where,
            utf8_quote(name).text);
    /* Memory is taken for what the file has, not for what it says. */
    const json_t *first =
        json_object_get(fields_get(&fields, "values"), task->scoring->metrics[0]->name);
    REQUIRE(err, (int64_t)json_array_size(first) == documents, PLX_BAD_DATA,
            "%s: %s has %zu values but there are %" PRId64 " documents", where,
            task->scoring->metrics[0]->name, json_array_size(first), documents);
    TRY(task_result_make(task, path, hash, documents, result, err));
    plx_status status = fields_integer(&fields, "tokens", 0, INT64_MAX, &result->tokens);
    if (status == PLX_OK) status = fields_real(&fields, "seconds", &result->seconds);
    if (status == PLX_OK) status = read_metrics(&fields, result);
    if (status != PLX_OK) task_result_clear(result);
    return status;
}
