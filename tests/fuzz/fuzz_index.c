/* fuzz_index.c: any bytes as model.safetensors.index.json. What is accepted must be sorted by name,
 * without duplicates, and may only name files that lie in the folder. */
#include "io/weights.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weight_index index;
    struct error err = {0};
    plx_status status = weight_index_parse((const char *)data, size, "fuzz", &index, &err);
    check((status == PLX_OK) == (err.text[0] == '\0'));
    check((status == PLX_OK) == (index.count > 0));
    for (int i = 0; i < index.count; i++) {
        const char *file = index.rows[i].file;
        check(file[0] != '\0' && file[0] != '.' && strchr(file, '/') == NULL);
        check(i == 0 || strcmp(index.rows[i - 1].name, index.rows[i].name) < 0);
    }
    weight_index_clear(&index);
    return 0;
}
