/* test_tasks.c: benchmarks' files into documents: every layout, what is around a question, hostile
 * lines, and the files of the shared data. */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io_files.h"
#include "tasks/task.h"
#include "tasks/task_text.h"

static void parse(const char *name, const char *text, struct task_set *set)
{
    struct error err = {0};
    if (task_parse(name, text, strlen(text), "set.jsonl", 0, set, &err) != PLX_OK)
        fail_msg("%s: %s", text, err.text);
}

/* ---- One line of every layout ---- */

static const struct fixture {
    const char *name; /* told; NULL: found by the fields */
    const char *line;
    const char *task;
    int choices, gold;
    const char *context, *continuation; /* of the right choice */
} fixtures[] = {
    {NULL, "{\"query\": \"A cat\", \"choices\": [\"sat\", \"flew\"], \"gold\": 0}",
     "multiple_choice", 2, 0, "A cat", " sat"},
    {"arc_easy", "{\"query\": \"Question: Why?\", \"choices\": [\"no\", \"yes\"], \"gold\": 1}",
     "arc_easy", 2, 1, "Question: Why?\nAnswer:", " yes"},
    {"piqa", "{\"query\": \"Question: Dust\\n\", \"choices\": [\"a\", \"b\"], \"gold\": 0}", "piqa",
     2, 0, "Question: Dust\nAnswer:", " a"},
    {"boolq",
     "{\"query\": \"Passage: P.\\nQuestion: q?\\nAnswer:\", \"choices\": [\"no\", \"yes\"], "
     "\"gold\": 1}",
     "boolq", 2, 1, "Passage: P.\nQuestion: q?\nAnswer:", " yes"},
    {NULL,
     "{\"context_options\": [\"Ann so Ann\", \"Ann so Bea\"], \"continuation\": \"won.\", "
     "\"gold\": 1}",
     "multiple_choice", 2, 1, "Ann so Bea", " won."},
    {NULL, "{\"context\": \"up and\", \"continuation\": \"down\"}", "continuation", 1, 0, "up and",
     " down"},
    {NULL, "{\"id\": 7, \"ctx\": \"c\", \"choices\": [\"x\", \"y\", \"z\"], \"gold\": 2}",
     "multiple_choice", 3, 2, "c", " z"},
    {NULL, "{\"ctx\": [\"c\", \"d\"], \"choices\": [\"1\", \"2\"], \"cont\": \"e\", \"gold\": 0}",
     "multiple_choice", 2, 0, "c", " e"},
    {NULL,
     "{\"activity_label\": \"Roof\", \"ctx_a\": \"A man [header] sits.\", \"ctx_b\": \"HE\", "
     "\"endings\": [\" rips [x]it.\", \"runs [title] Away\"], \"label\": \"1\"}",
     "hellaswag", 2, 1, "Roof: A man sits. He", " runs. Away"},
    {"arc_challenge",
     "{\"question\": \"Why?\", \"choices\": {\"text\": [\"p\", \"q\"], \"label\": [\"A\", \"B\"]}, "
     "\"answerKey\": \"B\"}",
     "arc_challenge", 2, 1, "Question: Why?\nAnswer:", " q"},
    {"arc_easy",
     "{\"question\": {\"stem\": \"Why?\", \"choices\": [{\"text\": \"p\", \"label\": \"1\"}, "
     "{\"text\": \"q\", \"label\": \"2\"}]}, \"answerKey\": \"1\"}",
     "arc_easy", 2, 0, "Question: Why?\nAnswer:", " p"},
    {NULL,
     "{\"question_stem\": \"Fog is\", \"choices\": {\"text\": [\"wet\"], \"label\": [\"A\"]}, "
     "\"answerKey\": \"A\"}",
     "openbookqa", 1, 0, "Fog is", " wet"},
    {NULL, "{\"goal\": \"Dust\", \"sol1\": \"wipe\", \"sol2\": \"eat\", \"label\": 0}", "piqa", 2,
     0, "Question: Dust\nAnswer:", " wipe"},
    {NULL,
     "{\"sentence\": \"Ann met Bea as _ called. \", \"option1\": \"Ann\", \"option2\": \"Bea\", "
     "\"answer\": \"2\"}",
     "winogrande", 2, 1, "Ann met Bea as Bea", " called."},
    {NULL, "{\"passage\": \"P.\", \"question\": \"is it so\", \"answer\": true}", "boolq", 2, 1,
     "P.\nQuestion: is it so?\nAnswer:", " yes"},
    {NULL, "{\"passage\": \"P.\", \"question\": \"is it so\", \"label\": 0}", "boolq", 2, 0,
     "P.\nQuestion: is it so?\nAnswer:", " no"},
    {NULL,
     "{\"support\": \" S.\", \"question\": \"Q?\", \"distractor1\": \"a\", \"distractor2\": \"b\", "
     "\"distractor3\": \"c\", \"correct_answer\": \"d\"}",
     "sciq", 4, 3, "S.\nQuestion: Q?\nAnswer:", " d"},
    {NULL,
     "{\"premise\": \"It rained.\", \"choice1\": \"The sun set.\", \"choice2\": \"\u00c4ste "
     "fell.\", "
     "\"question\": \"effect\", \"label\": 1}",
     "copa", 2, 1, "It rained therefore", "  \u00e4ste fell."},
    {NULL, "{\"sentence_good\": \"Cats sit.\", \"sentence_bad\": \"Cats sits.\"}", "blimp", 2, 0,
     "", " Cats sit."},
    {"lambada", "{\"text\": \"he said the  word\"}", "lambada", 1, 0, "he said the ", " word"},
    {NULL, "{\"page\": \" = T = \\n It 's 3 @.@ 5 ( so ) . \"}", "wikitext", 1, 0, "",
     " = T =\nIt's 3.5 (so). "},
    {"wikitext", "{\"text\": \"a , b\"}", "wikitext", 1, 0, "", "a, b"},
};

