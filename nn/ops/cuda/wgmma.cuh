/* wgmma.cuh: products of a warpgroup in the forms that ops_cuda uses beside those of
 * cuda/ptx_sm90.cuh: wider, of either format, with channels along the rows or across them. They
 * exist on sm_90a only. */
#ifndef NN_OPS_CUDA_WGMMA_CUH
#define NN_OPS_CUDA_WGMMA_CUH

#include "cuda/ptx_sm90.cuh"

/* A matrix in shared memory with rows of 128 bytes whose chunks of 16 are swizzled; leading: bytes
 * between repetitions along the axis of the rows. Eight rows follow each other. */
PTX_INLINE uint64_t wgmma_matrix(uint32_t address, uint32_t leading)
{
    uint32_t low = (address & 0x3ffff) >> 4 | leading >> 4 << 16;
    return low | (uint64_t)(1024 >> 4 | 1u << 30) << 32;
}

#define WGMMA_NAMES_128                                                                            \
    WGMMA_NAMES_64                                                                                 \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"                            \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"                             \
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"                 \
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA_128_COLUMNS(format, transposed)                                                      \
    asm volatile(WGMMA_OPCODE("128", format) "{" WGMMA_NAMES_64 "}, %64, %65, 1, 1, 1, %66, %66;"  \
                 : WGMMA_64("+f", d)                                                               \
                 : "l"(a), "l"(b), "n"(transposed))
#define WGMMA_256_COLUMNS(format, transposed)                                                      \
    asm volatile(WGMMA_OPCODE("256", format) "{" WGMMA_NAMES_128                                   \
                                             "}, %128, %129, 1, 1, 1, %130, %130;"                 \
                 : WGMMA_64("+f", d), WGMMA_64("+f", more)                                         \
                 : "l"(a), "l"(b), "n"(transposed))

/* d += a b for 64 rows of a, 16 channels and 128 columns of b, or 256 where more are added to, all
 * in shared memory and of one format. Rows of both lie along the channels, or, TRANSPOSED, channels
 * have rows of their own. */
template <bool HALF, bool TRANSPOSED>
PTX_INLINE void wgmma_add_columns(float (&d)[64], uint64_t a, uint64_t b)
{
    if (HALF)
        WGMMA_128_COLUMNS("f16", TRANSPOSED ? 1 : 0);
    else
        WGMMA_128_COLUMNS("bf16", TRANSPOSED ? 1 : 0);
}

template <bool HALF, bool TRANSPOSED>
PTX_INLINE void wgmma_add_columns(float (&d)[64], float (&more)[64], uint64_t a, uint64_t b)
{
    if (HALF)
        WGMMA_256_COLUMNS("f16", TRANSPOSED ? 1 : 0);
    else
        WGMMA_256_COLUMNS("bf16", TRANSPOSED ? 1 : 0);
}

#endif
