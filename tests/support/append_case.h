/* append_case.h: appending to a cache: a table of what is appended to what, and runs of it on a
 * device that compare every element of the caches and of the turned queries, to the bit, with the
 * words of the public header, and check that nothing else was written. */
#ifndef TEST_APPEND_CASE_H
#define TEST_APPEND_CASE_H

#include "parallax/parallax.h"

/* Runs the table; how many cases failed, each of which it names on stderr with what is wrong. */
int append_cases_run(plx_device device);

#endif
