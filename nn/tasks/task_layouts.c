/* task_layouts.c: from lines of JSONL, as the benchmarks are published or as records made ready, to
 * documents.
 *
 * A layout is a row: the fields that it is recognised by, and a function that reads them. The texts
 * around a question are those of lm-evaluation-harness. */
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "tasks/task_parts.h"
#include "tasks/task_text.h"

/* ---- Fields ---- */

static plx_status read_text(const struct task_line *line, const char *key, const char **text)
{
    TRY(fields_require(&line->fields, key));
    return fields_text(&line->fields, key, text);
}

/* A number, or (as many exports have it) a number in a text; *value counts from 0. */
static plx_status read_index(const struct task_line *line, const char *key, int first, int last,
                             int *value)
{
    TRY(fields_require(&line->fields, key));
    const json_t *found = fields_get(&line->fields, key);
    const char *text = json_string_value(found);
    char *end = NULL;
    int64_t number = text != NULL ? strtol(text, &end, 10) : json_integer_value(found);
    bool whole = text != NULL ? end != text && *end == '\0' : json_is_integer(found);
    if (whole && number >= first && number <= last) {
        *value = (int)(number - first);
        return PLX_OK;
    }
    char wanted[64];
    snprintf(wanted, sizeof wanted, "a whole number from %d to %d", first, last);
    return fields_refuse(&line->fields, key, found, wanted);
}

/* A list of 1 to TASK_MAX_CHOICES texts in an object that may be a member of the line's. */
static plx_status read_list(const struct fields *fields, const char *key, const json_t **list)
{
    TRY(fields_require(fields, key));
    size_t index;
    const json_t *item;
    *list = fields_get(fields, key);
    bool good = json_is_array(*list) && json_array_size(*list) > 0 &&
                json_array_size(*list) <= TASK_MAX_CHOICES;
    json_array_foreach(*list, index, item) good = good && json_is_string(item);
    return good ? PLX_OK : fields_refuse(fields, key, *list, "a list of 1 to 256 texts");
}

static const char *text_at(const json_t *list, int index)
{
    return json_string_value(json_array_get(list, (size_t)index));
}

/* ---- Choices ---- */

/* Takes context over. The continuation is delimiter and choice. Texts that are NULL could not be
 * made. */
static plx_status add_choice(const struct task_line *line, char *context, const char *delimiter,
                             const char *choice)
{
    struct task_document *document = line->document;
    struct task_choice *choices =
        realloc(document->choices, (size_t)(document->count + 1) * sizeof *choices);
    if (choices != NULL) document->choices = choices;
    char *continuation = choice != NULL ? text_format("%s%s", delimiter, choice) : NULL;
    if (choices == NULL || continuation == NULL || context == NULL) {
        free(context);
        free(continuation);
        return error_set(line->fields.err, PLX_OUT_OF_MEMORY, "%s: no memory for a choice",
                         line->fields.where);
    }
    choices[document->count++] = (struct task_choice){.context = context,
                                                      .continuation = continuation,
                                                      .characters = (double)text_characters(choice),
                                                      .bytes = (double)strlen(choice)};
    /* Scores are divided by the length of a choice, and a choice is at least one token. */
    REQUIRE(line->fields.err, *choice != '\0', PLX_BAD_DATA,
            "%s: choice %d is empty but must have a character", line->fields.where,
            document->count);
    return PLX_OK;
}

/* Choices of a list behind one context. */
static plx_status add_choices(const struct task_line *line, const char *context, const json_t *list)
{
    for (int i = 0; i < (int)json_array_size(list); i++)
        TRY(add_choice(line, strdup(context), " ", text_at(list, i)));
    return PLX_OK;
}

