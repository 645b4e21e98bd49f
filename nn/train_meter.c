/* train_meter.c: see train_meter.h. A peak is the device's data sheet's or the user's: where
 * neither says one, utilisation is unknown rather than invented. */
#include "train_meter.h"

#include <math.h>
#include <stdio.h>

#include "core/card.h"
#include "process.h"

static void find_peak(struct train_meter *meter, double given)
{
    const struct card *card = card_named(meter->device_name);
    meter->peak_tflops = NAN;
    if (!isnan(given)) {
        meter->peak_tflops = given;
        snprintf(meter->peak_source, sizeof meter->peak_source, "--peak-tflops");
    } else if (card != NULL) {
        meter->peak_tflops = card->tflops;
        snprintf(meter->peak_source, sizeof meter->peak_source,
                 "dense bf16 products by the data sheet of %s", card->name);
    } else {
        snprintf(meter->peak_source, sizeof meter->peak_source,
                 "none is known of %s; --peak-tflops states one", meter->device_name);
    }
}

plx_status train_meter_create(struct train_meter *meter, const struct train_options *options,
                              int devices, const struct backend *be,
                              const struct model_config *config, const struct param_list *params)
{
    struct device_facts facts;
    TRY(be->device->describe(be->device_index, &facts, be->err));
    *meter = (struct train_meter){.device = be->device,
                                  .devices = devices,
                                  .context = options->context,
                                  .flops = flops_per_token(config, params, options->context)};
    snprintf(meter->device_name, sizeof meter->device_name, "%s", facts.name);
    find_peak(meter, options->peak_tflops);
    return PLX_OK;
}

void train_meter_start(struct train_meter *meter, int64_t tokens)
{
    meter->start = process_seconds();
    meter->first_tokens = meter->last_tokens = tokens;
}

plx_status train_meter_step(struct train_meter *meter, struct train_progress *progress,
                            struct error *err)
{
    struct device_memory memory;
    TRY(meter->device->memory(&memory, err));
    const int64_t tokens = progress->tokens - meter->last_tokens;
    meter->last_tokens = progress->tokens;
    meter->steps++;
    meter->step_seconds += progress->seconds;
    progress->tokens_per_second = (double)tokens / progress->seconds;
    progress->device_tokens_per_second = progress->tokens_per_second / meter->devices;
    progress->device_tflops = 1e-12 * meter->flops.total * progress->device_tokens_per_second;
    progress->mfu = progress->device_tflops / meter->peak_tflops;
    progress->seconds_total = process_seconds() - meter->start;
    progress->seconds_left =
        progress->seconds_total / (double)meter->steps * (double)(progress->steps - progress->step);
    progress->memory_now = memory.held;
    progress->memory_peak = memory.held_peak;
    return PLX_OK;
}

double train_meter_rate(const struct train_meter *meter)
{
    return meter->steps > 0
               ? (double)(meter->last_tokens - meter->first_tokens) / meter->step_seconds
               : NAN;
}
