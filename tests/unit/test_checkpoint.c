/* test_checkpoint.c: checkpoints survive: every kind of damage is found and named, an older one
 * takes over, and a save that fails, or dies, at any of its system calls leaves the run with a
 * checkpoint that loads. */
#include "../model_case.h"
#include "io_files.h"

#include <sys/stat.h>

#include "io/checkpoint.h"
#include "io/safetensors.h"

/* A small model with an optimiser that has moved, and a run folder. */
struct run {
    struct case_model m;
    struct optim *optim;
    struct tokenizer *tokenizer;
    struct train_state state;
    char folder[256];
    uint64_t seed;
};

static struct run run;

/* As small as a model can be: the tests save thousands of checkpoints. */
static struct model_config tiny_config(void)
{
    struct model_config config = case_config(1, "parallax");
    config.vocab_size = 13;
    config.hidden_size = 8;
    config.intermediate_size = 10;
    config.heads = 2;
    config.kv_heads = 1;
    config.head_dim = 4;
    return config;
}

static void fill_values(uint64_t seed)
{
    struct rng rng = rng_make(seed, 5);
    struct param_list *params = model_params(run.m.model);
    for (int i = 0; i < params->count; i++) case_fill(&params->items[i].value, &rng, 1);
    struct optim_tensor state;
    for (int i = 0; optim_state(run.optim, i, &state); i++) case_fill(&state.tensor, &rng, 1);
    optim_set_steps(run.optim, (int64_t)seed);
    run.state.step = (int64_t)seed;
    run.state.tokens = (int64_t)seed * 100;
    run.state.position = (struct loader_position){1, (int64_t)seed, 3, 4};
    run.state.rng = (struct rng){UINT64_MAX - seed, UINT64_C(1) << 60};
    run.state.corpus_fingerprint = UINT64_C(0xfedcba9876543210) + seed;
}

/* All values and states as bits. */
static uint64_t fingerprint(void)
{
    uint64_t hash = 14695981039346656037u;
    const struct param_list *params = model_params(run.m.model);
    struct optim_tensor state;
    for (int i = 0; i < params->count + 1000; i++) {
        struct plx_tensor tensor;
        if (i < params->count)
            tensor = params->items[i].value;
        else if (optim_state(run.optim, i - params->count, &state))
            tensor = state.tensor;
        else
            break;
        const unsigned char *bytes = tensor.data;
        size_t size = (size_t)plx_tensor_count(&tensor) * plx_dtype_size(tensor.dtype);
        for (size_t b = 0; b < size; b++) hash = (hash ^ bytes[b]) * 1099511628211u;
    }
    return hash ^ (uint64_t)optim_steps(run.optim);
}

static uint64_t fingerprint_of(uint64_t seed)
{
    fill_values(seed);
    return fingerprint();
}

static plx_status save(uint64_t seed, int keep, struct error *err)
{
    fill_values(seed);
    return checkpoint_save(run.folder, run.m.model, run.optim, run.tokenizer, NULL, &run.state,
                           keep, err);
}

static void save_ok(uint64_t seed, int keep)
{
    struct error err = {0};
    assert_ok(save(seed, keep, &err), &err);
}

static const char *step_folder(int64_t step, const char *suffix)
{
    static char paths[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/checkpoints/step-%08lld%s", run.folder,
             (long long)step, suffix);
    return paths[turn];
}

/* What checkpoint_latest says on the way. */
static char notes[4096];
static int note_count;

static void keep_note(void *user, const char *sentence)
{
    (void)user;
    strncat(notes, sentence, sizeof notes - strlen(notes) - 2);
    strcat(notes, "\n");
    note_count++;
}

static bool latest(char path[512], struct error *err)
{
    bool found = false;
    notes[0] = '\0';
    note_count = 0;
    assert_ok(checkpoint_latest(run.folder, path, 512, &found, keep_note, NULL, err), err);
    return found;
}

