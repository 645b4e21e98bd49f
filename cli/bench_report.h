/* bench_report.h: the table, the JSON lines and the summary of `bench attention`. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench_case.h"
#include "core/device.h"

/* What the times are compared with. Rates are 0 where they are not known. */
struct bench_limits {
    double tflops, tb_s;
    char text[256]; /* where they come from */
};

/* The units and the figure in which a device's times are told. */
struct bench_units {
    const char *time, *flops, *bytes;
    double per_second, per_tflops, per_tb_s;
    const char *method; /* how a time is taken, in words */
    bool best; /* the fastest call counts, because other programs disturb; else the median */
};

/* Something else's time on the same case; seconds 0: there is none. */
struct bench_rival {
    const char *name;
    double seconds;
};

/* Ratios to rivals so far, a pass and mechanism each. */
struct bench_summary {
    struct bench_ratio {
        int count, slower; /* slower: by more than 3 % */
        double log_sum, worst;
        struct bench_shape worst_shape;
        const char *name;
    } ratios[2][3];
};

struct bench_report {
    FILE *json, *table; /* each may be NULL */
    const struct bench_units *units;
    struct bench_limits limits;
    struct bench_summary summary;
};

/* The device, its limits and the build: the first line of both. */
void bench_report_device(const struct bench_report *report, const struct device_facts *facts,
                         int threads);
/* A measured case. */
void bench_report_case(struct bench_report *report, const struct bench_case *c,
                       const struct bench_result *result, const struct bench_rival *rival);
/* What a case would take. */
void bench_report_plan(const struct bench_report *report, const struct bench_case *c,
                       const struct bench_result *result);
/* Geometric mean and worst case of the ratios, where there are any. */
void bench_report_summary(const struct bench_report *report);
/* "4,16/8,4096,128". */
void bench_shape_print(struct bench_shape shape, char text[64]);

#endif
