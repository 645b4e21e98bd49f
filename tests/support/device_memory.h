/* device_memory.h: a GPU for tests: copies to it and back on a stream of the calling thread, so
 * that threads do not wait for each other. A failing copy says which call of the thread came before
 * it and stops the program, because every later result would be worthless. */
#ifndef TEST_DEVICE_MEMORY_H
#define TEST_DEVICE_MEMORY_H

#include "parallax/parallax.h"

/* True where the build has CUDA and the machine a GPU and its driver; what a test program says of
 * it first: the GPU's name, or "skipped, no GPU". */
bool device_ready(void);
/* "NVIDIA H200, compute capability 9.0, driver for CUDA 13.0". */
void device_describe(char *text, size_t size);
/* Names the calling thread's next call, for the message of a copy that fails and for whoever
 * watches (watch.h); NULL: there is none. Static until the next. */
void device_announce(const char *call);

/* The calling thread's stream. */
plx_stream device_stream(void);
/* New device memory with a copy of the bytes, aligned to 256. */
void *device_upload(const void *bytes, size_t count);
/* Waits for everything that the thread launched before, then copies back. */
void device_download(void *bytes, const void *memory, size_t count);
/* NULL is allowed. */
void device_free(void *memory);

#endif
