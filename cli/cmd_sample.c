/* cmd_sample.c: `parallax sample`: continues a prompt, or answers in a chat, and streams the text
 * as it comes. */
#include "cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat/chat.h"
#include "io/model_file.h"
#include "model_run.h"
#include "sample_prompts.h"
#include "text_input.h"
#include "train.h"
#include "utf8_stream.h"

struct sample_values {
    char *file, *prompts;
    int64_t batch;
    bool chat, turns, think;
    char *chat_template, *system;
    double temperature;
    int64_t top_k;
    double top_p, min_p, repetition_penalty;
    int64_t seed, max_tokens, cache_tokens;
    struct text_list stop;
    bool ignore_end, echo, raw, stats;
    struct model_run_options run;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Prompt", "file", OPTION_STRING, offsetof(struct sample_values, file), NULL, "FILE", 0, 0,
     false, "read the prompt from a file"},
    {NULL, "prompts", OPTION_STRING, offsetof(struct sample_values, prompts), NULL, "FILE", 0, 0,
     false,
     "continue every line of a text file, or \"prompt\" of every line of a .jsonl file, and print "
     "a JSON object for each; number i draws by seed + i"},
    {NULL, "batch", OPTION_INT, offsetof(struct sample_values, batch), "8", "N", 1, 65536, false,
     "how many of them side by side; where one ends, the next begins"},
    {NULL, "echo", OPTION_BOOL, offsetof(struct sample_values, echo), "false", NULL, 0, 0, false,
     "print the prompt before its continuation"},
    {"Chat", "chat", OPTION_BOOL, offsetof(struct sample_values, chat), "false", NULL, 0, 0, false,
     "answer: the argument is a user's message, a file or standard input holds JSON: a list of "
     "messages (role, content), or an object with \"messages\" and \"tools\""},
    {NULL, "turns", OPTION_BOOL, offsetof(struct sample_values, turns), "false", NULL, 0, 0, false,
     "answer every line of standard input in turn; what --chat does on a terminal"},
    {NULL, "system", OPTION_STRING, offsetof(struct sample_values, system), NULL, "TEXT", 0, 0,
     false, "the system message before what is not JSON"},
    {NULL, "think", OPTION_BOOL, offsetof(struct sample_values, think), "true", NULL, 0, 0, false,
     "let the model think first, where its family does"},
    {NULL, "chat_template", OPTION_STRING, offsetof(struct sample_values, chat_template), NULL,
     "NAME", 0, 0, false, "qwen3 or llama3; otherwise what the model folder says"},
    {"Sampling", "max_tokens", OPTION_INT, offsetof(struct sample_values, max_tokens), "200", "N",
     1, 1e15, false, "new tokens at most; less where the context ends"},
    {NULL, "temperature", OPTION_REAL, offsetof(struct sample_values, temperature), "0.8", "X", 0,
     100, false, "0 takes the likeliest token each time"},
    {NULL, "top_k", OPTION_INT, offsetof(struct sample_values, top_k), "0", "N", 0, 1e15, false,
     "only the N likeliest tokens; 0: all"},
    {NULL, "top_p", OPTION_REAL, offsetof(struct sample_values, top_p), "1", "X", 0, 1, false,
     "only the likeliest tokens that add up to X; 1: all"},
    {NULL, "min_p", OPTION_REAL, offsetof(struct sample_values, min_p), "0", "X", 0, 1, false,
     "only tokens of at least X times the likeliest one's probability"},
    {NULL, "repetition_penalty", OPTION_REAL, offsetof(struct sample_values, repetition_penalty),
     "1", "X", 0.01, 100, false, "above 1: makes tokens that occurred less likely"},
    {NULL, "seed", OPTION_INT, offsetof(struct sample_values, seed), "1", "N", 0, 9e18, false,
     "of the draws; equal seeds give equal text"},
    {NULL, "ignore_end", OPTION_BOOL, offsetof(struct sample_values, ignore_end), "false", NULL, 0,
     0, false, "go on after the model ends its text"},
    {NULL, "stop", OPTION_LIST, offsetof(struct sample_values, stop), NULL, "TEXT...", 0, 0, false,
     "texts that end the answer where they appear; they are not printed"},
    {"Cache", "cache_tokens", OPTION_INT, offsetof(struct sample_values, cache_tokens), "0", "N", 0,
     1e12, false,
     "tokens that all texts side by side may hold together, in pages of 64; others wait; 0: as "
     "many "
     "as they may become"},
    {"Output", "raw", OPTION_BOOL, offsetof(struct sample_values, raw), "false", NULL, 0, 0, false,
     "write the model's bytes as they are; otherwise invalid UTF-8 becomes U+FFFD"},
    {NULL, "stats", OPTION_BOOL, offsetof(struct sample_values, stats), "false", NULL, 0, 0, false,
     "print counts and speed on stderr"},
    {"Computing", "device", OPTION_STRING, offsetof(struct sample_values, run.device), "auto",
     "DEVICE", 0, 0, false,
     "auto, cpu, cuda or cuda:N; auto is the first GPU, or the CPU without one"},
    {NULL, "dtype", OPTION_STRING, offsetof(struct sample_values, run.dtype), NULL, "f32|bf16", 0,
     0, false, "operands of matrix products, and on a GPU activations [f32, on a GPU bf16]"},
    {NULL, "weights", OPTION_STRING, offsetof(struct sample_values, run.weights), NULL,
     "f32|bf16|int8", 0, 0, false,
     "how matrices are held in memory: bf16 is exact for checkpoints of that type, int8 has a "
     "scale a row; what a token costs is reading them [f32; bf16 on a GPU where it computes in "
     "bf16]"},
    {NULL, "kernel", OPTION_STRING, offsetof(struct sample_values, run.kernel), NULL, "NAME", 0, 0,
     false, "force an attention kernel (parallax info lists them)"},
    {NULL, "portable", OPTION_BOOL, offsetof(struct sample_values, run.portable), "false", NULL, 0,
     0, false, "portable kernels only"},
    {NULL, "threads", OPTION_INT, offsetof(struct sample_values, run.threads), "0", "N", 0, 4096,
     false, "CPU threads; 0: all"},
};

