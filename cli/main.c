/* main.c: the program parallax: the table of subcommands and what is common to them.
 *
 * Exit codes: 0 done, 1 the run failed, 2 the command line (or what it names) can never work. An
 * error is one sentence on stderr. Results and progress go to stdout. Reading order: options.h,
 * train_options.c, cmd_train.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const struct command *const commands[] = {
    &command_train,
    &command_sample,
    &command_eval,
    &command_convert,
    &command_init,
    &command_tokenize,
    &command_tokenizer_train,
    &command_tokenizer_check,
    &command_bench_attention,
    &command_bench_step,
    &command_info,
    &command_parity,
};

static void print_overview(FILE *file)
{
    fprintf(
        file,
        "usage: parallax COMMAND [OPTION...]\n\n"
        "Trains, samples and measures language models with Parallax attention: softmax attention\n"
        "with a learned covariance correction (arXiv 2605.29157).\n\nCommands\n");
    for (int i = 0; i < COUNT_OF(commands); i++)
        fprintf(file, "  %-18s%s\n", commands[i]->name, commands[i]->summary);
    fprintf(file, "\nCommon\n"
                  "  --help            print this page, or after a command that command's page\n"
                  "  --version         print version, commit, compiler and kernels\n\n"
                  "Examples\n"
                  "  parallax train --data my-texts --out run --steps 500\n"
                  "  parallax sample run \"Once upon a time\"\n");
}

static void print_help(const struct command *command)
{
    printf("usage: parallax %s %s\n\n%s\n", command->name, command->usage, command->explanation);
    options_print_help(command->table(), stdout);
    printf("\nExamples\n");
    for (int i = 0; i < 2; i++) printf("  %s\n", command->examples[i]);
}

static int report_usage(const struct error *err, const char *hint)
{
    fprintf(stderr, "parallax: %s (see parallax%s%s --help)\n", err->text, hint[0] ? " " : "",
            hint);
    return EXIT_USAGE;
}

/* Results that did not reach a full disk or a closed pipe are a failure too. */
static int finish(plx_status status, const struct error *err)
{
    if (status == PLX_OK && fflush(stdout) == 0 && !ferror(stdout)) return EXIT_DONE;
    if (status == PLX_OK) {
        fprintf(stderr, "parallax: standard output: cannot be written: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    fflush(stdout);
    fprintf(stderr, "parallax: %s\n", err->text[0] ? err->text : plx_status_text(status));
    return status == PLX_INVALID_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

static plx_status check_words(const struct command *command, const struct option_settings *settings,
                              struct error *err)
{
    int count = settings->positional_count;
    REQUIRE(err, count >= command->min_words, PLX_INVALID_ARGUMENT,
            "%s: %d words are missing; usage: parallax %s %s", command->name,
            command->min_words - count, command->name, command->usage);
    REQUIRE(err, command->max_words < 0 || count <= command->max_words, PLX_INVALID_ARGUMENT,
            "%s: \"%s\" is one word too many; usage: parallax %s %s", command->name,
            settings->positionals[command->max_words], command->name, command->usage);
    return PLX_OK;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct error err = {0};
    struct option_settings settings;
    plx_status status = options_scan(command->table(), argc, argv, &settings, &err);
    bool usage = status != PLX_OK;
    if (status == PLX_OK && settings.help) {
        print_help(command);
    } else if (status == PLX_OK) {
        status = check_words(command, &settings, &err);
        usage = status != PLX_OK;
        if (status == PLX_OK) status = command->run(&settings, &err);
    }
    option_settings_clear(&settings);
    if (!usage) return finish(status, &err);
    int code = report_usage(&err, command->name);
    if (command->refused != NULL) command->refused();
    return code;
}

/* The command whose name is the first word, or the first two. *used says how many words that was.
 */
static const struct command *find_command(int argc, char **argv, int *used)
{
    for (int i = 0; i < COUNT_OF(commands); i++) {
        const char *name = commands[i]->name;
        size_t first = strcspn(name, " ");
        if (strlen(argv[1]) != first || strncmp(name, argv[1], first) != 0) continue;
        *used = name[first] ? 2 : 1;
        if (*used == 1 || (argc > 2 && strcmp(argv[2], name + first + 1) == 0)) return commands[i];
    }
    return NULL;
}

/* Prints the pages of a first word that has several commands ("bench"); false where none begins
 * with it. */
static bool print_family(const char *word)
{
    bool found = false;
    for (int i = 0; i < COUNT_OF(commands); i++) {
        const char *name = commands[i]->name;
        size_t first = strcspn(name, " ");
        if (!name[first] || strlen(word) != first || strncmp(name, word, first) != 0) continue;
        if (found) printf("\n");
        print_help(commands[i]);
        found = true;
    }
    return found;
}

/* Whether some commands of two words begin with this one. */
static bool is_family(const char *word)
{
    for (int i = 0; i < COUNT_OF(commands); i++) {
        size_t first = strcspn(commands[i]->name, " ");
        if (commands[i]->name[first] && strlen(word) == first &&
            strncmp(word, commands[i]->name, first) == 0)
            return true;
    }
    return false;
}

static int report_unknown(int argc, char **argv)
{
    static const char *const families[] = {"bench", "tokenizer"};
    struct error err = {0};
    const char *names[COUNT_OF(commands) + COUNT_OF(families) + 1];
    for (int i = 0; i < COUNT_OF(commands); i++) names[i] = commands[i]->name;
    for (int i = 0; i < COUNT_OF(families); i++) names[COUNT_OF(commands) + i] = families[i];
    names[COUNT_OF(commands) + COUNT_OF(families)] = NULL;
    char typed[128];
    bool two = is_family(argv[1]) && argc > 2;
    snprintf(typed, sizeof typed, "%s%s%s", argv[1], two ? " " : "", two ? argv[2] : "");
    error_set(&err, PLX_INVALID_ARGUMENT, "there is no command \"%s\"; the nearest is \"%s\"",
              typed, nearest_word(typed, names));
    return report_usage(&err, "");
}

/* Lets idle threads spin for some ten microseconds and then sleep, unless the user chose otherwise.
 * Tokens a second of `bench step` on two cores, alone / beside a process that keeps one core busy:
 * sleeping at once 13,600 / 9,200, spinning so long 19,500 / 8,700; spinning for ever is 18,700
 * and, with much other work, a tenth of that. OpenMP reads its environment before main, so the
 * program starts itself anew; where that fails it goes on as it is. */
static void spin_briefly(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0) execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    struct error none = {0};
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    bool help = strcmp(argv[1], "help") == 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (help && argc == 2)) {
        print_overview(stdout);
        return finish(PLX_OK, &none);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("%s\n", plx_build());
        return finish(PLX_OK, &none);
    }
    if (help) { /* `parallax help train` is `parallax train --help` */
        argc--;
        argv++;
    }
    int used;
    const struct command *command = find_command(argc, argv, &used);
    if (command && help) {
        print_help(command);
        return finish(PLX_OK, &none);
    }
    if (command) return run_command(command, argc - used, argv + used);
    bool page = help || argc < 3 || strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0;
    if (page && print_family(argv[1])) return finish(PLX_OK, &none);
    return report_unknown(argc, argv);
}
