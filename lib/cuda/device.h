/* device.h: what the portable part of the library asks of CUDA. device.cu answers in a build with CUDA,
 * none.c in one without: no #ifdef stands anywhere else. */
#ifndef PLX_CUDA_DEVICE_H
#define PLX_CUDA_DEVICE_H

#include "core/context.h"

/* Checks that the GPU exists and is at least sm_80. PLX_UNSUPPORTED in a build without CUDA,
 * PLX_INVALID_ARGUMENT for an index that does not exist, PLX_DEVICE_ERROR where the driver fails. */
plx_status cuda_device_open(int index);

#endif
