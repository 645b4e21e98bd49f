/* rows_vnni.c: the inner loops of ops_cpu with AVX-512 and its dot products of bytes; see rows.h.
 * The suffix gives the flags. */
#define ROWS_TABLE rows_vnni
#define ROWS_NAME  "vnni"
#include "ops/rows_body.h"
