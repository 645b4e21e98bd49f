/* softmax_forward_sm90a.cu: softmax attention on Hopper: attention_forward_sm90.cuh without the
 * probe, for 128 and 64 channels. */
#include "attention/attention_forward_sm90_launch.cuh"

extern "C" {
#include "softmax/softmax_impl.h"
}

template <int FORMAT> using wide = forward_shape<128, 128, 2, false, 2, FORMAT>;
template <int FORMAT> using narrow = forward_shape<64, 64, 5, false, 3, FORMAT>;

const struct kernel_row softmax_forward_sm90 = {
    "cuda_sm90", forward_sm90_row_refuse, forward_sm90_workspace, forward_sm90_run<wide, narrow>};
