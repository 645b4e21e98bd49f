/* drawn_case.h: attention cases drawn from a seed, for tests that run thousands of them. */
#ifndef TEST_DRAWN_CASE_H
#define TEST_DRAWN_CASE_H

#include "attention_case.h"

enum { DRAWN_MAX_BATCH = 24, DRAWN_MAX_SEQUENCES = 5 };

/* A case and the lists that it points to. */
struct drawn_case {
    struct attention_case c;
    char name[96];
    int32_t q_lengths[DRAWN_MAX_BATCH], k_lengths[DRAWN_MAX_BATCH];
    int32_t q_offsets[DRAWN_MAX_SEQUENCES + 1], k_offsets[DRAWN_MAX_SEQUENCES + 1];
};

/* Writes *d, whose address must stay what it is. The number becomes part of the name. */
typedef void (*case_drawer)(struct seeded *random, int number, struct drawn_case *d);

/* Few queries against a cache of 0 to 4096 keys, D of 64 or 128, every ratio of heads. */
void drawn_decode(struct seeded *random, int number, struct drawn_case *d);
/* Any pass, D of 1 to 256, any memory layout, short sequences. */
void drawn_any(struct seeded *random, int number, struct drawn_case *d);
/* Forward and backward in D of 64 or 128 on aligned memory, lengths around tiles of 64 and 128 and
 * long enough for several turns of a ring of them. */
void drawn_tiles(struct seeded *random, int number, struct drawn_case *d);

#endif
