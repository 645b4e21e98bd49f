/* parallax_decode_sm90.cu: Parallax decode on Hopper: the kernel of attention_decode_sm90.cuh with
 * the probe. */
#include "attention/attention_decode_sm90_launch.cuh"

extern "C" {
#include "parallax/parallax_impl.h"
}

const struct kernel_row parallax_decode_sm90 = {"cuda_sm90", decode_sm90_refuse,
                                                decode_sm90_workspace, decode_sm90_run<true>};
