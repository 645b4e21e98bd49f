/* test_tokenizer_pieces.c: SentencePiece models against what SentencePiece encodes and decodes with
 * them (sentencepiece/README.md), and every way in which such a file can be wrong, built field by
 * field. */
#include "token_cases.h"

#include "core/random.h"
#include "tokenizer/parts.h"
#include "tokenizer/protobuf.h"

static struct error err;

#define FOLDER SOURCE_FOLDER "/tests/golden/sentencepiece/"

/* ---- Recordings ---- */

static void recordings_are_met(void **state)
{
    char path[1024];
    struct tokenizer *tokenizer;
    snprintf(path, sizeof path, FOLDER "%s.model", (const char *)*state);
    assert_ok(tokenizer_load(path, &tokenizer, &err), &err);
    snprintf(path, sizeof path, FOLDER "%s.cases.jsonl", (const char *)*state);
    const struct token_style style = {TOKENIZER_PLAIN, false};
    assert_in_range(assert_token_cases(tokenizer, style, path), 90, 1000);
    tokenizer_destroy(tokenizer);
}

static void llama_frames_and_names(void **state)
{
    (void)state;
    struct tokenizer *tokenizer;
    int32_t ids[16];
    int64_t count;
    size_t size;
    assert_ok(tokenizer_load(FOLDER "llama.model", &tokenizer, &err), &err);
    assert_string_equal(tokenizer_file_name(tokenizer), "tokenizer.model");
    assert_int_equal(tokenizer_vocab_size(tokenizer), 900);
    assert_int_equal(tokenizer_end_of_text(tokenizer), 2);
    assert_ok(tokenizer_encode_as(tokenizer, "</s>", 4, TOKENIZER_ADDED | TOKENIZER_FRAME, ids, 16,
                                  &count, &err),
              &err);
    assert_int_equal(count, 2);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 2);
    tokenizer_token(tokenizer, 1, &size);
    assert_int_equal(size, 0);
    assert_int_equal(tokenizer_token(tokenizer, 3 + 0x41, &size)[0], 'A'); /* <0x41> */
    assert_int_equal(size, 1);
    tokenizer_destroy(tokenizer);
}

/* A folder with the model alone is one too; saving gives the same bytes. */
static void folders_may_hold_a_model_file(void **state)
{
    (void)state;
    struct tokenizer *tokenizer, *again;
    char *original, *copy;
    size_t size, copied;
    assert_ok(tokenizer_load(FOLDER "unigram.model", &tokenizer, &err), &err);
    assert_ok(tokenizer_save(tokenizer, io_path("tokenizer.model"), &err), &err);
    assert_ok(tokenizer_load_folder(io_folder, &again, &err), &err);
    assert_non_null(again);
    assert_ok(file_read_all(FOLDER "unigram.model", 1 << 20, &original, &size, &err), &err);
    assert_ok(file_read_all(io_path("tokenizer.model"), 1 << 20, &copy, &copied, &err), &err);
    assert_int_equal(size, copied);
    assert_memory_equal(original, copy, size);
    free(original);
    free(copy);
    tokenizer_destroy(again);
    tokenizer_destroy(tokenizer);
}

/* Llama-2's folders hold a tokenizer.json too, made from the model, whose rules are refused. */
static void folders_may_hold_both_files(void **state)
{
    (void)state;
    static const char rules[] = "{\"normalizer\": {\"type\": \"Prepend\"}, \"added_tokens\": [%s]}";
    static const char *const known[] = {"", "{\"id\": 0, \"content\": \"<unk>\"}, "
                                            "{\"id\": 1, \"content\": \"<s>\"}"};
    static const struct {
        const char *row, *says;
    } bad[] = {{"{\"id\": 900, \"content\": \"<|im_end|>\"}", "'<|im_end|>' (900) is not in"},
               {"{\"id\": 2, \"content\": \"<s>\"}", "'<s>' (2) is not in"},
               {"{\"id\": -1, \"content\": \"<s>\"}", "'<s>' (-1) is not in"},
               {"{\"content\": \"<s>\"}", "no whole id"}};
    char text[512], *model;
    size_t size;
    struct tokenizer *tokenizer;
    assert_ok(file_read_all(FOLDER "llama.model", 1 << 20, &model, &size, &err), &err);
    io_write(io_path("tokenizer.model"), model, size);
    free(model);
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, rules, known[i]);
        io_write_text(io_path("tokenizer.json"), text);
        assert_ok(tokenizer_load_folder(io_folder, &tokenizer, &err), &err);
        assert_int_equal(tokenizer_vocab_size(tokenizer), 900);
        tokenizer_destroy(tokenizer);
    }
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text, rules, bad[i].row);
        io_write_text(io_path("tokenizer.json"), text);
        assert_refused(tokenizer_load_folder(io_folder, &tokenizer, &err), PLX_BAD_DATA,
                       bad[i].says, &err);
        assert_null(tokenizer);
    }
}

