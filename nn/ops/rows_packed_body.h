/* rows_packed_body.h: the part of rows_body.h that multiplies with packed weights.
 *
 * bf16 is widened to floats. int8 is widened too or, where the processor has dot products of bytes,
 * multiplied as it is: then x becomes whole numbers instead. */

/* ---- Sums in float --------------------------------------------------------------------------- */

/* One row at a time, so that memory is read as one stream (four rows at once took twice the time),
 * in the lanes of four sums, which hides what a multiply-add takes. Most columns are taken
 * ROWS_REACH at once, with which memory is read faster (NOTES.md), presumably because every load
 * steps so far from one turn to the next that what is fetched ahead for it comes in time. */
#ifdef __AVX512F__
enum { ROWS_LANES = 16 };
#else
enum { ROWS_LANES = 4 };
#endif
enum { ROWS_SUMS = 4, ROWS_STEP = ROWS_SUMS * ROWS_LANES, ROWS_REACH = 32 * ROWS_LANES };
typedef float rows_lanes __attribute__((vector_size(4 * ROWS_LANES)));

static inline rows_lanes rows_load(const float *x)
{
    rows_lanes lanes;
    memcpy(&lanes, x, sizeof lanes);
    return lanes;
}

/* A tree: one lane after another would take as long as a short row itself. */
static inline float rows_total(const rows_lanes sums[ROWS_SUMS])
{
    const rows_lanes lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)lanes);
#else
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
#endif
}

/* How weights k .. of a row become floats, many and one. */
struct rows_reader {
    rows_lanes (*lanes)(const void *w, int64_t k);
    float (*one)(const void *w, int64_t k);
};

/* Adds the products of columns k .. k + columns - 1; the reader and columns are constants where
 * this is inlined. */
static inline __attribute__((always_inline)) void rows_add_products(rows_lanes sums[ROWS_SUMS],
                                                                    const struct rows_reader *read,
                                                                    const void *w, const float *x,
                                                                    int64_t k, int columns)
{
#pragma GCC unroll 32
    for (int i = 0; i < columns / ROWS_LANES; i++)
        sums[i % ROWS_SUMS] +=
            rows_load(x + k + i * ROWS_LANES) * read->lanes(w, k + i * ROWS_LANES);
}

static inline __attribute__((always_inline)) float
rows_dot(const struct rows_reader *read, const void *w, const float *x, int64_t K)
{
    rows_lanes sums[ROWS_SUMS] = {{0}};
    int64_t k = 0;
    for (; k + ROWS_REACH <= K; k += ROWS_REACH) rows_add_products(sums, read, w, x, k, ROWS_REACH);
    for (; k + ROWS_STEP <= K; k += ROWS_STEP) rows_add_products(sums, read, w, x, k, ROWS_STEP);
    float rest = 0.0f;
    for (; k < K; k++) rest += x[k] * read->one(w, k);
    return rows_total(sums) + rest;
}

/* ---- bf16 ------------------------------------------------------------------------------------ */

typedef uint32_t rows_words __attribute__((vector_size(4 * ROWS_LANES)));
typedef uint16_t rows_halves __attribute__((vector_size(2 * ROWS_LANES)));

/* gcc widens so long a vector in two halves unless it is told the instruction. */
static inline rows_lanes rows_lanes_bf16(const void *w, int64_t k)
{
    rows_halves halves;
    memcpy(&halves, (const uint16_t *)w + k, sizeof halves);
#ifdef __AVX512F__
    rows_words words = (rows_words)_mm512_cvtepu16_epi32((__m256i)halves);
#else
    rows_words words = __builtin_convertvector(halves, rows_words);
#endif
    return (rows_lanes)(words << 16);
}

static inline float rows_one_bf16(const void *w, int64_t k)
{
    return dtype_bf16_to_f32(((const uint16_t *)w)[k]);
}

static void rows_dots_bf16(float *y, const uint16_t *w, const float *x, int64_t rows, int64_t K)
{
    static const struct rows_reader read = {rows_lanes_bf16, rows_one_bf16};
    for (int64_t r = 0; r < rows; r++) y[r] = rows_dot(&read, w + r * K, x, K);
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

/* Columns whose products with one digit a sum of 32 bits holds: 2^16 255 128 < 2^31. */
enum { ROWS_STRETCH = 1 << 16 };

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

/* Adds the products of w with 64 columns of every digit. */
static inline void rows_add_digits(__m512i sums[ROWS_DIGITS], __m512i w, const int8_t *digits,
                                   int64_t padded)
{
    const __m512i above = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    for (int d = 0; d < ROWS_DIGITS; d++)
        sums[d] = _mm512_dpbusd_epi32(sums[d], above,
                                      _mm512_load_si512((const void *)(digits + d * padded)));
}

/* The total of each digit's lanes: pairs of digits are added up side by side. */
static inline __m128i rows_totals(const __m512i sums[ROWS_DIGITS])
{
    __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]),
                                   _mm512_unpackhi_epi32(sums[0], sums[1])),
            high = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]),
                                    _mm512_unpackhi_epi32(sums[2], sums[3])),
            all = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high),
                                   _mm512_unpackhi_epi64(low, high));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The digits put together again. */
static inline int64_t rows_weigh(__m128i totals)
{
    const __m256i shifts = _mm256_set_epi64x(24, 16, 8, 0);
    __m256i weighed = _mm256_sllv_epi64(_mm256_cvtepi32_epi64(totals), shifts);
    __m128i half =
        _mm_add_epi64(_mm256_castsi256_si128(weighed), _mm256_extracti128_si256(weighed, 1));
    return _mm_extract_epi64(half, 0) + _mm_extract_epi64(half, 1);
}

/* The sum of (w + 128) x in units over columns 0 .. K - 1, K at most ROWS_STRETCH. */
static inline int64_t rows_stretch(const int8_t *w, const int8_t *digits, int64_t padded, int64_t K)
{
    __m512i sums[ROWS_DIGITS] = {{0}};
    int64_t k = 0;
    for (; k + ROWS_REACH <= K; k += ROWS_REACH) {
#pragma GCC unroll 8
        for (int i = 0; i < ROWS_REACH; i += 64)
            rows_add_digits(sums, _mm512_loadu_si512((const void *)(w + k + i)), digits + k + i,
                            padded);
    }
    for (; k < K; k += 64) {
        __mmask64 some = K - k >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << (K - k)) - 1;
        rows_add_digits(sums, _mm512_maskz_loadu_epi8(some, w + k), digits + k, padded);
    }
    return rows_weigh(rows_totals(sums));
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
static inline rows_lanes rows_lanes_int8(const void *w, int64_t k)
{
    const __m128i bytes = _mm_loadu_si128((const void *)((const int8_t *)w + k));
    return (rows_lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

static inline float rows_one_int8(const void *w, int64_t k)
{
    return ((const int8_t *)w)[k];
}

static inline float rows_dot_int8(const int8_t *w, const float *x, int64_t K)
{
    static const struct rows_reader read = {rows_lanes_int8, rows_one_int8};
    return rows_dot(&read, w, x, K);
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
