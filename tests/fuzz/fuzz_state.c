/* fuzz_state.c: any bytes as a checkpoint's state.json. What is accepted must be writable, and read
 * back as the same. */
#include "io/checkpoint_parts.h"

#include "fuzz.h"

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct train_state state, back;
    struct error err = {0};
    int64_t steps, steps_back;
    char *json;
    plx_status status =
        checkpoint_parse_steps((const char *)data, size, "fuzz", &state, &steps, &err);
    check_outcome(status, &err);
    if (status != PLX_OK) {
        check(state.options_json == NULL);
        return 0;
    }
    check(checkpoint_format_state(&state, steps, &json, &err) == PLX_OK);
    check(checkpoint_parse_steps(json, strlen(json), "fuzz", &back, &steps_back, &err) == PLX_OK);
    check(steps == steps_back && state.step == back.step && state.tokens == back.tokens);
    check(memcmp(&state.position, &back.position, sizeof back.position) == 0);
    check(memcmp(&state.rng, &back.rng, sizeof back.rng) == 0);
    check(state.corpus_fingerprint == back.corpus_fingerprint);
    check(same_text(state.options_json, back.options_json));
    train_state_clear(&state);
    train_state_clear(&back);
    free(json);
    return 0;
}
