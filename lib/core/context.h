/* context.h: what a context holds, and how library code reports failure through it.
 *
 * Every public verb begins with context_begin, which empties the error text, and leaves through
 * TRY, CHECK or context_fail as soon as something is wrong; so the text is empty exactly after a
 * success. Nothing here is global, and nothing is allocated beyond the context itself. */
#ifndef PLX_CONTEXT_H
#define PLX_CONTEXT_H

#include "core/try.h"
#include "parallax/parallax.h"

enum { CONTEXT_KERNELS = 128 };

struct plx_context {
    plx_device device;
    int device_index;  /* which GPU, where device is PLX_CUDA */
    int capability;    /* of the GPU: 90 for compute capability 9.0; 0 on the CPU */
    int processors;    /* its multiprocessors */
    int threads;       /* resolved: at least 1 */
    uint32_t features; /* detected, less the disabled ones */
    bool validate;     /* check what lists on a GPU contain */
    char kernel[64];   /* forced kernel, empty: none */
    const char
        *last_kernel; /* name of the kernel that ran last, NULL before the first; static storage */
    char error[512];
    /* What CUDA has been asked for, once: the driver's function that makes tensor maps, and kernels
     * that may have the shared memory they need. */
    void *encode_map;
    const void *allowed[CONTEXT_KERNELS];
    int allowed_count;
};

/* Empties the error text. */
void context_begin(plx_context *context);
/* Stores the sentence and returns status, so that a caller can return the call. */
plx_status context_fail(plx_context *context, plx_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* plx_feature bits that the processor has and the operating system permits. */
uint32_t cpu_features(void);
/* Number of CPUs this process may run on; at least 1. */
int cpu_threads(void);

/* Leaves the calling function with a status and a sentence unless the condition holds. */
#define CHECK(context, condition, status, ...)                                                     \
    do {                                                                                           \
        if (!(condition)) return context_fail((context), (status), __VA_ARGS__);                   \
    } while (0)

#endif
