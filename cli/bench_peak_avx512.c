/* bench_peak_avx512.c: chains of 512-bit multiply-adds. Called only where the processor has
 * AVX-512. */
#include "bench_peak.h"

#include <immintrin.h>

#include "parallax/parallax.h"

/* Twelve chains cover a latency of four cycles at up to three starts a cycle. They are spelled out
 * so that each stays in its register; the assembly keeps the compiler from computing the result
 * itself. */
#define STEP(x) __asm__ volatile("vfmadd213ps %2, %1, %0" : "+v"(x) : "v"(half), "v"(quarter))

static float chains(int64_t rounds)
{
    const __m512 half = _mm512_set1_ps(0.5f), quarter = _mm512_set1_ps(0.25f);
    __m512 a = half, b = half, c = half, d = half, e = half, f = half;
    __m512 g = half, h = half, i = half, j = half, k = half, l = half;
    for (int64_t round = 0; round < rounds; round++) {
        STEP(a);
        STEP(b);
        STEP(c);
        STEP(d);
        STEP(e);
        STEP(f);
        STEP(g);
        STEP(h);
        STEP(i);
        STEP(j);
        STEP(k);
        STEP(l);
    }
    const __m512 left = _mm512_add_ps(_mm512_add_ps(a + b, c + d), e + f);
    const __m512 right = _mm512_add_ps(_mm512_add_ps(g + h, i + j), k + l);
    return _mm512_reduce_add_ps(_mm512_add_ps(left, right));
}

const struct bench_chains bench_chains_avx512 = {"avx512", PLX_FEATURE_AVX512, 12 * 16 * 2, chains};
