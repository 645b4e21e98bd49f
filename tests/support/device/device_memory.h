/* device_memory.h: a GPU's memory for tests that are plain C: copies to it and back. The build
 * takes memory_cuda.c where it has CUDA and memory_none.c where not; then no device is ever
 * present. A failing copy says which call came before it and stops the program, because every later
 * result would be worthless. */
#ifndef TEST_DEVICE_MEMORY_H
#define TEST_DEVICE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* True where a GPU and its driver are there. */
bool device_present(void);
/* "NVIDIA H200, compute capability 9.0, driver 13.0". */
void device_describe(char *text, size_t size);
/* Names the call that runs next, for the message of a copy that fails. Static until the next. */
void device_announce(const char *call);

/* New device memory with a copy of the bytes, aligned to 256. */
void *device_upload(const void *bytes, size_t count);
/* Waits for everything launched before, then copies back. */
void device_download(void *bytes, const void *memory, size_t count);
/* NULL is allowed. */
void device_free(void *memory);

#endif
