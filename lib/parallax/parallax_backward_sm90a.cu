/* parallax_backward_sm90a.cu: the backward of Parallax on Hopper: attention_backward_sm90.cuh with
 * the probe. */
#include "attention/attention_backward_sm90_launch.cuh"

extern "C" {
#include "parallax/parallax_impl.h"
}

const struct kernel_row parallax_backward_sm90 = {"cuda_sm90", backward_sm90_row_refuse,
                                                  backward_sm90_workspace, backward_sm90_run<true>};