/* ---- Files that are wrong ---- */

struct bytes {
    unsigned char data[8192];
    size_t size;
};

static void put_varint(struct bytes *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) out->data[out->size++] = (unsigned char)(value | 0x80);
    out->data[out->size++] = (unsigned char)value;
}

static void put_number(struct bytes *out, int field, uint64_t value)
{
    put_varint(out, (uint64_t)field << 3);
    put_varint(out, value);
}

static void put_bytes(struct bytes *out, int field, const void *data, size_t size)
{
    put_varint(out, (uint64_t)field << 3 | 2);
    put_varint(out, size);
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

static void put_piece(struct bytes *out, const char *text, float score, int type)
{
    struct bytes piece = {.size = 0};
    put_bytes(&piece, 1, text, strlen(text));
    put_varint(&piece, 2 << 3 | 5);
    memcpy(piece.data + piece.size, &score, 4);
    piece.size += 4;
    put_number(&piece, 3, (uint64_t)type);
    put_bytes(out, 1, piece.data, piece.size);
}

static void put_usual_pieces(struct bytes *out)
{
    put_piece(out, "<unk>", 0, 2);
    put_piece(out, "<s>", 0, 3);
    put_piece(out, "</s>", 0, 3);
    put_piece(out, "a", -2, 1);
    put_piece(out, "b", -3, 1);
    put_piece(out, "ab", -1, 1);
}

static void put_trainer(struct bytes *out, uint64_t model_type, int other, uint64_t value)
{
    struct bytes part = {.size = 0};
    put_number(&part, 3, model_type);
    put_number(&part, other, value);
    put_bytes(out, 2, part.data, part.size);
}

static void put_normalizer(struct bytes *out, const char *name, const char *map, int other,
                           uint64_t value)
{
    struct bytes part = {.size = 0};
    put_bytes(&part, 1, name, strlen(name));
    put_bytes(&part, 2, map, strlen(map));
    put_number(&part, other, value);
    put_bytes(out, 3, part.data, part.size);
}

static void good(struct bytes *out)
{
    put_usual_pieces(out);
    put_trainer(out, 2, 35, 0);
    put_normalizer(out, "identity", "", 3, 1);
}
static void empty(struct bytes *out)
{
    (void)out;
}
static void no_pieces(struct bytes *out)
{
    put_trainer(out, 2, 35, 0);
}
static void cut_short(struct bytes *out)
{
    good(out);
    out->size -= 3;
}
static void long_length(struct bytes *out)
{
    put_varint(out, 1 << 3 | 2);
    put_varint(out, UINT64_MAX);
}
static void endless_varint(struct bytes *out)
{
    for (int i = 0; i < 12; i++) out->data[out->size++] = 0xff;
}
static void wide_varint(struct bytes *out)
{
    put_varint(out, 5 << 3);
    for (int i = 0; i < 9; i++) out->data[out->size++] = 0xff;
    out->data[out->size++] = 2;
}
static void group(struct bytes *out)
{
    put_varint(out, 1 << 3 | 3);
}
static void field_zero(struct bytes *out)
{
    put_varint(out, 0);
    put_varint(out, 0);
}
static void damaged_piece(struct bytes *out)
{
    put_bytes(out, 1,
              "\x0a\x05"
              "ab",
              4);
}
static void empty_piece(struct bytes *out)
{
    put_piece(out, "", 0, 1);
}
static void overlong_piece(struct bytes *out)
{
    char text[258] = "";
    memset(text, 'a', 257);
    put_piece(out, text, 0, 1);
}
static void piece_not_text(struct bytes *out)
{
    put_piece(out, "a\xff", 0, 1);
}
static void unused_piece(struct bytes *out)
{
    put_piece(out, "a", 0, 5);
}
static void type_of_none(struct bytes *out)
{
    put_piece(out, "a", 0, 77);
}
static void score_not_finite(struct bytes *out)
{
    put_piece(out, "a", 0.0f / 0.0f, 1);
}
static void twice(struct bytes *out)
{
    put_usual_pieces(out);
    put_piece(out, "ab", -4, 1);
    put_trainer(out, 2, 35, 0);
}
static void two_unknown(struct bytes *out)
{
    put_usual_pieces(out);
    put_piece(out, "<unk2>", 0, 2);
    put_trainer(out, 2, 35, 0);
}
static void no_unknown(struct bytes *out)
{
    put_piece(out, "a", 0, 1);
    put_trainer(out, 2, 35, 0);
}
static void bytes_missing(struct bytes *out)
{
    put_usual_pieces(out);
    put_piece(out, "<0x00>", 0, 6);
    put_trainer(out, 2, 35, 1);
}
static void byte_of_no_name(struct bytes *out)
{
    put_usual_pieces(out);
    put_piece(out, "<0xG0>", 0, 6);
}
static void byte_twice(struct bytes *out)
{
    put_usual_pieces(out);
    put_piece(out, "<0x0A>", 0, 6);
    put_piece(out, "<0x0a>", 0, 6);
}
static void no_character(struct bytes *out)
{
    put_usual_pieces(out);
    put_piece(out, "ax", 0, 1);
    put_trainer(out, 2, 35, 0);
}
static void word_model(struct bytes *out)
{
    put_usual_pieces(out);
    put_trainer(out, 3, 35, 0);
}
static void suffix_model(struct bytes *out)
{
    put_usual_pieces(out);
    put_trainer(out, 2, 24, 1);
}
static void damaged_trainer(struct bytes *out)
{
    put_usual_pieces(out);
    put_bytes(out, 2, "\x18", 1);
}
static void long_surface(struct bytes *out)
{
    struct bytes part = {.size = 0};
    char text[65] = "";
    memset(text, '?', 64);
    put_bytes(&part, 44, text, 64);
    put_usual_pieces(out);
    put_bytes(out, 2, part.data, part.size);
}
static void charsmap(struct bytes *out)
{
    put_usual_pieces(out);
    put_trainer(out, 2, 35, 0);
    put_normalizer(out, "nmt_nfkc\x1b", "abcd", 3, 1);
}
static void no_escape(struct bytes *out)
{
    put_usual_pieces(out);
    put_trainer(out, 2, 35, 0);
    put_normalizer(out, "identity", "", 5, 0);
}
static void damaged_normalizer(struct bytes *out)
{
    put_usual_pieces(out);
    put_bytes(out, 3, "\x0a\x7f", 2);
}
static void only_special(struct bytes *out)
{
    put_piece(out, "<unk>", 0, 2);
    put_piece(out, "<s>", 0, 3);
}

static void wrong_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        void (*make)(struct bytes *out);
        const char *says;
    } rows[] = {
        {empty, "holds no pieces"},
        {no_pieces, "holds no pieces"},
        {cut_short, "neither JSON nor a sound SentencePiece model"},
        {long_length, "neither JSON nor"},
        {endless_varint, "neither JSON nor"},
        {wide_varint, "neither JSON nor"},
        {group, "neither JSON nor"},
        {field_zero, "neither JSON nor"},
        {damaged_piece, "piece 0 is damaged"},
        {empty_piece, "piece 0 has 0 bytes but must have 1..256"},
        {overlong_piece, "piece 0 has 257 bytes but must have 1..256"},
        {piece_not_text, "piece 0 is not UTF-8 text"},
        {unused_piece, "piece 0 has the type 5"},
        {type_of_none, "piece 0 has the type 77"},
        {score_not_finite, "piece 0 has the score"},
        {twice, "pieces 5 and 6 are equal"},
        {two_unknown, "has two unknown pieces"},
        {no_unknown, "has no unknown piece"},
        {bytes_missing, "byte_fallback is on but there is no piece <0x01>"},
        {byte_of_no_name, "piece 6 is of type BYTE"},
        {byte_twice, "piece 7 is of type BYTE"},
        {no_character, "piece 6 has a character that is no piece"},
        {word_model, "model_type is 3"},
        {suffix_model, "treat_whitespace_as_suffix"},
        {damaged_trainer, "the trainer's part is damaged"},
        {long_surface, "unk_surface has 64 bytes"},
        {charsmap, "the normaliser is nmt_nfkc? but must be identity"},
        {no_escape, "escape_whitespaces is off"},
        {damaged_normalizer, "the normaliser's part is damaged"},
        {only_special, "has no normal pieces"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct bytes file = {.size = 0};
        struct tokenizer *tokenizer = (struct tokenizer *)&file;
        rows[i].make(&file);
        plx_status status =
            tokenizer_parse_pieces((const char *)file.data, file.size, "FILE", &tokenizer, &err);
        assert_null(tokenizer);
        assert_non_null(strstr(err.text, "FILE"));
        assert_refused(status, PLX_BAD_DATA, rows[i].says, &err);
    }
}

