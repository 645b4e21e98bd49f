/* packed.h: weight matrices held in fewer bits than a float, for generation: reading the weights is
 * what a token costs.
 *
 *     bf16    the upper half of a float, rounded to nearest even; a checkpoint's bf16 is exact
 *     int8    whole numbers from -127 to 127 times a scale a row, the row's largest magnitude /
 * 127: no number is off by more than half a scale, and rows of nothing above 2^-100 become 0 */
#ifndef NN_PACKED_H
#define NN_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum packing { PACKING_NONE, PACKING_BF16, PACKING_INT8, PACKINGS };

struct packed {
    enum packing kind;
    int64_t rows, columns;
    void *data;   /* [rows, columns] of uint16_t or int8_t; NULL while memory is measured */
    float *scale; /* [rows], int8 only */
};

/* "none", "bf16", "int8". */
const char *packing_name(enum packing kind);
/* Bytes of the matrix, without its scales, and of the scales. */
size_t packed_data_bytes(const struct packed *packed);
size_t packed_scale_bytes(const struct packed *packed);
/* Rows first .. first + count - 1 from and to floats [count, columns]. */
void packed_store(const struct packed *packed, int64_t first, int64_t count, const float *values);
void packed_load(const struct packed *packed, int64_t first, int64_t count, float *values);

#endif
