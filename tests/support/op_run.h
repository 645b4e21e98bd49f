/* op_run.h: one operation at one size on one backend.
 *
 * Inputs are drawn once and given to every backend in its own dtypes. Each run has NaN in outputs
 * and in scratch, red zones around every buffer, exactly as much scratch as a dry run measured, and
 * inputs that must be unchanged afterwards; a backend on a GPU gets a copy of the very bytes, red
 * zones included, and what it leaves is copied back. */
#ifndef TEST_OP_RUN_H
#define TEST_OP_RUN_H

#include <stddef.h>

#include "compare.h"
#include "guarded.h"
#include "op.h"
#include "seeded.h"

enum { OPERANDS = 13 };

enum operand_role {
    ROLE_IN,  /* must not change */
    ROLE_OUT, /* NaN before, overwritten */
    ROLE_BOTH /* read and written: accumulated into, or in place */
};

enum operand_values {
    FILL_NORMAL,
    FILL_WEIGHTS,   /* as weights are: normal where other numbers are wild, too */
    FILL_SQUARES,   /* not negative, like second moments */
    FILL_IDS,       /* i32 in 0 .. bound - 1, small ones more often */
    FILL_TARGETS,   /* i32 in -1 .. bound - 1 */
    FILL_POSITIONS, /* i32 in 0 .. 40000 */
    FILL_LENGTH     /* i32, all equal to bound */
};

struct operand {
    enum operand_role role;
    enum operand_values values;
    bool stored; /* of the backend's storage dtype, not that of activations */
    bool halved; /* in bf16 wherever the storage dtype is f32 */
    int rank;
    int64_t shape[PLX_MAX_RANK];
    int64_t bound;
};

/* A row at sizes n and e. */
typedef void (*op_operands)(struct operand *operands, int64_t n, int64_t e);
/* views[i] is operand i in memory, or with data NULL in a dry run. */
typedef plx_status (*op_run)(struct backend *be, const struct plx_tensor *views);

struct op_case {
    const char *name;
    size_t member; /* offset in struct ops of what the row covers */
    op_operands operands;
    op_run run;
    bool product; /* a matrix product: rounding of operands applies */
    bool attention;
    bool strided; /* rows may be padded */
};

/* A case at one size: operands, and their values before. */
struct op_run {
    const struct op_case *c;
    int number; /* of the case */
    const struct test_options *options;
    int64_t n, e;
    bool wild; /* NaN, zeros and huge numbers among the values */
    struct operand operands[OPERANDS];
    double *before[OPERANDS];
};

/* The operands' values after. */
struct op_result {
    double *values[OPERANDS];
};

/* number: of the case, so that each draws values of its own. */
struct op_run op_run_create(const struct op_case *c, int number, const struct test_options *options,
                            int64_t n, int64_t e, bool wild);
/* How many numbers an operand has, of which dtype; and one of them. */
int64_t op_operand_count(const struct operand *operand);
plx_dtype op_operand_dtype(const struct operand *operand, const struct backend *be);
double op_operand_draw(struct seeded *random, const struct operand *operand, bool wild);
void op_run_destroy(struct op_run *run);
/* Rounds what activations are before the call to the dtype. */
void op_run_round(struct op_run *run, plx_dtype activation);

enum op_placement { PLACE_ODD, PLACE_ALIGNED, PLACE_PADDED };

struct op_result op_run_on(const struct op_run *run, struct backend *be, const char *name,
                           enum op_placement placement);
void op_result_destroy(struct op_result *result);
/* Rounds what activations are afterwards, as a store in the dtype does. */
void op_result_round(const struct op_run *run, struct op_result *result, plx_dtype activation);

/* What results are measured with: the exact ones, and how far the naive ones are from them. */
struct op_yardstick {
    struct op_result oracle;
    struct comparison naive[OPERANDS];
};

/* Runs both backends; activations are rounded to the dtype. How wrong one number comes out is luck,
 * so where an output has few, or few rows decide, the errors of further draws count with its own.
 */
struct op_yardstick op_yardstick_create(const struct op_run *run, struct backend *oracle,
                                        struct backend *naive, plx_dtype activation);
void op_yardstick_destroy(struct op_yardstick *yardstick);
/* The rule of compare.h for each output, at its own dtype. */
void op_run_compare(const struct op_run *run, const struct backend *be, const char *name,
                    const struct op_result *got, const struct op_yardstick *yardstick);
void op_run_same_bits(const struct op_run *run, const char *name, const struct op_result *one,
                      const struct op_result *other, const char *what);
/* Prints a failure with the command line that repeats it, and counts it. */
void op_run_complain(const struct op_run *run, const char *name, const char *what);
int op_run_failures(void);

#endif
