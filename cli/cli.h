/* cli.h: what a subcommand is. Each cmd_*.c defines one struct command; main.c keeps the table and
 * does for all of them what is common: scanning flags, --help, printing the error, the exit code.
 */
#ifndef CLI_H
#define CLI_H

#include "options.h"

struct command {
    const char *name;        /* "train", or two words: "bench step" */
    const char *summary;     /* one line for the overview */
    const char *usage;       /* what follows "parallax NAME" */
    const char *explanation; /* one paragraph */
    const char *examples[2];
    const struct option_table *(*table)(void);
    int min_words, max_words; /* positional words; max -1: any number */
    plx_status (*run)(const struct option_settings *settings, struct error *err);
    void (*refused)(void); /* comes instead, after a sentence about flags or words; or NULL */
};

extern const struct command command_train, command_sample, command_eval, command_bench_attention,
    command_bench_step, command_info, command_parity, command_convert, command_init,
    command_tokenize, command_tokenizer_train, command_tokenizer_check;

/* Every option of a training run; values are struct train_options. `bench step` shares most rows.
 */
const struct option_table *train_option_table(void);

/* The number of rows of a const array, and an option row's field. */
#define COUNT_OF(array) ((int)(sizeof(array) / sizeof((array)[0])))

#endif
