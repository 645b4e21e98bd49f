/* late_write.h: a launch that changes what the one behind it looks at, as late as it may. */
#ifndef TEST_LATE_WRITE_H
#define TEST_LATE_WRITE_H

#include "parallax/parallax.h"

/* Lets the next launch of the stream begin, if that is one that may, works for some microseconds
 * and only then copies `count` numbers. */
void late_write(int32_t *to, const int32_t *from, int count, plx_stream stream);

#endif
