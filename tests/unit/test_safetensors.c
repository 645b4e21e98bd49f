/* test_safetensors.c: every rule of the safetensors format is one named test, on bytes made by
 * hand; then conversions, round trips, every truncation and every single-byte corruption of a small
 * file. */
#include "io_files.h"

#include <math.h>

#include "io/safetensors.h"

/* A file in memory of exactly its size, so that AddressSanitizer sees a read past its end. */
struct bytes {
    unsigned char *data;
    size_t size;
};

/* n, the header and data_size bytes 0, 1, 2, ... */
static struct bytes make_file(const void *header, size_t header_size, size_t data_size)
{
    struct bytes bytes = {.size = 8 + header_size + data_size};
    bytes.data = malloc(bytes.size);
    assert_non_null(bytes.data);
    uint64_t length = header_size;
    memcpy(bytes.data, &length, 8);
    memcpy(bytes.data + 8, header, header_size);
    for (size_t i = 0; i < data_size; i++) bytes.data[8 + header_size + i] = (unsigned char)i;
    return bytes;
}

static void expect_refusal(struct bytes bytes, plx_status expected, const char *fragment)
{
    struct safetensors *file = NULL;
    struct error err = {0};
    plx_status status = safetensors_parse(bytes.data, bytes.size, "m.safetensors", &file, &err);
    assert_null(file);
    assert_non_null(strstr(err.text, "m.safetensors: "));
    assert_refused(status, expected, fragment, &err);
    free(bytes.data);
}

/* The caller frees bytes after closing the file. */
static struct safetensors *expect_file(struct bytes bytes)
{
    struct safetensors *file = NULL;
    struct error err = {0};
    assert_ok(safetensors_parse(bytes.data, bytes.size, "m.safetensors", &file, &err), &err);
    assert_non_null(file);
    return file;
}

static struct bytes make_text_file(const char *header, size_t data_size)
{
    return make_file(header, strlen(header), data_size);
}

/* ---- Refusals -------------------------------------------------------------------------------- */

