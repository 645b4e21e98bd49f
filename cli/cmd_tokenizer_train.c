/* cmd_tokenizer_train.c: `parallax tokenizer train`: a byte-level BPE vocabulary from text. */
#include "cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"
#include "io/file.h"
#include "progress.h"
#include "tokenizer/pattern.h"
#include "tokenizer/train.h"

struct tokenizer_train_values {
    struct text_list data, special;
    char *jsonl_field, *split;
    int64_t max_data_bytes, vocab_size, min_count;
};

/* group, key, type, field, default, value's name or choices, smallest, largest, unrecorded, help */
static const struct option_row rows[] = {
    {"Data", "data", OPTION_LIST, offsetof(struct tokenizer_train_values, data), NULL, "PATH...", 0,
     0, false, "text files, folders of them, .jsonl files with one document a line"},
    {NULL, "jsonl_field", OPTION_STRING, offsetof(struct tokenizer_train_values, jsonl_field),
     "text", "KEY", 0, 0, false, "key of the text in .jsonl files"},
    {NULL, "max_data_bytes", OPTION_INT, offsetof(struct tokenizer_train_values, max_data_bytes),
     "0", "N", 0, 1e15, false, "stop reading text after so many bytes; 0: read all"},
    {"Vocabulary", "vocab_size", OPTION_INT, offsetof(struct tokenizer_train_values, vocab_size),
     "8192", "N", 257, 1000000, false, "tokens in all: 256 bytes, merges, special tokens"},
    {NULL, "special", OPTION_LIST, offsetof(struct tokenizer_train_values, special),
     "<|endoftext|>", "NAME...", 0, 0, false, "special tokens; they get the last ids"},
    {NULL, "split", OPTION_STRING, offsetof(struct tokenizer_train_values, split), "qwen",
     "gpt2|llama3|qwen", 0, 0, false, "whose rule cuts text into words, inside which tokens stay"},
    {NULL, "min_count", OPTION_INT, offsetof(struct tokenizer_train_values, min_count), "2", "N", 1,
     1e15, false, "a pair that occurs less often does not become a token"},
};

static const struct option_table *tokenizer_train_table(void)
{
    static const struct option_table table = {rows, COUNT_OF(rows)};
    return &table;
}

static const char *split_expression(const char *name)
{
    return strcmp(name, "gpt2") == 0     ? pattern_gpt2
           : strcmp(name, "llama3") == 0 ? pattern_llama3
                                         : pattern_qwen;
}

/* The documents come as ids of the byte tokenizer, which are their bytes. */
static plx_status add_documents(const struct corpus *corpus, struct bpe_trainer *trainer,
                                struct error *err)
{
    plx_status status = PLX_OK;
    for (int64_t d = 0; d < corpus_documents(corpus) && status == PLX_OK; d++) {
        int64_t count = corpus_document_tokens(corpus, d);
        int32_t *ids = malloc((size_t)count * sizeof *ids);
        char *text = malloc((size_t)count);
        if (ids != NULL && text != NULL) {
            corpus_read(corpus, d, 0, count, ids);
            for (int64_t i = 0; i < count; i++) text[i] = (char)ids[i];
            status = bpe_trainer_add(trainer, text, (size_t)count, err);
        } else {
            status = error_set(err, PLX_OUT_OF_MEMORY, "no memory for a document of %lld bytes",
                               (long long)count);
        }
        free(ids);
        free(text);
    }
    return status;
}

static plx_status read_words(const struct tokenizer_train_values *values,
                             struct bpe_trainer *trainer, struct error *err)
{
    struct tokenizer *bytes;
    TRY(tokenizer_create_bytes(&bytes, err));
    struct corpus_options options = {.paths = (const char *const *)values->data.items,
                                     .path_count = values->data.count,
                                     .tokenizer = bytes,
                                     .vocab_size = tokenizer_vocab_size(bytes),
                                     .separator = -1,
                                     .max_bytes = values->max_data_bytes,
                                     .jsonl_field = values->jsonl_field};
    struct corpus *corpus = NULL;
    int64_t skipped;
    char number[32];
    plx_status status = corpus_load(&options, &corpus, &skipped, err);
    if (status == PLX_OK) status = add_documents(corpus, trainer, err);
    if (status == PLX_OK) {
        printf("%s bytes of text, ", format_count(corpus_tokens(corpus), number));
        printf("%s different words\n", format_count(bpe_trainer_words(trainer), number));
        fflush(stdout);
    }
    corpus_destroy(corpus);
    tokenizer_destroy(bytes);
    return status;
}

static void on_progress(void *user, int64_t done, int64_t total)
{
    if (done % 256 == 0) progress_share(user, "merged", done, total);
}

/* Reading it back proves that the file is one, and that no special token is a word too. */
static plx_status write_checked(const char *path, const char *json, size_t size, struct error *err)
{
    struct tokenizer *tokenizer;
    TRY(tokenizer_parse(json, size, path, &tokenizer, err));
    tokenizer_destroy(tokenizer);
    return file_replace(path, json, size, err);
}

static plx_status learn_and_write(const struct tokenizer_train_values *values,
                                  struct bpe_trainer *trainer, const char *path, struct error *err)
{
    int64_t made, merges = values->vocab_size - 256 - values->special.count;
    REQUIRE(err, merges >= 0, PLX_INVALID_ARGUMENT,
            "--vocab-size: %lld is less than 256 bytes and %d special tokens",
            (long long)values->vocab_size, values->special.count);
    TRY(read_words(values, trainer, err));
    struct progress progress = progress_make(1);
    struct bpe_training training = {merges, values->min_count, on_progress, &progress};
    TRY(bpe_trainer_run(trainer, &training, &made, err));
    progress_end(&progress);
    char *json;
    size_t size;
    TRY(bpe_trainer_format(trainer, (const char *const *)values->special.items,
                           values->special.count, &json, &size, err));
    plx_status status = write_checked(path, json, size, err);
    free(json);
    if (status != PLX_OK) return status;
    printf("%s: %lld tokens%s\n", path, (long long)(256 + made + values->special.count),
           made < merges ? "; no other pair occurs often enough" : "");
    return PLX_OK;
}

static plx_status tokenizer_train(const struct option_settings *settings, struct error *err)
{
    struct tokenizer_train_values values = {0};
    struct bpe_trainer *trainer = NULL;
    plx_status status = options_read(tokenizer_train_table(), settings, &values, err);
    if (status == PLX_OK && values.data.count == 0)
        status = error_set(err, PLX_INVALID_ARGUMENT, "--data: no file or folder is given");
    if (status == PLX_OK)
        status = bpe_trainer_create(split_expression(values.split), &trainer, err);
    if (status == PLX_OK) status = learn_and_write(&values, trainer, settings->positionals[0], err);
    bpe_trainer_destroy(trainer);
    options_clear(tokenizer_train_table(), &values);
    return status;
}

const struct command command_tokenizer_train = {
    .name = "tokenizer train",
    .summary = "learn a byte-level BPE vocabulary from text",
    .usage = "FILE.json --data PATH... [OPTION...]",
    .explanation = "Writes a tokenizer.json that `parallax train --tokenizer` and Hugging Face's "
                   "tokenizers read. The same text\n"
                   "and options give the same file everywhere.",
    .examples = {"parallax tokenizer train tokenizer.json --data texts/ --vocab-size 16384",
                 "parallax tokenizer train t.json --data a.txt --special \"<|endoftext|>\" "
                 "\"<|im_start|>\" \"<|im_end|>\""},
    .table = tokenizer_train_table,
    .min_words = 1,
    .max_words = 1,
    .run = tokenizer_train,
};
