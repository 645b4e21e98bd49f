/* model_run.c: see model_run.h. */
#include "model_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "computing.h"
#include "io/file.h"

void model_run_hold_portable(void)
{
    setenv("DNNL_MAX_CPU_ISA", "SSE41", 1);
}

static plx_status open_tokenizer(struct model_run *run, struct error *err)
{
    TRY(tokenizer_load_folder(run->folder, &run->tokenizer, err));
    if (run->tokenizer == NULL) return PLX_OK;
    int64_t vocab = model_get_config(run->model)->vocab_size;
    REQUIRE(err, tokenizer_vocab_size(run->tokenizer) <= vocab, PLX_BAD_DATA,
            "%s: the tokenizer has %lld tokens but the model's vocabulary is %lld", run->folder,
            (long long)tokenizer_vocab_size(run->tokenizer), (long long)vocab);
    return PLX_OK;
}

/* A GPU that nobody named is worth a line beside the output. */
static void name_choice(const struct model_run_options *options,
                        const struct backend_config *config)
{
    char device[32];
    struct device_facts facts;
    if (strcmp(options->device, "auto") != 0 || config->ops->device == &device_cpu) return;
    if (config->ops->device->describe(config->device_index, &facts, NULL) != PLX_OK) return;
    fprintf(stderr, "on %s, %s, in %s\n", computing_device_name(config, device, sizeof device),
            facts.name, computing_dtype_name(config));
}

static plx_status open_parts(struct model_run *run, const char *path,
                             const struct model_run_options *options, struct error *err)
{
    const struct computing computing = {.device = options->device,
                                        .dtype = options->dtype,
                                        .weights = options->weights,
                                        .kernel = options->kernel,
                                        .portable = options->portable,
                                        .threads = options->threads};
    struct backend_config config;
    TRY(computing_config(&computing, &config, err));
    if (options->portable) model_run_hold_portable();
    TRY(model_folder_find(path, run->folder, sizeof run->folder, err));
    name_choice(options, &config);
    TRY(backend_create(&run->backend, &config, err));
    run->backend_exists = true;
    TRY(model_open(&run->backend, run->folder, &run->model, err));
    return open_tokenizer(run, err);
}

plx_status model_run_open(struct model_run *run, const char *path,
                          const struct model_run_options *options, struct error *err)
{
    memset(run, 0, sizeof *run);
    plx_status status = open_parts(run, path, options, err);
    if (status != PLX_OK) model_run_close(run);
    return status;
}

void model_run_close(struct model_run *run)
{
    tokenizer_destroy(run->tokenizer);
    model_destroy(run->model);
    if (run->backend_exists) backend_destroy(&run->backend);
    memset(run, 0, sizeof *run);
}

plx_status model_run_open_tokenizer(const char *path, struct tokenizer **tokenizer,
                                    struct error *err)
{
    char folder[4096];
    *tokenizer = NULL;
    if (!file_is_folder(path)) return tokenizer_load(path, tokenizer, err);
    /* A folder with a tokenizer and no model is enough here. */
    TRY(tokenizer_load_folder(path, tokenizer, err));
    if (*tokenizer != NULL) return PLX_OK;
    TRY(model_folder_find(path, folder, sizeof folder, err));
    TRY(tokenizer_load_folder(folder, tokenizer, err));
    REQUIRE(err, *tokenizer != NULL, PLX_IO_ERROR,
            "%s: holds neither tokenizer.json nor tokenizer.model", folder);
    return PLX_OK;
}