/* The newest sound checkpoint is this step's, and it loads to exactly what was saved. */
static void assert_latest_is(uint64_t seed)
{
    struct error err = {0};
    char path[512];
    assert_true(latest(path, &err));
    uint64_t expected = fingerprint_of(seed);
    fill_values(seed + 12345);
    struct train_state state;
    assert_ok(checkpoint_load_state(path, &state, &err), &err);
    assert_int_equal(state.step, seed);
    train_state_clear(&state);
    assert_ok(checkpoint_load(path, run.m.model, run.optim, &err), &err);
    assert_true(fingerprint() == expected);
}

static int run_open(void **state)
{
    struct error err = {0};
    (void)state;
    static int number;
    file_fault_after(FILE_FAULT_NONE, 0);
    struct model_config config = tiny_config();
    run = (struct run){0};
    case_open(&run.m, &config, &ops_ref, PLX_F32, 1);
    struct optim_config optim = optim_config_default("adamw");
    assert_ok(optim_create(&run.m.be, &optim, model_params(run.m.model), &run.optim), &run.m.err);
    assert_ok(tokenizer_create_bytes(&run.tokenizer, &err), &err);
    run.state.options_json = strdup("{\"lr\":0.1,\"mixer\":\"parallax\"}");
    snprintf(run.folder, sizeof run.folder, "%s/run%d", io_folder, number++);
    return 0;
}

static int run_close(void **state)
{
    (void)state;
    file_fault_after(FILE_FAULT_NONE, 0);
    train_state_clear(&run.state);
    tokenizer_destroy(run.tokenizer);
    optim_destroy(run.optim);
    case_close(&run.m);
    return 0;
}

/* ---- Saving and loading ---------------------------------------------------------------------- */

static void round_trip(void **state)
{
    (void)state;
    struct error err = {0};
    struct train_state back;
    save_ok(7, 0);
    assert_latest_is(7);
    assert_ok(checkpoint_load_state(step_folder(7, ""), &back, &err), &err);
    fill_values(7);
    assert_int_equal(back.step, 7);
    assert_int_equal(back.tokens, 700);
    assert_memory_equal(&back.position, &run.state.position, sizeof back.position);
    assert_memory_equal(&back.rng, &run.state.rng, sizeof back.rng);
    assert_true(back.corpus_fingerprint == run.state.corpus_fingerprint);
    assert_string_equal(back.options_json, run.state.options_json);
    train_state_clear(&back);
    /* It is a model folder too. */
    char path[512];
    assert_ok(model_folder_find(run.folder, path, sizeof path, &err), &err);
    assert_string_equal(path, step_folder(7, ""));
    assert_ok(model_folder_find(step_folder(7, ""), path, sizeof path, &err), &err);
    assert_ok(model_load_values(run.m.model, path, &err), &err);
}

static void keep_and_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) save_ok(seed * 50, 3);
    assert_false(file_exists(step_folder(50, "")));
    assert_false(file_exists(step_folder(100, "")));
    assert_true(file_exists(step_folder(150, "")));
    assert_latest_is(250);
    save_ok(300, 1);
    assert_false(file_exists(step_folder(250, "")));
    assert_false(file_exists(step_folder(250, ".removed")));
    assert_latest_is(300);
    /* Steps beyond eight digits sort by number, not by name. */
    save_ok(123456789, 0);
    assert_latest_is(123456789);
    assert_true(file_exists(step_folder(300, "")));
    /* A save below the newest is never the one that keep removes. */
    save_ok(310, 1);
    assert_true(file_exists(step_folder(310, "")));
    assert_true(file_exists(step_folder(123456789, "")));
}

