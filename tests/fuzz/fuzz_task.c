/* fuzz_task.c: any bytes as a benchmark's file, for every task and for none. What is accepted must
 * hold documents whose right choice exists and whose choices have a length. */
#include "tasks/task.h"

#include <string.h>

#include "fuzz.h"

static void parse(const char *name, const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct task_set set;
    plx_status status = task_parse(name, (const char *)data, size, "fuzz", 0, &set, &err);
    check_outcome(status, &err);
    for (int64_t d = 0; status == PLX_OK && d < set.count; d++) {
        const struct task_document *document = &set.documents[d];
        check(document->gold >= 0 && document->gold < document->count);
        for (int c = 0; c < document->count; c++) {
            check(strlen(document->choices[c].continuation) >= (size_t)document->choices[c].bytes);
            check(document->choices[c].characters >= 1);
        }
    }
    task_set_clear(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(NULL, data, size);
    for (int i = 0; task_name_at(i) != NULL; i++) parse(task_name_at(i), data, size);
    return 0;
}