/* Every cut and many changed bits of a good file: refused, or a tokenizer that encodes. */
static void damaged_files_do_no_harm(void **state)
{
    (void)state;
    char *file;
    size_t size;
    struct rng rng = rng_make(1, 0);
    assert_ok(file_read_all(FOLDER "plain.model", 1 << 20, &file, &size, &err), &err);
    for (int i = 0; i < 3000; i++) {
        char *copy = malloc(size);
        size_t cut = i % 3 == 0 ? (size_t)rng_below(&rng, size) : size;
        memcpy(copy, file, size);
        if (i % 3 != 0) copy[rng_below(&rng, size)] ^= (char)(1 << rng_below(&rng, 8));
        struct tokenizer *tokenizer;
        if (tokenizer_parse_pieces(copy, cut, "damaged", &tokenizer, &err) == PLX_OK) {
            int32_t ids[64];
            int64_t count;
            assert_ok(
                tokenizer_encode(tokenizer, "ab <sep> the x\xc3\xa9", 16, ids, 64, &count, &err),
                &err);
            tokenizer_destroy(tokenizer);
        }
        error_clear(&err);
        free(copy);
    }
    free(file);
}

static void a_small_file_is_read(void **state)
{
    (void)state;
    struct bytes file = {.size = 0};
    struct tokenizer *tokenizer;
    int32_t ids[8];
    int64_t count;
    good(&file);
    assert_ok(tokenizer_parse_pieces((const char *)file.data, file.size, "good", &tokenizer, &err),
              &err);
    assert_ok(tokenizer_encode(tokenizer, "abba", 4, ids, 8, &count, &err), &err);
    const int32_t expected[] = {0, 5, 4, 3}; /* the space before it is unknown here */
    assert_int_equal(count, 4);
    assert_memory_equal(ids, expected, sizeof expected);
    tokenizer_destroy(tokenizer);
}