/* The texts of named fields as choices. */
static plx_status add_fields(const struct task_line *line, char *context, const char *delimiter,
                             const char *const *keys)
{
    plx_status status = context != NULL ? PLX_OK
                                        : error_set(line->fields.err, PLX_OUT_OF_MEMORY,
                                                    "%s: no memory for a text", line->fields.where);
    for (; status == PLX_OK && *keys != NULL; keys++) {
        const char *text;
        status = read_text(line, *keys, &text);
        if (status == PLX_OK) status = add_choice(line, strdup(context), delimiter, text);
    }
    free(context);
    return status;
}

/* ---- Questions ---- */

/* The task's opening and ending around a question that has neither. */
static char *ask(const struct task_line *line, const char *question)
{
    return text_format("%s%s%s", line->task->opening, question, line->task->ending);
}

static bool ends_with(const char *text, size_t size, const char *ending)
{
    size_t length = strlen(ending);
    return size >= length && memcmp(text + size - length, ending, length) == 0;
}

/* The same around one that may have them already, or white space in place of the ending's. */
static char *complete(const struct task_line *line, const char *question)
{
    const struct task *task = line->task;
    bool opened = strncmp(question, task->opening, strlen(task->opening)) == 0;
    const char *opening = opened ? "" : task->opening, *ending = task->ending;
    size_t size = strlen(question), visible = text_leading_white(ending);
    if (ending[visible] == '\0') return text_format("%s%s", opening, question);
    size_t trimmed = utf8_trim_end(question, size);
    if (ends_with(question, trimmed, ending + visible))
        return text_format("%s%s", opening, question);
    return text_format("%s%.*s%s", opening, (int)trimmed, question, ending);
}

/* ---- Records that are ready ---- */

/* One context, several choices, the number of the right one. */
static plx_status read_choices(const struct task_line *line)
{
    const char *query;
    const json_t *list;
    TRY(read_text(line, line->layout->fields[0], &query));
    TRY(read_list(&line->fields, line->layout->fields[1], &list));
    TRY(read_index(line, line->layout->fields[2], 0, (int)json_array_size(list) - 1,
                   &line->document->gold));
    char *context = complete(line, query);
    REQUIRE(line->fields.err, context != NULL, PLX_OUT_OF_MEMORY, "%s: no memory for a text",
            line->fields.where);
    plx_status status = add_choices(line, context, list);
    free(context);
    return status;
}

/* Several contexts, one continuation. */
static plx_status read_contexts(const struct task_line *line)
{
    const json_t *list;
    const char *text;
    TRY(read_list(&line->fields, line->layout->fields[0], &list));
    TRY(read_text(line, line->layout->fields[1], &text));
    TRY(read_index(line, line->layout->fields[2], 0, (int)json_array_size(list) - 1,
                   &line->document->gold));
    for (int i = 0; i < (int)json_array_size(list); i++)
        TRY(add_choice(line, strdup(text_at(list, i)), " ", text));
    return PLX_OK;
}

static plx_status read_continuation(const struct task_line *line)
{
    const char *context, *continuation;
    TRY(read_text(line, "context", &context));
    TRY(read_text(line, "continuation", &continuation));
    return add_choice(line, strdup(context), " ", continuation);
}

/* ---- Public layouts ---- */

static plx_status read_hellaswag(const struct task_line *line)
{
    const char *activity, *start, *end;
    const json_t *endings;
    TRY(read_text(line, "activity_label", &activity));
    TRY(read_text(line, "ctx_a", &start));
    TRY(read_text(line, "ctx_b", &end));
    TRY(read_list(&line->fields, "endings", &endings));
    TRY(read_index(line, "label", 0, (int)json_array_size(endings) - 1, &line->document->gold));
    char *capital = text_capitalize(end);
    char *raw = capital != NULL ? text_format("%s: %s %s", activity, start, capital) : NULL;
    char *context = raw != NULL ? text_clean_hellaswag(raw) : NULL;
    free(capital);
    free(raw);
    plx_status status = PLX_OK;
    for (int i = 0; status == PLX_OK && i < (int)json_array_size(endings); i++) {
        char *ending = text_clean_hellaswag(text_at(endings, i));
        status = add_choice(line, context != NULL ? strdup(context) : NULL, " ", ending);
        free(ending);
    }
    free(context);
    return status;
}

