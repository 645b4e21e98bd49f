/* fuzz_safetensors.c: any bytes as a safetensors file, as they are and once more as a header with
 * the right length in front and some data behind, because few random lengths fit. What is accepted
 * must lie within the memory and be found by name, and every tensor must be readable or refused. */
#include "io/safetensors.h"

#include "fuzz.h"

enum { READ_LIMIT = 4096 };

/* Into a tensor of each type; a file's types are bytes that any pattern may stand in. */
static void read_entry(const struct safetensors_entry *entry)
{
    static double target[READ_LIMIT];
    if (entry->rank < 1 || entry->rank > PLX_MAX_RANK || entry->bytes > READ_LIMIT) return;
    for (int dtype = PLX_F32; dtype <= PLX_I32; dtype++) {
        struct plx_tensor tensor =
            plx_tensor_dense(target, (plx_dtype)dtype, entry->rank, entry->shape);
        struct error err = {0};
        if (plx_tensor_count(&tensor) > READ_LIMIT) return;
        plx_status status = safetensors_read(entry, "fuzz", &tensor, &err);
        check_outcome(status, &err);
    }
}

static void parse(const unsigned char *memory, size_t size)
{
    struct safetensors *file;
    struct error err = {0};
    plx_status status = safetensors_parse(memory, size, "fuzz", &file, &err);
    check_outcome(status, &err);
    check((status == PLX_OK) == (file != NULL));
    if (file == NULL) return;
    size_t total = 0;
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        check(entry->data >= memory && entry->data + entry->bytes <= memory + size);
        check(safetensors_find(file, entry->name) == entry);
        total += entry->bytes;
        read_entry(entry);
    }
    check(total <= size);
    safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The last byte says how much data; white space is a last byte that JSON allows. */
    size_t behind = size > 0 ? data[size - 1] : 0;
    unsigned char *copy = malloc(8 + size + behind);
    check(copy != NULL);
    if (size > 0) memcpy(copy, data, size);
    parse(copy, size);
    uint64_t length = size;
    memcpy(copy, &length, 8);
    if (size > 0) memcpy(copy + 8, data, size);
    memset(copy + 8 + size, 0x7f, behind);
    parse(copy, 8 + size + behind);
    free(copy);
    return 0;
}
