/* convert_run.h: what `parallax convert` and `parallax init` share: how to store weights, progress,
 * and the lines about what was written. */
#ifndef CLI_CONVERT_RUN_H
#define CLI_CONVERT_RUN_H

#include "convert/convert.h"
#include "progress.h"

struct convert_storage {
    char *dtype;       /* f32, bf16, f16; "": as it comes */
    double shard_size; /* GB, 10^9 bytes; 0: one file */
    int64_t seed;
};

/* Where a conversion reports to while it runs. */
struct convert_watch {
    struct progress progress;
    const char *what; /* being done */
    double started;
};

/* Sets what storage and watch say in options. */
void convert_run_options(const struct convert_storage *storage, struct convert_watch *watch,
                         struct convert_options *options);
/* "DST: qwen3, 1,234 parameters in 2 files of 5.0 MiB, written in 1.2s" */
void convert_run_print(const char *target, const struct convert_report *report,
                       struct convert_watch *watch);

#endif
