/* fuzz_options.c: any bytes as the file of `parallax train --config`. What is accepted lies within
 * the ranges of its rows, is recorded in checkpoints as JSON, and reads back as the same; what is
 * refused is one line of text. */
#include "cli.h"

#include "fuzz.h"
#include "train.h"

static void check_number(const struct option_row *row, const struct train_options *options)
{
    const char *field = (const char *)options + row->offset;
    bool bounded = row->min != 0 || row->max != 0;
    double value = 0;
    if (row->type == OPTION_INT) value = (double)*(const int64_t *)(const void *)field;
    if (row->type == OPTION_REAL) value = *(const double *)(const void *)field;
    if (bounded && (row->type == OPTION_INT || row->type == OPTION_REAL))
        check(!(value < row->min) && !(value > row->max));
}

static void check_accepted(const struct option_table *table, const struct train_options *options)
{
    struct train_options back = {0};
    struct error err = {0};
    char *json;
    check(options_format(table, options, &json, &err) == PLX_OK);
    check(options_set_defaults(table, &back, &err) == PLX_OK);
    check(options_set_json(table, json, strlen(json), "back", &back, &err) == PLX_OK);
    for (int i = 0; i < table->count; i++) {
        check_number(&table->rows[i], options);
        check(table->rows[i].unrecorded || option_equal(&table->rows[i], options, &back));
    }
    options_clear(table, &back);
    free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct option_table *table = train_option_table();
    struct train_options options = {0};
    struct error err = {0};
    check(options_set_defaults(table, &options, &err) == PLX_OK);
    plx_status status = options_set_json(table, (const char *)data, size, "fuzz", &options, &err);
    check_outcome(status, &err);
    if (status == PLX_OK) check_accepted(table, &options);
    options_clear(table, &options);
    return 0;
}