static void existing_step_is_replaced(void **state)
{
    (void)state;
    struct error err = {0};
    save_ok(9, 0);
    fill_values(9);
    run.state.tokens = 42;
    assert_ok(checkpoint_save(run.folder, run.m.model, run.optim, NULL, NULL, &run.state, 0, &err),
              &err);
    struct train_state back;
    assert_ok(checkpoint_load_state(step_folder(9, ""), &back, &err), &err);
    assert_int_equal(back.tokens, 42);
    train_state_clear(&back);
    assert_false(file_exists(step_folder(9, ".old")));
    assert_false(file_exists(step_folder(9, ".removed")));
    char path[600];
    snprintf(path, sizeof path, "%s/tokenizer.json", step_folder(9, ""));
    assert_false(file_exists(path));
    assert_latest_is(9);
}

static void nothing_is_not_an_error(void **state)
{
    (void)state;
    struct error err = {0};
    char path[512];
    assert_false(latest(path, &err));
    assert_int_equal(note_count, 0);
    assert_ok(file_make_folder(run.folder, &err), &err);
    assert_false(latest(path, &err));
    /* Other things in the folder are not looked at. */
    char other[600];
    snprintf(other, sizeof other, "%s/checkpoints/step-12", run.folder);
    assert_ok(file_make_folder(other, &err), &err);
    snprintf(other, sizeof other, "%s/checkpoints/step-000000012", run.folder);
    assert_ok(file_make_folder(other, &err), &err);
    snprintf(other, sizeof other, "%s/checkpoints/step-00000012.bak", run.folder);
    assert_ok(file_make_folder(other, &err), &err);
    assert_false(latest(path, &err));
    assert_int_equal(note_count, 0);
}

static void leftovers_are_reported_then_cleared(void **state)
{
    (void)state;
    struct error err = {0};
    char path[512];
    save_ok(5, 0);
    assert_ok(file_make_folder(step_folder(6, ".partial"), &err), &err);
    assert_ok(file_make_folder(step_folder(3, ".removed"), &err), &err);
    assert_ok(file_make_folder(step_folder(9, ".removed"), &err), &err);
    assert_true(latest(path, &err));
    assert_string_equal(path, step_folder(5, ""));
    assert_int_equal(note_count, 1);
    assert_non_null(strstr(notes, "step-00000006.partial: was never completed and is ignored"));
    save_ok(7, 0);
    assert_false(file_exists(step_folder(6, ".partial")));
    assert_false(file_exists(step_folder(3, ".removed")));
    assert_false(file_exists(step_folder(9, ".removed")));
    /* A crash between the two renames of a replacement. */
    assert_int_equal(rename(step_folder(7, ""), step_folder(7, ".old")), 0);
    assert_latest_is(7);
    save_ok(8, 0);
    assert_true(file_exists(step_folder(7, "")));
    assert_false(file_exists(step_folder(7, ".old")));
}

/* ---- Damage ---------------------------------------------------------------------------------- */

static const char *const file_names[] = {"config.json",    "model.safetensors",
                                         "tokenizer.json", "optimizer.safetensors",
                                         "state.json",     "manifest.json"};

static void read_file(const char *path, char **text, size_t *size)
{
    struct error err = {0};
    assert_ok(file_read_all(path, 1 << 24, text, size, &err), &err);
}

/* The damaged step 20 is passed over with one sentence that names file and problem; step 10 takes
 * over. */
static void assert_falls_back(const char *name, const char *says)
{
    struct error err = {0};
    char path[512];
    assert_true(latest(path, &err));
    assert_string_equal(path, step_folder(10, ""));
    assert_int_equal(note_count, 1);
    if (strstr(notes, name) == NULL || strstr(notes, says) == NULL) print_error("%s", notes);
    assert_non_null(strstr(notes, "step-00000020"));
    assert_non_null(strstr(notes, name));
    assert_non_null(strstr(notes, says));
    notes[0] = '\0';
    assert_ok(model_folder_find_noting(run.folder, path, sizeof path, keep_note, NULL, &err), &err);
    assert_string_equal(path, step_folder(10, ""));
    assert_non_null(strstr(notes, says));
    assert_latest_is(10);
}

