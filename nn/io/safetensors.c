/* safetensors.c: reading the header of a safetensors file, and refusing every malformed one.
 *
 *     u64 n (little-endian) | n bytes of JSON | data
 *     JSON: { "NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
 *             "__metadata__": {"key": "value", ...} }       offsets count from the start of data
 *
 * The rules, each one refusal below and one test in tests/unit/test_safetensors.c:
 *      1  the file holds the 8 bytes of n
 *      2  n is at most 100,000,000
 *      3  the header lies within the file
 *      4  the header is UTF-8
 *      5  it is a JSON object of the form above: no duplicate keys, known dtypes, whole numbers
 *         from 0, metadata from text to text; white space around the object is tolerated
 *      6  in the order of their offsets the tensors cover the data without gap or overlap
 *      7  no size overflows
 *      8  a tensor of a dtype narrower than a byte fills whole bytes
 *      9  the offsets span exactly what dtype and shape need
 *     10  the data ends where the file ends: nothing is missing and nothing follows
 *     11  a name that is asked for exists; safetensors_find gives NULL, and callers say it
 *
 * Values are copied out by safetensors_convert.c; safetensors_write.c is the other direction. */
#include "io/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/file.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "data is used as it lies in the file");

#define HEADER_LIMIT 100000000u
enum { LENGTH_BYTES = 8 };

struct safetensors {
    char *name;                               /* for messages */
    struct file_map map;                      /* data NULL where the memory is the caller's */
    json_t *header;                           /* owns the entries' names and the metadata */
    struct safetensors_entry *entries;        /* in the order of their data */
    const struct safetensors_entry **by_name; /* the same, sorted by name */
    int count;
};

static const struct {
    const char *name;
    unsigned bits;
} dtype_table[] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
};

/* One tensor while the header is read: offsets instead of a pointer. */
struct span {
    struct safetensors_entry entry;
    uint64_t begin, end;
};

/* What parsing passes along. */
struct parse {
    const char *file;   /* name for messages */
    const char *tensor; /* the one being read */
    struct error *err;
};

/* ---- One tensor's description ---------------------------------------------------------------- */

/* A whole number that is not negative. */
static plx_status parse_number(const struct parse *parse, const char *field, const json_t *value,
                               uint64_t *number)
{
    REQUIRE(parse->err, !json_is_real(value), PLX_BAD_DATA,
            "%s: tensor %.200s: %s holds %g, which is not a whole number", parse->file,
            parse->tensor, field, json_real_value(value));
    REQUIRE(parse->err, json_is_integer(value), PLX_BAD_DATA,
            "%s: tensor %.200s: %s holds something that is not a number", parse->file,
            parse->tensor, field);
    REQUIRE(parse->err, json_integer_value(value) >= 0, PLX_BAD_DATA,
            "%s: tensor %.200s: %s holds %" JSON_INTEGER_FORMAT ", which is negative", parse->file,
            parse->tensor, field, json_integer_value(value));
    *number = (uint64_t)json_integer_value(value);
    return PLX_OK;
}

/* The dtype's row; NULL in *name on return means failure has been reported. */
static plx_status parse_dtype(const struct parse *parse, const json_t *info, const char **name,
                              unsigned *bits)
{
    const json_t *value = json_object_get(info, "dtype");
    REQUIRE(parse->err, value != NULL, PLX_BAD_DATA, "%s: tensor %.200s has no dtype", parse->file,
            parse->tensor);
    REQUIRE(parse->err, json_is_string(value), PLX_BAD_DATA,
            "%s: tensor %.200s: dtype is not a text", parse->file, parse->tensor);
    for (size_t i = 0; i < sizeof dtype_table / sizeof *dtype_table; i++) {
        if (strcmp(dtype_table[i].name, json_string_value(value)) != 0) continue;
        *name = dtype_table[i].name;
        *bits = dtype_table[i].bits;
        return PLX_OK;
    }
    return error_set(parse->err, PLX_BAD_DATA, "%s: tensor %.200s has the unknown dtype \"%.40s\"",
                     parse->file, parse->tensor, json_string_value(value));
}