static const struct option_table *sample_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

/* ---- The text ---- */

/* Where tokens go: through the UTF-8 stream, or as they are; and, where a chat goes on, into its
 * memory. */
struct output {
    bool raw;
    struct utf8_stream stream;
    struct utf8_stream memory; /* file NULL: not wanted */
};

static bool write_token(void *user, const char *bytes, size_t size)
{
    struct output *output = user;
    if (output->raw) {
        fwrite(bytes, 1, size, stdout);
        fflush(stdout);
    } else {
        utf8_stream_write(&output->stream, bytes, size);
    }
    if (output->memory.file) utf8_stream_write(&output->memory, bytes, size);
    return !ferror(stdout);
}

static void write_prompt(struct output *output, const char *prompt, size_t size)
{
    FILE *memory = output->memory.file;
    output->memory.file = NULL;
    write_token(output, prompt, size);
    output->memory.file = memory;
}

static void print_stats(const struct sample_report *report)
{
    fprintf(stderr,
            "%lld prompt tokens in %.3f s (%.0f tokens/s), %lld new tokens in %.3f s (%.0f "
            "tokens/s)%s\n",
            (long long)report->prompt_tokens, report->prefill_seconds,
            (double)report->prompt_tokens / report->prefill_seconds, (long long)report->new_tokens,
            report->decode_seconds, (double)report->new_tokens / report->decode_seconds,
            report->ended     ? ", ended by the model"
            : report->stopped ? ", ended by --stop"
                              : "");
    print_cache_use(&report->cache);
}

/* What a prompt is, apart from its text. */
struct request {
    bool framed;
    int32_t stop_id;
    FILE *memory; /* where the answer is kept, or NULL */
};

static struct sample_options make_options(const struct sample_values *values,
                                          const struct request *request)
{
    return (struct sample_options){.temperature = values->temperature,
                                   .top_k = values->top_k,
                                   .top_p = values->top_p,
                                   .min_p = values->min_p,
                                   .repetition_penalty = values->repetition_penalty,
                                   .seed = (uint64_t)values->seed,
                                   .max_tokens = values->max_tokens,
                                   .side = values->batch,
                                   .cache_tokens = values->cache_tokens,
                                   .ignore_end = values->ignore_end,
                                   .framed = request->framed,
                                   .stop_id = request->stop_id,
                                   .stops = (const char *const *)values->stop.items,
                                   .stop_count = values->stop.count};
}

