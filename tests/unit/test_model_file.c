/* test_model_file.c: model folders: what is saved loads back bit for bit, every way in which
 * weights and index may disagree is refused by name, and a refused folder changes nothing. */
#include "../model_case.h"
#include "io_files.h"

#include <sys/stat.h>

#include "io/model_file.h"
#include "io/safetensors.h"
#include "io/weights.h"

/* Every parameter's value in one block. */
static float *snapshot(struct model *model, size_t *bytes)
{
    const struct param_list *params = model_params(model);
    *bytes = (size_t)param_list_elements(params) * sizeof(float);
    float *copy = malloc(*bytes), *next = copy;
    for (int i = 0; i < params->count; i++) {
        size_t count = (size_t)plx_tensor_count(&params->items[i].value);
        memcpy(next, params->items[i].value.data, count * sizeof(float));
        next += count;
    }
    return copy;
}

static void assert_same_values(struct model *a, struct model *b)
{
    size_t bytes, more;
    float *left = snapshot(a, &bytes), *right = snapshot(b, &more);
    assert_int_equal(bytes, more);
    assert_memory_equal(left, right, bytes);
    free(left);
    free(right);
}

/* A folder of that name in the test's folder, emptied. */
static const char *fresh_folder(const char *name)
{
    struct error err = {0};
    const char *path = io_absent(name);
    assert_ok(file_make_folder(path, &err), &err);
    return path;
}

/* ---- Round trips ----------------------------------------------------------------------------- */

static void folder_round_trip(void **state)
{
    (void)state;
    static const char *const mixers[] = {"softmax", "parallax"};
    for (int m = 0; m < 2; m++) {
        struct model_config config = case_config(2, mixers[m]);
        config.tie_embeddings = m == 0;
        config.probe_gate = m == 1;
        struct case_model a, b = {0};
        case_open(&a, &config, &ops_ref, PLX_F32, 1);
        const char *folder = fresh_folder("trip");
        assert_ok(model_save(a.model, NULL, folder, PLX_F32, &a.err), &a.err);
        assert_false(file_exists(io_inside(folder, "model.safetensors.partial")));
        assert_false(file_exists(io_inside(folder, "tokenizer.json")));
        struct backend_config backend = {.ops = &ops_ref};
        assert_ok(backend_create(&b.be, &backend, &b.err), &b.err);
        assert_ok(model_open(&b.be, folder, &b.model, &b.err), &b.err);
        assert_same_values(a.model, b.model);
        case_close(&a);
        case_close(&b);
    }
}

static void bf16_folder(void **state)
{
    (void)state;
    struct model_config config = case_config(1, "parallax");
    struct case_model a, b;
    case_open(&a, &config, &ops_ref, PLX_F32, 2);
    case_open(&b, &config, &ops_ref, PLX_F64, 3);
    const char *folder = fresh_folder("bf16");
    assert_ok(model_save(a.model, NULL, folder, PLX_BF16, &a.err), &a.err);
    assert_ok(model_load_values(b.model, folder, &b.err), &b.err);
    const struct param_list *left = model_params(a.model), *right = model_params(b.model);
    for (int p = 0; p < left->count; p++)
        for (int64_t i = 0; i < plx_tensor_count(&left->items[p].value); i++) {
            double exact = case_get(&left->items[p].value, i);
            double rounded = case_get(&right->items[p].value, i);
            assert_true(fabs(rounded - exact) <= fabs(exact) / 256);
            assert_true((double)(float)rounded == rounded);
        }
    case_close(&a);
    case_close(&b);
}

static void golden_folders_load(void **state)
{
    (void)state;
    static const char *const folders[] = {SHARED_DATA "/golden/qwen3_tiny_tied",
                                          SHARED_DATA "/golden/parallax_tiny_qknorm_gqa"};
    if (!file_is_folder(SHARED_DATA "/golden")) {
        print_message("skipped: shared data absent\n");
        skip();
    }
    for (int f = 0; f < 2; f++) {
        struct case_model a = {0}, b = {0};
        struct backend_config backend = {.ops = &ops_ref};
        assert_ok(backend_create(&a.be, &backend, &a.err), &a.err);
        assert_ok(backend_create(&b.be, &backend, &b.err), &b.err);
        assert_ok(model_open(&a.be, folders[f], &a.model, &a.err), &a.err);
        const char *folder = fresh_folder("golden");
        assert_ok(model_save(a.model, NULL, folder, PLX_F32, &a.err), &a.err);
        assert_ok(model_open(&b.be, folder, &b.model, &b.err), &b.err);
        assert_same_values(a.model, b.model);
        case_close(&a);
        case_close(&b);
    }
}