/* The first token without any text. */
static void the_unknown_piece_may_have_no_surface(void **state)
{
    (void)state;
    struct bytes file = {.size = 0}, part = {.size = 0};
    struct tokenizer *tokenizer;
    int32_t ids[8];
    int64_t count;
    size_t size;
    put_usual_pieces(&file);
    put_bytes(&part, 44, "", 0);
    put_bytes(&file, 2, part.data, part.size);
    assert_ok(tokenizer_parse_pieces((const char *)file.data, file.size, "good", &tokenizer, &err),
              &err);
    assert_ok(tokenizer_encode(tokenizer, "x", 1, ids, 8, &count, &err), &err);
    assert_int_equal(ids[count - 1], 0);
    tokenizer_token(tokenizer, 0, &size);
    assert_int_equal(size, 0);
    tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"llama", recordings_are_met, NULL, NULL, (void *)"llama"},
        {"plain", recordings_are_met, NULL, NULL, (void *)"plain"},
        {"unigram", recordings_are_met, NULL, NULL, (void *)"unigram"},
        {"unigram_bytes", recordings_are_met, NULL, NULL, (void *)"unigram_bytes"},
        cmocka_unit_test(llama_frames_and_names),
        cmocka_unit_test(folders_may_hold_a_model_file),
        cmocka_unit_test(folders_may_hold_both_files),
        cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(damaged_files_do_no_harm),
        cmocka_unit_test(a_small_file_is_read),
        cmocka_unit_test(the_unknown_piece_may_have_no_surface),
    };
    return cmocka_run_group_tests_name("sentencepiece", tests, io_folder_make, io_folder_remove);
}
