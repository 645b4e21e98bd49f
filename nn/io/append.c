/* append.c: see append.h. */
#include "io/append.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

plx_status append_open(struct append_file *file, struct error *err)
{
    file->descriptor = open(file->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    REQUIRE(err, file->descriptor >= 0, PLX_IO_ERROR, "%s: cannot be opened for writing: %s",
            file->path, strerror(errno));
    return PLX_OK;
}

plx_status append_write(struct append_file *file, const void *data, size_t bytes, struct error *err)
{
    const char *next = data;
    while (bytes > 0) {
        ssize_t written = write(file->descriptor, next, bytes);
        if (written < 0 && errno == EINTR) continue;
        REQUIRE(err, written > 0, PLX_IO_ERROR, "%s: cannot be written: %s", file->path,
                written < 0 ? strerror(errno) : "nothing was accepted");
        next += written;
        bytes -= (size_t)written;
    }
    return PLX_OK;
}

plx_status append_sync(struct append_file *file, struct error *err)
{
    REQUIRE(err, fsync(file->descriptor) == 0, PLX_IO_ERROR, "%s: cannot be made durable: %s",
            file->path, strerror(errno));
    return PLX_OK;
}

void append_close(struct append_file *file)
{
    if (file->descriptor >= 0) close(file->descriptor);
    file->descriptor = -1;
}
