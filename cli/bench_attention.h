/* bench_attention.h: timing the attention kernels against stated limits, on the CPU or a GPU. */
#ifndef BENCH_ATTENTION_H
#define BENCH_ATTENTION_H

#include <stdio.h>

#include "core/error.h"

/* Sequences, query heads, key/value heads, keys (and queries, except in decode), channels. */
struct bench_shape {
    int64_t b, hq, hkv, l, d;
};

/* Every combination of the lists is timed. Empty lists and zeros take the device's defaults, which
 * stand in a table at the head of bench_attention.c. */
struct bench_attention_options {
    const char *device; /* "cpu" or "cuda" */
    const plx_pass *passes;
    int pass_count;
    const plx_mechanism *mechanisms;
    int mechanism_count;
    const plx_dtype *dtypes;
    int dtype_count;
    const struct bench_shape *shapes;
    int shape_count;
    bool causal, full;   /* decode is always causal */
    bool cold;           /* empty the caches before every call */
    bool deterministic;  /* ask backward for the same bits on every run */
    int64_t page;        /* keys a page of decode's cache; 0: contiguous */
    bool lengths;        /* decode reads the length of every sequence, as it does with pages */
    int64_t tokens;      /* queries a sequence of decode; 0: one */
    bool f8;             /* decode's cache is f8e4m3, with scales of 1 */
    double probe_offset; /* standard deviations of r.k by which its mean is moved from 0 */
    int threads;         /* of the CPU; 0: all */
    const char *kernel;  /* NULL: the library's choice */
    const char *peer;    /* another kernel to time beside it, or a file whose name ends in .jsonl
                            with lines of peer_attention.py; NULL: the device's default; "none" */
    int repetitions;     /* at least so many timed calls */
    double seconds;      /* and at least so long */
    bool plan;           /* say which kernel and workspace each case takes, and time nothing */
};

/* Writes one JSON object a line to json and one line of text a case to table; each may be NULL.
 * Limits: forward and backward are compared with the arithmetic, decode with the memory rate: on
 * the CPU those that it reaches in the same process, on a GPU those of its data sheet. Fails with
 * the library's status and sentence where a kernel refuses. */
plx_status bench_attention(const struct bench_attention_options *options, FILE *json, FILE *table,
                           struct error *err);

#endif