static void every_damage_is_found(void **state)
{
    (void)state;
    save_ok(10, 0);
    save_ok(20, 0);
    for (int f = 0; f < 6; f++) {
        char path[600], *text;
        size_t size;
        bool manifest = f == 5;
        snprintf(path, sizeof path, "%s/%s", step_folder(20, ""), file_names[f]);
        read_file(path, &text, &size);
        assert_true(size > 40);

        text[size / 2] ^= 1;
        io_write(path, text, size);
        assert_falls_back(manifest ? "" : file_names[f], manifest ? "" : "its XXH64 is ");
        text[size / 2] ^= 1;

        io_write(path, text, size - 1);
        assert_falls_back(file_names[f], manifest ? "line" : "bytes, but manifest.json says");
        io_write(path, text, 0);
        assert_falls_back(file_names[f], manifest ? "line" : "has 0 bytes, but manifest.json says");

        assert_int_equal(remove(path), 0);
        assert_falls_back("", manifest ? "has no manifest.json, so it is not a completed checkpoint"
                                       : "is missing");
        io_write(path, text, size);
        assert_latest_is(20);
        free(text);
    }
}

static void every_flipped_bit_of_the_manifest_is_survived(void **state)
{
    (void)state;
    struct error err = {0};
    char path[600], *text;
    size_t size;
    save_ok(10, 0);
    snprintf(path, sizeof path, "%s/manifest.json", step_folder(10, ""));
    read_file(path, &text, &size);
    for (size_t at = 0; at < size; at++) {
        text[at] ^= 4;
        io_write(path, text, size);
        plx_status status = checkpoint_verify(step_folder(10, ""), &err);
        text[at] ^= 4;
        if (status != PLX_OK) {
            assert_int_equal(status, PLX_BAD_DATA);
            assert_non_null(strstr(err.text, "step-00000010"));
            error_clear(&err);
        } else
            assert_true(strchr(" \n", text[at]) != NULL);
    }
    free(text);
}

static void manifests_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"[]", "is not a JSON object"},
        {"{\"files\":{}}", "version is missing"},
        {"{\"version\":2,\"files\":{}}", "version is 2 but must be"},
        {"{\"version\":1}", "files is missing"},
        {"{\"version\":1,\"files\":[]}", "files is [] but must be an object"},
        {"{\"version\":1,\"files\":{}}", "does not list config.json"},
        {"{\"version\":1,\"files\":{\"../../x\":{\"size\":1,\"xxh64\":\"0000000000000000\"}}}",
         "lists ../../x, which is no file of a checkpoint"},
        {"{\"version\":1,\"files\":{\"config.json\":1}}", "config.json is 1 but must be an object"},
        {"{\"version\":1,\"files\":{\"config.json\":{\"size\":-1}}}", "size is -1"},
        {"{\"version\":1,\"files\":{\"config.json\":{\"size\":1}}}", "xxh64 is missing"},
        {"{\"version\":1,\"files\":{\"config.json\":{\"size\":1,\"xxh64\":\"12\"}}}",
         "16 hexadecimal digits"},
    };
    struct error err = {0};
    char path[600];
    save_ok(10, 0);
    snprintf(path, sizeof path, "%s/manifest.json", step_folder(10, ""));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        io_write_text(path, cases[i].json);
        assert_refused(checkpoint_verify(step_folder(10, ""), &err), PLX_BAD_DATA, cases[i].says,
                       &err);
    }
}

static void only_damaged_ones_are_an_error(void **state)
{
    (void)state;
    struct error err = {0};
    char path[600];
    bool found;
    save_ok(10, 0);
    save_ok(20, 0);
    for (int step = 10; step <= 20; step += 10) {
        snprintf(path, sizeof path, "%s/state.json", step_folder(step, ""));
        io_write_text(path, "{}");
    }
    assert_refused(checkpoint_latest(run.folder, path, sizeof path, &found, NULL, NULL, &err),
                   PLX_BAD_DATA, "none of its 2 checkpoints is sound; of the newest: ", &err);
    assert_false(found);
    assert_refused(model_folder_find(run.folder, path, sizeof path, &err), PLX_BAD_DATA,
                   "step-00000020", &err);
    assert_refused(model_folder_find(step_folder(10, ""), path, sizeof path, &err), PLX_BAD_DATA,
                   "state.json: has 2 bytes", &err);
}

