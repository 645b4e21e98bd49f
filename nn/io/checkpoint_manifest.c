/* checkpoint_manifest.c: manifest.json, which tells a sound checkpoint from a damaged one.
 *
 *     {"version": 1, "files": {"config.json": {"size": 812, "xxh64": "0123456789abcdef"}, ...}}
 *
 * Sizes are compared before anything is hashed, so that a truncated file is found at once. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint_parts.h"
#include "io/fields.h"
#include "io/file.h"

enum { MANIFEST_VERSION = 1, HASH_DIGITS = 16 };

/* What a checkpoint may hold besides companions, and must. */
enum { OWN_FILES = CHECKPOINT_FILES - COMPANIONS };
static const struct {
    const char *name;
    bool required;
} own_files[OWN_FILES] = {{"config.json", true},           {"model.safetensors", true},
                          {"tokenizer.json", false},       {"tokenizer.model", false},
                          {"optimizer.safetensors", true}, {"state.json", true}};

static const char *file_name(int index)
{
    return index < OWN_FILES ? own_files[index].name : companion_name(index - OWN_FILES);
}

static bool is_required(int index)
{
    return index < OWN_FILES && own_files[index].required;
}

plx_status checkpoint_join(const char *folder, const char *name, char *path, struct error *err)
{
    int length = snprintf(path, CHECKPOINT_PATH, "%s/%s", folder, name);
    REQUIRE(err, length >= 0 && length < CHECKPOINT_PATH, PLX_INVALID_ARGUMENT,
            "%.200s...: the path is too long", folder);
    return PLX_OK;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static plx_status describe_files(const char *folder, struct checkpoint_manifest *manifest,
                                 struct error *err)
{
    for (int i = 0; i < CHECKPOINT_FILES; i++) {
        char path[CHECKPOINT_PATH];
        size_t bytes;
        struct checkpoint_file *file = &manifest->files[i];
        TRY(checkpoint_join(folder, file_name(i), path, err));
        file->present = is_required(i) || file_exists(path);
        if (!file->present) continue;
        TRY(file_hash(path, &file->hash, &bytes, err));
        file->size = (int64_t)bytes;
    }
    return PLX_OK;
}

static json_t *format_files(const struct checkpoint_manifest *manifest)
{
    json_t *files = json_object();
    for (int i = 0; i < CHECKPOINT_FILES; i++) {
        const struct checkpoint_file *file = &manifest->files[i];
        char hash[HASH_DIGITS + 1];
        if (!file->present) continue;
        snprintf(hash, sizeof hash, "%016" PRIx64, file->hash);
        json_t *entry = json_pack("{s:I, s:s}", "size", (json_int_t)file->size, "xxh64", hash);
        if (json_object_set_new(files, file_name(i), entry) == 0) continue;
        json_decref(files);
        return NULL;
    }
    return files;
}

plx_status checkpoint_format_manifest(const struct checkpoint_manifest *manifest, char **json,
                                      struct error *err)
{
    json_t *root =
        json_pack("{s:i, s:o}", "version", MANIFEST_VERSION, "files", format_files(manifest));
    *json = root != NULL ? fields_print(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    REQUIRE(err, *json != NULL, PLX_OUT_OF_MEMORY, "manifest.json: out of memory");
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
    char path[CHECKPOINT_PATH], *text;
    struct checkpoint_manifest manifest = {0};
    TRY(checkpoint_join(folder, "manifest.json", path, err));
    TRY(describe_files(folder, &manifest, err));
    TRY(checkpoint_format_manifest(&manifest, &text, err));
    plx_status status = write_text(path, text, err);
    free(text);
    return status;
}

/* ---- Verifying ------------------------------------------------------------------------------- */

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
                                struct checkpoint_file *expected)
{
    const json_t *file = fields_get(files, name);
    *expected = (struct checkpoint_file){.present = file != NULL};
    if (file == NULL) return PLX_OK;
    if (!json_is_object(file)) return fields_refuse(files, name, file, "an object");
    struct fields fields = {file, files->where, files->err};
    TRY(fields_require(&fields, "size"));
    TRY(fields_integer(&fields, "size", 0, INT64_MAX, &expected->size));
    return read_hash(&fields, &expected->hash);
}

static bool is_checkpoint_file(const char *name)
{
    for (int i = 0; i < CHECKPOINT_FILES; i++)
        if (strcmp(file_name(i), name) == 0) return true;
    return false;
}

static plx_status read_manifest(const struct fields *fields, struct checkpoint_manifest *manifest)
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
    for (int i = 0; i < CHECKPOINT_FILES; i++) {
        TRY(read_expected(&files, file_name(i), &manifest->files[i]));
        REQUIRE(fields->err, manifest->files[i].present || !is_required(i), PLX_BAD_DATA,
                "%s: does not list %s", fields->where, file_name(i));
    }
    return PLX_OK;
}

plx_status checkpoint_parse_manifest(const char *json, size_t size, const char *name,
                                     struct checkpoint_manifest *manifest, struct error *err)
{
    json_t *root;
    *manifest = (struct checkpoint_manifest){0};
    TRY(fields_parse(json, size, name, &root, err));
    struct fields fields = {root, name, err};
    plx_status status = read_manifest(&fields, manifest);
    json_decref(root);
    return status;
}

static plx_status verify_size(const char *path, const struct checkpoint_file *expected,
                              struct error *err)
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

static plx_status verify_hash(const char *path, const struct checkpoint_file *expected,
                              struct error *err)
{
    uint64_t hash;
    size_t bytes;
    TRY(file_hash(path, &hash, &bytes, err));
    REQUIRE(err, hash == expected->hash, PLX_BAD_DATA,
            "%s: its XXH64 is %016" PRIx64 ", but manifest.json says %016" PRIx64, path, hash,
            expected->hash);
    return PLX_OK;
}

static plx_status load_manifest(const char *folder, struct checkpoint_manifest *manifest,
                                struct error *err)
{
    char path[CHECKPOINT_PATH], *text;
    size_t size;
    TRY(checkpoint_join(folder, "manifest.json", path, err));
    REQUIRE(err, file_exists(path), PLX_BAD_DATA,
            "%s: has no manifest.json, so it is not a completed checkpoint", folder);
    TRY(file_read_all(path, 1 << 20, &text, &size, err));
    plx_status status = checkpoint_parse_manifest(text, size, path, manifest, err);
    free(text);
    return status;
}

plx_status checkpoint_verify(const char *folder, struct error *err)
{
    char path[CHECKPOINT_PATH];
    struct checkpoint_manifest manifest;
    TRY(load_manifest(folder, &manifest, err));
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < CHECKPOINT_FILES; i++) {
            const struct checkpoint_file *file = &manifest.files[i];
            if (!file->present) continue;
            TRY(checkpoint_join(folder, file_name(i), path, err));
            TRY(pass == 0 ? verify_size(path, file, err) : verify_hash(path, file, err));
        }
    return PLX_OK;
}
