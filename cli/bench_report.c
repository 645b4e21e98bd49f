/* bench_report.c: see bench_report.h. */
#include "bench_report.h"

#include <math.h>
#include <string.h>

void bench_shape_print(struct bench_shape s, char text[64])
{
    snprintf(text, 64, "%lld,%lld/%lld,%lld,%lld", (long long)s.b, (long long)s.hq,
             (long long)s.hkv, (long long)s.l, (long long)s.d);
}

static double seconds_of(const struct bench_report *report, const struct bench_result *result)
{
    return report->units->best ? result->best : result->median;
}

/* The commit in the library's line about itself. */
static int commit(const char **start)
{
    const char *found = strstr(plx_build(), "commit ");
    *start = found ? found + strlen("commit ") : "unknown";
    return (int)strcspn(*start, ",");
}

void bench_report_device(const struct bench_report *report, const struct device_facts *facts,
                         int threads)
{
    const struct bench_limits *limits = &report->limits;
    if (report->table)
        fprintf(report->table, "%s%s%s, %d CPU threads\nlimits: %s\ntimes:  %s\n", facts->name,
                facts->details[0] ? ", " : "", facts->details, threads, limits->text,
                report->units->method);
    if (!report->json) return;
    fprintf(report->json,
            "{\"what\": \"device\", \"name\": \"%s\", \"details\": \"%s\", \"threads\": %d, "
            "\"limit_tflops\": %.6g, \"limit_tb_s\": %.6g, \"time\": \"%s\", \"build\": \"%s\"}\n",
            facts->name, facts->details, threads, limits->tflops, limits->tb_s,
            report->units->method, plx_build());
    fflush(report->json);
}

/* ---- One case ---- */

static void print_json(const struct bench_report *report, const struct bench_case *c,
                       const struct bench_result *result, double share)
{
    FILE *file = report->json;
    const struct bench_shape s = c->shape;
    const double seconds = seconds_of(report, result);
    const char *hash;
    const int length = commit(&hash);
    fprintf(file, "{\"what\": \"%s\", \"mechanism\": \"%s\", \"kernel\": \"%s\", ",
            bench_pass_names[c->pass], bench_mechanism_names[c->mechanism], result->kernel);
    fprintf(file, "\"b\": %lld, \"hq\": %lld, \"hkv\": %lld, \"l\": %lld, \"d\": %lld, ",
            (long long)s.b, (long long)s.hq, (long long)s.hkv, (long long)s.l, (long long)s.d);
    fprintf(file,
            "\"dtype\": \"%s\", \"causal\": %s, \"cold\": %s, \"page\": %lld, \"lengths\": %s, "
            "\"tokens\": %lld, \"cache\": \"%s\", \"deterministic\": %s, ",
            plx_dtype_name(c->dtype), c->causal ? "true" : "false", c->cold ? "true" : "false",
            (long long)c->page, bench_lengths(c) ? "true" : "false", (long long)bench_time(c),
            plx_dtype_name(c->cache), c->deterministic ? "true" : "false");
    fprintf(file, "\"us\": %.3f, \"tflops\": %.6g, \"tb_s\": %.6g, ", seconds * 1e6,
            bench_flops(c) / seconds * 1e-12, bench_bytes(c) / seconds * 1e-12);
    fprintf(file, "\"limit_pct\": %.1f, \"err\": %.3g, \"commit\": \"%.*s\"}\n", 100 * share,
            result->error, length, hash);
    fflush(file);
}

static void print_variant(FILE *file, const struct bench_case *c)
{
    fprintf(file, "%-5s %s%s%s", plx_dtype_name(c->dtype), c->causal ? "causal" : "full",
            c->cold ? " cold" : "", c->deterministic ? " deterministic" : "");
    if (c->cache != c->dtype) fprintf(file, " %s cache", plx_dtype_name(c->cache));
    if (c->lengths) fputs(" lengths", file);
    if (c->page > 0) fprintf(file, " page %lld", (long long)c->page);
    if (c->pass == PLX_DECODE && c->tokens > 1) fprintf(file, " %lld tokens", (long long)c->tokens);
}

