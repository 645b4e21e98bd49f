/* options.h: one declarative table a command: a row is the flag, the key in a JSON configuration
 * file, the line in the help text, the default, the check, and the field that a checkpoint records.
 *
 * Values come in the order defaults < --config FILE.json < flags. A key is written with
 * underscores; its flag is the same with dashes: hidden_size and --hidden-size. Booleans are
 * --tie-embeddings and --no-tie-embeddings.
 *
 *     struct option_settings settings;
 *     options_scan(&table, argc, argv, &settings, err);        what the command line says, not yet
 * applied options_set_defaults(&table, &values, err); options_set_json(&table, text, size, name,
 * &values, err); options_set_flags(&table, &settings, &values, err);
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdio.h>

#include "core/error.h"

enum option_type {
    OPTION_STRING, /* char * */
    OPTION_BOOL,   /* bool */
    OPTION_INT,    /* int64_t */
    OPTION_REAL,   /* double; NaN where fallback is NULL and nothing was given */
    OPTION_LIST    /* struct text_list: every use of the flag takes all words up to the next flag */
};

struct option_row {
    const char *group; /* heading in the help text, on the first row of a group; NULL: as before */
    const char *key;
    enum option_type type;
    size_t offset;        /* of the field in the command's values */
    const char *fallback; /* the default as it would be typed; NULL: "", empty list, NaN */
    const char *values;   /* what stands after the flag: a name in capitals, or "a|b|c" in small
                             letters, the only   words that an OPTION_STRING then takes */
    double min, max;      /* of OPTION_INT and OPTION_REAL; unchecked where both are 0 */
    bool unrecorded; /* says where and how to run, not what: absent from checkpoints and logs */
    const char *help;
};

struct option_table {
    const struct option_row *rows;
    int count;
};

/* What a command line says. Texts point into argv. */
struct option_setting {
    const struct option_row *row;
    const char *text;
    bool first; /* of a list: replaces what was there before */
};
struct option_settings {
    struct option_setting *items;
    int count;
    const char **positionals;
    int positional_count;
    const char *config; /* of --config, or NULL */
    bool help;
    int argc; /* what was sorted */
    char **argv;
};

/* Sorts argv[1..] into flags and positional words. "--" ends the flags; "-" is a positional. */
plx_status options_scan(const struct option_table *table, int argc, char **argv,
                        struct option_settings *settings, struct error *err);
void option_settings_clear(struct option_settings *settings);

/* values must be zeroed before the first call; strings and lists in it belong to it. */
plx_status options_set_defaults(const struct option_table *table, void *values, struct error *err);
plx_status options_set_json(const struct option_table *table, const char *json, size_t size,
                            const char *name, void *values, struct error *err);
plx_status options_set_file(const struct option_table *table, const char *path, void *values,
                            struct error *err);
plx_status options_set_flags(const struct option_table *table,
                             const struct option_settings *settings, void *values,
                             struct error *err);
/* Defaults, then --config, then flags: what every command but train needs. */
plx_status options_read(const struct option_table *table, const struct option_settings *settings,
                        void *values, struct error *err);
void options_clear(const struct option_table *table, void *values);

/* malloc'd JSON object of the recorded rows. */
plx_status options_format(const struct option_table *table, const void *values, char **json,
                          struct error *err);
/* Whether a row's values in two structs are equal, and a row's value as text. */
bool option_equal(const struct option_row *row, const void *a, const void *b);
void option_print(const struct option_row *row, const void *values, char *text, size_t size);
/* Whether the row takes only the words in its values. */
bool option_has_choices(const struct option_row *row);
/* "--hidden-size" of hidden_size, in the given memory. */
const char *option_flag(const char *key, char *flag, size_t size);
bool option_is_set(const struct option_settings *settings, const char *key);
void options_print_help(const struct option_table *table, FILE *file);

/* The word of a list that is fewest edits away from a mistyped one; words ends with NULL. */
const char *nearest_word(const char *typed, const char *const *words);

#endif