/* ---- Weights that do not fit ----------------------------------------------------------------- */

/* The tensors of a tied two-layer model, for tests to bend before they are written. */
struct bent {
    struct case_model m;
    struct safetensors_write entries[64];
    int count;
};

static void bent_open(struct bent *bent)
{
    struct model_config config = case_config(2, "parallax");
    config.tie_embeddings = true;
    case_open(&bent->m, &config, &ops_ref, PLX_F32, 4);
    const struct param_list *params = model_params(bent->m.model);
    for (int i = 0; i < params->count; i++)
        bent->entries[i] =
            (struct safetensors_write){params->items[i].name, params->items[i].value};
    bent->count = params->count;
}

/* Writes the tensors, expects the loader to refuse them, and the model to stay as it was. */
static void bent_refused(struct bent *bent, plx_status status, const char *says)
{
    struct error err = {0};
    const char *folder = fresh_folder("bent");
    assert_ok(safetensors_save(io_inside(folder, "model.safetensors"), bent->entries, bent->count,
                               NULL, 0, &err),
              &err);
    size_t bytes;
    float *before = snapshot(bent->m.model, &bytes);
    assert_refused(model_load_values(bent->m.model, folder, &err), status, says, &err);
    float *after = snapshot(bent->m.model, &bytes);
    assert_memory_equal(before, after, bytes);
    free(before);
    free(after);
}

static void missing_tensor(void **state)
{
    (void)state;
    struct bent bent;
    bent_open(&bent);
    bent.entries[3] = bent.entries[--bent.count];
    char says[256];
    snprintf(says, sizeof says, "model.safetensors: tensor %s, which the model needs, is missing",
             model_params(bent.m.model)->items[3].name);
    bent_refused(&bent, PLX_BAD_DATA, says);
    case_close(&bent.m);
}

static void surplus_tensor(void **state)
{
    (void)state;
    struct bent bent;
    bent_open(&bent);
    float value = 0;
    int64_t one = 1;
    bent.entries[bent.count++] = (struct safetensors_write){
        "model.layers.9.mlp.up_proj.weight", plx_tensor_dense(&value, PLX_F32, 1, &one)};
    bent_refused(&bent, PLX_BAD_DATA,
                 "tensor model.layers.9.mlp.up_proj.weight is no part of the model");
    case_close(&bent.m);
}

static void old_rope_buffers_are_passed_over(void **state)
{
    (void)state;
    struct bent bent;
    struct error err = {0};
    bent_open(&bent);
    float values[4] = {1, 0.1f, 0.01f, 0.001f};
    int64_t count = 4;
    bent.entries[bent.count++] =
        (struct safetensors_write){"model.layers.0.self_attn.rotary_emb.inv_freq",
                                   plx_tensor_dense(values, PLX_F32, 1, &count)};
    const char *folder = fresh_folder("buffers");
    assert_ok(safetensors_save(io_inside(folder, "model.safetensors"), bent.entries, bent.count,
                               NULL, 0, &err),
              &err);
    assert_ok(model_load_values(bent.m.model, folder, &err), &err);
    case_close(&bent.m);
}

static void misshapen_tensor(void **state)
{
    (void)state;
    struct bent bent;
    bent_open(&bent);
    struct plx_tensor *tensor = &bent.entries[bent.count - 1].tensor;
    tensor->shape[0] -= 1;
    char says[64];
    snprintf(says, sizeof says, "has shape [%d], but shape [%d] is expected", 31, 32);
    bent_refused(&bent, PLX_BAD_DATA, says);
    case_close(&bent.m);
}

static void unreadable_dtype(void **state)
{
    (void)state;
    struct bent bent;
    bent_open(&bent);
    bent.entries[0].tensor.dtype = PLX_I32;
    bent_refused(&bent, PLX_UNSUPPORTED, "is of dtype I32, which cannot be read as f32");
    case_close(&bent.m);
}

