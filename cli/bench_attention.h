/* bench_attention.h: timing the attention kernels against stated limits. */
#ifndef BENCH_ATTENTION_H
#define BENCH_ATTENTION_H

#include <stdio.h>

#include "core/error.h"

/* Sequences, query heads, key/value heads, keys (and queries, except in decode: one), channels. */
struct bench_shape {
    int64_t b, hq, hkv, l, d;
};

/* Every combination of the lists is timed. Empty lists and zeros take the defaults in brackets. */
struct bench_attention_options {
    const plx_pass *passes; /* [forward, backward] */
    int pass_count;
    const plx_mechanism *mechanisms; /* [parallax, softmax] */
    int mechanism_count;
    const plx_dtype *dtypes; /* [f32] */
    int dtype_count;
    const struct bench_shape *shapes; /* [1,4,4,4096,64 and 128; decode 1,8,1,32768,128] */
    int shape_count;
    bool causal, full;  /* [both] decode is always causal, with one query */
    int threads;        /* [all] */
    const char *kernel; /* [NULL: the library's choice] */
    const char *peer;   /* another kernel to time beside it, for example "portable"; NULL: none */
    int repetitions;    /* at least so many timed calls [3] */
    double seconds;     /* and at least so long [1] */
};

/* Writes one JSON object a line to json and one line of text a case to table; each may be NULL. The
 * time is that of the fastest call, the median is given beside it. Limits: the f32 multiply-adds
 * that the machine reaches in registers for forward and backward, counting 4 and 8 products for
 * Parallax and 2 and 5 for softmax attention, half of them if causal; the rate of reading memory
 * for decode, counting keys and values once. Fails with the library's status and sentence where a
 * kernel refuses. */
plx_status bench_attention(const struct bench_attention_options *options, FILE *json, FILE *table,
                           struct error *err);

#endif
