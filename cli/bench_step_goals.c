/* bench_step_goals.c: see bench_step_goals.h. The models are Qwen3-0.6B and Qwen3-1.7B, as they are
 * and with Parallax's probe. Goals are tokens a second at the median step on one NVIDIA H200, bf16,
 * no recomputation; a card that is not one is named, and the reader judges. */
#include "bench_step_goals.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "core/card.h"
#include "io/fields.h"
#include "progress.h"

struct goal {
    const char *name, *what;
    const char *settings; /* of train's table */
    double must, stretch; /* tokens/s; 0: none */
    double peer;          /* tokens/s of the peer below; 0: none */
    int peer_note;        /* index of peers */
};

/* What the goals are compared with; measured by this project. */
static const char *const peers[] = {
    "PyTorch 2.11, Qwen3-0.6B with softmax attention under torch.compile: 53.6k tokens/s, 88 GB",
    "flash-linear-attention's Parallax (Triton), 750 M parameters, 8 heads of 128, untied head: "
    "51.7k tokens/s, 60 GB"};

#define QWEN3(mixer, optimizer, width, inner, rows)                                                \
    "\"mixer\": \"" mixer "\", \"optimizer\": \"" optimizer "\", \"hidden_size\": " width          \
    ", \"intermediate_size\": " inner ", \"layers\": 28, \"heads\": 16, \"kv_heads\": 8, "         \
    "\"head_dim\": 128, \"vocab_size\": 151936, \"context\": 4096, \"batch\": " rows               \
    ", \"accumulate\": 1"

/* The one that sets --recompute is the last: it stays set. */
static const struct goal goals[] = {
    {"parallax-adamw", "Qwen3-0.6B + r, B=8, AdamW",
     "{" QWEN3("parallax", "adamw", "1024", "3072", "8") "}", 58000, 70000, 51700, 1},
    {"parallax-muon", "Qwen3-0.6B + r, B=8, Muon",
     "{" QWEN3("parallax", "muon", "1024", "3072", "8") "}", 0, 0, 51700, 1},
    {"softmax-adamw", "Qwen3-0.6B, B=8, AdamW",
     "{" QWEN3("softmax", "adamw", "1024", "3072", "8") "}", 66000, 80000, 53600, 0},
    {"parallax-1.7b", "Qwen3-1.7B + r, B=4, AdamW",
     "{" QWEN3("parallax", "adamw", "2048", "6144", "4") "}", 29000, 35000, 0, 0},
    {"parallax-selective", "0.6B + r, AdamW, selective",
     "{" QWEN3("parallax", "adamw", "1024", "3072", "8") ", \"recompute\": \"selective\"}", 0, 0,
     51700, 1},
};

/* Muon's goal is a share of AdamW's speed on the same model. */
static const double most_for_muon = 0.04, most_for_muon_stretch = 0.02;
/* GB, of the first row. */
static const double most_memory = 60, most_memory_stretch = 45;

static double rate(const struct step_measurement *measured)
{
    return (double)measured->tokens / measured->median;
}

/* NaN where the card's peak is not known. */
static double mfu(const struct step_measurement *measured)
{
    const struct card *card = card_named(measured->device);
    double tflops = 1e-12 * measured->flops_per_token * rate(measured);
    return card != NULL ? tflops / card->tflops : NAN;
}

static double gib(const struct step_measurement *measured)
{
    return (double)measured->memory.total / (1024.0 * 1024.0 * 1024.0);
}

static const char *verdict(double value, double must, double stretch)
{
    return value >= stretch ? "stretch" : value >= must ? "kept" : "MISSED";
}

/* ---- Output ---- */

static void print_head(const struct step_measurement *measured, const struct train_options *options,
                       const struct step_method *method)
{
    const struct card *card = card_named(measured->device);
    printf("%s\n%s, products in %s, recomputation %s, median of steps %lld to %lld\n", plx_build(),
           measured->device, options->dtype, options->recompute, (long long)method->skip + 1,
           (long long)(method->skip + method->repeat));
    if (card != NULL)
        printf("MFU is of %g TFLOP/s, dense bf16 by the data sheet of %s\n", card->tflops,
               card->name);
    printf("\n%-28s %11s %9s %8s %8s %9s %8s   %-26s %9s\n", "step", "tokens/s", "ms", "GFLOP/t",
           "TFLOP/s", "MFU", "GiB", "goal (H200)", "peer");
}

