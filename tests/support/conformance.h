/* conformance.h: every kernel row x pass x dtype of a device on one attention case against the
 * double oracle.
 *
 * Rows are enumerated through plx_kernel_name, so a new kernel is covered by being in its table. A
 * case is drawn once, in numbers that each of its dtypes holds; the oracle (reference in double,
 * proven by finite differences) is computed once a mechanism and the naive result (reference in
 * float, same storage dtype) once a dtype; then every row that accepts the case runs twice on
 * poisoned guarded memory, on the CPU with one thread and with two, and must give the same bits
 * both times and an error within the rule of compare.h. On a GPU it runs once more: forward and
 * decode without the optional outputs, backward without the promise of equal bits. Backward reads
 * what the forward of the same name saved. With --sanitize each call is named and runs once,
 * backward a second time without that promise.
 *
 * Several threads may run cases at once with one struct conformance. */
#ifndef TEST_CONFORMANCE_H
#define TEST_CONFORMANCE_H

#include "attention_case.h"

enum { CONFORMANCE_MAX_ROWS = 16 };

/* Counts of one mechanism and pass. */
struct conformance_tally {
    int ran[CONFORMANCE_MAX_ROWS], refused[CONFORMANCE_MAX_ROWS], failed;
};

struct conformance {
    const struct test_options *options;
    plx_device device;
    const char *kernel;                     /* only rows of this name; NULL: all of the device's */
    struct conformance_tally tallies[2][3]; /* [mechanism][pass] */
};

/* All rows of the passes first .. last on one case in each of the dtypes. */
void conformance_run(struct conformance *conformance, const struct attention_case *c,
                     plx_mechanism mechanism, const struct case_dtypes *dtypes, plx_pass first,
                     plx_pass last, uint64_t seed);
/* Prints the counts of a mechanism and returns how many calls failed. */
int conformance_report(const struct conformance *conformance, plx_mechanism mechanism);

#endif
