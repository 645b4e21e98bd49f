/* softmax_avx512.c: softmax attention for AVX-512: attention/attention_avx512.h without the probe.
 */
enum { ATTENTION_PROBE = 0 };
#include "attention/attention_avx512.h"

#include "softmax/softmax_impl.h"

ATTENTION_AVX512_ROWS(softmax, forward);
ATTENTION_AVX512_ROWS(softmax, backward);
ATTENTION_AVX512_ROWS(softmax, decode);
