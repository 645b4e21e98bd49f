/* bench_grid.c: see bench_grid.h. */
#include "bench_grid.h"

/* 2 GiB of 16-bit numbers. */
#define MOST_NUMBERS ((int64_t)1 << 30)

int bench_grid(struct bench_shape shapes[BENCH_GRID_SHAPES])
{
    int count = 0;
    for (int64_t d = 64; d <= 128; d *= 2)
        for (int64_t l = 128; l <= 32768; l *= 2)
            for (int64_t heads = 1; heads <= 2048; heads *= 2) {
                const int64_t own = heads < 8 ? heads : 8;
                if (heads * l * d > MOST_NUMBERS) continue;
                shapes[count++] = (struct bench_shape){heads / own, own, own, l, d};
            }
    return count;
}