static void print_row(const struct goal *goal, const struct step_measurement *measured)
{
    char tokens[32], share[16] = "?", text[64] = "", peer[32] = "";
    if (!isnan(mfu(measured))) snprintf(share, sizeof share, "%.1f %%", 100 * mfu(measured));
    if (goal->must > 0)
        snprintf(text, sizeof text, "%.0fk, %.0fk: %s", goal->must / 1000, goal->stretch / 1000,
                 verdict(rate(measured), goal->must, goal->stretch));
    if (goal->peer > 0)
        snprintf(peer, sizeof peer, "x%.2f [%d]", rate(measured) / goal->peer, goal->peer_note + 1);
    printf("%-28s %11s %9.1f %8.3f %8.1f %9s %8.1f   %-26s %9s\n", goal->what,
           format_count(llround(rate(measured)), tokens), 1000 * measured->median,
           1e-9 * measured->flops_per_token, 1e-12 * measured->flops_per_token * rate(measured),
           share, gib(measured), text, peer);
    fflush(stdout);
}

static void print_json(const struct goal *goal, const struct step_measurement *measured,
                       const struct train_options *options, const struct step_method *method)
{
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I}", "bench", "step",
        "goal", goal->name, "device", measured->device, "dtype", options->dtype, "recompute",
        options->recompute, "parameters", (json_int_t)measured->parameters, "tokens",
        (json_int_t)measured->tokens, "skip", (json_int_t)method->skip, "repeat",
        (json_int_t)method->repeat, "best_seconds", measured->best, "median_seconds",
        measured->median, "tokens_per_second", rate(measured), "flops_per_token",
        measured->flops_per_token, "memory", (json_int_t)measured->memory.total);
    if (!object) return;
    json_object_set_new(object, "mfu",
                        isnan(mfu(measured)) ? json_null() : json_real(mfu(measured)));
    json_object_set_new(object, "build", json_string(plx_build()));
    char *text = fields_print(object, JSON_COMPACT | JSON_REAL_PRECISION(6));
    if (text) printf("%s\n", text);
    fflush(stdout);
    free(text);
    json_decref(object);
}

/* What spans rows: Muon beside AdamW, memory, and whose figures the peers are. */
static void print_foot(const struct step_measurement *measured)
{
    const struct step_measurement *adamw = &measured[0], *muon = &measured[1];
    printf("\n");
    if (adamw->median > 0 && muon->median > 0) {
        double slower = 1 - rate(muon) / rate(adamw);
        printf("Muon is %.1f %% slower than AdamW; goal at most %.0f, %.0f: %s\n", 100 * slower,
               100 * most_for_muon, 100 * most_for_muon_stretch,
               verdict(-slower, -most_for_muon, -most_for_muon_stretch));
    }
    if (adamw->median > 0)
        printf("memory of %s: %.1f GB; goal at most %.0f, %.0f: %s\n", goals[0].what,
               1e-9 * (double)adamw->memory.total, most_memory, most_memory_stretch,
               verdict(-1e-9 * (double)adamw->memory.total, -most_memory, -most_memory_stretch));
    printf("memory is what is planned and taken for tensors, without the runtime's own\n");
    for (int i = 0; i < COUNT_OF(peers); i++) printf("[%d] %s\n", i + 1, peers[i]);
    printf("    both measured on an H200 (driver 580), B=8, L=4096, bf16 autocast, fused AdamW\n");
}

/* ---- The rows ---- */

static plx_status check_name(const char *name, struct error *err)
{
    char known[256] = "all";
    for (int i = 0; i < COUNT_OF(goals); i++) {
        if (strcmp(name, goals[i].name) == 0) return PLX_OK;
        strncat(known, ", ", sizeof known - strlen(known) - 1);
        strncat(known, goals[i].name, sizeof known - strlen(known) - 1);
    }
    REQUIRE(err, strcmp(name, "all") == 0, PLX_INVALID_ARGUMENT, "--goals: \"%s\" is none of %s",
            name, known);
    return PLX_OK;
}

plx_status bench_step_goals(struct train_options *options, const char *name,
                            const struct step_method *method, bool json, struct error *err)
{
    struct step_measurement measured[COUNT_OF(goals)] = {0};
    bool first = true;
    TRY(check_name(name, err));
    TRY(train_settle_dtype(options, err));
    for (int i = 0; i < COUNT_OF(goals); i++) {
        const char *settings = goals[i].settings;
        if (strcmp(name, "all") != 0 && strcmp(name, goals[i].name) != 0) continue;
        TRY(options_set_json(train_option_table(), settings, strlen(settings), goals[i].name,
                             options, err));
        TRY(bench_step_measure(options, method, &measured[i], err));
        if (json) {
            print_json(&goals[i], &measured[i], options, method);
            continue;
        }
        if (first) print_head(&measured[i], options, method);
        print_row(&goals[i], &measured[i]);
        first = false;
    }
    if (!json) print_foot(measured);
    return PLX_OK;
}