static void print_row(const struct bench_report *report, const struct bench_case *c,
                      const struct bench_result *result, double share,
                      const struct bench_rival *rival)
{
    FILE *file = report->table;
    const struct bench_units *units = report->units;
    const bool decode = c->pass == PLX_DECODE;
    const double seconds = seconds_of(report, result);
    const double rate = decode ? bench_bytes(c) / seconds * 1e-12 * units->per_tb_s
                               : bench_flops(c) / seconds * 1e-12 * units->per_tflops;
    char shape[64];
    bench_shape_print(c->shape, shape);
    fprintf(file, "%-9s %-9s %-16s %-20s ", bench_mechanism_names[c->mechanism],
            bench_pass_names[c->pass], result->kernel, shape);
    print_variant(file, c);
    fprintf(file, " %11.3f %s %9.2f %s %5.1f %%  err %.1e, %5.1f %% exact",
            seconds * units->per_second, units->time, rate, decode ? units->bytes : units->flops,
            100 * share, result->error, 100 * result->equal);
    if (rival->seconds > 0) fprintf(file, "  %.2fx %s", rival->seconds / seconds, rival->name);
    fputc('\n', file);
    fflush(file);
}

static void add_ratio(struct bench_summary *summary, const struct bench_case *c, double seconds,
                      const struct bench_rival *rival)
{
    struct bench_ratio *ratio = &summary->ratios[c->mechanism][c->pass];
    const double faster = rival->seconds / seconds;
    if (ratio->count == 0 || faster < ratio->worst) {
        ratio->worst = faster;
        ratio->worst_shape = c->shape;
    }
    ratio->count++;
    ratio->slower += seconds > 1.03 * rival->seconds;
    ratio->log_sum += log(faster);
    ratio->name = rival->name;
}

void bench_report_case(struct bench_report *report, const struct bench_case *c,
                       const struct bench_result *result, const struct bench_rival *rival)
{
    const double seconds = seconds_of(report, result);
    const double limit =
        c->pass == PLX_DECODE ? report->limits.tb_s * 1e12 : report->limits.tflops * 1e12;
    const double work = c->pass == PLX_DECODE ? bench_bytes(c) : bench_flops(c);
    const double share = limit > 0 ? work / seconds / limit : 0;
    if (report->json) print_json(report, c, result, share);
    if (report->table) print_row(report, c, result, share, rival);
    if (rival->seconds > 0) add_ratio(&report->summary, c, seconds, rival);
}

void bench_report_plan(const struct bench_report *report, const struct bench_case *c,
                       const struct bench_result *result)
{
    char shape[64];
    if (!report->table) return;
    bench_shape_print(c->shape, shape);
    fprintf(report->table, "%-9s %-9s %-20s ", bench_mechanism_names[c->mechanism],
            bench_pass_names[c->pass], shape);
    print_variant(report->table, c);
    fprintf(report->table, "  %s, workspace %zu bytes\n", result->kernel, result->workspace_bytes);
}

void bench_report_summary(const struct bench_report *report)
{
    if (!report->table) return;
    for (int mechanism = 1; mechanism >= 0; mechanism--)
        for (int pass = 0; pass < 3; pass++) {
            const struct bench_ratio *ratio = &report->summary.ratios[mechanism][pass];
            char shape[64];
            if (ratio->count < 2) continue;
            bench_shape_print(ratio->worst_shape, shape);
            fprintf(report->table,
                    "%s %s: %d cases against %s: geometric mean %.3fx, worst %.3fx at %s, %d "
                    "slower by more than 3 %%\n",
                    bench_mechanism_names[mechanism], bench_pass_names[pass], ratio->count,
                    ratio->name, exp(ratio->log_sum / ratio->count), ratio->worst, shape,
                    ratio->slower);
        }
}