static void redundant_head_must_be_the_embedding(void **state)
{
    (void)state;
    struct bent bent;
    struct error err = {0};
    bent_open(&bent);
    struct plx_tensor embedding =
        param_find(model_params(bent.m.model), "model.embed_tokens.weight")->value;
    size_t bytes = (size_t)plx_tensor_count(&embedding) * sizeof(float);
    struct plx_tensor head = embedding;
    head.data = malloc(bytes);
    memcpy(head.data, embedding.data, bytes);
    bent.entries[bent.count++] = (struct safetensors_write){"lm_head.weight", head};
    const char *folder = fresh_folder("head");
    assert_ok(safetensors_save(io_inside(folder, "model.safetensors"), bent.entries, bent.count,
                               NULL, 0, &err),
              &err);
    assert_ok(model_load_values(bent.m.model, folder, &err), &err);
    ((float *)head.data)[5] += 1;
    bent_refused(&bent, PLX_BAD_DATA,
                 "lm_head.weight differs from model.embed_tokens.weight, but the model's "
                 "embeddings are tied");
    free(head.data);
    case_close(&bent.m);
}

static void values_too_large_for_the_model(void **state)
{
    (void)state;
    struct bent bent;
    struct error err = {0};
    bent_open(&bent);
    struct plx_tensor *last = &bent.entries[bent.count - 1].tensor;
    double values[32] = {[7] = 1e200};
    *last = plx_tensor_dense(values, PLX_F64, 1, last->shape);
    const char *folder = fresh_folder("large");
    assert_ok(safetensors_save(io_inside(folder, "model.safetensors"), bent.entries, bent.count,
                               NULL, 0, &err),
              &err);
    assert_refused(model_load_values(bent.m.model, folder, &err), PLX_BAD_DATA,
                   "element 7 is 1e+200, too large for F32", &err);
    case_close(&bent.m);
}

/* ---- Shards ---------------------------------------------------------------------------------- */

/* Two shards, the first with the first half of the tensors, and an index with an optional extra
 * text. */
static const char *write_shards(struct bent *bent, const char *first, const char *second)
{
    struct error err = {0};
    const char *folder = fresh_folder("shards");
    int half = bent->count / 2;
    assert_ok(
        safetensors_save(io_inside(folder, "a.safetensors"), bent->entries, half, NULL, 0, &err),
        &err);
    assert_ok(safetensors_save(io_inside(folder, "b.safetensors"), bent->entries + half,
                               bent->count - half, NULL, 0, &err),
              &err);
    char *json = malloc(1 << 16);
    int length = sprintf(json, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int i = 0; i < bent->count; i++)
        length += sprintf(json + length, "%s\"%s\":\"%s\"", i > 0 ? "," : "", bent->entries[i].name,
                          i < half ? first : second);
    sprintf(json + length, "}}");
    io_write_text(io_inside(folder, "model.safetensors.index.json"), json);
    free(json);
    return folder;
}

static void shards_load(void **state)
{
    (void)state;
    struct bent bent;
    struct error err = {0};
    bent_open(&bent);
    size_t bytes;
    const char *folder = write_shards(&bent, "a.safetensors", "b.safetensors");
    float *before = snapshot(bent.m.model, &bytes);
    assert_int_equal(model_init(bent.m.model, 99), PLX_OK);
    assert_ok(model_load_values(bent.m.model, folder, &err), &err);
    float *after = snapshot(bent.m.model, &bytes);
    assert_memory_equal(before, after, bytes);
    free(before);
    free(after);
    case_close(&bent.m);
}

/* Shards that are bent between writing and loading: two of them, a.safetensors and b.safetensors,
 * in folder. */
struct bent_shards {
    const char *name;
    const char *first, *second; /* files that the index names */
    void (*bend)(struct bent *bent, const char *folder);
    plx_status status;
    const char *says;
};

static void bend_nothing(struct bent *bent, const char *folder)
{
    (void)bent, (void)folder;
}

static void bend_index_to_a_ghost(struct bent *bent, const char *folder)
{
    (void)bent;
    io_write_text(io_inside(folder, "model.safetensors.index.json"),
                  "{\"weight_map\":{\"ghost\":\"a.safetensors\"}}");
}

static void bend_index_to_one_tensor(struct bent *bent, const char *folder)
{
    char json[300];
    snprintf(json, sizeof json, "{\"weight_map\":{\"%s\":\"a.safetensors\"}}",
             bent->entries[0].name);
    io_write_text(io_inside(folder, "model.safetensors.index.json"), json);
}

