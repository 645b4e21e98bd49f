/* computing.h: where and how a program computes: from the words of --device, --dtype and their like
 * to the configuration of a backend. Every command that runs a model goes through here. */
#ifndef NN_COMPUTING_H
#define NN_COMPUTING_H

#include "op.h"

struct computing {
    const char *device;  /* auto, cpu, cuda, cuda:N */
    const char *dtype;   /* f32, bf16, fp8; "": the device's default */
    const char *weights; /* f32, bf16, int8: how matrices are held; "": as they are read, for a
                            model that is not trained; NULL: f32 */
    const char *kernel;  /* forced, or "" */
    bool portable, deterministic;
    int64_t threads; /* 0: all */
};

/* auto takes the first GPU where the build has CUDA
 * and the machine a GPU, and the CPU otherwise; a device that is named and missing is an error, and
 * so is an option that means nothing on the device. */
plx_status computing_config(const struct computing *computing, struct backend_config *config,
                            struct error *err);
/* "cuda:0", "cpu": the device of a configuration as --device would name it. */
const char *computing_device_name(const struct backend_config *config, char *text, size_t size);
/* "f32", "bf16", "fp8": the word of --dtype that a configuration stands for. */
const char *computing_dtype_name(const struct backend_config *config);

#endif
