/* quantised.h: matrices of 8-bit floats with a factor a row, which the products of linear layers
 * read under --dtype fp8.
 *
 *     element = scale[row] * stored
 *
 * stored is f8e4m3: 4 bits of exponent, 3 of mantissa, up to 448. The scale is the least power of
 * two with which the largest magnitude of the row is at most 448: division by it is exact, so every
 * device stores the same bytes, and what a matrix and its transpose hold differs only far below the
 * largest of a row. A row that holds NaN or infinity has the scale NaN, so that its products are
 * NaN too. */
#ifndef NN_QUANTISED_H
#define NN_QUANTISED_H

#include "parallax/parallax.h"

/* Products need rows of a multiple of this many elements. */
enum { QUANTISED_UNIT = 16 };

struct quantised {
    struct plx_tensor values; /* f8e4m3 [rows, columns], dense; rank 0: there is none */
    struct plx_tensor scale;  /* [rows], of the backend's storage dtype */
};

/* The scale of a row by its largest magnitude, which is NaN where one of its numbers is. */
double quantised_scale(double largest);

#endif