static void test_layouts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        const struct fixture *fixture = &fixtures[i];
        struct task_set set;
        parse(fixture->name, fixture->line, &set);
        const struct task_document *document = &set.documents[0];
        assert_string_equal(task_name(set.task), fixture->task);
        assert_int_equal(set.count, 1);
        assert_int_equal(document->count, fixture->choices);
        assert_int_equal(document->gold, fixture->gold);
        assert_string_equal(document->choices[fixture->gold].context, fixture->context);
        assert_string_equal(document->choices[fixture->gold].continuation, fixture->continuation);
        task_set_clear(&set);
    }
}

/* Lengths are those of the choice without its delimiter, in code points and bytes; words of a page
 * are runs of white space and one. */
static void test_lengths(void **state)
{
    (void)state;
    struct task_set set;
    parse(NULL, "{\"query\": \"q\", \"choices\": [\"\u00e4b\", \"c\"], \"gold\": 0}", &set);
    assert_true(set.documents[0].choices[0].characters == 2);
    assert_true(set.documents[0].choices[0].bytes == 3);
    task_set_clear(&set);
    parse(NULL, "{\"page\": \" a  b\\nc \"}", &set);
    assert_true(set.documents[0].words == 5);
    assert_true(set.documents[0].bytes == 8);
    task_set_clear(&set);
}

static void test_names_of_files(void **state)
{
    (void)state;
    static const char line[] = "{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": 0}";
    static const char *const names[][2] = {{"x/ARC-Easy-Test.jsonl", "arc_easy"},
                                           {"openbook_qa.jsonl", "openbookqa"},
                                           {"piqa.v2.jsonl", "piqa"},
                                           {"piqas.jsonl", "multiple_choice"},
                                           {"piqa/mine.jsonl", "multiple_choice"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct task_set set;
        struct error err = {0};
        assert_int_equal(task_parse(NULL, line, sizeof line - 1, names[i][0], 0, &set, &err),
                         PLX_OK);
        assert_string_equal(task_name(set.task), names[i][1]);
        task_set_clear(&set);
    }
}

static void test_limit(void **state)
{
    (void)state;
    static const char lines[] = "{\"context\": \"a\", \"continuation\": \"b\"}\n\n"
                                "{\"context\": \"c\", \"continuation\": \"d\"}\nnot read";
    struct task_set set;
    struct error err = {0};
    assert_int_equal(task_parse(NULL, lines, sizeof lines - 1, "x.jsonl", 2, &set, &err), PLX_OK);
    assert_int_equal(set.count, 2);
    assert_int_equal(set.documents[1].line, 3);
    task_set_clear(&set);
}

/* ---- Hostile lines ---- */

