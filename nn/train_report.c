/* train_report.c: the sentences before the first step: parameters, the memory plan, the data, and
 * which kernels the run takes. */
#include "train_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernel_choice.h"
#include "mixers/mixer.h"

static void report_model(const struct train_session *session)
{
    const struct model_config *config = model_get_config(session->model);
    int64_t count = param_list_elements(model_params(session->model));
    char mixers[256] = "";
    for (int64_t i = 0; i < config->layers; i++) {
        const char *name = config->layer[i].mixer->name;
        if (i > 0 && strcmp(name, config->layer[i - 1].mixer->name) == 0) continue;
        size_t used = strlen(mixers);
        snprintf(mixers + used, sizeof mixers - used, "%s%s", used ? ", " : "", name);
    }
    train_session_say(session->hooks,
                      "model: %lld parameters; %lld layers (%s) of width %lld, %lld query and %lld "
                      "key/value heads of %lld channels, FFN %lld, vocabulary %lld",
                      (long long)count, (long long)config->layers, mixers,
                      (long long)config->hidden_size, (long long)config->heads,
                      (long long)config->kv_heads, (long long)config->head_dim,
                      (long long)config->intermediate_size, (long long)config->vocab_size);
    int64_t trained = param_list_trained(model_params(session->model));
    if (trained < count)
        train_session_say(session->hooks, "training %lld of the parameters; the rest is frozen",
                          (long long)trained);
}

static void report_memory(const struct train_session *session)
{
    char plan[256], available[64] = "";
    train_memory_text(&session->memory, plan, sizeof plan);
    if (session->available > 0)
        snprintf(available, sizeof available, "; %.1f GiB were free",
                 (double)session->available / (1024.0 * 1024.0 * 1024.0));
    train_session_say(session->hooks, "memory planned: %s%s", plan, available);
}

static void report_data(const struct train_session *session)
{
    const struct train_options *options = session->options;
    int64_t step_tokens =
        options->batch * options->context * options->accumulate * comm_size(session->comm);
    char held_out[128] = "nothing held out";
    if (session->held_out)
        snprintf(held_out, sizeof held_out, "held out %lld documents, %lld tokens",
                 (long long)corpus_documents(session->held_out),
                 (long long)corpus_tokens(session->held_out));
    train_session_say(
        session->hooks,
        "data: %lld documents, %lld tokens; %s; %lld tokens a step, %.2f epochs in all",
        (long long)corpus_documents(session->corpus), (long long)corpus_tokens(session->corpus),
        held_out, (long long)step_tokens,
        (double)step_tokens * (double)options->steps / (double)corpus_tokens(session->corpus));
}

/* Name of the kernel that a layer's attention takes in a pass over a micro-batch, or why it has
 * none. */
static const char *kernel_of(const struct train_session *session, const struct layer_config *layer,
                             plx_pass pass)
{
    const struct model_config *config = model_get_config(session->model);
    const int64_t tokens = session->options->batch * session->options->context;
    const struct kernel_question question = {.device = session->backend.device->kind,
                                             .mechanism = layer->mixer->mechanism,
                                             .pass = pass,
                                             .dtype = session->backend.activation,
                                             .queries = tokens,
                                             .keys = tokens,
                                             .heads = config->heads,
                                             .kv_heads = config->kv_heads,
                                             .head_dim = config->head_dim,
                                             .window = layer->window,
                                             .sequences = session->max_sequences};
    const char *name = NULL;
    plx_status status = kernel_choice(session->backend.context, &question, &name);
    return status == PLX_OK ? name : plx_error(session->backend.context);
}

static void report_kernels(const struct train_session *session)
{
    const struct model_config *config = model_get_config(session->model);
    char text[512] = "";
    for (int64_t i = 0; i < config->layers; i++) {
        bool seen = false;
        for (int64_t j = 0; j < i; j++) seen |= config->layer[j].mixer == config->layer[i].mixer;
        if (seen) continue;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s forward %s, backward %s; ",
                 config->layer[i].mixer->name, kernel_of(session, &config->layer[i], PLX_FORWARD),
                 kernel_of(session, &config->layer[i], PLX_BACKWARD));
    }
    train_session_say(session->hooks, "kernels: %smatrix products in %s%s; %d threads", text,
                      plx_dtype_name(session->backend.compute),
                      session->backend.fp8_linear ? ", of linear layers in fp8" : "",
                      session->backend.threads);
}

static void report_launches(const struct train_session *session)
{
    if (session->backend.device->kind == PLX_CPU) return;
    train_session_say(session->hooks, session->step.replaying
                                          ? "launches: a step's operations as CUDA graphs"
                                          : "launches: one operation after another, no CUDA graphs "
                                            "(--no-cuda-graphs)");
}

static void report_device(const struct train_session *session)
{
    const struct backend *be = &session->backend;
    struct device_facts facts;
    if (be->device->describe(be->device_index, &facts, NULL) != PLX_OK) return;
    train_session_say(session->hooks, "device: %s %d, %s%s%s; activations in %s, weights in %s",
                      be->device->name, be->device_index, facts.name, facts.details[0] ? ", " : "",
                      facts.details, plx_dtype_name(be->activation), plx_dtype_name(be->storage));
}

static void report_flops(const struct train_session *session)
{
    const struct train_meter *meter = &session->meter;
    char peak[64] = "no peak";
    if (!isnan(meter->peak_tflops))
        snprintf(peak, sizeof peak, "peak %g TFLOP/s a device", meter->peak_tflops);
    train_session_say(
        session->hooks,
        "model FLOPs: %.4g M a token (%.4g M in products with weights, head included, "
        "and %.4g M in causal attention over %lld tokens); %s: %s",
        1e-6 * meter->flops.total, 1e-6 * meter->flops.linear, 1e-6 * meter->flops.attention,
        (long long)meter->context, peak, meter->peak_source);
}

void train_report_plan(const struct train_session *session)
{
    report_model(session);
    report_memory(session);
    report_data(session);
    report_device(session);
    report_kernels(session);
    report_launches(session);
    report_flops(session);
}