/* The default number of tokens gives way to the context; a number that was asked for does not. */
static void fit_context(const struct model_run *run, const struct option_settings *settings,
                        const char *prompt, size_t size, struct sample_options *options)
{
    int64_t context = model_get_config(run->model)->max_position, count = 0;
    plx_status status = tokenizer_encode_as(run->tokenizer, prompt, size,
                                            options->framed ? SAMPLE_FRAMED : SAMPLE_ENCODING, NULL,
                                            0, &count, NULL);
    if (!option_is_set(settings, "max_tokens") && status == PLX_WORKSPACE_TOO_SMALL &&
        count < context && count + options->max_tokens > context)
        options->max_tokens = context - count;
}

static plx_status sample_prompt(struct model_run *run, const struct option_settings *settings,
                                const struct sample_values *values, const char *prompt, size_t size,
                                const struct request *request, struct error *err)
{
    struct sample_options options = make_options(values, request);
    fit_context(run, settings, prompt, size, &options);
    struct output output = {
        .raw = values->raw, .stream = {.file = stdout}, .memory = {.file = request->memory}};
    if (values->echo) write_prompt(&output, prompt, size);
    struct sample_report report = {0};
    TRY(sample_run(run->model, run->tokenizer, prompt, size, &options, write_token, &output,
                   &report, err));
    if (!values->raw) utf8_stream_end(&output.stream);
    if (request->memory) utf8_stream_end(&output.memory);
    if (isatty(STDOUT_FILENO) || values->turns) printf("\n");
    if (values->stats) print_stats(&report);
    return PLX_OK;
}

/* ---- Chats ---- */

struct session {
    struct model_run *run;
    const struct option_settings *settings;
    const struct sample_values *values;
    const struct chat_template *family;
    int32_t stop_id;
    struct chat chat;
};

/* Renders the chat and prints the answer; memory as in struct request. */
static plx_status answer(struct session *session, FILE *memory, struct error *err)
{
    struct chat_options options = {.thinking = session->values->think, .answer = true};
    struct request request = {true, session->stop_id, memory};
    char *text;
    size_t size;
    TRY(chat_render(session->family, &session->chat, &options, &text, &size, err));
    plx_status status =
        sample_prompt(session->run, session->settings, session->values, text, size, &request, err);
    free(text);
    return status;
}

static plx_status answer_and_remember(struct session *session, struct error *err)
{
    char *kept = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&kept, &size);
    REQUIRE(err, memory != NULL, PLX_OUT_OF_MEMORY, "no memory for an answer");
    plx_status status = answer(session, memory, err);
    bool complete = fclose(memory) == 0;
    if (status == PLX_OK && !complete)
        status = error_set(err, PLX_OUT_OF_MEMORY, "no memory for an answer");
    /* A model may write NUL, which no message can hold; what stands behind it is forgotten. */
    if (status == PLX_OK) status = chat_add(&session->chat, "assistant", kept, err);
    free(kept);
    return status;
}

static plx_status add_system(struct session *session, struct error *err)
{
    const char *system = session->values->system;
    return system[0] ? chat_add(&session->chat, "system", system, err) : PLX_OK;
}

static plx_status take_turns(struct session *session, struct error *err)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    plx_status status = add_system(session, err);
    while (status == PLX_OK) {
        if (isatty(STDIN_FILENO)) {
            printf("> ");
            fflush(stdout);
        }
        if ((length = getline(&line, &capacity, stdin)) < 0) break;
        if (length > 0 && line[length - 1] == '\n') line[--length] = '\0';
        if (length == 0) continue;
        status = chat_add(&session->chat, "user", line, err);
        if (status == PLX_OK) status = answer_and_remember(session, err);
    }
    free(line);
    return status;
}

static plx_status answer_once(struct session *session, const char *word, struct error *err)
{
    const char *file = session->values->file;
    if (word && strcmp(word, "-") != 0 && !file[0]) {
        TRY(add_system(session, err));
        TRY(chat_add(&session->chat, "user", word, err));
        return answer(session, NULL, err);
    }
    char *json;
    size_t size;
    REQUIRE(err, !session->values->system[0], PLX_INVALID_ARGUMENT,
            "--system: messages in JSON hold their own");
    TRY(text_input_read(word, file, &json, &size, err));
    plx_status status =
        chat_parse(json, size, file[0] ? file : "standard input", &session->chat, err);
    free(json);
    return status == PLX_OK ? answer(session, NULL, err) : status;
}

