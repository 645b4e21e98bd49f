/* parallax_avx512.c: Parallax for AVX-512: attention/attention_avx512.h with the probe. */
enum { ATTENTION_PROBE = 1 };
#include "attention/attention_avx512.h"

#include "parallax/parallax_impl.h"

ATTENTION_AVX512_ROWS(parallax, forward);
ATTENTION_AVX512_ROWS(parallax, backward);
ATTENTION_AVX512_ROWS(parallax, decode);