/* ---- State ----------------------------------------------------------------------------------- */

static void malformed_states_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"version\":1", "\"version\":3", "version is 3 but must be a whole number from 1 to 1"},
        {"\"step\":1", "\"step\":-1", "step is -1"},
        {"\"step\":1", "\"step\":1.5", "step is 1.5"},
        {"\"step\":1,", "", "step is missing"},
        {"\"optimizer_steps\":2,", "", "optimizer_steps is missing"},
        {"\"tokens\":3", "\"tokens\":\"3\"", "tokens is \"3\""},
        {"\"position\":{", "\"position\":[],\"p\":{", "position is [] but must be an object"},
        {"\"epoch\":4,", "", "epoch is missing"},
        {"\"token\":6", "\"token\":99999999999999999999", "line 1"},
        {"\"seed\":\"8\"", "\"seed\":8", "seed is 8 but must be a text of digits below 2^64"},
        {"\"seed\":\"8\"", "\"seed\":\"18446744073709551616\"", "seed is \"18446744073709551616\""},
        {"\"seed\":\"8\"", "\"seed\":\"-8\"", "seed is \"-8\""},
        {"\"seed\":\"8\"", "\"seed\":\"\"", "seed is \"\""},
        {"\"counter\":\"9\"", "\"counter\":null", "counter is missing"},
        {"\"corpus_fingerprint\":\"10\"", "\"corpus_fingerprint\":\"ten\"",
         "corpus_fingerprint is \"ten\""},
        {"\"options\":{}", "\"options\":7", "options is 7 but must be an object"},
        {"\"step\":1", "\"step\":1,\"step\":1", "duplicate"},
    };
    const char *good =
        "{\"version\":1,\"step\":1,\"optimizer_steps\":2,\"tokens\":3,\"position\":{\"epoch\":4,"
        "\"document\":5,\"token\":6,\"tokens_seen\":7},\"rng\":{\"seed\":\"8\",\"counter\":\"9\"},"
        "\"corpus_fingerprint\":\"10\",\"options\":{}}";
    struct error err = {0};
    struct train_state parsed;
    assert_ok(checkpoint_parse_state(good, strlen(good), "state.json", &parsed, &err), &err);
    assert_true(parsed.rng.seed == 8 && parsed.position.token == 6 &&
                parsed.corpus_fingerprint == 10);
    assert_string_equal(parsed.options_json, "{}");
    train_state_clear(&parsed);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[600];
        const char *at = strstr(good, cases[i].from);
        assert_non_null(at);
        snprintf(json, sizeof json, "%.*s%s%s", (int)(at - good), good, cases[i].to,
                 at + strlen(cases[i].from));
        assert_refused(checkpoint_parse_state(json, strlen(json), "state.json", &parsed, &err),
                       PLX_BAD_DATA, cases[i].says, &err);
        assert_null(parsed.options_json);
    }
    for (size_t size = 0; size < strlen(good); size++) {
        char *cut = malloc(size + 1);
        memcpy(cut, good, size);
        assert_refused(checkpoint_parse_state(cut, size, "state.json", &parsed, &err), PLX_BAD_DATA,
                       "state.json: ", &err);
        free(cut);
    }
}

/* ---- Other models ---------------------------------------------------------------------------- */