/* The shape, and the number of elements. */
static plx_status parse_shape(const struct parse *parse, const json_t *info,
                              struct safetensors_entry *entry, uint64_t *count)
{
    const json_t *shape = json_object_get(info, "shape");
    REQUIRE(parse->err, shape != NULL, PLX_BAD_DATA, "%s: tensor %.200s has no shape", parse->file,
            parse->tensor);
    REQUIRE(parse->err, json_is_array(shape), PLX_BAD_DATA,
            "%s: tensor %.200s: shape is not an array", parse->file, parse->tensor);
    size_t rank = json_array_size(shape);
    REQUIRE(parse->err, rank <= SAFETENSORS_MAX_RANK, PLX_UNSUPPORTED,
            "%s: tensor %.200s has %zu dimensions, more than the %d this reader takes", parse->file,
            parse->tensor, rank, SAFETENSORS_MAX_RANK);
    entry->rank = (int)rank;
    *count = 1;
    for (int i = 0; i < entry->rank; i++) {
        uint64_t extent;
        TRY(parse_number(parse, "shape", json_array_get(shape, (size_t)i), &extent));
        REQUIRE(parse->err, !__builtin_mul_overflow(*count, extent, count), PLX_BAD_DATA,
                "%s: tensor %.200s: the product of its shape overflows at extent %" PRIu64,
                parse->file, parse->tensor, extent);
        entry->shape[i] = (int64_t)extent;
    }
    return PLX_OK;
}

static plx_status parse_offsets(const struct parse *parse, const json_t *info, struct span *span)
{
    const json_t *offsets = json_object_get(info, "data_offsets");
    REQUIRE(parse->err, offsets != NULL, PLX_BAD_DATA, "%s: tensor %.200s has no data_offsets",
            parse->file, parse->tensor);
    REQUIRE(parse->err, json_is_array(offsets), PLX_BAD_DATA,
            "%s: tensor %.200s: data_offsets is not an array", parse->file, parse->tensor);
    REQUIRE(parse->err, json_array_size(offsets) == 2, PLX_BAD_DATA,
            "%s: tensor %.200s: data_offsets has %zu numbers instead of 2", parse->file,
            parse->tensor, json_array_size(offsets));
    TRY(parse_number(parse, "data_offsets", json_array_get(offsets, 0), &span->begin));
    TRY(parse_number(parse, "data_offsets", json_array_get(offsets, 1), &span->end));
    REQUIRE(parse->err, span->begin <= span->end, PLX_BAD_DATA,
            "%s: tensor %.200s ends at %" PRIu64 ", before it begins at %" PRIu64, parse->file,
            parse->tensor, span->end, span->begin);
    return PLX_OK;
}

static plx_status parse_tensor(const struct parse *parse, const json_t *info, struct span *span)
{
    unsigned bits = 0;
    uint64_t count = 0, total_bits;
    REQUIRE(parse->err, json_is_object(info), PLX_BAD_DATA,
            "%s: tensor %.200s is not described by an object", parse->file, parse->tensor);
    span->entry.name = parse->tensor;
    TRY(parse_dtype(parse, info, &span->entry.dtype, &bits));
    TRY(parse_shape(parse, info, &span->entry, &count));
    TRY(parse_offsets(parse, info, span));
    REQUIRE(parse->err, !__builtin_mul_overflow(count, (uint64_t)bits, &total_bits), PLX_BAD_DATA,
            "%s: tensor %.200s: the size of %" PRIu64 " elements of %u bits overflows", parse->file,
            parse->tensor, count, bits);
    REQUIRE(parse->err, total_bits % 8 == 0, PLX_BAD_DATA,
            "%s: tensor %.200s: %" PRIu64 " elements of %s have %" PRIu64
            " bits, which do not fill whole bytes",
            parse->file, parse->tensor, count, span->entry.dtype, total_bits);
    REQUIRE(parse->err, span->end - span->begin == total_bits / 8, PLX_BAD_DATA,
            "%s: tensor %.200s: its offsets span %" PRIu64
            " bytes, but its dtype and shape need %" PRIu64,
            parse->file, parse->tensor, span->end - span->begin, total_bits / 8);
    span->entry.bytes = (size_t)(total_bits / 8);
    return PLX_OK;
}

