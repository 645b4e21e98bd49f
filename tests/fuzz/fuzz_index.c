/* fuzz_index.c: any bytes as model.safetensors.index.json. What is accepted must be sorted by name,
 * without duplicates, and may only name files that lie in the folder. */
#include "io/weights.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weight_index index;
    struct error err = {0};
    plx_status status = weight_index_parse((const char *)data, size, "fuzz", &index, &err);
    check_outcome(status, &err);
    check((status == PLX_OK) == (index.count > 0));
    for (int i = 0; i < index.count; i++) {
        const char *file = index.rows[i].file;
        check(file[0] != '\0' && file[0] != '.' && strchr(file, '/') == NULL);
        check(i == 0 || strcmp(index.rows[i - 1].name, index.rows[i].name) < 0);
    }
    weight_index_clear(&index);
    return 0;
}
