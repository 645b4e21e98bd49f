/* rows_packed_body.h: the part of rows_body.h that multiplies with packed weights.
 *
 * bf16 is widened to floats. int8 is widened too or, where the processor has dot products of bytes,
 * multiplied as it is: then x becomes whole numbers instead. */

/* ---- bf16 ------------------------------------------------------------------------------------ */

/* One row at a time, so that memory is read as one stream (four rows at once took twice the time),
 * in the lanes of four sums, which hides what a multiply-add takes. */
#ifdef __AVX512F__
enum { ROWS_LANES = 16 };
#else
enum { ROWS_LANES = 4 };
#endif
typedef float rows_lanes __attribute__((vector_size(4 * ROWS_LANES)));
typedef uint32_t rows_words __attribute__((vector_size(4 * ROWS_LANES)));
typedef uint16_t rows_halves __attribute__((vector_size(2 * ROWS_LANES)));
enum { ROWS_SUMS = 4, ROWS_STEP = ROWS_LANES * ROWS_SUMS };

static inline rows_lanes rows_load(const float *x)
{
    rows_lanes lanes;
    memcpy(&lanes, x, sizeof lanes);
    return lanes;
}

static inline rows_lanes rows_load_bf16(const uint16_t *w)
{
    rows_halves halves;
    memcpy(&halves, w, sizeof halves);
    return (rows_lanes)(__builtin_convertvector(halves, rows_words) << 16);
}

static inline float rows_total(const rows_lanes sums[ROWS_SUMS])
{
    rows_lanes lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = 0.0f;
    for (int i = 0; i < ROWS_LANES; i++) total += lanes[i];
    return total;
}

static void rows_dots_bf16(float *y, const uint16_t *restrict w, const float *restrict x,
                           int64_t rows, int64_t K)
{
    for (int64_t r = 0; r < rows; r++, w += K) {
        rows_lanes sums[ROWS_SUMS] = {{0}};
        int64_t k = 0;
        for (; k + ROWS_STEP <= K; k += ROWS_STEP)
            for (int s = 0; s < ROWS_SUMS; s++)
                sums[s] +=
                    rows_load(x + k + s * ROWS_LANES) * rows_load_bf16(w + k + s * ROWS_LANES);
        float rest = 0.0f;
        for (; k < K; k++) rest += x[k] * bits_float((uint32_t)w[k] << 16);
        y[r] = rows_total(sums) + rest;
    }
}

/* ---- int8 ------------------------------------------------------------------------------------ */

#ifdef __AVX512VNNI__
/* x as whole numbers of 32 bits, each cut into four digits of -128 .. 127, lowest first: x = unit *
 * (d0 + 2^8 d1 + 2^16 d2 + 2^24 d3). The instruction multiplies bytes with a sign by bytes without,
 * so it is given w + 128, which is w with its upper bit flipped, and 128 times the sum of x is
 * taken away again. Every sum is exact; what is rounded is x, to half a unit, 2^-32 of its largest.
 * Three digits would be 2^-24, which is coarser than sums in float where one x is far above the
 * rest. */
enum { ROWS_DIGITS = 4 };
struct rows_digits {
    double unit;
    int64_t padded; /* digits of one kind: K and then zeros up to a multiple of 64 */
    int64_t sum;    /* of x, in units */
    int8_t digits[] __attribute__((aligned(64)));
};

/* Columns after which a sum of 32 bits might be full. */
enum { ROWS_STRETCH = 1 << 19 };

static size_t rows_int8_room(int64_t K)
{
    return sizeof(struct rows_digits) + ROWS_DIGITS * (size_t)((K + 63) / 64 * 64);
}

static float rows_largest(const float *x, int64_t K)
{
    float largest = 0.0f, odd = 0.0f; /* odd becomes NaN where x is not finite */
#pragma omp simd reduction(max : largest) reduction(+ : odd)
    for (int64_t k = 0; k < K; k++) {
        float size = fabsf(x[k]);
        largest = size > largest ? size : largest;
        odd += x[k] - x[k];
    }
    return largest + odd;
}

/* An x of nothing above 2^-100 is zero, and one that is not finite makes every product NaN. */
static const void *rows_int8_ready(const float *restrict x, int64_t K, void *room)
{
    struct rows_digits *made = room;
    const int64_t padded = (K + 63) / 64 * 64;
    const double most = 127.0 * (1 + (1 << 8) + (1 << 16) + (1 << 24));
    const float largest = rows_largest(x, K);
    const double inverse = most / largest;
    int8_t *restrict digits = made->digits;
    int64_t sum = 0;
    *made = (struct rows_digits){.unit = largest / most, .padded = padded};
    memset(digits, 0, ROWS_DIGITS * (size_t)padded);
    if (!(largest >= 0x1p-100f)) return made;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < K; k++) {
        int32_t rest = (int32_t)rint(x[k] * inverse);
        sum += rest;
        for (int d = 0; d < ROWS_DIGITS; d++) {
            int8_t digit = (int8_t)rest;
            digits[k + d * padded] = digit;
            rest = (rest >> 8) + (digit < 0);
        }
    }
    made->sum = sum;
    return made;
}

