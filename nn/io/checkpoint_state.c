/* checkpoint_state.c: state.json, everything of a run that is neither weight nor optimiser tensor.
 *
 *     {"version": 1, "step": 100, "optimizer_steps": 100, "tokens": 819200,
 *      "position": {"epoch": 0, "document": 3, "token": 17, "tokens_seen": 819200},
 *      "rng": {"seed": "1", "counter": "2"}, "corpus_fingerprint": "3", "options": {...}}
 *
 * Words of 64 bits are texts, because JSON readers keep only 53 of them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint_parts.h"
#include "io/fields.h"
#include "io/file.h"

enum { STATE_VERSION = 1, WORD_TEXT = 24 };

/* ---- Writing --------------------------------------------------------------------------------- */

static json_t *word(uint64_t value)
{
    char text[WORD_TEXT];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return json_string(text);
}

/* The run's options as an object; they are written by this program, so anything else is a bug. */
static plx_status parse_options(const char *options, json_t **object, struct error *err)
{
    if (options == NULL) {
        *object = json_null();
        return PLX_OK;
    }
    return fields_parse(options, strlen(options), "the run's options", object, err);
}

plx_status checkpoint_format_state(const struct train_state *state, int64_t optimizer_steps,
                                   char **json, struct error *err)
{
    json_t *options;
    *json = NULL;
    TRY(parse_options(state->options_json, &options, err));
    const struct loader_position *at = &state->position;
    json_t *position = json_pack("{s:I, s:I, s:I, s:I}", "epoch", (json_int_t)at->epoch, "document",
                                 (json_int_t)at->document, "token", (json_int_t)at->token,
                                 "tokens_seen", (json_int_t)at->tokens_seen);
    json_t *rng =
        json_pack("{s:o, s:o}", "seed", word(state->rng.seed), "counter", word(state->rng.counter));
    json_t *root =
        json_pack("{s:i, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "version", STATE_VERSION, "step",
                  (json_int_t)state->step, "optimizer_steps", (json_int_t)optimizer_steps, "tokens",
                  (json_int_t)state->tokens, "position", position, "rng", rng, "corpus_fingerprint",
                  word(state->corpus_fingerprint), "options", options);
    if (root != NULL) *json = fields_format(root, 2);
    json_decref(root);
    REQUIRE(err, *json != NULL, PLX_OUT_OF_MEMORY, "state.json: out of memory");
    return PLX_OK;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* A count of something: present, whole, not negative. */
static plx_status count_field(const struct fields *fields, const char *key, int64_t *value)
{
    TRY(fields_require(fields, key));
    return fields_integer(fields, key, 0, INT64_MAX, value);
}

static plx_status word_field(const struct fields *fields, const char *key, uint64_t *value)
{
    TRY(fields_require(fields, key));
    return fields_word(fields, key, value);
}

/* The object member key as fields of its own. */
static plx_status object_field(const struct fields *fields, const char *key, struct fields *inner)
{
    TRY(fields_require(fields, key));
    const json_t *object = fields_get(fields, key);
    if (!json_is_object(object)) return fields_refuse(fields, key, object, "an object");
    *inner = (struct fields){object, fields->where, fields->err};
    return PLX_OK;
}

static plx_status read_options(const struct fields *fields, struct train_state *state)
{
    if (fields_get(fields, "options") == NULL) return PLX_OK;
    struct fields options = {0};
    TRY(object_field(fields, "options", &options));
    state->options_json = fields_format(options.object, 0);
    REQUIRE(fields->err, state->options_json != NULL, PLX_OUT_OF_MEMORY, "%s: out of memory",
            fields->where);
    return PLX_OK;
}

static plx_status read_state(const struct fields *fields, struct train_state *state,
                             int64_t *optimizer_steps)
{
    int64_t version = 0;
    struct fields position, rng;
    TRY(fields_require(fields, "version"));
    TRY(fields_integer(fields, "version", STATE_VERSION, STATE_VERSION, &version));
    TRY(count_field(fields, "step", &state->step));
    TRY(count_field(fields, "optimizer_steps", optimizer_steps));
    TRY(count_field(fields, "tokens", &state->tokens));
    TRY(object_field(fields, "position", &position));
    TRY(count_field(&position, "epoch", &state->position.epoch));
    TRY(count_field(&position, "document", &state->position.document));
    TRY(count_field(&position, "token", &state->position.token));
    TRY(count_field(&position, "tokens_seen", &state->position.tokens_seen));
    TRY(object_field(fields, "rng", &rng));
    TRY(word_field(&rng, "seed", &state->rng.seed));
    TRY(word_field(&rng, "counter", &state->rng.counter));
    TRY(word_field(fields, "corpus_fingerprint", &state->corpus_fingerprint));
    return read_options(fields, state);
}

plx_status checkpoint_parse_steps(const char *json, size_t size, const char *name,
                                  struct train_state *state, int64_t *optimizer_steps,
                                  struct error *err)
{
    int64_t steps;
    json_t *root;
    *state = (struct train_state){0};
    TRY(fields_parse(json, size, name, &root, err));
    struct fields fields = {root, name, err};
    plx_status status =
        read_state(&fields, state, optimizer_steps != NULL ? optimizer_steps : &steps);
    json_decref(root);
    if (status == PLX_OK) return PLX_OK;
    train_state_clear(state);
    return status;
}

plx_status checkpoint_parse_state(const char *json, size_t size, const char *name,
                                  struct train_state *state, struct error *err)
{
    return checkpoint_parse_steps(json, size, name, state, NULL, err);
}

plx_status checkpoint_load_steps(const char *folder, struct train_state *state,
                                 int64_t *optimizer_steps, struct error *err)
{
    char path[CHECKPOINT_PATH], *text;
    size_t size;
    *state = (struct train_state){0};
    TRY(checkpoint_join(folder, "state.json", path, err));
    TRY(file_read_all(path, (size_t)16 << 20, &text, &size, err));
    plx_status status = checkpoint_parse_steps(text, size, path, state, optimizer_steps, err);
    free(text);
    return status;
}

plx_status checkpoint_load_state(const char *folder, struct train_state *state, struct error *err)
{
    return checkpoint_load_steps(folder, state, NULL, err);
}

void train_state_clear(struct train_state *state)
{
    free(state->options_json);
    *state = (struct train_state){0};
}