static void bend_second_shard_to_hold_all(struct bent *bent, const char *folder)
{
    struct error err = {0};
    assert_ok(safetensors_save(io_inside(folder, "b.safetensors"), bent->entries, bent->count, NULL,
                               0, &err),
              &err);
}

static void bend_second_shard_to_junk(struct bent *bent, const char *folder)
{
    (void)bent;
    io_write_text(io_inside(folder, "b.safetensors"), "short");
}

static void bend_second_shard_to_a_folder(struct bent *bent, const char *folder)
{
    struct error err = {0};
    (void)bent;
    assert_ok(file_remove_tree(io_inside(folder, "b.safetensors"), &err), &err);
    assert_ok(file_make_folder(io_inside(folder, "b.safetensors"), &err), &err);
}

static void bend_index_away(struct bent *bent, const char *folder)
{
    struct error err = {0};
    (void)bent;
    assert_ok(file_remove_tree(io_inside(folder, "model.safetensors.index.json"), &err), &err);
}

static void bend_index_to_be_huge(struct bent *bent, const char *folder)
{
    const char *path = io_inside(folder, "model.safetensors.index.json");
    (void)bent;
    assert_int_equal(truncate(path, (16 << 20) + 1), 0);
}

static const struct bent_shards bent_shards[] = {
    {"shard missing", "a.safetensors", "c.safetensors", bend_nothing, PLX_IO_ERROR,
     "c.safetensors: cannot open"},
    {"shards exchanged", "b.safetensors", "a.safetensors", bend_nothing, PLX_BAD_DATA,
     "but it is in "},
    {"index names a tensor that no shard holds", "a.safetensors", "b.safetensors",
     bend_index_to_a_ghost, PLX_BAD_DATA,
     "weight_map puts tensor ghost into a.safetensors, which does not hold it"},
    {"shard holds a tensor that the index does not name", "a.safetensors", "b.safetensors",
     bend_index_to_one_tensor, PLX_BAD_DATA, "is not in the index"},
    {"tensor in two shards", "a.safetensors", "b.safetensors", bend_second_shard_to_hold_all,
     PLX_BAD_DATA, "is also in "},
    {"shard truncated", "a.safetensors", "b.safetensors", bend_second_shard_to_junk, PLX_BAD_DATA,
     "b.safetensors: has 5 bytes"},
    {"shard a folder", "a.safetensors", "b.safetensors", bend_second_shard_to_a_folder,
     PLX_IO_ERROR, "b.safetensors: is a folder"},
    {"neither weights nor index", "a.safetensors", "b.safetensors", bend_index_away, PLX_IO_ERROR,
     "holds neither model.safetensors nor model.safetensors.index.json"},
    {"index too large", "a.safetensors", "b.safetensors", bend_index_to_be_huge, PLX_BAD_DATA,
     "has 16777217 bytes, more than the 16777216 allowed"},
};

static void shards_are_refused(void **state)
{
    const struct bent_shards *shards = *state;
    struct bent bent;
    struct error err = {0};
    bent_open(&bent);
    const char *folder = write_shards(&bent, shards->first, shards->second);
    shards->bend(&bent, folder);
    size_t bytes;
    float *before = snapshot(bent.m.model, &bytes);
    assert_refused(model_load_values(bent.m.model, folder, &err), shards->status, shards->says,
                   &err);
    float *after = snapshot(bent.m.model, &bytes);
    assert_memory_equal(before, after, bytes);
    free(before);
    free(after);
    case_close(&bent.m);
}

#define NAME_64 "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

struct index_refusal {
    const char *name, *json, *says;
};