/* One malformed header each; the sentence must hold the fragment. */
struct refusal {
    const char *name;
    const char *header;
    size_t data;
    const char *says;
};

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct refusal refusals[] = {
    {"rule 5: no JSON", "", 0, "not valid JSON"},
    {"rule 5: broken JSON", "{\"a\":", 0, "not valid JSON"},
    {"rule 5: something behind the object", "{} {}", 0, "not valid JSON"},
    {"rule 5: array instead of object", "[]", 0, "not a JSON object"},
    {"rule 5: tensor is a number", "{\"a\":1}", 0, "tensor a is not described by an object"},
    {"rule 5: duplicate tensor",
     "{\"a\":" T("U8", "[1]", "[0,1]") ",\"a\":" T("U8", "[1]", "[1,2]") "}", 2, "duplicate"},
    {"rule 5: duplicate field",
     "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "duplicate"},
    {"rule 5: unknown dtype", "{\"a\":" T("F33", "[1]", "[0,4]") "}", 4, "unknown dtype \"F33\""},
    {"rule 5: dtype in lower case", "{\"a\":" T("f32", "[1]", "[0,4]") "}", 4,
     "unknown dtype \"f32\""},
    {"rule 5: dtype is a number", "{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "dtype is not a text"},
    {"rule 5: dtype missing", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "a has no dtype"},
    {"rule 5: shape missing", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1,
     "a has no shape"},
    {"rule 5: shape is an object", "{\"a\":" T("U8", "{}", "[0,1]") "}", 1,
     "shape is not an array"},
    {"rule 5: negative extent", "{\"a\":" T("U8", "[-1]", "[0,1]") "}", 1,
     "shape holds -1, which is negative"},
    {"rule 5: fractional extent", "{\"a\":" T("U8", "[1.5]", "[0,1]") "}", 1, "shape holds 1.5"},
    {"rule 5: whole number written as fraction", "{\"a\":" T("U8", "[1.0]", "[0,1]") "}", 1,
     "whole number"},
    {"rule 5: extent is a text", "{\"a\":" T("U8", "[\"1\"]", "[0,1]") "}", 1, "not a number"},
    {"rule 5: extent beyond 64 bits", "{\"a\":" T("U8", "[99999999999999999999]", "[0,1]") "}", 1,
     "not valid JSON"},
    {"rule 5: data_offsets missing", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1,
     "has no data_offsets"},
    {"rule 5: data_offsets is a number", "{\"a\":" T("U8", "[1]", "1") "}", 1, "not an array"},
    {"rule 5: one data offset", "{\"a\":" T("U8", "[1]", "[0]") "}", 1, "1 numbers instead of 2"},
    {"rule 5: three data offsets", "{\"a\":" T("U8", "[1]", "[0,1,2]") "}", 1,
     "3 numbers instead of 2"},
    {"rule 5: negative offset", "{\"a\":" T("U8", "[1]", "[-1,0]") "}", 1, "data_offsets holds -1"},
    {"rule 5: fractional offset", "{\"a\":" T("U8", "[1]", "[0,1.25]") "}", 1,
     "data_offsets holds 1.25"},
    {"rule 5: metadata is a text", "{\"__metadata__\":\"x\"}", 0, "__metadata__ is not an object"},
    {"rule 5: metadata holds a number", "{\"__metadata__\":{\"format\":1}}", 0,
     "key format does not hold a text"},
    {"rule 5: NUL in a name", "{\"a\\u0000b\":" T("U8", "[1]", "[0,1]") "}", 1, "not valid JSON"},
    {"rule 6: end before begin", "{\"a\":" T("U8", "[1]", "[1,0]") "}", 1,
     "ends at 0, before it begins at 1"},
    {"rule 6: first does not begin at 0", "{\"a\":" T("U8", "[1]", "[1,2]") "}", 2,
     "tensor a begins at 1, but what lies before it ends at 0 (there is a gap)"},
    {"rule 6: gap", "{\"a\":" T("U8", "[1]", "[0,1]") ",\"b\":" T("U8", "[1]", "[2,3]") "}", 3,
     "tensor b begins at 2, but what lies before it ends at 1 (there is a gap)"},
    {"rule 6: overlap", "{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[2]", "[1,3]") "}", 3,
     "tensor b begins at 1, but what lies before it ends at 2 (they overlap)"},
    {"rule 6: two tensors on the same bytes",
     "{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[2]", "[0,2]") "}", 2, "they overlap"},
    {"rule 7: product of the shape overflows",
     "{\"a\":" T("U8", "[4294967296,4294967296]", "[0,0]") "}", 0,
     "overflows at extent 4294967296"},
    {"rule 7: bits overflow", "{\"a\":" T("F64", "[4611686018427387904]", "[0,0]") "}", 0,
     "4611686018427387904 elements of 64 bits overflows"},
    {"rule 8: F4 does not fill bytes", "{\"a\":" T("F4", "[3]", "[0,2]") "}", 2, "12 bits"},
    {"rule 8: F6 does not fill bytes", "{\"a\":" T("F6_E2M3", "[3]", "[0,3]") "}", 3, "18 bits"},
    {"rule 9: too few bytes", "{\"a\":" T("F32", "[2]", "[0,4]") "}", 4,
     "span 4 bytes, but its dtype and shape need 8"},
    {"rule 9: too many bytes", "{\"a\":" T("F32", "[]", "[0,8]") "}", 8,
     "span 8 bytes, but its dtype and shape need 4"},
    {"rule 9: bytes for a zero extent", "{\"a\":" T("F32", "[0]", "[0,4]") "}", 4, "need 0"},
    {"rule 10: truncated data", "{\"a\":" T("F32", "[2]", "[0,8]") "}", 7,
     "need 8 bytes after the header, but 7 are there"},
    {"rule 10: trailing bytes", "{\"a\":" T("F32", "[2]", "[0,8]") "}", 9,
     "end after 8 bytes, but 9 follow the header"},
    {"rule 10: data without tensors", "{}", 1, "end after 0 bytes, but 1 follow"},
};

static void header_is_refused(void **state)
{
    const struct refusal *refusal = *state;
    expect_refusal(make_text_file(refusal->header, refusal->data), PLX_BAD_DATA, refusal->says);
}

static void rule_1_no_length(void **state)
{
    (void)state;
    for (size_t size = 0; size < 8; size++) {
        struct bytes bytes = {calloc(size + 1, 1), size};
        char says[64];
        snprintf(says, sizeof says, "has %zu bytes, fewer than the 8", size);
        expect_refusal(bytes, PLX_BAD_DATA, says);
    }
}

static void rule_2_header_too_large(void **state)
{
    (void)state;
    const uint64_t lengths[] = {100000001, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct bytes bytes = make_text_file("{}", 0);
        memcpy(bytes.data, &lengths[i], 8);
        expect_refusal(bytes, PLX_BAD_DATA, "more than the 100000000 allowed");
    }
}

static void rule_3_header_beyond_file(void **state)
{
    (void)state;
    const uint64_t lengths[] = {3, 4, 100000000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct bytes bytes = make_text_file("{}", 0);
        memcpy(bytes.data, &lengths[i], 8);
        expect_refusal(bytes, PLX_BAD_DATA, "but only 2 follow");
    }
}

