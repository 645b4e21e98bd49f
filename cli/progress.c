/* progress.c: see progress.h. On a terminal the line is redrawn at most ten times a second, and cut
 * to the terminal's width, as a wrapped line cannot be redrawn; an evaluation's numbers stay on the
 * screen. */
#include "progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "process.h"

#define REDRAW_SECONDS 0.1
/* Carriage return, and erase to the end of the line. */
#define LINE_START "\r\033[K"

const char *format_count(int64_t count, char text[32])
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)count);
    int out = 0;
    for (int i = 0; i < length; i++) {
        text[out++] = digits[i];
        int left = length - 1 - i;
        if (left > 0 && left % 3 == 0 && digits[i] != '-') text[out++] = ',';
    }
    text[out] = 0;
    return text;
}

const char *format_duration(double seconds, char text[32])
{
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(text, 32, "?");
        return text;
    }
    long long whole = llround(seconds);
    if (seconds < 9.95)
        snprintf(text, 32, "%.1fs", seconds);
    else if (whole < 60)
        snprintf(text, 32, "%llds", whole);
    else if (whole < 3600)
        snprintf(text, 32, "%lldm%02llds", whole / 60, whole % 60);
    else
        snprintf(text, 32, "%lldh%02lldm", whole / 3600, whole / 60 % 60);
    return text;
}

const char *format_bytes(size_t bytes, char text[32])
{
    double mib = (double)bytes / (1024.0 * 1024.0);
    if (mib < 1024)
        snprintf(text, 32, "%.1f MiB", mib);
    else
        snprintf(text, 32, "%.2f GiB", mib / 1024);
    return text;
}

struct progress progress_make(int64_t log_every)
{
    bool terminal = isatty(STDOUT_FILENO) == 1;
    return (struct progress){
        .terminal = terminal, .log_every = log_every, .began = process_seconds()};
}

void progress_end(struct progress *progress)
{
    if (progress->open) printf("\n");
    progress->open = false;
    fflush(stdout);
}

void progress_message(struct progress *progress, const char *sentence)
{
    progress_end(progress);
    printf("%s\n", sentence);
    fflush(stdout);
}

/* Adds to a line, as far as there is room. */
__attribute__((format(printf, 3, 4))) static void append(char *line, size_t size,
                                                         const char *format, ...)
{
    size_t used = strlen(line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + used, size - used, format, arguments);
    va_end(arguments);
}

void format_step(const struct train_progress *step, char *line, size_t size)
{
    char rate[32], left[32], now[32], peak[32];
    line[0] = 0;
    append(line, size, "step %*lld/%lld  loss %.4f",
           snprintf(NULL, 0, "%lld", (long long)step->steps), (long long)step->step,
           (long long)step->steps, step->loss);
    if (!isnan(step->val_loss)) append(line, size, "  held-out %.4f", step->val_loss);
    if (!isnan(step->val_bits_per_byte))
        append(line, size, " (%.3f bits/byte)", step->val_bits_per_byte);
    append(line, size, "  %s tokens/s", format_count(llround(step->tokens_per_second), rate));
    if (step->device_tokens_per_second < step->tokens_per_second)
        append(line, size, " (%s a device)",
               format_count(llround(step->device_tokens_per_second), rate));
    append(line, size, "  %s left  norm %.3g  lr %.2e  %.4g TFLOP/s",
           format_duration(step->seconds_left, left), step->grad_norm, step->lr,
           step->device_tflops);
    if (!isnan(step->mfu)) append(line, size, "  MFU %.1f %%", 100 * step->mfu);
    append(line, size, "  %s, peak %s  data %.1f %%", format_bytes(step->memory_now, now),
           format_bytes(step->memory_peak, peak), 100 * step->data_seconds / step->seconds);
}

static int terminal_columns(void)
{
    struct winsize window;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    return known ? window.ws_col : 80;
}

void progress_step(struct progress *progress, const struct train_progress *step)
{
    bool evaluated = !isnan(step->val_loss);
    bool last = step->step == step->steps;
    char line[512];
    if (!progress->terminal) {
        if (!evaluated && !last && step->step % progress->log_every != 0 && step->step != 1) return;
        format_step(step, line, sizeof line);
        printf("%s\n", line);
        fflush(stdout);
        return;
    }
    double now = process_seconds();
    if (!evaluated && !last && now - progress->shown < REDRAW_SECONDS) return;
    progress->shown = now;
    format_step(step, line, sizeof line);
    printf("%s%.*s", LINE_START, terminal_columns() - 1, line);
    progress->open = true;
    if (evaluated || last) progress_end(progress);
    fflush(stdout);
}

/* "WHAT 40 % (AMOUNTS), 2m10s left", unless the last line is recent. */
static void print_share(struct progress *progress, const char *what, double share,
                        const char *amounts, double began)
{
    double now = process_seconds();
    if (!progress->terminal || now - progress->shown < REDRAW_SECONDS) return;
    progress->shown = now;
    char left[32];
    printf("%s%s %.0f %% (%s), %s left", LINE_START, what, 100 * share, amounts,
           format_duration(share > 0 ? (now - began) * (1 - share) / share : NAN, left));
    progress->open = true;
    fflush(stdout);
}

void progress_share(struct progress *progress, const char *what, int64_t done, int64_t total)
{
    char done_text[32], total_text[32], amounts[80];
    snprintf(amounts, sizeof amounts, "%s of %s tokens", format_count(done, done_text),
             format_count(total, total_text));
    print_share(progress, what, total > 0 ? (double)done / (double)total : 1, amounts,
                progress->began);
}

void progress_bytes(struct progress *progress, const char *what, size_t done, size_t total,
                    double started)
{
    char done_text[32], total_text[32], amounts[80];
    snprintf(amounts, sizeof amounts, "%s of %s", format_bytes(done, done_text),
             format_bytes(total, total_text));
    print_share(progress, what, total > 0 ? (double)done / (double)total : 1, amounts, started);
}
