/* checkpoint_manifest.c: manifest.json, which tells a sound checkpoint from a damaged one.
 *
 *     {"version": 1, "files": {"config.json": {"size": 812, "xxh64": "0123456789abcdef"}, ...}}
 *
 * Sizes are compared before anything is hashed, so that a truncated file is found at once. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "io/checkpoint_parts.h"
#include "io/fields.h"
#include "io/file.h"

enum { MANIFEST_VERSION = 1, HASH_DIGITS = 16 };

/* What a checkpoint may hold, and must. */
static const struct {
    const char *name;
    bool required;
} checkpoint_files[] = {{"config.json", true},           {"model.safetensors", true},
                        {"tokenizer.json", false},       {"tokenizer.model", false},
                        {"optimizer.safetensors", true}, {"state.json", true}};
enum { FILE_COUNT = sizeof checkpoint_files / sizeof *checkpoint_files };

plx_status checkpoint_join(const char *folder, const char *name, char *path, struct error *err)
{
    int length = snprintf(path, CHECKPOINT_PATH, "%s/%s", folder, name);
    REQUIRE(err, length >= 0 && length < CHECKPOINT_PATH, PLX_INVALID_ARGUMENT,
            "%.200s...: the path is too long", folder);
    return PLX_OK;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static plx_status describe_files(const char *folder, json_t *files, struct error *err)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        char path[CHECKPOINT_PATH], text[HASH_DIGITS + 1];
        uint64_t hash;
        size_t bytes;
        TRY(checkpoint_join(folder, checkpoint_files[i].name, path, err));
        if (!checkpoint_files[i].required && !file_exists(path)) continue;
        TRY(file_hash(path, &hash, &bytes, err));
        snprintf(text, sizeof text, "%016" PRIx64, hash);
        json_t *file = json_pack("{s:I, s:s}", "size", (json_int_t)bytes, "xxh64", text);
        REQUIRE(err, json_object_set_new(files, checkpoint_files[i].name, file) == 0,
                PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    }
    return PLX_OK;
}

static plx_status write_text(const char *path, const char *text, struct error *err)
{
    struct file_writer writer;
    plx_status status = file_writer_open(&writer, path, err);
    if (status == PLX_OK) status = file_write(&writer, text, strlen(text), err);
    if (status == PLX_OK) status = file_writer_close(&writer, NULL, err);
    if (status != PLX_OK) file_writer_abandon(&writer);
    return status;
}

plx_status checkpoint_write_manifest(const char *folder, struct error *err)
{
    char path[CHECKPOINT_PATH];
    TRY(checkpoint_join(folder, "manifest.json", path, err));
    json_t *files = json_object();
    plx_status status = describe_files(folder, files, err);
    json_t *root = json_pack("{s:i, s:o}", "version", MANIFEST_VERSION, "files", files);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (status == PLX_OK && text == NULL)
        status = error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    if (status == PLX_OK) status = write_text(path, text, err);
    free(text);
    json_decref(root);
    return status;
}

/* ---- Verifying ------------------------------------------------------------------------------- */

/* What the manifest says of one file. */
struct expected {
    int64_t size;
    uint64_t hash;
    bool present;
};

static plx_status read_hash(const struct fields *fields, uint64_t *hash)
{
    const char *text = "";
    TRY(fields_require(fields, "xxh64"));
    TRY(fields_text(fields, "xxh64", &text));
    if (strlen(text) != HASH_DIGITS || strspn(text, "0123456789abcdef") != HASH_DIGITS)
        return fields_refuse(fields, "xxh64", fields_get(fields, "xxh64"), "16 hexadecimal digits");
    *hash = strtoull(text, NULL, 16);
    return PLX_OK;
}

