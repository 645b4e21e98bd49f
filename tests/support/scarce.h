/* scarce.h: memory that runs out at a chosen allocation, for tests that are linked with every
 * allocating call wrapped (tests named *_scarce; see CMakeLists.txt). What libraries allocate
 * inside is not seen. Single-threaded: one thread allocates. */
#ifndef TEST_SCARCE_H
#define TEST_SCARCE_H

#include <stdbool.h>
#include <stdint.h>

/* The count-th allocation from now fails, and where lasting all that follow it; 0: none fails. */
void scarce_after(int64_t count, bool lasting);
/* Whether one has failed since. */
bool scarce_struck(void);
/* Blocks that are allocated and not yet freed. */
int64_t scarce_live(void);

#endif
