/* append.h: files that only grow while a run goes on: the log and TensorBoard's events. A record is
 * one write where the system takes it whole, so a killed run leaves at most one partial record.
 * They are outside the faults of file.h: a lost record is one that the last checkpoint never saw.
 */
#ifndef NN_APPEND_H
#define NN_APPEND_H

#include "core/error.h"

struct append_file {
    int descriptor; /* -1: closed */
    char path[4096];
};

/* Makes the file where there is none. file->path names it already. */
plx_status append_open(struct append_file *file, struct error *err);
plx_status append_write(struct append_file *file, const void *data, size_t bytes,
                        struct error *err);
plx_status append_sync(struct append_file *file, struct error *err);
void append_close(struct append_file *file);

#endif