static void runs_without_options(void **state)
{
    (void)state;
    struct error err = {0};
    struct train_state back;
    free(run.state.options_json);
    run.state.options_json = NULL;
    save_ok(4, 0);
    assert_ok(checkpoint_load_state(step_folder(4, ""), &back, &err), &err);
    assert_null(back.options_json);
    train_state_clear(&back);
    /* Options that are not JSON would be a checkpoint that nobody can resume. */
    run.state.options_json = strdup("lr=0.1");
    assert_refused(save(5, 0, &err), PLX_BAD_DATA, "the run's options: line 1", &err);
    assert_false(file_exists(step_folder(5, "")));
    assert_false(file_exists(step_folder(5, ".partial")));
    run.state.step = -1;
    assert_refused(
        checkpoint_save(run.folder, run.m.model, run.optim, NULL, NULL, &run.state, 0, &err),
        PLX_INVALID_ARGUMENT, "step -1 is negative", &err);
}

static void other_models_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    save_ok(10, 0);
    uint64_t before = fingerprint_of(77);

    struct model_config config = tiny_config();
    config.intermediate_size = 12;
    struct case_model other;
    struct optim *optim;
    case_open(&other, &config, &ops_ref, PLX_F32, 1);
    struct optim_config settings = optim_config_default("adamw");
    assert_ok(optim_create(&other.be, &settings, model_params(other.model), &optim), &other.err);
    assert_refused(checkpoint_load(step_folder(10, ""), other.model, optim, &err), PLX_BAD_DATA,
                   "step-00000010: is a checkpoint of another model: ", &err);
    checkpoint_load(step_folder(10, ""), other.model, optim, &err);
    assert_non_null(strstr(err.text, "has shape [10, 8], but shape [12, 8] is expected"));
    error_clear(&err);
    optim_destroy(optim);
    case_close(&other);

    /* The same model under another optimiser. */
    settings = optim_config_default("muon");
    assert_ok(optim_create(&run.m.be, &settings, model_params(run.m.model), &optim), &run.m.err);
    assert_refused(checkpoint_load(step_folder(10, ""), run.m.model, optim, &err), PLX_BAD_DATA,
                   "which the optimiser needs, is missing", &err);
    optim_destroy(optim);
    assert_true(fingerprint() == before);

    /* The same model with rounded weights: it could not continue bit for bit. */
    assert_ok(model_save(run.m.model, NULL, step_folder(10, ""), PLX_BF16, &err), &err);
    assert_refused(checkpoint_load(step_folder(10, ""), run.m.model, run.optim, &err), PLX_BAD_DATA,
                   "is of dtype BF16, but F32 is expected", &err);
    save_ok(10, 0);

    /* The same model in double precision. */
    config = tiny_config();
    case_open(&other, &config, &ops_ref, PLX_F64, 1);
    settings = optim_config_default("adamw");
    assert_ok(optim_create(&other.be, &settings, model_params(other.model), &optim), &other.err);
    assert_refused(checkpoint_load(step_folder(10, ""), other.model, optim, &err), PLX_BAD_DATA,
                   "is of dtype F32, but F64 is expected", &err);
    optim_destroy(optim);
    case_close(&other);
}

/* ---- Faults ---------------------------------------------------------------------------------- */

/* Saves step 20 over what prepare leaves, with the n-th call failing for every n, until a save
 * succeeds with the fault unused. After each failure the run has a sound checkpoint: step 10's or
 * the new one. */
