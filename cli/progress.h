/* progress.h: how a long command shows that it is alive: one line that is rewritten on a terminal,
 * a plain line now and then elsewhere. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "train.h"

struct progress {
    bool terminal;
    int64_t log_every; /* steps between plain lines */
    bool open;         /* a rewritten line is on the screen */
    double shown;      /* when */
    double began;      /* when it was made: what time left is reckoned from */
};

struct progress progress_make(int64_t log_every);
/* A sentence on a line of its own, above the rewritten line. */
void progress_message(struct progress *progress, const char *sentence);
void progress_step(struct progress *progress, const struct train_progress *step);
/* "WHAT 40 % (1,234 of 3,000 tokens), 12s left", on a terminal only. */
void progress_share(struct progress *progress, const char *what, int64_t done, int64_t total);
/* "WHAT 40 % (1.2 GiB of 3.0 GiB), 12s left", on a terminal only; started is process_seconds of the
 * first byte. */
void progress_bytes(struct progress *progress, const char *what, size_t done, size_t total,
                    double started);
/* Leaves the rewritten line. */
void progress_end(struct progress *progress);

/* The line of a step: the loss first, what matters least last. */
void format_step(const struct train_progress *step, char *line, size_t size);

/* 12345678 -> "12,345,678"; 93.5 seconds -> "1m34s"; 5242880 bytes -> "5.0 MiB". */
const char *format_count(int64_t count, char text[32]);
const char *format_duration(double seconds, char text[32]);
const char *format_bytes(size_t bytes, char text[32]);

#endif
