/* fuzz.h: what every fuzz target says: the entry of libFuzzer, and what must hold of any reader. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "core/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void check(bool holds)
{
    if (!holds) abort();
}

/* A reader either succeeds in silence or gives a reason: one line that may go to a terminal. */
static inline void check_outcome(plx_status status, const struct error *err)
{
    check((status == PLX_OK) == (err->text[0] == '\0'));
    for (const char *c = err->text; *c; c++) check((unsigned char)*c >= ' ' && *c != 127);
}

#endif
