/* rows_avx512.c: the inner loops of ops_cpu with AVX-512; see rows.h. The suffix gives the flags.
 */
#define ROWS_TABLE rows_avx512
#define ROWS_NAME  "avx512"
#include "ops/rows_body.h"