static const struct index_refusal index_refusals[] = {
    {"index: empty", "", "line 1"},
    {"index: array", "[]", "is not a JSON object"},
    {"index: no map", "{}", "weight_map is missing"},
    {"index: map null", "{\"weight_map\":null}", "weight_map is missing"},
    {"index: map an array", "{\"weight_map\":[]}", "weight_map is [] but must be an object"},
    {"index: map empty", "{\"weight_map\":{}}", "weight_map is empty"},
    {"index: file a number", "{\"weight_map\":{\"a\":1}}", "names no file for tensor a"},
    {"index: file null", "{\"weight_map\":{\"a\":null}}", "names no file for tensor a"},
    {"index: tensor twice", "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", "duplicate"},
    {"index: file name empty", "{\"weight_map\":{\"a\":\"\"}}",
     "\"\", which is not the plain name"},
    {"index: parent folder as file", "{\"weight_map\":{\"a\":\"..\"}}",
     "\"..\", which is not the plain name"},
    {"index: this folder as file", "{\"weight_map\":{\"a\":\".\"}}",
     "\".\", which is not the plain name"},
    {"index: hidden file", "{\"weight_map\":{\"a\":\".hidden\"}}", "not the plain name"},
    {"index: path to the parent", "{\"weight_map\":{\"a\":\"../x\"}}",
     "\"../x\", which is not the plain name"},
    {"index: path through the parent", "{\"weight_map\":{\"a\":\"b/../../x\"}}",
     "not the plain name"},
    {"index: path downwards", "{\"weight_map\":{\"a\":\"sub/x\"}}", "not the plain name"},
    {"index: absolute path", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
     "\"/etc/passwd\", which is not the plain name"},
    {"index: backslashes", "{\"weight_map\":{\"a\":\"..\\\\x\"}}", "not the plain name"},
    {"index: NUL in a file name", "{\"weight_map\":{\"a\":\"x\\u0000y\"}}", "\\u0000"},
    {"index: file name too long",
     "{\"weight_map\":{\"a\":\"" NAME_64 NAME_64 NAME_64 NAME_64 "\"}}", "not the plain name"},
};

static void index_is_refused(void **state)
{
    const struct index_refusal *refusal = *state;
    struct error err = {0};
    struct weight_index index;
    assert_refused(
        weight_index_parse(refusal->json, strlen(refusal->json), "index.json", &index, &err),
        PLX_BAD_DATA, refusal->says, &err);
}

/* ---- Finding and opening --------------------------------------------------------------------- */

static void folders_are_found(void **state)
{
    (void)state;
    struct error err = {0};
    char path[512], tiny[4];
    const char *folder = fresh_folder("found");
    assert_refused(model_folder_find(io_path("absent"), path, sizeof path, &err), PLX_IO_ERROR,
                   "absent: does not exist", &err);
    assert_refused(model_folder_find(folder, path, sizeof path, &err), PLX_IO_ERROR,
                   "is neither a model folder (it holds no config.json) nor a run", &err);
    io_write_text(io_inside(folder, "config.json"), "{}");
    assert_ok(model_folder_find(folder, path, sizeof path, &err), &err);
    assert_string_equal(path, folder);
    assert_refused(model_folder_find(folder, tiny, sizeof tiny, &err), PLX_INVALID_ARGUMENT,
                   "too long", &err);
    assert_refused(model_folder_find(io_inside(folder, "config.json"), path, sizeof path, &err),
                   PLX_IO_ERROR, "is a file, not a model folder", &err);
}

static void bad_folders_do_not_open(void **state)
{
    (void)state;
    struct error err = {0};
    struct backend be;
    struct backend_config backend = {.ops = &ops_ref};
    struct model *model;
    assert_ok(backend_create(&be, &backend, &err), &err);
    const char *folder = fresh_folder("bad");
    assert_refused(model_open(&be, folder, &model, &err), PLX_IO_ERROR, "config.json: cannot open",
                   &err);
    assert_null(model);
    io_write_text(io_inside(folder, "config.json"), "{\"model_type\":\"gpt\"}");
    assert_refused(model_open(&be, folder, &model, &err), PLX_UNSUPPORTED, "model_type is \"gpt\"",
                   &err);
    io_write_text(
        io_inside(folder, "config.json"),
        "{\"model_type\":\"qwen3\",\"vocab_size\":10,\"hidden_size\":8,\"intermediate_size\":8,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":1}");
    assert_refused(model_open(&be, folder, &model, &err), PLX_IO_ERROR, "holds neither", &err);
    assert_null(model);
    backend_destroy(&be);
}

