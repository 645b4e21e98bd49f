/* bench_case.h: what one line of `bench attention` measures: the case, its tensors' shapes, the
 * call through the public interface, and how much arithmetic and memory traffic it is. */
#ifndef BENCH_CASE_H
#define BENCH_CASE_H

#include "bench_attention.h"

struct bench_case {
    plx_pass pass;
    plx_mechanism mechanism;
    plx_dtype dtype;
    struct bench_shape shape;
    bool causal;        /* always in decode, with one query */
    bool cold;          /* caches are emptied before every call */
    bool deterministic; /* of backward */
    int64_t page;       /* keys a page of decode's cache; 0: contiguous */
    bool lengths;       /* decode reads the length of every sequence, as it does with pages */
    int64_t tokens;     /* queries a sequence of decode */
    plx_dtype cache;    /* of keys and values: dtype, or in decode f8e4m3 with scales of 1 */
};

struct bench_result {
    const char *kernel;
    size_t workspace_bytes;
    double best, median; /* seconds */
    double error;        /* largest error of outputs in f32 over the largest exact value */
    double equal;        /* share of outputs in the case's dtype that are the rounded exact value */
};

extern const char *const bench_pass_names[], *const bench_mechanism_names[];

/* The tensors of a call in the order of struct plx_parallax_args, which is how many there are. */
enum bench_slot {
    SLOT_Q,
    SLOT_R,
    SLOT_K,
    SLOT_V,
    SLOT_O,
    SLOT_LSE,
    SLOT_PROBE_MEAN,
    SLOT_VALUE_MEAN,
    SLOT_D_O,
    SLOT_DQ,
    SLOT_DR,
    SLOT_DK,
    SLOT_DV,
    SLOTS
};

/* What a call through the public interface takes, whatever the mechanism. */
struct bench_arguments {
    struct plx_attention attention;
    struct plx_parallax_args tensors;
};

/* The arguments of a pass, without data. Only what the pass has to read and write: the optional
 * outputs of a forward are those that backward needs, of decode none. `written` is the dtype of its
 * outputs of rank 4; what backward reads of them has the case's dtype. */
struct bench_arguments bench_arguments(const struct bench_case *c, plx_pass pass,
                                       plx_dtype written);
/* Queries a sequence. */
int64_t bench_time(const struct bench_case *c);
/* The tensors as an array of SLOTS. */
struct plx_tensor *bench_slots(struct bench_arguments *args);

/* True where the call has a list of lengths. */
bool bench_lengths(const struct bench_case *c);
/* Pages of a sequence, and where in the pool the n-th of all pages lies: scattered, each once. */
int64_t bench_pages(const struct bench_case *c);
int64_t bench_page(const struct bench_case *c, int64_t n);
/* Row of k and v, counted over all axes but the last, of key j of a sequence and head. */
int64_t bench_key_row(const struct bench_case *c, int64_t b, int64_t j, int64_t g);

/* The kernel that a call takes and the workspace it needs. */
plx_status bench_plan(plx_context *context, const struct bench_case *c, plx_pass pass,
                      const struct bench_arguments *args, const char **kernel, size_t *bytes);
plx_status bench_call(plx_context *context, const struct bench_case *c, plx_pass pass,
                      const struct bench_arguments *args, void *workspace, size_t bytes,
                      plx_stream stream);

/* Products of T x S x D: 4 forward and 8 backward for Parallax, 2 and 5 for softmax attention; half
 * of each if causal. */
double bench_flops(const struct bench_case *c);
/* Bytes of keys and values, once. */
double bench_bytes(const struct bench_case *c);

#endif