/* ARC and OpenBookQA name the right choice by its label. */
static plx_status find_label(const struct task_line *line, const json_t *labels)
{
    const char *key;
    TRY(read_text(line, "answerKey", &key));
    for (int i = 0; i < (int)json_array_size(labels); i++) {
        if (strcmp(text_at(labels, i), key) != 0) continue;
        line->document->gold = i;
        return PLX_OK;
    }
    return fields_refuse(&line->fields, "answerKey", fields_get(&line->fields, "answerKey"),
                         "the label of a choice");
}

static plx_status add_question(const struct task_line *line, const char *question,
                               const json_t *texts, const json_t *labels)
{
    TRY(find_label(line, labels));
    char *context = ask(line, question);
    REQUIRE(line->fields.err, context != NULL, PLX_OUT_OF_MEMORY, "%s: no memory for a text",
            line->fields.where);
    plx_status status = add_choices(line, context, texts);
    free(context);
    return status;
}

/* "choices": {"text": [..], "label": [..]} */
static plx_status read_labelled(const struct task_line *line)
{
    const char *question;
    const json_t *texts, *labels, *choices = fields_get(&line->fields, "choices");
    const struct fields inner = {choices, line->fields.where, line->fields.err};
    TRY(read_text(line, line->layout->fields[0], &question));
    if (!json_is_object(choices))
        return fields_refuse(&line->fields, "choices", choices, "an object of texts and labels");
    TRY(read_list(&inner, "text", &texts));
    TRY(read_list(&inner, "label", &labels));
    REQUIRE(line->fields.err, json_array_size(texts) == json_array_size(labels), PLX_BAD_DATA,
            "%s: choices has %zu texts but %zu labels", line->fields.where, json_array_size(texts),
            json_array_size(labels));
    return add_question(line, question, texts, labels);
}

/* "question": {"stem": .., "choices": [{"text": .., "label": ..}, ..]} */
static plx_status read_nested(const struct task_line *line)
{
    const json_t *outer = fields_get(&line->fields, "question");
    const json_t *choices = json_object_get(outer, "choices"), *choice;
    const char *question = json_string_value(json_object_get(outer, "stem"));
    size_t index;
    if (question == NULL || !json_is_array(choices))
        return fields_refuse(&line->fields, "question", outer, "an object of stem and choices");
    json_t *lists = json_pack("{s:[], s:[]}", "text", "label");
    json_t *texts = json_object_get(lists, "text"), *labels = json_object_get(lists, "label");
    bool whole = true; /* jansson appends nothing where a member is missing */
    json_array_foreach(choices, index, choice)
    {
        whole = whole && json_array_append(texts, json_object_get(choice, "text")) == 0 &&
                json_array_append(labels, json_object_get(choice, "label")) == 0;
    }
    const struct fields inner = {lists, line->fields.where, line->fields.err};
    const json_t *checked;
    plx_status status = PLX_OK;
    if (!whole)
        status = fields_refuse(&line->fields, "question", outer, "choices of text and label each");
    if (status == PLX_OK) status = read_list(&inner, "text", &checked);
    if (status == PLX_OK) status = read_list(&inner, "label", &checked);
    if (status == PLX_OK) status = add_question(line, question, texts, labels);
    json_decref(lists);
    return status;
}

static plx_status read_piqa(const struct task_line *line)
{
    static const char *const choices[] = {"sol1", "sol2", NULL};
    const char *goal;
    TRY(read_text(line, "goal", &goal));
    TRY(read_index(line, "label", 0, 1, &line->document->gold));
    return add_fields(line, ask(line, goal), " ", choices);
}

