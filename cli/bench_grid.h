/* bench_grid.h: the 216 shapes of decode on which a kernel must hold its own everywhere: 1 to 2048
 * heads in all, 128 to 32768 keys, 64 and 128 channels, each a power of two. */
#ifndef BENCH_GRID_H
#define BENCH_GRID_H

#include "bench_attention.h"

enum { BENCH_GRID_SHAPES = 216 };

/* Those of the 216 whose cache holds at most 2 GiB a tensor of 16-bit numbers; returns how many.
 * Up to eight heads belong to one sequence, more to several of eight. */
int bench_grid(struct bench_shape shapes[BENCH_GRID_SHAPES]);

#endif
