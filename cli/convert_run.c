/* convert_run.c: see convert_run.h. */
#include "convert_run.h"

#include <stdio.h>
#include <string.h>

#include "process.h"

static void watch_bytes(void *user, const char *what, size_t done, size_t total)
{
    struct convert_watch *watch = user;
    if (watch->what == NULL || strcmp(watch->what, what) != 0) {
        watch->what = what;
        watch->started = process_seconds();
    }
    progress_bytes(&watch->progress, what, done, total, watch->started);
}

void convert_run_options(const struct convert_storage *storage, struct convert_watch *watch,
                         struct convert_options *options)
{
    static const char *const dtypes[][2] = {{"f32", "F32"}, {"bf16", "BF16"}, {"f16", "F16"}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(storage->dtype, dtypes[i][0]) == 0) options->dtype = dtypes[i][1];
    options->shard_bytes = (size_t)(storage->shard_size * 1e9);
    options->seed = (uint64_t)storage->seed;
    *watch = (struct convert_watch){.progress = progress_make(1)};
    options->progress = watch_bytes;
    options->user = watch;
}

void convert_run_print(const char *target, const struct convert_report *report,
                       struct convert_watch *watch)
{
    char count[32], bytes[32], seconds[32];
    progress_end(&watch->progress);
    printf("%s: %s, %s parameters in %d file%s of %s, written in %s\n", target,
           model_family_name(report->config.family), format_count(report->parameters, count),
           report->files, report->files == 1 ? "" : "s", format_bytes(report->bytes, bytes),
           format_duration(report->seconds, seconds));
}
