/* bench_peer.c: see bench_peer.h. */
#include "bench_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/jsonl.h"

/* A line is a few hundred bytes; what is larger than this is some other file. */
#define FILE_LIMIT ((size_t)16 << 20)

static plx_status read_shape(json_t *line, const char *where, struct bench_shape *shape,
                             struct error *err)
{
    static const char *const keys[] = {"b", "hq", "hkv", "l", "d"};
    int64_t *const fields[] = {&shape->b, &shape->hq, &shape->hkv, &shape->l, &shape->d};
    for (int n = 0; n < 5; n++) {
        json_t *value = json_object_get(line, keys[n]);
        REQUIRE(err, json_is_integer(value), PLX_BAD_DATA, "%s: \"%s\" is not a whole number",
                where, keys[n]);
        *fields[n] = json_integer_value(value);
    }
    return PLX_OK;
}

/* 0 where the key is absent, as it is where the peer has no kernel. */
static double time_of(json_t *line, const char *key, double unit)
{
    json_t *value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) * unit : 0;
}

static bool is_text(json_t *line, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(line, key));
    return value && strcmp(value, text) == 0;
}

/* Lines about other things, such as the device, are passed over. */
static plx_status add_line(struct bench_peers *peers, json_t *line, const char *where,
                           struct error *err)
{
    const bool decode = is_text(line, "what", "decode");
    if (!(decode || is_text(line, "what", "train")) || !is_text(line, "layout", "bthd"))
        return PLX_OK;
    struct bench_peer_row row = {.decode = decode,
                                 .cold = json_is_true(json_object_get(line, "cold")),
                                 .causal = json_is_true(json_object_get(line, "causal"))};
    TRY(read_shape(line, where, &row.shape, err));
    row.us[PLX_DECODE] = time_of(line, "cudnn_us", 1);
    row.us[PLX_FORWARD] = time_of(line, "cudnn_fwd_ms", 1e3);
    row.us[PLX_BACKWARD] = time_of(line, "cudnn_bwd_ms", 1e3);
    struct bench_peer_row *rows =
        realloc(peers->rows, ((size_t)peers->count + 1) * sizeof *peers->rows);
    REQUIRE(err, rows, PLX_OUT_OF_MEMORY, "%s: no memory", where);
    peers->rows = rows;
    peers->rows[peers->count++] = row;
    return PLX_OK;
}

static plx_status add_lines(struct bench_peers *peers, struct jsonl *lines, struct error *err)
{
    for (;;) {
        char where[512];
        json_t *object;
        TRY(jsonl_next(lines, &object, err));
        if (object == NULL) return PLX_OK;
        snprintf(where, sizeof where, "%.400s:%lld", lines->name, lines->line);
        plx_status status = add_line(peers, object, where, err);
        json_decref(object);
        TRY(status);
    }
}

plx_status bench_peers_read(struct bench_peers *peers, const char *path, struct error *err)
{
    char *text;
    size_t size;
    *peers = (struct bench_peers){0};
    TRY(file_read_all(path, FILE_LIMIT, &text, &size, err));
    struct jsonl lines = {.data = text, .size = size, .name = path};
    plx_status status = add_lines(peers, &lines, err);
    free(text);
    if (status != PLX_OK) bench_peers_destroy(peers);
    return status;
}

void bench_peers_destroy(struct bench_peers *peers)
{
    free(peers->rows);
    *peers = (struct bench_peers){0};
}

static bool same_shape(struct bench_shape a, struct bench_shape b)
{
    return a.b == b.b && a.hq == b.hq && a.hkv == b.hkv && a.l == b.l && a.d == b.d;
}

double bench_peers_find(const struct bench_peers *peers, const struct bench_case *c)
{
    const bool decode = c->pass == PLX_DECODE;
    for (int n = 0; n < peers->count; n++) {
        const struct bench_peer_row *row = &peers->rows[n];
        const bool state = decode ? row->cold == c->cold : row->causal == c->causal;
        if (row->decode == decode && state && same_shape(row->shape, c->shape))
            return row->us[c->pass];
    }
    return 0;
}
