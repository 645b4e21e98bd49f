/* fields.h: reading members of a JSON object, where every wrong type and range is a sentence that
 * names the file, the key and the value found.
 *
 *     struct fields fields = {object, "config.json", err};
 *     int64_t layers = 0;
 *     TRY(fields_require(&fields, "num_hidden_layers"));
 *     TRY(fields_integer(&fields, "num_hidden_layers", 1, 256, &layers));
 *
 * A member that is absent or null leaves the caller's value, its default, as it is. */
#ifndef NN_FIELDS_H
#define NN_FIELDS_H

#include <jansson.h>

#include "core/error.h"

struct fields {
    const json_t *object;
    const char *where; /* file name, for messages */
    struct error *err;
};

/* Parses a JSON object of at most 64 MiB; duplicate keys are refused. The caller json_decrefs
 * *root. */
plx_status fields_parse(const char *json, size_t size, const char *where, json_t **root,
                        struct error *err);
/* The same for an object or an array. */
plx_status fields_parse_value(const char *json, size_t size, const char *where, json_t **root,
                              struct error *err);

/* Malloc'd text of a value, in jansson's flags; NULL when out of memory. */
char *fields_print(const json_t *value, size_t flags);
/* Malloc'd text of an object, indented by so many columns (0: on one line), in which every number
 * has the fewest digits that read back as the same. NULL when out of memory. */
char *fields_format(const json_t *root, int indent);

/* The member, or NULL where it is absent or null. */
json_t *fields_get(const struct fields *fields, const char *key);
plx_status fields_require(const struct fields *fields, const char *key);
plx_status fields_integer(const struct fields *fields, const char *key, int64_t min, int64_t max,
                          int64_t *value);
plx_status fields_real(const struct fields *fields, const char *key, double *value);
plx_status fields_bool(const struct fields *fields, const char *key, bool *value);
/* Points into the object. */
plx_status fields_text(const struct fields *fields, const char *key, const char **value);
/* 64 bits do not fit JSON numbers, so they are texts of decimal digits. */
plx_status fields_word(const struct fields *fields, const char *key, uint64_t *value);
/* Fails: "WHERE: KEY is VALUE but must be WANTED". */
plx_status fields_refuse(const struct fields *fields, const char *key, const json_t *value,
                         const char *wanted);

#endif