static plx_status check_metadata(const struct parse *parse, json_t *metadata)
{
    REQUIRE(parse->err, json_is_object(metadata), PLX_BAD_DATA, "%s: __metadata__ is not an object",
            parse->file);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        REQUIRE(parse->err, json_is_string(value), PLX_BAD_DATA,
                "%s: __metadata__ key %.200s does not hold a text", parse->file, key);
    }
    return PLX_OK;
}

/* ---- The whole header ------------------------------------------------------------------------ */

static int compare_spans(const void *left, const void *right)
{
    const struct span *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static int compare_names(const void *left, const void *right)
{
    const struct safetensors_entry *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

/* Rules 6 and 10: sorted spans cover exactly the bytes of data. */
static plx_status check_cover(const struct parse *parse, const struct span *spans, int count,
                              uint64_t data_bytes)
{
    uint64_t end = 0;
    for (int i = 0; i < count; i++) {
        REQUIRE(parse->err, spans[i].begin == end, PLX_BAD_DATA,
                "%s: tensor %.200s begins at %" PRIu64 ", but what lies before it ends at %" PRIu64
                " (%s)",
                parse->file, spans[i].entry.name, spans[i].begin, end,
                spans[i].begin < end ? "they overlap" : "there is a gap");
        end = spans[i].end;
    }
    REQUIRE(parse->err, end <= data_bytes, PLX_BAD_DATA,
            "%s: the file is truncated: its tensors need %" PRIu64
            " bytes after the header, but %" PRIu64 " are there",
            parse->file, end, data_bytes);
    REQUIRE(parse->err, end == data_bytes, PLX_BAD_DATA,
            "%s: its tensors end after %" PRIu64 " bytes, but %" PRIu64
            " follow the header: the rest belongs to nothing",
            parse->file, end, data_bytes);
    return PLX_OK;
}

/* Reads every description into spans, which has room for all members of the header. */
static plx_status parse_spans(struct parse *parse, json_t *header, struct span *spans, int *count)
{
    *count = 0;
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value)
    {
        parse->tensor = name;
        if (strcmp(name, "__metadata__") == 0)
            TRY(check_metadata(parse, value));
        else
            TRY(parse_tensor(parse, value, &spans[(*count)++]));
    }
    qsort(spans, (size_t)*count, sizeof *spans, compare_spans);
    return PLX_OK;
}

/* Moves checked spans into the file's two tables. */
static plx_status keep_entries(struct safetensors *file, const struct span *spans, int count,
                               const unsigned char *data, struct error *err)
{
    file->entries = calloc((size_t)count + 1, sizeof *file->entries);
    file->by_name = calloc((size_t)count + 1, sizeof *file->by_name);
    REQUIRE(err, file->entries != NULL && file->by_name != NULL, PLX_OUT_OF_MEMORY,
            "%s: cannot allocate the table of %d tensors", file->name, count);
    for (int i = 0; i < count; i++) {
        file->entries[i] = spans[i].entry;
        file->entries[i].data = data + spans[i].begin;
        file->by_name[i] = &file->entries[i];
    }
    file->count = count;
    qsort(file->by_name, (size_t)count, sizeof *file->by_name, compare_names);
    return PLX_OK;
}

/* Rules 1 to 4: finds the JSON text. */
static plx_status find_header(const char *name, const unsigned char *memory, size_t size,
                              size_t *length, struct error *err)
{
    REQUIRE(err, size >= LENGTH_BYTES, PLX_BAD_DATA,
            "%s: has %zu bytes, fewer than the 8 that hold the header's length", name, size);
    uint64_t stated;
    memcpy(&stated, memory, sizeof stated);
    REQUIRE(err, stated <= HEADER_LIMIT, PLX_BAD_DATA,
            "%s: its header claims %" PRIu64 " bytes, more than the %u allowed", name, stated,
            HEADER_LIMIT);
    REQUIRE(err, stated <= size - LENGTH_BYTES, PLX_BAD_DATA,
            "%s: its header claims %" PRIu64 " bytes, but only %zu follow", name, stated,
            size - LENGTH_BYTES);
    *length = (size_t)stated;
    size_t valid = utf8_first_bad((const char *)memory + LENGTH_BYTES, *length);
    REQUIRE(err, valid == *length, PLX_BAD_DATA,
            "%s: its header is not UTF-8: byte %zu of %zu cannot stand there", name, valid,
            *length);
    return PLX_OK;
}

static plx_status parse_memory(struct safetensors *file, const unsigned char *memory, size_t size,
                               struct error *err)
{
    size_t length = 0;
    TRY(find_header(file->name, memory, size, &length, err));
    json_error_t problem;
    file->header =
        json_loadb((const char *)memory + LENGTH_BYTES, length, JSON_REJECT_DUPLICATES, &problem);
    REQUIRE(err, file->header != NULL || problem.text[0] != '\0', PLX_OUT_OF_MEMORY,
            "%s: out of memory", file->name);
    REQUIRE(err, file->header != NULL, PLX_BAD_DATA,
            "%s: its header is not valid JSON: line %d, column %d: %s", file->name, problem.line,
            problem.column, problem.text);
    REQUIRE(err, json_is_object(file->header), PLX_BAD_DATA, "%s: its header is not a JSON object",
            file->name);

    struct parse parse = {.file = file->name, .err = err};
    struct span *spans = calloc(json_object_size(file->header) + 1, sizeof *spans);
    REQUIRE(err, spans != NULL, PLX_OUT_OF_MEMORY, "%s: cannot allocate the table of %zu tensors",
            file->name, json_object_size(file->header));
    int count = 0;
    plx_status status = parse_spans(&parse, file->header, spans, &count);
    size_t data_start = LENGTH_BYTES + length;
    if (status == PLX_OK) status = check_cover(&parse, spans, count, size - data_start);
    if (status == PLX_OK) status = keep_entries(file, spans, count, memory + data_start, err);
    free(spans);
    return status;
}

plx_status safetensors_parse(const void *memory, size_t size, const char *name,
                             struct safetensors **file, struct error *err)
{
    *file = NULL;
    struct safetensors *made = calloc(1, sizeof *made);
    if (made != NULL) made->name = strdup(name);
    plx_status status = made == NULL || made->name == NULL
                            ? error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", name)
                            : parse_memory(made, memory, size, err);
    if (status == PLX_OK)
        *file = made;
    else
        safetensors_close(made);
    return status;
}

plx_status safetensors_open(const char *path, struct safetensors **file, struct error *err)
{
    *file = NULL;
    struct file_map map;
    TRY(file_map(path, &map, err));
    plx_status status = safetensors_parse(map.data, map.size, path, file, err);
    if (status == PLX_OK)
        (*file)->map = map;
    else
        file_unmap(&map);
    return status;
}

void safetensors_close(struct safetensors *file)
{
    if (file == NULL) return;
    free(file->by_name);
    free(file->entries);
    json_decref(file->header);
    file_unmap(&file->map);
    free(file->name);
    free(file);
}

unsigned safetensors_dtype_bits(const char *dtype)
{
    for (size_t i = 0; i < sizeof dtype_table / sizeof *dtype_table; i++)
        if (strcmp(dtype_table[i].name, dtype) == 0) return dtype_table[i].bits;
    return 0;
}

/* ---- What a file holds ----------------------------------------------------------------------- */

int safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *file, int index)
{
    return index >= 0 && index < file->count ? &file->entries[index] : NULL;
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name)
{
    struct safetensors_entry wanted = {.name = name};
    const struct safetensors_entry *key = &wanted;
    const struct safetensors_entry **found =
        bsearch(&key, file->by_name, (size_t)file->count, sizeof *file->by_name, compare_names);
    return found != NULL ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}
