/* attention_case.h: attention calls as data: a case says what is computed, case_data holds every
 * tensor as dense doubles, and case_run makes one call of one kernel on it, in fresh guarded
 * memory, and checks everything about the call that does not need another result: its status, the
 * red zones, the gaps between strided rows, that inputs were not touched, and that a workspace of
 * the stated size sufficed. */
#ifndef TEST_ATTENTION_CASE_H
#define TEST_ATTENTION_CASE_H

#include "guarded.h"
#include "seeded.h"

/* What the inputs look like. */
enum case_values {
    VALUES_NORMAL,
    VALUES_LARGE,    /* logits in the hundreds: one key takes nearly all the weight */
    VALUES_CONSTANT, /* every row of a tensor equals the first */
    VALUES_ONE_HOT,  /* each row of q, r, k, v has a single 1 */
    VALUES_OFFSET,   /* one large vector added to every key */
    VALUES_NAN_QUERY /* one query row of the first head is NaN */
};

struct attention_case {
    const char *name;
    int64_t B, T, S, H, G, D;
    bool causal;
    int64_t window;
    double scale;
    enum case_values values;
    enum view_kind view;
    bool wide;                            /* outputs, value_mean and gradients in f32 */
    const int32_t *q_lengths, *k_lengths; /* [B] */
    const int32_t *q_offsets, *k_offsets; /* [sequences + 1] */
    int64_t sequences;                    /* of the offsets */
    int64_t page; /* rows of a page, where keys and values are paged; then there is no backward */
    bool f8;      /* keys and values are f8e4m3 with scales; then there is no backward either */
};

/* False for the backward of a cache. */
bool case_has_pass(const struct attention_case *c, plx_pass pass);

/* The table that every device runs. */
extern const struct attention_case attention_cases[];
extern const int attention_case_count;

enum case_tensor {
    CASE_Q,
    CASE_R,
    CASE_K,
    CASE_V,
    CASE_D_O, /* inputs */
    CASE_O,
    CASE_LSE,
    CASE_PROBE_MEAN,
    CASE_VALUE_MEAN, /* written forward, read backward */
    CASE_DQ,
    CASE_DR,
    CASE_DK,
    CASE_DV,
    CASE_TENSORS
};

extern const char *const case_tensor_names[CASE_TENSORS];

/* Dense row-major doubles of each tensor of a case. */
struct case_data {
    double *values[CASE_TENSORS];
    int64_t counts[CASE_TENSORS];
    int64_t shapes[CASE_TENSORS][PLX_MAX_RANK];
    int ranks[CASE_TENSORS];
};

/* The dtypes that a case is run in, of which each must hold the inputs exactly. */
enum { CASE_MAX_DTYPES = 3 };
struct case_dtypes {
    int count;
    plx_dtype of[CASE_MAX_DTYPES];
};

/* Inputs drawn from the seed and rounded to the dtype; outputs NaN. What lies behind a length is
 * NaN in the inputs, because it must never be read. */
struct case_data case_data_create(const struct attention_case *c, plx_dtype dtype, uint64_t seed);
/* The same, rounded to every one of the dtypes in turn. */
struct case_data case_data_create_shared(const struct attention_case *c,
                                         const struct case_dtypes *dtypes, uint64_t seed);
/* A deep copy. */
struct case_data case_data_copy(const struct case_data *data);
void case_data_destroy(struct case_data *data);

/* Which call. */
struct case_call {
    plx_mechanism mechanism;
    plx_pass pass;
    const char *kernel; /* forced; NULL: the library's choice */
    plx_dtype dtype;    /* of q, r, k, v */
    int threads;        /* 0: the default */
    plx_device device;  /* on a GPU the call works on copies of the guarded memory */
    bool bare;          /* forward without lse, probe_mean, value_mean */
    bool deterministic; /* asked for */
};

/* True for the tensors that the mechanism has and the pass reads or writes. */
bool case_uses(plx_mechanism mechanism, plx_pass pass, enum case_tensor tensor);
bool case_writes(plx_mechanism mechanism, plx_pass pass, enum case_tensor tensor);
/* The dtype in which a call stores a tensor. */
plx_dtype case_dtype(const struct attention_case *c, const struct case_call *call,
                     enum case_tensor tensor);

enum case_result {
    CASE_DONE,
    CASE_REFUSED, /* the forced kernel does not take this problem */
    CASE_FAILED   /* message says what is wrong */
};

/* Reads inputs from data (for backward also what forward saved) and stores outputs into it. */
enum case_result case_run(const struct attention_case *c, const struct case_call *call,
                          struct case_data *data, char *message, size_t message_size);

/* The reference in double, the oracle: the forward, and then the backward where that is the last
 * pass. */
void case_oracle(const struct attention_case *c, plx_mechanism mechanism, plx_pass last,
                 struct case_data *data);

/* Name of the n-th kernel of a mechanism and pass as in test names: "parallax/backward/portable".
 */
void case_call_name(char *text, size_t size, const struct case_call *call, const char *case_name);

#endif