static void rule_4_header_not_utf8(void **state)
{
    (void)state;
    static const char *const wrong[] = {"{\"\x80\":1}", "{\"\xc0\xaf\":1}", "{\"\xed\xa0\x80\":1}",
                                        "{\"\xf4\x90\x80\x80\":1}", "{\"\xe2\x82\":1}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect_refusal(make_text_file(wrong[i], 0), PLX_BAD_DATA, "is not UTF-8: byte 2 of");
}

static void rule_11_unknown_name(void **state)
{
    (void)state;
    struct bytes bytes = make_text_file("{\"b\":" T("U8", "[1]", "[0,1]") "}", 1);
    struct safetensors *file = expect_file(bytes);
    assert_null(safetensors_find(file, "a"));
    assert_null(safetensors_find(file, "c"));
    assert_null(safetensors_find(file, ""));
    assert_null(safetensors_find(file, "__metadata__"));
    assert_non_null(safetensors_find(file, "b"));
    assert_null(safetensors_at(file, 1));
    assert_null(safetensors_at(file, -1));
    safetensors_close(file);
    free(bytes.data);
}

static void too_many_dimensions_are_refused(void **state)
{
    (void)state;
    expect_refusal(make_text_file("{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1),
                   PLX_UNSUPPORTED, "has 9 dimensions, more than the 8");
}

static void names_cannot_steer_a_terminal(void **state)
{
    (void)state;
    expect_refusal(make_text_file("{\"\\u001b[2J\":1}", 0), PLX_BAD_DATA, "tensor ?[2J is not");
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    enum { DEPTH = 1 << 20 };
    char *header = malloc(DEPTH + 6);
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEPTH);
    expect_refusal(make_file(header, DEPTH + 5, 0), PLX_BAD_DATA, "not valid JSON");
    free(header);
}

static void unreadable_paths_are_refused(void **state)
{
    (void)state;
    struct safetensors *file;
    struct error err = {0};
    assert_refused(safetensors_open(io_path("absent"), &file, &err), PLX_IO_ERROR,
                   "absent: cannot open: No such file", &err);
    assert_refused(safetensors_open(io_folder, &file, &err), PLX_IO_ERROR, "is a folder", &err);
    assert_refused(safetensors_open("/dev/null", &file, &err), PLX_IO_ERROR, "is a device", &err);
    io_write(io_path("empty"), "", 0);
    assert_refused(safetensors_open(io_path("empty"), &file, &err), PLX_BAD_DATA, "has 0 bytes",
                   &err);
}

/* ---- Files that are accepted ----------------------------------------------------------------- */

static void empty_file_and_white_space(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{}", "{}      ", " {}", "\t\n\r {} \t\n\r ", "{ }", "{\"__metadata__\":{}}"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct bytes bytes = make_text_file(headers[i], 0);
        struct safetensors *file = expect_file(bytes);
        assert_int_equal(safetensors_count(file), 0);
        assert_null(safetensors_find(file, "a"));
        safetensors_close(file);
        free(bytes.data);
    }
}

static void zero_rank_and_zero_size(void **state)
{
    (void)state;
    struct bytes bytes = make_text_file(
        "{\"last\":" T("F32", "[3,0]", "[6,6]") ",\"one\":" T("F32", "[]", "[0,4]") ",\"none\":" T(
            "I64", "[0]", "[0,0]") ",\"two\":" T("I8", "[2,1]", "[4,6]") "}",
        6);
    struct safetensors *file = expect_file(bytes);
    assert_int_equal(safetensors_count(file), 4);
    const struct safetensors_entry *one = safetensors_find(file, "one");
    assert_int_equal(one->rank, 0);
    assert_int_equal(one->bytes, 4);
    assert_ptr_equal(one->data, bytes.data + bytes.size - 6);
    const struct safetensors_entry *last = safetensors_find(file, "last");
    assert_int_equal(last->rank, 2);
    assert_int_equal(last->shape[0], 3);
    assert_int_equal(last->shape[1], 0);
    assert_int_equal(last->bytes, 0);
    /* In the order of their data. */
    assert_string_equal(safetensors_at(file, 0)->name, "none");
    assert_string_equal(safetensors_at(file, 2)->name, "two");
    safetensors_close(file);
    free(bytes.data);
}

static void every_dtype_has_its_size(void **state)
{
    (void)state;
    static const struct {
        const char *dtype;
        int bytes; /* of 8 elements */
    } cases[] = {{"BOOL", 8},    {"F4", 4},          {"F6_E2M3", 6},     {"F6_E3M2", 6},
                 {"U8", 8},      {"I8", 8},          {"F8_E5M2", 8},     {"F8_E4M3", 8},
                 {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
                 {"U16", 16},    {"F16", 16},        {"BF16", 16},       {"I32", 32},
                 {"U32", 32},    {"F32", 32},        {"C64", 64},        {"F64", 64},
                 {"I64", 64},    {"U64", 64}};
    assert_int_equal(sizeof cases / sizeof *cases, 22);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[128];
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%d]}}",
                 cases[i].dtype, cases[i].bytes);
        struct bytes bytes = make_text_file(header, (size_t)cases[i].bytes);
        struct safetensors *file = expect_file(bytes);
        assert_string_equal(safetensors_at(file, 0)->dtype, cases[i].dtype);
        assert_int_equal(safetensors_at(file, 0)->bytes, cases[i].bytes);
        safetensors_close(file);
        free(bytes.data);
    }
}

