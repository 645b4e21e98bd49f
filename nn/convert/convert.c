/* convert.c: a conversion from beginning to end; see convert.h. */
#include "convert/convert.h"

#include <stdio.h>
#include <string.h>

#include "convert/convert_parts.h"
#include "io/file.h"
#include "io/model_file.h"
#include "process.h"

enum { PATH_SIZE = 4096 };

/* What a run has at hand; source NULL: there is none. */
struct run {
    const char *source, *target;
    char partial[PATH_SIZE + 16];
    struct model_config source_config;
    struct weights *weights;
    struct convert_plan plan;
    const struct convert_options *options;
    struct convert_report *report;
};

static plx_status check_target(struct run *run, struct error *err)
{
    char path[PATH_SIZE];
    int length = snprintf(path, sizeof path, "%s", run->target);
    REQUIRE(err, length > 0 && length < PATH_SIZE - 16, PLX_INVALID_ARGUMENT,
            "\"%.200s\" cannot be the name of a folder", run->target);
    while (length > 1 && path[length - 1] == '/') path[--length] = '\0';
    REQUIRE(err, !file_exists(path), PLX_INVALID_ARGUMENT,
            "%s: exists already, and a model folder is only written anew", path);
    snprintf(run->partial, sizeof run->partial, "%s.partial", path);
    return PLX_OK;
}

static plx_status write_and_prove(struct run *run, struct error *err)
{
    double started = process_seconds();
    TRY(convert_write(&run->plan, &run->report->config, run->source, run->partial, run->options,
                      err));
    TRY(file_sync_folder(run->partial, err));
    run->report->seconds = process_seconds() - started;
    run->report->proof = CONVERT_NOTHING_TO_COMPARE;
    if (run->source != NULL)
        TRY(convert_prove(&run->plan, run->source, run->partial, run->options, run->report, err));
    return file_rename(run->partial, run->target, err);
}

/* Whatever fails, nothing is left of the target. */
static plx_status make_target(struct run *run, struct error *err)
{
    TRY(file_remove_tree(run->partial, err));
    plx_status status = file_make_folder(run->partial, err);
    if (status == PLX_OK) status = write_and_prove(run, err);
    if (status != PLX_OK) file_remove_tree(run->partial, NULL);
    return status;
}

static plx_status plan_and_make(struct run *run, struct error *err)
{
    struct convert_report *report = run->report;
    TRY(convert_plan_make(&run->source_config, &report->config, run->weights, run->options,
                          &run->plan, err));
    report->parameters = param_list_elements(&run->plan.params);
    report->added = run->plan.added;
    report->dropped = run->plan.dropped;
    report->merged = run->plan.merged;
    report->files = run->plan.shards;
    report->bytes = run->plan.bytes;
    plx_status status = make_target(run, err);
    convert_plan_clear(&run->plan);
    return status;
}

static plx_status run_source(struct run *run, struct error *err)
{
    char path[PATH_SIZE];
    int length = snprintf(path, sizeof path, "%s/config.json", run->source);
    REQUIRE(err, length < PATH_SIZE, PLX_INVALID_ARGUMENT, "%.200s...: the path is too long",
            run->source);
    TRY(model_config_load(path, &run->source_config, err));
    TRY(convert_target_config(&run->source_config, path, run->options, &run->report->config, err));
    TRY(weights_open(run->source, &run->weights, err));
    plx_status status = plan_and_make(run, err);
    weights_close(run->weights);
    return status;
}

plx_status convert_folder(const char *source, const char *target,
                          const struct convert_options *options, struct convert_report *report,
                          struct error *err)
{
    char folder[PATH_SIZE];
    *report = (struct convert_report){0};
    struct run run = {.source = folder, .target = target, .options = options, .report = report};
    TRY(check_target(&run, err));
    TRY(model_folder_find(source, folder, sizeof folder, err));
    return run_source(&run, err);
}

plx_status convert_init(const struct model_config *config, const char *target,
                        const struct convert_options *options, struct convert_report *report,
                        struct error *err)
{
    *report = (struct convert_report){.config = *config};
    struct run run = {
        .target = target, .source_config = *config, .options = options, .report = report};
    TRY(check_target(&run, err));
    return plan_and_make(&run, err);
}