/* The options stand in the place of "_"; what follows it is what is scored. */
static plx_status read_winogrande(const struct task_line *line)
{
    static const char *const keys[] = {"option1", "option2"};
    const char *sentence, *option;
    TRY(read_text(line, "sentence", &sentence));
    TRY(read_index(line, "answer", 1, 2, &line->document->gold));
    const char *gap = strchr(sentence, '_');
    if (gap == NULL)
        return fields_refuse(&line->fields, "sentence", fields_get(&line->fields, "sentence"),
                             "a text with a gap \"_\"");
    const char *rest = gap + 1 + text_leading_white(gap + 1);
    char *tail = strndup(rest, text_trimmed_size(rest));
    plx_status status = PLX_OK;
    for (int i = 0; status == PLX_OK && i < 2; i++) {
        status = read_text(line, keys[i], &option);
        if (status == PLX_OK)
            status = add_choice(
                line, text_format("%.*s%s", (int)(gap - sentence), sentence, option), " ", tail);
    }
    free(tail);
    return status;
}

/* "answer" is true or false, or "label" 1 or 0. */
static plx_status read_boolq(const struct task_line *line)
{
    static const char *const answers[] = {"no", "yes"};
    const char *passage, *question;
    bool answer = false;
    TRY(read_text(line, "passage", &passage));
    TRY(read_text(line, "question", &question));
    TRY(fields_bool(&line->fields, "answer", &answer));
    line->document->gold = answer;
    if (fields_get(&line->fields, "answer") == NULL)
        TRY(read_index(line, "label", 0, 1, &line->document->gold));
    for (int i = 0; i < 2; i++)
        TRY(add_choice(line,
                       text_format("%s%s\nQuestion: %s?%s", line->task->opening, passage, question,
                                   line->task->ending),
                       " ", answers[i]));
    return PLX_OK;
}

static plx_status read_sciq(const struct task_line *line)
{
    static const char *const choices[] = {"distractor1", "distractor2", "distractor3",
                                          "correct_answer", NULL};
    const char *support, *question;
    TRY(read_text(line, "support", &support));
    TRY(read_text(line, "question", &question));
    line->document->gold = 3;
    return add_fields(line,
                      text_format("%s\nQuestion: %s%s", support + text_leading_white(support),
                                  question, line->task->ending),
                      " ", choices);
}

/* The premise goes on, without its full stop, into the choices, which begin in lower case. */
static plx_status read_copa(const struct task_line *line)
{
    static const char *const keys[] = {"choice1", "choice2"};
    const char *premise, *question, *choice;
    TRY(read_text(line, "premise", &premise));
    TRY(read_text(line, "question", &question));
    TRY(read_index(line, "label", 0, 1, &line->document->gold));
    bool cause = strcmp(question, "cause") == 0;
    if (!cause && strcmp(question, "effect") != 0)
        return fields_refuse(&line->fields, "question", fields_get(&line->fields, "question"),
                             "\"cause\" or \"effect\"");
    size_t size = strlen(premise);
    size_t cut = size > 0 ? utf8_cut(premise, size - 1) : 0;
    for (int i = 0; i < 2; i++) {
        TRY(read_text(line, keys[i], &choice));
        char *lower = text_lower_first(choice);
        plx_status status = add_choice(
            line, text_format("%.*s %s", (int)cut, premise, cause ? "because" : "therefore"), "  ",
            lower);
        free(lower);
        TRY(status);
    }
    return PLX_OK;
}

static plx_status read_blimp(const struct task_line *line)
{
    static const char *const choices[] = {"sentence_good", "sentence_bad", NULL};
    return add_fields(line, strdup(""), " ", choices);
}

/* The last word is what is to be said. */
static plx_status read_lambada(const struct task_line *line)
{
    const char *text;
    TRY(read_text(line, "text", &text));
    const char *space = strrchr(text, ' ');
    size_t before = space != NULL ? (size_t)(space - text) : 0;
    return add_choice(line, strndup(text, before), " ", space != NULL ? space + 1 : text);
}

