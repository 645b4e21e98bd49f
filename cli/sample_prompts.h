/* sample_prompts.h: `parallax sample --prompts`: every prompt of a file, some side by side. */
#ifndef CLI_SAMPLE_PROMPTS_H
#define CLI_SAMPLE_PROMPTS_H

#include "model_run.h"
#include "sample.h"

struct prompts {
    char **items; /* with a NUL behind each */
    size_t *sizes;
    int64_t count;
};

/* Lines of a text file that are not empty, or "prompt" of every line of a file whose name ends in
 * .jsonl. The caller clears prompts, also after a failure. */
plx_status prompts_read(const char *path, struct prompts *prompts, struct error *err);
void prompts_clear(struct prompts *prompts);

/* Continues them, options->side at a time, and prints one JSON object a line, in their order:
 * prompt, text, new_tokens, ended (by the model), stopped (by a stop string). stats: counts and
 * speed on stderr. */
plx_status prompts_sample(const struct model_run *run, const struct prompts *prompts,
                          const struct sample_options *options, bool stats, struct error *err);
/* The line of --stats about the cache. */
void print_cache_use(const struct sample_cache *cache);

#endif
