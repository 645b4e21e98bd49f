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

#define WGMMA_NAMES_96                                                                             \
    WGMMA_NAMES_64                                                                                 \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"                            \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_NAMES_128                                                                            \
    WGMMA_NAMES_96                                                                                 \
    ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"                \
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA_BOXES_1 WGMMA_32("+f", d[0])
#define WGMMA_BOXES_2 WGMMA_BOXES_1, WGMMA_32("+f", d[1])
#define WGMMA_BOXES_3 WGMMA_BOXES_2, WGMMA_32("+f", d[2])
#define WGMMA_BOXES_4 WGMMA_BOXES_3, WGMMA_32("+f", d[3])
#define WGMMA_ADD_BOXES(boxes, N, columns, format, a_name, b_name, across)                         \
    asm volatile(WGMMA_OPCODE(columns, format) "{" WGMMA_NAMES_##N                                 \
                 "}, " a_name ", " b_name ", 1, 1, 1, " across ", " across ";"                     \
                 : WGMMA_BOXES_##boxes                                                             \
                 : "l"(a), "l"(b), "n"(TRANSPOSED ? 1 : 0))
#define WGMMA_WHERE_BOXES(boxes, N, columns, a_name, b_name, across)                               \
    if constexpr (BOXES == boxes) {                                                                \
        if constexpr (HALF)                                                                        \
            WGMMA_ADD_BOXES(boxes, N, columns, "f16", a_name, b_name, across);                     \
        else                                                                                       \
            WGMMA_ADD_BOXES(boxes, N, columns, "bf16", a_name, b_name, across);                    \
    }

/* d += a b for 64 rows of a, 16 channels and so many boxes of 64 columns of b, in shared memory and
 * of one format. Rows of both lie along the channels, or, TRANSPOSED, channels have rows of their
 * own. */
template <bool HALF, bool TRANSPOSED, int BOXES>
PTX_INLINE void wgmma_add_boxes(float (&d)[4][32], uint64_t a, uint64_t b)
{
    WGMMA_WHERE_BOXES(1, 32, "64", "%32", "%33", "%34")
    WGMMA_WHERE_BOXES(2, 64, "128", "%64", "%65", "%66")
    WGMMA_WHERE_BOXES(3, 96, "192", "%96", "%97", "%98")
    WGMMA_WHERE_BOXES(4, 128, "256", "%128", "%129", "%130")
}

#endif