static void files_are_read_whole_or_not(void **state)
{
    (void)state;
    struct error err = {0};
    char *text;
    size_t size;
    uint64_t hash;
    struct file_map map;
    io_write_text(io_path("text"), "0123456789");
    assert_ok(file_read_all(io_path("text"), 10, &text, &size, &err), &err);
    assert_int_equal(size, 10);
    assert_string_equal(text, "0123456789");
    free(text);
    assert_refused(file_read_all(io_path("text"), 9, &text, &size, &err), PLX_BAD_DATA,
                   "has 10 bytes, more than the 9 allowed", &err);
    assert_refused(file_read_all(io_folder, 9, &text, &size, &err), PLX_IO_ERROR, "is a folder",
                   &err);
    assert_refused(file_map(io_folder, &map, &err), PLX_IO_ERROR, "is a folder", &err);
    assert_int_equal(mkfifo(io_path("pipe"), 0600), 0);
    assert_refused(file_map(io_path("pipe"), &map, &err), PLX_IO_ERROR, "pipe or socket", &err);
    assert_refused(file_hash(io_path("absent"), &hash, &size, &err), PLX_IO_ERROR,
                   "absent: cannot open", &err);
    io_write_text(io_path("text"), "");
    assert_ok(file_map(io_path("text"), &map, &err), &err);
    assert_null(map.data);
    file_unmap(&map);
    /* XXH64 of nothing and of "abc" with seed 0, from the specification of the hash. */
    assert_ok(file_hash(io_path("text"), &hash, &size, &err), &err);
    assert_true(hash == UINT64_C(0xef46db3751d8e999));
    io_write_text(io_path("text"), "abc");
    assert_ok(file_hash(io_path("text"), &hash, &size, &err), &err);
    assert_true(hash == UINT64_C(0x44bc2cf5ad770999) && size == 3);
}

static void trees_are_removed_without_following_links(void **state)
{
    (void)state;
    struct error err = {0};
    const char *folder = fresh_folder("tree"), *outside = fresh_folder("outside");
    char target[600];
    io_write_text(io_inside(outside, "precious"), "x");
    assert_ok(file_make_folder(io_inside(folder, "a/b//c"), &err), &err);
    io_write_text(io_inside(folder, "a/b/c/file"), "x");
    snprintf(target, sizeof target, "../outside");
    assert_int_equal(symlink(target, io_inside(folder, "a/link")), 0);
    assert_ok(file_remove_tree(folder, &err), &err);
    assert_false(file_exists(folder));
    assert_true(file_exists(io_inside(outside, "precious")));
    assert_ok(file_remove_tree(folder, &err), &err);
    io_write_text(io_path("plain"), "x");
    assert_refused(file_make_folder(io_path("plain/sub"), &err), PLX_IO_ERROR,
                   "cannot make the folder", &err);
    assert_refused(file_make_folder(io_path("plain"), &err), PLX_IO_ERROR,
                   "a file of that name exists", &err);
}

int main(void)
{
    static const struct CMUnitTest fixed[] = {
        cmocka_unit_test(folder_round_trip),
        cmocka_unit_test(bf16_folder),
        cmocka_unit_test(golden_folders_load),
        cmocka_unit_test(missing_tensor),
        cmocka_unit_test(surplus_tensor),
        cmocka_unit_test(old_rope_buffers_are_passed_over),
        cmocka_unit_test(misshapen_tensor),
        cmocka_unit_test(unreadable_dtype),
        cmocka_unit_test(redundant_head_must_be_the_embedding),
        cmocka_unit_test(values_too_large_for_the_model),
        cmocka_unit_test(shards_load),
        cmocka_unit_test(folders_are_found),
        cmocka_unit_test(bad_folders_do_not_open),
        cmocka_unit_test(files_are_read_whole_or_not),
        cmocka_unit_test(trees_are_removed_without_following_links),
    };
    enum {
        FIXED = sizeof fixed / sizeof *fixed,
        SHARDS = sizeof bent_shards / sizeof *bent_shards,
        INDEX = sizeof index_refusals / sizeof *index_refusals
    };
    struct CMUnitTest tests[FIXED + SHARDS + INDEX];
    memcpy(tests, fixed, sizeof fixed);
    for (int i = 0; i < SHARDS; i++)
        tests[FIXED + i] = (struct CMUnitTest){bent_shards[i].name, shards_are_refused, NULL, NULL,
                                               (void *)&bent_shards[i]};
    for (int i = 0; i < INDEX; i++)
        tests[FIXED + SHARDS + i] = (struct CMUnitTest){index_refusals[i].name, index_is_refused,
                                                        NULL, NULL, (void *)&index_refusals[i]};
    return cmocka_run_group_tests(tests, io_folder_make, io_folder_remove);
}
