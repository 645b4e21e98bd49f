/* softmax_any.cu: Softmax attention on any CUDA device: the rows that attention_any_launch.cuh
 * makes with the probe absent. */
#include "attention/attention_any_launch.cuh"

extern "C" {
#include "softmax/softmax_impl.h"
}

const struct kernel_row softmax_forward_any = {"cuda_any", any_refuse, any_forward_workspace<false>,
                                               any_forward_run<false>};
const struct kernel_row softmax_backward_any = {
    "cuda_any", any_refuse, any_backward_workspace<false>, any_backward_run<false>};
