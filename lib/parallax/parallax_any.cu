/* parallax_any.cu: Parallax on any CUDA device: the rows that attention_any_launch.cuh makes with
 * the probe present. */
#include "attention/attention_any_launch.cuh"

extern "C" {
#include "parallax/parallax_impl.h"
}

const struct kernel_row parallax_forward_any = {"cuda_any", any_refuse, any_forward_workspace<true>,
                                                any_forward_run<true>};
const struct kernel_row parallax_backward_any = {
    "cuda_any", any_refuse, any_backward_workspace<true>, any_backward_run<true>};
