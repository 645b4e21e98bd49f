/* rows_portable.c: the inner loops of ops_cpu for any processor of the architecture; see rows.h. */
#define ROWS_TABLE rows_portable
#define ROWS_NAME  "portable"
#include "ops/rows_body.h"
