/* softmax_decode_sm90.cu: softmax decode on Hopper: the kernel of attention_decode_sm90.cuh without
 * the probe. */
#include "attention/attention_decode_sm90_launch.cuh"

extern "C" {
#include "softmax/softmax_impl.h"
}

const struct kernel_row softmax_decode_sm90 = {"cuda_sm90", decode_sm90_refuse,
                                               decode_sm90_workspace, decode_sm90_run<false>};
