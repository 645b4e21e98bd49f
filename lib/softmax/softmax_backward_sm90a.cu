/* softmax_backward_sm90a.cu: the backward of softmax attention on Hopper:
 * attention_backward_sm90.cuh without the probe. */
#include "attention/attention_backward_sm90_launch.cuh"

extern "C" {
#include "softmax/softmax_impl.h"
}

const struct kernel_row softmax_backward_sm90 = {"cuda_sm90", backward_sm90_row_refuse,
                                                 backward_sm90_workspace, backward_sm90_run<false>};