static int fail_at_every_call(enum file_fault fault, bool replace)
{
    bool harmless = fault == FILE_FAULT_SHORT_WRITE || fault == FILE_FAULT_INTERRUPT;
    for (int64_t call = 1;; call++) {
        struct error err = {0};
        char path[512];
        assert_ok(file_remove_tree(run.folder, &err), &err);
        save_ok(10, 0);
        if (replace) save_ok(20, 0);
        file_fault_after(fault, call);
        plx_status status = save(20, 1, &err);
        bool pending = file_fault_pending();
        file_fault_after(FILE_FAULT_NONE, 0);
        if (pending || harmless) {
            assert_ok(status, &err);
            assert_latest_is(20);
            assert_false(file_exists(step_folder(10, "")));
            if (pending) return (int)call - 1;
            continue;
        }
        assert_int_equal(status, PLX_IO_ERROR);
        assert_non_null(strstr(err.text, fault == FILE_FAULT_NO_SPACE ? "No space left"
                                                                      : "Input/output error"));
        error_clear(&err);
        assert_true(latest(path, &err));
        /* Nothing that was found is damaged: half-written folders do not look complete. */
        assert_null(strstr(notes, "XXH64"));
        assert_null(strstr(notes, "manifest"));
        bool is_new = strstr(path, "step-00000020") != NULL;
        for (int step = 10; step <= 20; step += 10)
            if (file_exists(step_folder(step, "")))
                assert_ok(checkpoint_verify(step_folder(step, ""), &err), &err);
        assert_true(is_new || !replace);
        assert_latest_is(is_new ? 20 : 10);
        /* The next save works and clears up. */
        save_ok(30, 0);
        assert_latest_is(30);
        assert_int_equal(note_count, 0);
    }
}

static void full_disk_at_every_call(void **state)
{
    (void)state;
    int calls = fail_at_every_call(FILE_FAULT_NO_SPACE, false);
    print_message("%d calls\n", calls);
    assert_true(calls > 30);
    assert_true(fail_at_every_call(FILE_FAULT_NO_SPACE, true) > calls);
}

static void broken_disk_at_every_call(void **state)
{
    (void)state;
    fail_at_every_call(FILE_FAULT_IO, false);
    fail_at_every_call(FILE_FAULT_IO, true);
}

static void killed_at_every_call(void **state)
{
    (void)state;
    fail_at_every_call(FILE_FAULT_KILL, false);
    fail_at_every_call(FILE_FAULT_KILL, true);
}

static void interrupted_and_short_at_every_call(void **state)
{
    (void)state;
    fail_at_every_call(FILE_FAULT_SHORT_WRITE, false);
    fail_at_every_call(FILE_FAULT_INTERRUPT, true);
}

/* The very first save of a run: a failure leaves a run without checkpoints, never one that looks
 * sound. */
static void first_save_killed_at_every_call(void **state)
{
    (void)state;
    for (int64_t call = 1;; call++) {
        struct error err = {0};
        char path[512];
        assert_ok(file_remove_tree(run.folder, &err), &err);
        file_fault_after(FILE_FAULT_KILL, call);
        plx_status status = save(10, 0, &err);
        bool pending = file_fault_pending();
        file_fault_after(FILE_FAULT_NONE, 0);
        error_clear(&err);
        if (latest(path, &err))
            assert_latest_is(10);
        else
            assert_int_not_equal(status, PLX_OK);
        if (pending) break;
    }
}

int main(void)
{
#define ON_RUN(test) cmocka_unit_test_setup_teardown(test, run_open, run_close)
    static const struct CMUnitTest tests[] = {
        ON_RUN(round_trip),
        ON_RUN(keep_and_order),
        ON_RUN(existing_step_is_replaced),
        ON_RUN(nothing_is_not_an_error),
        ON_RUN(leftovers_are_reported_then_cleared),
        ON_RUN(every_damage_is_found),
        ON_RUN(every_flipped_bit_of_the_manifest_is_survived),
        ON_RUN(manifests_are_checked),
        ON_RUN(only_damaged_ones_are_an_error),
        ON_RUN(malformed_states_are_refused),
        ON_RUN(runs_without_options),
        ON_RUN(other_models_are_refused),
        ON_RUN(full_disk_at_every_call),
        ON_RUN(broken_disk_at_every_call),
        ON_RUN(killed_at_every_call),
        ON_RUN(interrupted_and_short_at_every_call),
        ON_RUN(first_save_killed_at_every_call),
    };
    return cmocka_run_group_tests(tests, io_folder_make, io_folder_remove);
}