static plx_status read_expected(const struct fields *files, const char *name,
                                struct expected *expected)
{
    const json_t *file = fields_get(files, name);
    *expected = (struct expected){.present = file != NULL};
    if (file == NULL) return PLX_OK;
    if (!json_is_object(file)) return fields_refuse(files, name, file, "an object");
    struct fields fields = {file, files->where, files->err};
    TRY(fields_require(&fields, "size"));
    TRY(fields_integer(&fields, "size", 0, INT64_MAX, &expected->size));
    return read_hash(&fields, &expected->hash);
}

static bool is_checkpoint_file(const char *name)
{
    for (int i = 0; i < FILE_COUNT; i++)
        if (strcmp(checkpoint_files[i].name, name) == 0) return true;
    return false;
}

static plx_status read_manifest(const struct fields *fields, struct expected expected[FILE_COUNT])
{
    int64_t version = 0;
    TRY(fields_require(fields, "version"));
    TRY(fields_integer(fields, "version", MANIFEST_VERSION, MANIFEST_VERSION, &version));
    TRY(fields_require(fields, "files"));
    json_t *object = fields_get(fields, "files");
    if (!json_is_object(object)) return fields_refuse(fields, "files", object, "an object");
    struct fields files = {object, fields->where, fields->err};
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        REQUIRE(fields->err, is_checkpoint_file(name), PLX_BAD_DATA,
                "%s: lists %.100s, which is no file of a checkpoint", fields->where, name);
    }
    for (int i = 0; i < FILE_COUNT; i++) {
        TRY(read_expected(&files, checkpoint_files[i].name, &expected[i]));
        REQUIRE(fields->err, expected[i].present || !checkpoint_files[i].required, PLX_BAD_DATA,
                "%s: does not list %s", fields->where, checkpoint_files[i].name);
    }
    return PLX_OK;
}

static plx_status verify_size(const char *path, const struct expected *expected, struct error *err)
{
    struct file_map map;
    REQUIRE(err, file_exists(path), PLX_BAD_DATA, "%s: is missing", path);
    TRY(file_map(path, &map, err));
    size_t size = map.size;
    file_unmap(&map);
    REQUIRE(err, (int64_t)size == expected->size, PLX_BAD_DATA,
            "%s: has %zu bytes, but manifest.json says %" PRId64, path, size, expected->size);
    return PLX_OK;
}

static plx_status verify_hash(const char *path, const struct expected *expected, struct error *err)
{
    uint64_t hash;
    size_t bytes;
    TRY(file_hash(path, &hash, &bytes, err));
    REQUIRE(err, hash == expected->hash, PLX_BAD_DATA,
            "%s: its XXH64 is %016" PRIx64 ", but manifest.json says %016" PRIx64, path, hash,
            expected->hash);
    return PLX_OK;
}

static plx_status load_manifest(const char *folder, struct expected expected[FILE_COUNT],
                                struct error *err)
{
    char path[CHECKPOINT_PATH], *text;
    size_t size;
    json_t *root;
    TRY(checkpoint_join(folder, "manifest.json", path, err));
    REQUIRE(err, file_exists(path), PLX_BAD_DATA,
            "%s: has no manifest.json, so it is not a completed checkpoint", folder);
    TRY(file_read_all(path, 1 << 20, &text, &size, err));
    plx_status status = fields_parse(text, size, path, &root, err);
    free(text);
    if (status != PLX_OK) return status;
    struct fields fields = {root, path, err};
    status = read_manifest(&fields, expected);
    json_decref(root);
    if (status != PLX_OK && err != NULL) utf8_make_printable(err->text);
    return status;
}

plx_status checkpoint_verify(const char *folder, struct error *err)
{
    char path[CHECKPOINT_PATH];
    struct expected expected[FILE_COUNT];
    TRY(load_manifest(folder, expected, err));
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < FILE_COUNT; i++) {
            if (!expected[i].present) continue;
            TRY(checkpoint_join(folder, checkpoint_files[i].name, path, err));
            TRY(pass == 0 ? verify_size(path, &expected[i], err)
                          : verify_hash(path, &expected[i], err));
        }
    return PLX_OK;
}
