/* cmd_init.c: `parallax init`: a model folder of freshly initialised weights. */
#include "cli.h"

#include <stddef.h>
#include <stdio.h>

#include "convert_run.h"
#include "io/file.h"
#include "io/model_file.h"

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Weights", "seed", OPTION_INT, offsetof(struct convert_storage, seed), "1", "N", 0, 9e18,
     false, "equal seeds give equal weights, whatever their type is rounded from"},
    {NULL, "dtype", OPTION_STRING, offsetof(struct convert_storage, dtype), "f32", "f32|bf16|f16",
     0, 0, false, "of the weights"},
    {NULL, "shard_size", OPTION_REAL, offsetof(struct convert_storage, shard_size), "5", "GB", 0,
     1e9, false, "most of one file, in 10^9 bytes; 0: everything in one"},
};

static const struct option_table *init_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

static plx_status init_folder(const char *source, const char *target,
                              const struct convert_storage *storage, struct error *err)
{
    char path[4096];
    struct model_config config;
    struct convert_options options = {0};
    struct convert_report report;
    struct convert_watch watch;
    int length =
        snprintf(path, sizeof path, file_is_folder(source) ? "%s/config.json" : "%s", source);
    REQUIRE(err, length < (int)sizeof path, PLX_INVALID_ARGUMENT, "%.200s...: the path is too long",
            source);
    TRY(model_config_load(path, &config, err));
    convert_run_options(storage, &watch, &options);
    plx_status status = convert_init(&config, target, &options, &report, err);
    progress_end(&watch.progress);
    if (status == PLX_OK) convert_run_print(target, &report, &watch);
    return status;
}

static plx_status init(const struct option_settings *settings, struct error *err)
{
    struct convert_storage storage = {0};
    plx_status status = options_read(init_table(), settings, &storage, err);
    if (status == PLX_OK)
        status = init_folder(settings->positionals[0], settings->positionals[1], &storage, err);
    options_clear(init_table(), &storage);
    return status;
}

const struct command command_init = {
    .name = "init",
    .summary = "write a model folder of fresh weights from a config.json",
    .usage = "CONFIG DST [OPTION...]",
    .explanation =
        "Writes a model folder whose weights are the start of a training run: normal with the "
        "configuration's\n"
        "initializer_range, gains 1, biases 0. CONFIG is a config.json or a folder that holds one. "
        "DST must not exist.",
    .examples = {"parallax init config.json fresh --seed 7",
                 "parallax init Qwen3-0.6B-Base random-0.6b --dtype bf16"},
    .table = init_table,
    .min_words = 2,
    .max_words = 2,
    .run = init,
};