static plx_status run_chat(struct session *session, const char *word, struct error *err)
{
    const struct sample_values *values = session->values;
    if (values->chat_template[0])
        TRY(chat_template_by_name(values->chat_template, &session->family, err));
    else
        TRY(chat_template_of_folder(session->run->folder, &session->family, err));
    const char *stop = chat_template_stop(session->family);
    session->stop_id = tokenizer_added_id(session->run->tokenizer, stop);
    REQUIRE(err, session->stop_id >= 0, PLX_BAD_DATA,
            "%s: the tokenizer has no token %s, which ends the turns of %s", session->run->folder,
            stop, chat_template_name(session->family));
    bool turns = values->turns || (!word && !values->file[0] && isatty(STDIN_FILENO));
    REQUIRE(err, !turns || (!word && !values->file[0]), PLX_INVALID_ARGUMENT,
            "--turns: reads standard input, but a text is given as well");
    plx_status status = turns ? take_turns(session, err) : answer_once(session, word, err);
    chat_clear(&session->chat);
    return status;
}

/* ---- The command ---- */

static plx_status run_prompt(struct model_run *run, const struct option_settings *settings,
                             const struct sample_values *values, const char *word,
                             struct error *err)
{
    char *prompt = NULL;
    size_t size = 0;
    TRY(text_input_read(word, values->file, &prompt, &size, err));
    plx_status status =
        sample_prompt(run, settings, values, prompt, size, &(struct request){0}, err);
    free(prompt);
    return status;
}

static plx_status run_prompts(struct model_run *run, const struct option_settings *settings,
                              const struct sample_values *values, const char *word,
                              struct error *err)
{
    struct sample_options options = make_options(values, &(struct request){0});
    struct prompts prompts;
    REQUIRE(err, !word && !values->file[0] && !values->chat && !values->turns, PLX_INVALID_ARGUMENT,
            "--prompts: %s holds all prompts, but another text is asked for", values->prompts);
    plx_status status = prompts_read(values->prompts, &prompts, err);
    for (int64_t i = 0; i < prompts.count; i++)
        fit_context(run, settings, prompts.items[i], prompts.sizes[i], &options);
    if (status == PLX_OK) status = prompts_sample(run, &prompts, &options, values->stats, err);
    prompts_clear(&prompts);
    return status;
}

static plx_status run_sample(const struct option_settings *settings,
                             const struct sample_values *values, struct error *err)
{
    struct model_run run;
    TRY(model_run_open(&run, settings->positionals[0], &values->run, err));
    const char *word = settings->positional_count > 1 ? settings->positionals[1] : NULL;
    struct session session = {.run = &run, .settings = settings, .values = values};
    plx_status status = PLX_OK;
    if (!run.tokenizer)
        status = error_set(err, PLX_IO_ERROR,
                           "%s: holds neither tokenizer.json nor tokenizer.model", run.folder);
    else if (values->prompts[0])
        status = run_prompts(&run, settings, values, word, err);
    else if (values->chat || values->turns)
        status = run_chat(&session, word, err);
    else
        status = run_prompt(&run, settings, values, word, err);
    model_run_close(&run);
    return status;
}

static plx_status sample(const struct option_settings *settings, struct error *err)
{
    struct sample_values values = {0};
    plx_status status = options_read(sample_table(), settings, &values, err);
    if (status == PLX_OK) status = run_sample(settings, &values, err);
    options_clear(sample_table(), &values);
    return status;
}

const struct command command_sample = {
    .name = "sample",
    .summary = "continue a prompt with a trained model",
    .usage = "MODEL [PROMPT|-] [OPTION...]",
    .explanation =
        "Continues a prompt and prints the text as it is decoded. MODEL is a model folder "
        "(config.json,\n"
        "model.safetensors, tokenizer.json) or a run folder, whose newest sound checkpoint is "
        "taken. The prompt is the\n"
        "argument, a file, or standard input; without any, the model starts a text of its own. "
        "With "
        "--chat the model\n"
        "answers messages instead, by the chat template of its folder (Qwen-3's or Llama-3's).",
    .examples = {"parallax sample run \"#include <\" --temperature 0.7 --top-p 0.9",
                 "parallax sample Qwen3-0.6B \"Why is the sky blue?\" --chat --no-think"},
    .table = sample_table,
    .min_words = 1,
    .max_words = 2,
    .run = sample,
};
