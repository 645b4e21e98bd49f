/* fuzz_manifest.c: any bytes as a checkpoint's manifest.json. What is accepted must be writable,
 * and read back as the same. */
#include "io/checkpoint_parts.h"

#include "fuzz.h"

static bool same_file(const struct checkpoint_file *a, const struct checkpoint_file *b)
{
    return a->present == b->present && a->size == b->size && a->hash == b->hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint_manifest manifest, back;
    struct error err = {0};
    char *json;
    plx_status status =
        checkpoint_parse_manifest((const char *)data, size, "fuzz", &manifest, &err);
    check_outcome(status, &err);
    if (status != PLX_OK) return 0;
    check(checkpoint_format_manifest(&manifest, &json, &err) == PLX_OK);
    check(checkpoint_parse_manifest(json, strlen(json), "fuzz", &back, &err) == PLX_OK);
    for (int i = 0; i < CHECKPOINT_FILES; i++) {
        check(manifest.files[i].size >= 0);
        check(same_file(&manifest.files[i], &back.files[i]));
    }
    free(json);
    return 0;
}
