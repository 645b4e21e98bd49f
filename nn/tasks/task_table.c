/* task_table.c: which tasks there are, and from a file to the documents of one.
 *
 * A new benchmark is a row here and, where its file is of a new kind, a row in task_layouts.c. */
#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/file.h"
#include "io/jsonl.h"
#include "tasks/task_parts.h"

/* name, beginning of file names, family of layouts, scoring, opening, ending */
static const struct task tasks[] = {
    {"arc_challenge", NULL, "arc", &scoring_accuracy_normed, "Question: ", "\nAnswer:"},
    {"arc_easy", NULL, "arc", &scoring_accuracy_normed, "Question: ", "\nAnswer:"},
    {"blimp", NULL, "blimp", &scoring_accuracy, "", ""},
    {"boolq", NULL, "boolq", &scoring_accuracy, "", "\nAnswer:"},
    {"copa", NULL, "copa", &scoring_accuracy, "", ""},
    {"hellaswag", NULL, "hellaswag", &scoring_accuracy_normed, "", ""},
    {"lambada", "lambada_openai", "lambada", &scoring_last_word, "", ""},
    {"openbookqa", "openbook_qa", "arc", &scoring_accuracy_normed, "", ""},
    {"piqa", NULL, "piqa", &scoring_accuracy_normed, "Question: ", "\nAnswer:"},
    {"sciq", NULL, "sciq", &scoring_accuracy_normed, "", "\nAnswer:"},
    {"wikitext", NULL, "wikitext", &scoring_whole_text, "", ""},
    {"winogrande", NULL, "winogrande", &scoring_accuracy, "", ""},
    {"multiple_choice", NULL, NULL, &scoring_accuracy_normed, "", ""},
    {"continuation", NULL, NULL, &scoring_last_word, "", ""},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

const struct task *task_find(const char *name)
{
    for (int i = 0; i < TASKS; i++)
        if (strcmp(tasks[i].name, name) == 0) return &tasks[i];
    return NULL;
}

const char *task_name(const struct task *task)
{
    return task->name;
}

const char *task_name_at(int index)
{
    return index >= 0 && index < TASKS ? tasks[index].name : NULL;
}

/* ---- A file's task ---- */

/* Whether a file's name begins with a task's, in any case and with any marks between words. */
static bool begins_with(const char *file, const char *name)
{
    if (name == NULL) return false;
    for (; *name != '\0'; name++, file++) {
        bool same = isalnum((unsigned char)*name)
                        ? tolower((unsigned char)*file) == *name
                        : *file == '-' || *file == '_' || *file == '.' || *file == ' ';
        if (!same) return false;
    }
    return !isalnum((unsigned char)*file);
}

static const struct task *task_of_file(const char *path)
{
    const char *slash = strrchr(path, '/'), *file = slash != NULL ? slash + 1 : path;
    for (int i = 0; i < TASKS; i++)
        if (begins_with(file, tasks[i].name) || begins_with(file, tasks[i].alias)) return &tasks[i];
    return NULL;
}

plx_status task_find_file(const char *name, const char *folder, char *path, size_t size,
                          struct error *err)
{
    const struct task *task = task_find(name);
    REQUIRE(err, task != NULL, PLX_INVALID_ARGUMENT, "there is no task \"%s\"",
            utf8_quote(name).text);
    const char *const stems[] = {task->name, task->alias};
    for (int i = 0; i < 2 && stems[i] != NULL; i++) {
        int length = snprintf(path, size, "%s/%s.jsonl", folder, stems[i]);
        REQUIRE(err, length >= 0 && (size_t)length < size, PLX_INVALID_ARGUMENT,
                "%s: the path is too long", folder);
        if (file_exists(path)) return PLX_OK;
    }
    return error_set(err, PLX_IO_ERROR, "%s: holds no %s.jsonl%s%s%s", folder, task->name,
                     task->alias != NULL ? " or " : "", task->alias != NULL ? task->alias : "",
                     task->alias != NULL ? ".jsonl" : "");
}

/* ---- Documents ---- */

static void document_clear(struct task_document *document)
{
    for (int i = 0; i < document->count; i++) {
        free(document->choices[i].context);
        free(document->choices[i].continuation);
    }
    free(document->choices);
}

void task_set_clear(struct task_set *set)
{
    for (int64_t d = 0; d < set->count; d++) document_clear(&set->documents[d]);
    free(set->documents);
    *set = (struct task_set){0};
}

/* Room for one more document, zeroed and counted, so that it is cleared with the others. */
static plx_status add_document(struct task_set *set, struct task_document **document,
                               struct error *err)
{
    if (set->count == set->capacity) {
        int64_t capacity = 2 * set->capacity + 16;
        void *grown = realloc(set->documents, (size_t)capacity * sizeof *set->documents);
        REQUIRE(err, grown != NULL, PLX_OUT_OF_MEMORY, "%s: no memory for %lld documents",
                set->path, (long long)capacity);
        set->documents = grown;
        set->capacity = capacity;
    }
    *document = &set->documents[set->count++];
    **document = (struct task_document){0};
    return PLX_OK;
}

static plx_status add_object(struct task_set *set, const json_t *object, long long line,
                             struct error *err)
{
    char where[PATH_MAX + 32];
    snprintf(where, sizeof where, "%s:%lld", set->path, line);
    struct task_line reading = {.fields = {object, where, err}};
    TRY(layout_find(object, where, &set->task, &reading.layout, err));
    TRY(add_document(set, &reading.document, err));
    reading.document->line = line;
    reading.task = set->task;
    return reading.layout->read(&reading);
}

plx_status task_parse(const char *name, const char *json, size_t size, const char *path,
                      int64_t limit, struct task_set *set, struct error *err)
{
    struct jsonl lines = {.data = json, .size = size, .name = path};
    *set = (struct task_set){0};
    snprintf(set->path, sizeof set->path, "%s", path);
    set->task = name != NULL ? task_find(name) : task_of_file(path);
    REQUIRE(err, name == NULL || set->task != NULL, PLX_INVALID_ARGUMENT, "there is no task \"%s\"",
            utf8_quote(name).text);
    while (limit == 0 || set->count < limit) {
        json_t *object;
        TRY(jsonl_next(&lines, &object, err));
        if (object == NULL) break;
        plx_status status = add_object(set, object, lines.line, err);
        json_decref(object);
        TRY(status);
    }
    REQUIRE(err, set->count > 0, PLX_BAD_DATA, "%s: holds no document", path);
    return PLX_OK;
}

plx_status task_load(const char *name, const char *path, int64_t limit, struct task_set *set,
                     struct error *err)
{
    struct file_map map;
    uint64_t hash;
    size_t bytes;
    *set = (struct task_set){0};
    TRY(file_hash(path, &hash, &bytes, err));
    TRY(file_map(path, &map, err));
    plx_status status = task_parse(name, (const char *)map.data, map.size, path, limit, set, err);
    file_unmap(&map);
    set->hash = hash;
    return status;
}
