/* fuzz_config.c: any bytes as config.json. What is accepted must be writable, and what is written
 * must read back to the same text. */
#include "io/model_file.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_config config, back;
    struct error err = {0};
    char *first, *second;
    plx_status status = model_config_parse((const char *)data, size, "fuzz", &config, &err);
    check_outcome(status, &err);
    if (status != PLX_OK) return 0;
    check(model_config_format(&config, &first, &err) == PLX_OK);
    check(model_config_parse(first, strlen(first), "fuzz", &back, &err) == PLX_OK);
    check(model_config_format(&back, &second, &err) == PLX_OK);
    check(strcmp(first, second) == 0);
    free(first);
    free(second);
    return 0;
}
