/* softmax_portable.c: softmax attention for any processor, in f32, bf16 and f16: the same bodies as
 * softmax_avx512.c in the words of cpu/portable.h. */
#include "cpu/portable.h"

enum { ATTENTION_PROBE = 0 };
#include "attention/attention_backward_body.h"
#include "attention/attention_decode_body.h"
#include "attention/attention_forward_body.h"

#include "attention/attention_rows.h"
#include "softmax/softmax_impl.h"

const struct kernel_row softmax_forward_portable = {"portable", attention_refuse_portable,
                                                    attention_forward_workspace, attention_forward};
const struct kernel_row softmax_backward_portable = {
    "portable", attention_refuse_portable, attention_backward_workspace, attention_backward};
const struct kernel_row softmax_decode_portable = {"portable", attention_refuse_portable,
                                                   attention_decode_workspace, attention_decode};