static void names_and_metadata(void **state)
{
    (void)state;
    struct bytes bytes = make_text_file(
        "{\"__metadata__\":{\"format\":\"pt\",\"\\u00fc\":\"\\u20ac\"},"
        "\"\xe5\xb1\x82.\\\"0\\\"\":" T("U8", "[1]", "[0,1]") ",\"\":" T("U8", "[1]", "[1,2]") "}",
        2);
    struct safetensors *file = expect_file(bytes);
    assert_non_null(safetensors_find(file, "\xe5\xb1\x82.\"0\""));
    assert_non_null(safetensors_find(file, ""));
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_string_equal(safetensors_metadata(file, "\xc3\xbc"), "\xe2\x82\xac");
    assert_null(safetensors_metadata(file, "absent"));
    safetensors_close(file);
    free(bytes.data);
}

/* ---- Values ---------------------------------------------------------------------------------- */

/* An entry over memory at an odd address, whose copy the caller frees. */
static unsigned char *odd_copy(const void *data, size_t size)
{
    unsigned char *block = malloc(size + 1);
    memcpy(block + 1, data, size);
    return block;
}

static plx_status read_as(const char *dtype, const void *data, size_t size, int64_t count,
                          plx_dtype target_dtype, void *target, struct error *err)
{
    unsigned char *block = odd_copy(data, size);
    struct safetensors_entry entry = {
        .name = "x", .dtype = dtype, .rank = 1, .shape = {count}, .data = block + 1, .bytes = size};
    struct plx_tensor tensor = plx_tensor_dense(target, target_dtype, 1, &count);
    plx_status status = safetensors_read(&entry, "f", &tensor, err);
    free(block);
    return status;
}

/* The definition of IEEE binary16, by powers of two. */
static double half_value(uint16_t half)
{
    int exponent = half >> 10 & 31;
    double fraction = half & 1023, sign = half >> 15 ? -1.0 : 1.0;
    if (exponent == 0) return sign * fraction / 16777216.0;
    return sign * (1.0 + fraction / 1024.0) * pow(2.0, exponent - 15);
}