/* The page is scored as prose, and counted as it is. */
static plx_status read_wikitext(const struct task_line *line)
{
    const char *page;
    TRY(read_text(line, line->layout->fields[0], &page));
    line->document->words = (double)text_words(page);
    line->document->bytes = (double)strlen(page);
    char *prose = text_detokenize_wikitext(page);
    REQUIRE(line->fields.err, prose != NULL, PLX_OUT_OF_MEMORY, "%s: no memory for a text",
            line->fields.where);
    plx_status status = add_choice(line, strdup(""), "", prose);
    free(prose);
    return status;
}

/* ---- The table ---- */

/* fields, family, one choice, task, reader; of several that fit, the first. */
static const struct layout layouts[] = {
    {{"query", "choices", "gold"}, NULL, false, "multiple_choice", read_choices},
    {{"context_options", "continuation", "gold"}, NULL, false, "multiple_choice", read_contexts},
    {{"context", "continuation"}, NULL, true, "continuation", read_continuation},
    {{"ctx", "cont", "gold"}, NULL, false, "multiple_choice", read_contexts},
    {{"ctx", "choices", "gold"}, NULL, false, "multiple_choice", read_choices},
    {{"activity_label", "ctx_a", "ctx_b", "endings", "label"},
     "hellaswag",
     false,
     "hellaswag",
     read_hellaswag},
    {{"question", "choices", "answerKey"}, "arc", false, "arc_easy", read_labelled},
    {{"question_stem", "choices", "answerKey"}, "arc", false, "openbookqa", read_labelled},
    {{"question", "answerKey"}, "arc", false, NULL, read_nested},
    {{"goal", "sol1", "sol2", "label"}, "piqa", false, "piqa", read_piqa},
    {{"sentence", "option1", "option2", "answer"},
     "winogrande",
     false,
     "winogrande",
     read_winogrande},
    {{"passage", "question", "answer"}, "boolq", false, "boolq", read_boolq},
    {{"passage", "question", "label"}, "boolq", false, "boolq", read_boolq},
    {{"support", "question", "distractor1", "distractor2", "distractor3", "correct_answer"},
     "sciq",
     false,
     "sciq",
     read_sciq},
    {{"premise", "choice1", "choice2", "question", "label"}, "copa", false, "copa", read_copa},
    {{"sentence_good", "sentence_bad"}, "blimp", false, "blimp", read_blimp},
    {{"text"}, "lambada", true, NULL, read_lambada},
    {{"page"}, "wikitext", true, "wikitext", read_wikitext},
    {{"text"}, "wikitext", true, NULL, read_wikitext},
};

static bool has_fields(const json_t *object, const struct layout *layout)
{
    for (const char *const *field = layout->fields; *field != NULL; field++) {
        const json_t *value = json_object_get(object, *field);
        if (value == NULL || json_is_null(value)) return false;
    }
    return true;
}

static bool fits(const struct layout *layout, const struct task *task)
{
    if (task == NULL) return layout->task != NULL;
    if (layout->family == NULL)
        return layout->one_choice == task->scoring->one_choice && !task->scoring->whole_text;
    return task->family != NULL && strcmp(layout->family, task->family) == 0;
}

plx_status layout_find(const json_t *object, const char *where, const struct task **task,
                       const struct layout **layout, struct error *err)
{
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        if (!fits(&layouts[i], *task) || !has_fields(object, &layouts[i])) continue;
        *layout = &layouts[i];
        if (*task == NULL) *task = task_find(layouts[i].task);
        return PLX_OK;
    }
    return error_set(err, PLX_BAD_DATA, "%s: has not all fields of any layout of %s%s", where,
                     *task != NULL ? "the task " : "a task that can be told by them",
                     *task != NULL ? (*task)->name : "");
}
