/* test_tokenizer_golden.c: GPT-2's and Qwen-3's vocabularies against recordings of Hugging Face's
 * tokenizers (ids and decoded text of every line), the compiled form against the file, and
 * decode(encode(x)) = NFC(x) on random Unicode. */
#include "token_cases.h"

#include <utf8proc.h>

#include "core/random.h"
#include "tokenizer/parts.h"

static struct error err;
static const struct token_style style = {TOKENIZER_ADDED | TOKENIZER_FRAME, true};

/* FOLDER/NAME.tokenizer.json, unpacked. */
static const char *unpack(const char *name)
{
    char command[2048];
    const char *path = io_path(name);
    snprintf(command, sizeof command, "xz -dc '%s/data/tokenizers/%s.tokenizer.json.xz' > '%s'",
             SHARED_DATA, name, path);
    assert_int_equal(system(command), 0);
    return path;
}

/* Read from the file at first, from the compiled form then. */
static void recordings_are_met(void **state)
{
    const char *path = unpack(*state);
    char cases[1024];
    snprintf(cases, sizeof cases, "%s/data/tokenizers/%s.cases.jsonl", SHARED_DATA,
             (const char *)*state);
    for (int compiled = 0; compiled < 2; compiled++) {
        struct tokenizer *tokenizer;
        assert_ok(tokenizer_load(path, &tokenizer, &err), &err);
        assert_int_equal(tokenizer->vocab.mapped, compiled);
        assert_in_range(assert_token_cases(tokenizer, style, cases), 200, 100000);
        tokenizer_destroy(tokenizer);
    }
}

static size_t random_text(struct rng *rng, char *text)
{
    size_t size = 0;
    int count = (int)rng_below(rng, 60);
    for (int i = 0; i < count; i++) {
        static const uint32_t end[] = {0x80, 0x250, 0x3000, 0xd800, 0x30000};
        uint32_t code = 1 + (uint32_t)rng_below(rng, end[rng_below(rng, 5)] - 1);
        if (code >= 0xd800 && code < 0xe000) code = 0x301;
        size +=
            (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)text + size);
    }
    return size;
}

static void decoding_gives_the_normal_form(void **state)
{
    (void)state;
    struct tokenizer *tokenizer;
    assert_ok(tokenizer_load(unpack("qwen3"), &tokenizer, &err), &err);
    struct rng rng = rng_make(1, 0);
    for (int i = 0; i < 4000; i++) {
        char text[256], back[4096];
        int32_t ids[1024];
        utf8proc_uint8_t *expected;
        size_t size = random_text(&rng, text);
        utf8proc_ssize_t wanted = utf8proc_map((utf8proc_uint8_t *)text, (utf8proc_ssize_t)size,
                                               &expected, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        int64_t count = token_encode(tokenizer, style, text, size, ids, 1024);
        assert_int_equal(token_decode(tokenizer, style, ids, count, back), wanted);
        assert_memory_equal(back, expected, (size_t)wanted);
        free(expected);
    }
    tokenizer_destroy(tokenizer);
}

static int setup(void **state)
{
    int result = io_folder_make(state);
    char folder[4096];
    if (io_folder[0] == '/')
        setenv("XDG_CACHE_HOME", io_folder, 1);
    else if (realpath(io_folder, folder) != NULL)
        setenv("XDG_CACHE_HOME", folder, 1);
    return result;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"gpt2", recordings_are_met, NULL, NULL, (void *)"gpt2"},
        {"qwen3", recordings_are_met, NULL, NULL, (void *)"qwen3"},
        cmocka_unit_test(decoding_gives_the_normal_form),
    };
    if (access(SHARED_DATA "/data/tokenizers", R_OK) != 0) {
        printf("skipped: shared data absent\n");
        return 77;
    }
    if (system("xz --version >/dev/null 2>&1") != 0) {
        printf("skipped: xz is not installed\n");
        return 77;
    }
    return cmocka_run_group_tests_name("golden tokenizers", tests, setup, io_folder_remove);
}
