/* parallax_forward_sm90a.cu: the forward of Parallax on Hopper: attention_forward_sm90.cuh with the
 * probe, for 128 and 64 channels. */
#include "attention/attention_forward_sm90_launch.cuh"

extern "C" {
#include "parallax/parallax_impl.h"
}

template <int FORMAT> using wide = forward_shape<128, 64, 4, true, 2, FORMAT>;
template <int FORMAT> using narrow = forward_shape<64, 96, 4, true, 2, FORMAT>;

const struct kernel_row parallax_forward_sm90 = {
    "cuda_sm90", forward_sm90_row_refuse, forward_sm90_workspace, forward_sm90_run<wide, narrow>};