static void f16_is_exact(void **state)
{
    (void)state;
    struct error err = {0};
    uint16_t *halves = malloc(65536 * 2);
    float *floats = malloc(65536 * 4);
    double *doubles = malloc(65536 * 8);
    for (int i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    assert_ok(read_as("F16", halves, 65536 * 2, 65536, PLX_F32, floats, &err), &err);
    assert_ok(read_as("F16", halves, 65536 * 2, 65536, PLX_F64, doubles, &err), &err);
    for (int i = 0; i < 65536; i++) {
        if ((i >> 10 & 31) < 31) {
            assert_true(doubles[i] == half_value((uint16_t)i));
            assert_int_equal(signbit(doubles[i]) != 0, i >> 15);
        } else if ((i & 1023) == 0)
            assert_true(doubles[i] == (i >> 15 ? -INFINITY : INFINITY));
        else
            assert_true(isnan(doubles[i]));
        assert_true((double)floats[i] == doubles[i] || (isnan(floats[i]) && isnan(doubles[i])));
    }
    free(halves);
    free(floats);
    free(doubles);
}

static void bf16_is_the_upper_half_of_f32(void **state)
{
    (void)state;
    struct error err = {0};
    uint16_t *halves = malloc(65536 * 2), *again = malloc(65536 * 2);
    float *floats = malloc(65536 * 4);
    for (int i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    assert_ok(read_as("BF16", halves, 65536 * 2, 65536, PLX_F32, floats, &err), &err);
    for (int i = 0; i < 65536; i++) {
        uint32_t bits;
        memcpy(&bits, &floats[i], 4);
        bool nan = (i & 0x7f80) == 0x7f80 && (i & 0x7f) != 0;
        if (nan)
            assert_true(isnan(floats[i]));
        else
            assert_int_equal(bits, (uint32_t)i << 16);
    }
    assert_ok(read_as("F32", floats, 65536 * 4, 65536, PLX_BF16, again, &err), &err);
    for (int i = 0; i < 65536; i++) {
        if (isnan(floats[i]))
            assert_true((again[i] & 0x7f80) == 0x7f80 && (again[i] & 0x7f) != 0);
        else
            assert_int_equal(again[i], halves[i]);
    }
    free(halves);
    free(again);
    free(floats);
}

static uint16_t to_f16(double value)
{
    struct error err = {0};
    struct safetensors_entry entry = {
        .name = "x", .dtype = "F64", .data = (const unsigned char *)&value, .bytes = 8};
    uint16_t half = 0xdead;
    assert_ok(safetensors_convert(&entry, "f", 0, 1, "F16", &half, &err), &err);
    return half;
}

/* Every half comes back from double, every middle between two neighbours goes to the even one, and
 * what lies a little beside a middle to the nearer one. */
static void f16_rounds_once_and_to_even(void **state)
{
    (void)state;
    for (int i = 0; i < 0x7c00; i++) {
        double value = half_value((uint16_t)i);
        double next = i == 0x7bff ? 65536 : half_value((uint16_t)(i + 1));
        double middle = (value + next) / 2;
        assert_int_equal(to_f16(value), i);
        assert_int_equal(to_f16(-value), i | 0x8000);
        assert_int_equal(to_f16(nextafter(middle, 0)), i);
        if (i == 0x7bff) break; /* from the middle on, too large */
        assert_int_equal(to_f16(middle), i + (i & 1));
        assert_int_equal(to_f16(-middle), (i + (i & 1)) | 0x8000);
        assert_int_equal(to_f16(nextafter(middle, INFINITY)), i + 1);
    }
    assert_int_equal(to_f16(INFINITY), 0x7c00);
    assert_int_equal(to_f16(-INFINITY), 0xfc00);
    assert_int_equal(to_f16(NAN) & 0x7e00, 0x7e00);
    struct error err = {0};
    double large[3] = {1, 65519, 65520};
    struct safetensors_entry entry = {
        .name = "x", .dtype = "F64", .data = (const unsigned char *)large, .bytes = 24};
    uint16_t halves[3];
    assert_refused(safetensors_convert(&entry, "f", 0, 3, "F16", halves, &err), PLX_BAD_DATA,
                   "f: tensor x: element 2 is 65520, too large for F16", &err);
    assert_refused(safetensors_convert(&entry, "f", 2, 1, "F16", halves, &err), PLX_BAD_DATA,
                   "element 2 is 65520", &err);
    assert_refused(safetensors_convert(&entry, "f", 0, 1, "I32", halves, &err), PLX_UNSUPPORTED,
                   "is of dtype F64, which cannot be read as I32", &err);
}

/* A long tensor is shared among threads; the first value that does not fit is the one named. */
static void first_refused_element_is_named(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    struct error err = {0};
    float *values = calloc(COUNT, sizeof *values);
    uint16_t *halves = malloc(COUNT * sizeof *halves);
    values[77777] = values[77780] = values[150000] = 1e6f;
    struct safetensors_entry entry = {
        .name = "x", .dtype = "F32", .data = (const unsigned char *)values, .bytes = 4 * COUNT};
    assert_refused(safetensors_convert(&entry, "f", 0, COUNT, "F16", halves, &err), PLX_BAD_DATA,
                   "element 77777 is 1e+06, too large for F16", &err);
    free(values);
    free(halves);
}

static void a_writer_holds_its_promise(void **state)
{
    (void)state;
    struct error err = {0};
    struct safetensors_writer writer;
    const struct safetensors_spec specs[] = {{"a", "F16", 2, {2, 3}}, {"b", "F16", 0, {0}}};
    uint16_t halves[7] = {0x3c00, 1, 2, 3, 4, 5, 6};
    const char *path = io_path("promise");
    assert_int_equal(safetensors_spec_bytes(&specs[0]), 12);
    assert_ok(safetensors_writer_open(&writer, path, specs, 2, NULL, 0, &err), &err);
    assert_ok(safetensors_writer_data(&writer, halves, 12, &err), &err);
    assert_refused(safetensors_writer_close(&writer, &err), PLX_INTERNAL, "its header promises",
                   &err);
    assert_ok(safetensors_writer_data(&writer, halves + 6, 2, &err), &err);
    assert_ok(safetensors_writer_close(&writer, &err), &err);
    struct safetensors *file;
    assert_ok(safetensors_open(path, &file, &err), &err);
    assert_memory_equal(safetensors_find(file, "a")->data, halves, 12);
    assert_int_equal(safetensors_find(file, "b")->rank, 0);
    safetensors_close(file);
    assert_ok(safetensors_writer_open(&writer, path, specs, 2, NULL, 0, &err), &err);
    safetensors_writer_abandon(&writer);
    assert_false(file_exists(path));
}

static void rounding_is_once_and_to_even(void **state)
{
    (void)state;
    struct error err = {0};
    static const struct {
        double value;
        uint16_t bf16;
    } cases[] = {
        {1.0, 0x3f80},
        {1.0 + 0x1p-8, 0x3f80},               /* a tie: to even, down */
        {1.0 + 3 * 0x1p-8, 0x3f82},           /* a tie: to even, up */
        {1.0 + 0x1p-8 + 0x1p-40, 0x3f81},     /* just above a tie, by less than a float can tell */
        {1.0 + 3 * 0x1p-8 - 0x1p-40, 0x3f81}, /* just below one */
        {-(1.0 + 0x1p-8 + 0x1p-40), 0xbf81},
        {0x1p-133, 0x0001}, /* the smallest subnormal */
        {0x1p-134, 0x0000}, /* half of it: a tie to even */
        {0x1.8p-134, 0x0001},
        {1e-300, 0x0000},
        {0x1.fep127, 0x7f7f}, /* the largest */
        {0x1.fefffffffffffp127, 0x7f7f},
        {INFINITY, 0x7f80},
        {-INFINITY, 0xff80},
        {-0.0, 0x8000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint16_t bits = 0;
        assert_ok(read_as("F64", &cases[i].value, 8, 1, PLX_BF16, &bits, &err), &err);
        assert_int_equal(bits, cases[i].bf16);
    }
    double third = 1.0 / 3.0;
    float narrow;
    assert_ok(read_as("F64", &third, 8, 1, PLX_F32, &narrow, &err), &err);
    assert_true(narrow == (float)third);
}

static void nan_and_infinity_pass(void **state)
{
    (void)state;
    struct error err = {0};
    float values[3] = {NAN, INFINITY, -INFINITY}, same[3];
    double wide[3];
    assert_ok(read_as("F32", values, 12, 3, PLX_F32, same, &err), &err);
    assert_memory_equal(values, same, sizeof values);
    assert_ok(read_as("F32", values, 12, 3, PLX_F64, wide, &err), &err);
    assert_true(isnan(wide[0]) && wide[1] == INFINITY && wide[2] == -INFINITY);
}

static void values_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    double doubles[2] = {1.0, 1e300};
    float floats[2], largest = 0x1.fffffep127f;
    uint16_t half;
    int64_t integers[2] = {-7, INT64_C(1) << 31};
    int32_t words[2];
    assert_refused(read_as("F64", doubles, 16, 2, PLX_F32, floats, &err), PLX_BAD_DATA,
                   "f: tensor x: element 1 is 1e+300, too large for F32", &err);
    assert_refused(read_as("F32", &largest, 4, 1, PLX_BF16, &half, &err), PLX_BAD_DATA,
                   "too large for BF16", &err);
    assert_refused(read_as("I64", integers, 16, 2, PLX_I32, words, &err), PLX_BAD_DATA,
                   "element 1 is 2147483648, which i32 cannot hold", &err);
    integers[1] = INT32_MIN;
    assert_ok(read_as("I64", integers, 16, 2, PLX_I32, words, &err), &err);
    assert_true(words[0] == -7 && words[1] == INT32_MIN);
    assert_ok(read_as("I32", words, 8, 2, PLX_I32, words, &err), &err);
    assert_refused(read_as("I32", words, 8, 2, PLX_F32, floats, &err), PLX_UNSUPPORTED,
                   "is of dtype I32, which cannot be read as f32", &err);
    assert_refused(read_as("F32", floats, 8, 2, PLX_I32, words, &err), PLX_UNSUPPORTED,
                   "is of dtype F32, which cannot be read as i32", &err);
    assert_refused(read_as("U8", words, 2, 2, PLX_F32, floats, &err), PLX_UNSUPPORTED, "U8", &err);
}

static void shapes_must_match(void **state)
{
    (void)state;
    struct error err = {0};
    float values[6] = {1, 2, 3, 4, 5, 6}, target[6] = {0};
    struct safetensors_entry entry = {.name = "w",
                                      .dtype = "F32",
                                      .rank = 2,
                                      .shape = {2, 3},
                                      .data = (unsigned char *)values,
                                      .bytes = sizeof values};
    int64_t shapes[3][2] = {{3, 2}, {6, 1}, {2, 3}};
    struct plx_tensor tensor = plx_tensor_dense(target, PLX_F32, 2, shapes[0]);
    assert_refused(safetensors_read(&entry, "f", &tensor, &err), PLX_BAD_DATA,
                   "f: tensor w has shape [2, 3], but shape [3, 2] is expected", &err);
    tensor = plx_tensor_dense(target, PLX_F32, 1, shapes[1]);
    assert_refused(safetensors_read(&entry, "f", &tensor, &err), PLX_BAD_DATA, "but shape [6]",
                   &err);
    tensor = plx_tensor_dense(target, PLX_F32, 2, shapes[2]);
    assert_ok(safetensors_read(&entry, "f", &tensor, &err), &err);
    assert_memory_equal(values, target, sizeof values);

    int64_t one = 1, two = 2;
    struct safetensors_entry scalar = {
        .name = "s", .dtype = "F32", .data = (unsigned char *)&values[4], .bytes = 4};
    tensor = plx_tensor_dense(target, PLX_F32, 1, &one);
    assert_ok(safetensors_read(&scalar, "f", &tensor, &err), &err);
    assert_true(target[0] == 5);
    tensor = plx_tensor_dense(target, PLX_F32, 1, &two);
    assert_refused(safetensors_read(&scalar, "f", &tensor, &err), PLX_BAD_DATA,
                   "has shape [], but shape [2]", &err);
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void written_files_read_back(void **state)
{
    (void)state;
    struct error err = {0};
    float floats[6] = {0.1f, -2, NAN, INFINITY, 1e-40f, 6};
    uint16_t halves[3] = {0x3f80, 0x8000, 0x7f80};
    double doubles[2] = {1.0 / 3.0, -0.0};
    int32_t words[5] = {INT32_MIN, -1, 0, 1, INT32_MAX};
    const int64_t six[] = {2, 3}, three[] = {3}, two[] = {1, 2, 1, 1}, five[] = {5},
                  none[] = {0, 7};
    const struct safetensors_write entries[] = {
        {"halves", plx_tensor_dense(halves, PLX_BF16, 1, three)},
        {"floats \"\xc3\xa9\"\n", plx_tensor_dense(floats, PLX_F32, 2, six)},
        {"doubles", plx_tensor_dense(doubles, PLX_F64, 4, two)},
        {"none", plx_tensor_dense(NULL, PLX_F32, 2, none)},
        {"words", plx_tensor_dense(words, PLX_I32, 1, five)}};
    const char *metadata[][2] = {{"format", "pt"}, {"step", "12"}};
    const char *path = io_path("written");
    assert_ok(safetensors_save(path, entries, 5, metadata, 2, &err), &err);

    struct safetensors *file;
    assert_ok(safetensors_open(path, &file, &err), &err);
    assert_int_equal(safetensors_count(file), 5);
    assert_string_equal(safetensors_metadata(file, "step"), "12");
    for (int i = 0; i < 5; i++) {
        const struct plx_tensor *tensor = &entries[i].tensor;
        const struct safetensors_entry *entry = safetensors_find(file, entries[i].name);
        assert_non_null(entry);
        assert_int_equal(entry->rank, tensor->rank);
        assert_int_equal(entry->bytes,
                         (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype));
        if (entry->bytes > 0) assert_memory_equal(entry->data, tensor->data, entry->bytes);
        /* Data is aligned to its elements. */
        assert_int_equal((uintptr_t)entry->data % plx_dtype_size(tensor->dtype), 0);
    }
    safetensors_close(file);
}

static void header_is_strict(void **state)
{
    (void)state;
    struct error err = {0};
    char *text;
    size_t size;
    for (int length = 0; length < 16; length++) {
        char name[32] = {0};
        memset(name, 'n', (size_t)length);
        float value = 1;
        int64_t one = 1;
        struct safetensors_write entry = {name, plx_tensor_dense(&value, PLX_F32, 1, &one)};
        assert_ok(safetensors_save(io_path("strict"), &entry, 1, NULL, 0, &err), &err);
        assert_ok(file_read_all(io_path("strict"), 1 << 20, &text, &size, &err), &err);
        uint64_t header;
        memcpy(&header, text, 8);
        assert_int_equal(header % 8, 0);
        assert_int_equal(size, 8 + header + 4);
        assert_int_equal(text[8], '{');
        size_t end = 8 + header;
        while (text[end - 1] == ' ') end--;
        assert_int_equal(text[end - 1], '}');
        free(text);
    }
}

static void bad_requests_to_write_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    float values[4] = {0};
    const int64_t shape[] = {2, 2};
    struct plx_tensor good = plx_tensor_dense(values, PLX_F32, 2, shape), bad;
    const char *path = io_path("refused");
    struct safetensors_write entries[2] = {{"a", good}, {"a", good}};
    assert_refused(safetensors_save(path, entries, 2, NULL, 0, &err), PLX_INVALID_ARGUMENT,
                   "two tensors are named a", &err);
    entries[1].name = "\xff";
    assert_refused(safetensors_save(path, entries, 2, NULL, 0, &err), PLX_INVALID_ARGUMENT,
                   "not UTF-8", &err);
    entries[1].name = "__metadata__";
    assert_refused(safetensors_save(path, entries, 2, NULL, 0, &err), PLX_INVALID_ARGUMENT,
                   "cannot be named __metadata__", &err);
    bad = good;
    bad.stride[0] = 3;
    entries[1] = (struct safetensors_write){"b", bad};
    assert_refused(safetensors_save(path, entries, 2, NULL, 0, &err), PLX_INVALID_ARGUMENT,
                   "not a dense", &err);
    bad = good;
    bad.rank = 0;
    entries[1].tensor = bad;
    assert_refused(safetensors_save(path, entries, 2, NULL, 0, &err), PLX_INVALID_ARGUMENT,
                   "0 dimensions", &err);
    bad = good;
    bad.data = NULL;
    entries[1].tensor = bad;
    assert_refused(safetensors_save(path, entries, 2, NULL, 0, &err), PLX_INVALID_ARGUMENT,
                   "has no data", &err);
    bad = good;
    bad.dtype = (plx_dtype)99;
    entries[1].tensor = bad;
    assert_refused(safetensors_save(path, entries, 2, NULL, 0, &err), PLX_INVALID_ARGUMENT,
                   "dtype 99", &err);
    const char *metadata[][2] = {{"k", "\xff"}};
    assert_refused(safetensors_save(path, entries, 1, metadata, 1, &err), PLX_INVALID_ARGUMENT,
                   "metadata is not UTF-8", &err);
    assert_false(file_exists(path));
}

static void failing_disk_leaves_no_file(void **state)
{
    (void)state;
    float values[64] = {0};
    const int64_t shape[] = {64};
    struct safetensors_write entry = {"a", plx_tensor_dense(values, PLX_F32, 1, shape)};
    const char *path = io_path("fault");
    for (enum file_fault fault = FILE_FAULT_NO_SPACE; fault <= FILE_FAULT_INTERRUPT; fault++) {
        bool harmless = fault == FILE_FAULT_SHORT_WRITE || fault == FILE_FAULT_INTERRUPT;
        bool pending = false;
        for (int64_t call = 1; !pending && call < 100; call++) {
            struct error err = {0};
            file_fault_after(fault, call);
            plx_status status = safetensors_save(path, &entry, 1, NULL, 0, &err);
            pending = file_fault_pending();
            file_fault_after(FILE_FAULT_NONE, 0);
            if (pending || harmless) {
                assert_ok(status, &err);
                struct safetensors *file;
                assert_ok(safetensors_open(path, &file, &err), &err);
                safetensors_close(file);
                assert_int_equal(remove(path), 0);
            } else {
                const char *reason =
                    fault == FILE_FAULT_NO_SPACE ? "No space left" : "Input/output error";
                assert_refused(status, PLX_IO_ERROR, reason, &err);
                assert_false(file_exists(path));
            }
        }
        assert_true(pending);
    }
}

/* ---- Damage ---------------------------------------------------------------------------------- */

/* Touches every byte that a file claims to hold. */
static unsigned touch(const struct safetensors *file)
{
    unsigned sum = 0;
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        sum += (unsigned)strlen(entry->name) + (unsigned)entry->dtype[0];
        for (size_t b = 0; b < entry->bytes; b++) sum += entry->data[b];
        assert_ptr_equal(safetensors_find(file, entry->name), entry);
    }
    return sum;
}

static struct bytes small_file(void)
{
    return make_text_file(
        "{\"__metadata__\":{\"f\":\"pt\"},\"w\":" T("F32", "[2,3]", "[0,24]") ",\"b\":" T(
            "BF16", "[3]", "[24,30]") ",\"s\":" T("U8", "[]", "[30,31]") "}  ",
        31);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct bytes whole = small_file();
    for (size_t size = 0; size < whole.size; size++) {
        struct bytes cut = {malloc(size + (size == 0)), size};
        memcpy(cut.data, whole.data, size);
        expect_refusal(cut, PLX_BAD_DATA, "m.safetensors: ");
    }
    free(whole.data);
}

static void every_corruption_is_survived(void **state)
{
    (void)state;
    struct bytes bytes = small_file();
    int refused = 0, accepted = 0;
    for (size_t at = 0; at < bytes.size - 31; at++) {
        unsigned char original = bytes.data[at];
        for (int value = 0; value < 256; value++) {
            bytes.data[at] = (unsigned char)value;
            struct safetensors *file = NULL;
            struct error err = {0};
            plx_status status = safetensors_parse(bytes.data, bytes.size, "m", &file, &err);
            if (status == PLX_OK) {
                touch(file);
                accepted++;
            } else {
                assert_true(status == PLX_BAD_DATA);
                assert_null(file);
                assert_true(strlen(err.text) > 10);
                refused++;
            }
            safetensors_close(file);
        }
        bytes.data[at] = original;
    }
    free(bytes.data);
    print_message("%d corruptions refused, %d harmless\n", refused, accepted);
    assert_true(refused > accepted);
}

int main(void)
{
    static const struct CMUnitTest fixed[] = {
        cmocka_unit_test(rule_1_no_length),
        cmocka_unit_test(rule_2_header_too_large),
        cmocka_unit_test(rule_3_header_beyond_file),
        cmocka_unit_test(rule_4_header_not_utf8),
        cmocka_unit_test(rule_11_unknown_name),
        cmocka_unit_test(too_many_dimensions_are_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(names_cannot_steer_a_terminal),
        cmocka_unit_test(unreadable_paths_are_refused),
        cmocka_unit_test(empty_file_and_white_space),
        cmocka_unit_test(zero_rank_and_zero_size),
        cmocka_unit_test(every_dtype_has_its_size),
        cmocka_unit_test(names_and_metadata),
        cmocka_unit_test(f16_is_exact),
        cmocka_unit_test(f16_rounds_once_and_to_even),
        cmocka_unit_test(first_refused_element_is_named),
        cmocka_unit_test(a_writer_holds_its_promise),
        cmocka_unit_test(bf16_is_the_upper_half_of_f32),
        cmocka_unit_test(rounding_is_once_and_to_even),
        cmocka_unit_test(nan_and_infinity_pass),
        cmocka_unit_test(values_that_do_not_fit_are_refused),
        cmocka_unit_test(shapes_must_match),
        cmocka_unit_test(written_files_read_back),
        cmocka_unit_test(header_is_strict),
        cmocka_unit_test(bad_requests_to_write_are_refused),
        cmocka_unit_test(failing_disk_leaves_no_file),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_corruption_is_survived),
    };
    enum { FIXED = sizeof fixed / sizeof *fixed, TABLE = sizeof refusals / sizeof *refusals };
    struct CMUnitTest tests[FIXED + TABLE];
    memcpy(tests, fixed, sizeof fixed);
    for (int i = 0; i < TABLE; i++)
        tests[FIXED + i] = (struct CMUnitTest){refusals[i].name, header_is_refused, NULL, NULL,
                                               (void *)&refusals[i]};
    return cmocka_run_group_tests(tests, io_folder_make, io_folder_remove);
}
