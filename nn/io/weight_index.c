/* weight_index.c: model.safetensors.index.json: {"metadata": {...}, "weight_map": {"TENSOR":
 * "FILE", ...}}.
 *
 * A file name from an index is opened, so it may only be a plain name in the folder of the index:
 * an index is no place for "../" or "/etc". metadata is informative and not read. */
#include <stdlib.h>
#include <string.h>

#include "io/fields.h"
#include "io/weights.h"

enum { FILE_NAME_LIMIT = 255 };

static bool is_plain_name(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > FILE_NAME_LIMIT || name[0] == '.') return false;
    return strpbrk(name, "/\\") == NULL;
}

static int compare_rows(const void *left, const void *right)
{
    const struct weight_index_row *a = left, *b = right;
    return strcmp(a->name, b->name);
}

static plx_status read_map(const struct fields *fields, struct weight_index *index)
{
    TRY(fields_require(fields, "weight_map"));
    json_t *map = fields_get(fields, "weight_map");
    if (!json_is_object(map)) return fields_refuse(fields, "weight_map", map, "an object");
    REQUIRE(fields->err, json_object_size(map) > 0, PLX_BAD_DATA, "%s: weight_map is empty",
            fields->where);
    index->rows = calloc(json_object_size(map), sizeof *index->rows);
    REQUIRE(fields->err, index->rows != NULL, PLX_OUT_OF_MEMORY,
            "%s: cannot allocate a map of %zu tensors", fields->where, json_object_size(map));
    const char *name;
    json_t *file;
    json_object_foreach(map, name, file)
    {
        REQUIRE(fields->err, json_is_string(file), PLX_BAD_DATA,
                "%s: weight_map names no file for tensor %.200s", fields->where, name);
        REQUIRE(
            fields->err, is_plain_name(json_string_value(file)), PLX_BAD_DATA,
            "%s: weight_map puts tensor %.200s into \"%.200s\", which is not the plain name of a "
            "file in this folder",
            fields->where, name, json_string_value(file));
        index->rows[index->count++] = (struct weight_index_row){name, json_string_value(file)};
    }
    qsort(index->rows, (size_t)index->count, sizeof *index->rows, compare_rows);
    return PLX_OK;
}

plx_status weight_index_parse(const char *json, size_t size, const char *where,
                              struct weight_index *index, struct error *err)
{
    *index = (struct weight_index){0};
    json_t *root;
    TRY(fields_parse(json, size, where, &root, err));
    index->document = root;
    struct fields fields = {root, where, err};
    plx_status status = read_map(&fields, index);
    if (status != PLX_OK) weight_index_clear(index);
    return status;
}

void weight_index_clear(struct weight_index *index)
{
    free(index->rows);
    json_decref(index->document);
    *index = (struct weight_index){0};
}