static inline void rows_add_digits(__m512i sums[ROWS_DIGITS], __m512i w, const int8_t *digits,
                                   int64_t padded)
{
    for (int d = 0; d < ROWS_DIGITS; d++)
        sums[d] =
            _mm512_dpbusd_epi32(sums[d], w, _mm512_load_si512((const void *)(digits + d * padded)));
}

/* Lanes as 64 bits, the digits put together again. */
static inline __m512i rows_weigh(const __m512i sums[ROWS_DIGITS], int half)
{
    __m512i total = _mm512_setzero_si512();
    for (int d = ROWS_DIGITS - 1; d >= 0; d--) {
        __m512i lanes = _mm512_cvtepi32_epi64(half ? _mm512_extracti64x4_epi64(sums[d], 1)
                                                   : _mm512_castsi512_si256(sums[d]));
        total = _mm512_add_epi64(_mm512_slli_epi64(total, 8), lanes);
    }
    return total;
}

/* The sum of (w + 128) x in units over columns 0 .. K - 1, K at most ROWS_STRETCH. */
static inline int64_t rows_stretch(const int8_t *w, const int8_t *digits, int64_t padded, int64_t K)
{
    const __m512i flip = _mm512_set1_epi8(-128);
    __m512i even[ROWS_DIGITS] = {{0}}, odd[ROWS_DIGITS] = {{0}};
    int64_t k = 0;
    for (; k + 128 <= K; k += 128) {
        __m512i first = _mm512_loadu_si512((const void *)(w + k)),
                second = _mm512_loadu_si512((const void *)(w + k + 64));
        rows_add_digits(even, _mm512_xor_si512(first, flip), digits + k, padded);
        rows_add_digits(odd, _mm512_xor_si512(second, flip), digits + k + 64, padded);
    }
    for (; k < K; k += 64) {
        __mmask64 some = K - k >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << (K - k)) - 1;
        __m512i rest = _mm512_maskz_loadu_epi8(some, w + k);
        rows_add_digits(even, _mm512_xor_si512(rest, flip), digits + k, padded);
    }
    for (int d = 0; d < ROWS_DIGITS; d++) even[d] = _mm512_add_epi32(even[d], odd[d]);
    return _mm512_reduce_add_epi64(_mm512_add_epi64(rows_weigh(even, 0), rows_weigh(even, 1)));
}

static void rows_dots_int8(float *y, const int8_t *w, const float *scale, const void *x,
                           int64_t rows, int64_t K)
{
    const struct rows_digits *ready = x;
    for (int64_t r = 0; r < rows; r++, w += K) {
        int64_t units = -128 * ready->sum;
        for (int64_t k = 0; k < K; k += ROWS_STRETCH)
            units += rows_stretch(w + k, ready->digits + k, ready->padded,
                                  K - k < ROWS_STRETCH ? K - k : ROWS_STRETCH);
        y[r] = (float)((double)scale[r] * ready->unit * (double)units);
    }
}
#else
static size_t rows_int8_room(int64_t K)
{
    (void)K;
    return 0;
}

static const void *rows_int8_ready(const float *restrict x, int64_t K, void *room)
{
    (void)K;
    (void)room;
    return x;
}

#ifdef __AVX512F__
static inline rows_lanes rows_load_int8(const int8_t *w)
{
    __m512i words = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)w));
    return (rows_lanes)_mm512_cvtepi32_ps(words);
}

static inline float rows_dot_int8(const int8_t *restrict w, const float *restrict x, int64_t K)
{
    rows_lanes sums[ROWS_SUMS] = {{0}};
    int64_t k = 0;
    for (; k + ROWS_STEP <= K; k += ROWS_STEP) {
        __builtin_prefetch(w + k + 1024);
        for (int s = 0; s < ROWS_SUMS; s++)
            sums[s] += rows_load(x + k + s * ROWS_LANES) * rows_load_int8(w + k + s * ROWS_LANES);
    }
    float rest = 0.0f;
    for (; k < K; k++) rest += x[k] * (float)w[k];
    return rows_total(sums) + rest;
}
#else
/* gcc takes lanes of bytes apart one by one, but vectorises this. */
static inline float rows_dot_int8(const int8_t *restrict w, const float *restrict x, int64_t K)
{
    float sum = 0.0f;
#pragma omp simd simdlen(16) reduction(+ : sum)
    for (int64_t k = 0; k < K; k++) sum += x[k] * (float)w[k];
    return sum;
}
#endif

static void rows_dots_int8(float *y, const int8_t *w, const float *scale, const void *x,
                           int64_t rows, int64_t K)
{
    for (int64_t r = 0; r < rows; r++) y[r] = scale[r] * rows_dot_int8(w + r * K, x, K);
}
#endif
