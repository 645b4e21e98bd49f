/* guarded.h: memory with red zones. Every byte that a test does not write itself is 0xff, which
 * reads as NaN in each floating-point dtype: an output that was not written, an input read outside
 * its view, or a gap between strided rows that was touched, all show. */
#ifndef TEST_GUARDED_H
#define TEST_GUARDED_H

#include <stdbool.h>

#include "parallax/parallax.h"

/* A test that cannot get its memory cannot say anything: stops at NULL. */
void *must_have(void *pointer);

struct guarded {
    unsigned char *base; /* of the allocation */
    unsigned char *data; /* what the code under test sees */
    size_t bytes;
};

/* alignment: the address is a multiple of it and, below 64, of no larger power of two. */
struct guarded guarded_create(size_t bytes, size_t alignment);
void guarded_destroy(struct guarded *memory);
/* All of it, red zones included: from base, this many bytes. */
size_t guarded_total(const struct guarded *memory);
/* True where both red zones are whole. */
bool guarded_zones_intact(const struct guarded *memory);

/* How the elements of a view lie in memory. */
enum view_kind {
    VIEW_DENSE,
    VIEW_PADDED,      /* a gap behind every row, as in a slice of a fused projection */
    VIEW_HEAD_MAJOR,  /* [B,H,T,D] seen as [B,T,H,D]; other ranks are dense */
    VIEW_ALIGNED,     /* dense, on an address that is a multiple of 64 */
    VIEW_SLICED,      /* on such an address, with gaps that keep rows on multiples of 16 bytes */
    VIEW_LEFT_PADDED, /* the last T of T + 5 rows of every batch entry; other ranks are dense */
    VIEW_ODD_QUERIES  /* of a case: keys and values aligned, all else dense on an odd address */
};

/* A view together with its memory; elements not yet written are NaN (-1 for i32). */
struct test_tensor {
    struct plx_tensor view;
    struct guarded memory;
};

struct test_tensor test_tensor_create(plx_dtype dtype, enum view_kind kind, int rank,
                                      const int64_t *shape);
void test_tensor_destroy(struct test_tensor *tensor);
/* From and to dense row-major doubles, rounding to the dtype of the view. */
void test_tensor_write(struct test_tensor *tensor, const double *values);
void test_tensor_read(const struct test_tensor *tensor, double *values);
/* True where neither red zones nor gaps between elements were written. */
bool test_tensor_intact(const struct test_tensor *tensor);

#endif