static const struct {
    const char *name, *line, *sentence;
} hostile[] = {
    {NULL, "", "set.jsonl: holds no document"},
    {NULL, "\n[1]", "set.jsonl:2: the line is not an object"},
    {NULL, "{\"query\": ", "set.jsonl:1: not valid JSON"},
    {NULL, "{\"text\": \"a\"}", "set.jsonl:1: has not all fields of any layout of a task"},
    {"piqa", "{\"page\": \"a\"}", "set.jsonl:1: has not all fields of any layout of the task piqa"},
    {"blimp", "{\"context\": \"a\", \"continuation\": \"b\"}", "layout of the task blimp"},
    {"none", "{}", "there is no task \"none\""},
    {NULL, "{\"query\": 3, \"choices\": [\"a\"], \"gold\": 0}",
     "set.jsonl:1: query is 3 but must be a text"},
    {NULL, "{\"query\": \"q\", \"choices\": [], \"gold\": 0}",
     "set.jsonl:1: choices is [] but must be a list of 1 to 256 texts"},
    {NULL, "{\"query\": \"q\", \"choices\": [\"a\", 1], \"gold\": 0}", "choices is [\"a\",1] but"},
    {NULL, "{\"query\": \"q\", \"choices\": [\"a\", \"\"], \"gold\": 0}",
     "set.jsonl:1: choice 2 is empty"},
    {NULL, "{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": 1}",
     "set.jsonl:1: gold is 1 but must be a whole number from 0 to 0"},
    {NULL, "{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": -1}", "gold is -1 but"},
    {NULL, "{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": 0.5}", "gold is 0.5 but"},
    {NULL, "{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": \"0x\"}", "gold is \"0x\" but"},
    {NULL, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": \"\"}",
     "label is \"\" but must be a whole number from 0 to 1"},
    {NULL, "{\"question_stem\": \"q\", \"choices\": [\"a\"], \"answerKey\": \"A\"}",
     "choices is [\"a\"] but must be an object"},
    {NULL, "{\"question_stem\": \"q\", \"choices\": {\"text\": [\"a\"]}, \"answerKey\": \"A\"}",
     "set.jsonl:1: label is missing"},
    {NULL,
     "{\"question_stem\": \"q\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\"]}, "
     "\"answerKey\": \"A\"}",
     "choices has 2 texts but 1 labels"},
    {NULL,
     "{\"question_stem\": \"q\", \"choices\": {\"text\": [\"a\"], \"label\": [\"A\"]}, "
     "\"answerKey\": \"E\"}",
     "answerKey is \"E\" but must be the label of a choice"},
    {"arc_easy", "{\"question\": {\"stem\": \"s\"}, \"answerKey\": \"A\"}",
     "but must be an object of stem and choices"},
    {"arc_easy",
     "{\"question\": {\"stem\": \"s\", \"choices\": [{\"label\": \"A\"}, {\"text\": \"t\"}, 3]}, "
     "\"answerKey\": \"A\"}",
     "but must be choices of text and label each"},
    {NULL, "{\"sentence\": \"s\", \"option1\": \"a\", \"option2\": \"b\", \"answer\": \"1\"}",
     "sentence is \"s\" but must be a text with a gap"},
    {NULL, "{\"sentence\": \"s_\", \"option1\": \"a\", \"option2\": \"b\", \"answer\": \"3\"}",
     "answer is \"3\" but must be a whole number from 1 to 2"},
    {NULL, "{\"passage\": \"p\", \"question\": \"q\", \"answer\": \"yes\"}",
     "answer is \"yes\" but must be true or false"},
    {NULL,
     "{\"premise\": \"\", \"choice1\": \"a\", \"choice2\": \"b\", \"question\": \"why\", "
     "\"label\": 0}",
     "question is \"why\" but must be \"cause\" or \"effect\""},
    {NULL, "{\"page\": \"\"}", "choice 1 is empty"},
};

static void test_hostile(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        struct task_set set;
        struct error err = {0};
        plx_status status = task_parse(hostile[i].name, hostile[i].line, strlen(hostile[i].line),
                                       "set.jsonl", 0, &set, &err);
        task_set_clear(&set);
        if (status == PLX_OK || strstr(err.text, hostile[i].sentence) == NULL)
            fail_msg("%s: \"%s\" is not in \"%s\"", hostile[i].line, hostile[i].sentence, err.text);
    }
}

/* ---- Edits of texts ---- */

static void assert_edit(char *(*edit)(const char *), const char *text, const char *expected)
{
    char *edited = edit(text);
    assert_non_null(edited);
    assert_string_equal(edited, expected);
    free(edited);
}

/* An apostrophe opens a quotation for the harness too: what it closes up stays closed up here. */
static void test_edits(void **state)
{
    (void)state;
    assert_edit(text_capitalize, "\u00e4BC d", "\u00c4bc d");
    assert_edit(text_capitalize, "", "");
    assert_edit(text_lower_first, "The Man", "the Man");
    assert_edit(text_clean_hellaswag, "  a [title] b [x [y] c]   d ", "a. b c]  d");
    assert_edit(text_clean_hellaswag, "open [ only", "open [ only");
    assert_edit(text_detokenize_wikitext,
                "the dogs ' bowl , \" red \" ; it 's 1 @,@ 000 \n = = B = =",
                "the dogs'bowl, \"red\"; it's 1,000\n== B ==");
    assert_edit(text_detokenize_wikitext, "( \u00a0 ) [ a b ] { c", "() [a b] { c");
    assert_int_equal(text_words(""), 1);
    assert_int_equal(text_words("\u3000a\u2009\tb"), 3);
    assert_int_equal(text_characters("\u00e4\u3042b"), 3);
}

/* ---- Files that others made ---- */

static void test_shared(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t documents;
    } files[] = {{"arc_challenge", 1172}, {"arc_easy", 2376},  {"boolq", 3270},
                 {"copa", 100},           {"lambada", 5153},   {"piqa", 1838},
                 {"openbookqa", 500},     {"winogrande", 1267}};
    struct stat info;
    if (stat(SHARED_DATA "/data/eval", &info) != 0) {
        print_message("skipped: shared data absent\n");
        skip();
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[1024];
        struct task_set set;
        struct error err = {0};
        if (task_find_file(files[i].name, SHARED_DATA "/data/eval", path, sizeof path, &err) ||
            task_load(NULL, path, 0, &set, &err))
            fail_msg("%s", err.text);
        assert_string_equal(task_name(set.task), files[i].name);
        assert_int_equal(set.count, files[i].documents);
        task_set_clear(&set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_names_of_files), cmocka_unit_test(test_limit),
        cmocka_unit_test(test_hostile),        cmocka_unit_test(test_edits),
        cmocka_unit_test(test_shared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
