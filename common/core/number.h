/* number.h: the number type of reference sources.
 *
 * Files named *_ref.c are written in `real` and compiled twice, with REAL_IS_float and with
 * REAL_IS_double. Whatever they export is named through REAL, so that both objects fit in one
 * program: REAL(ref_table) is ref_table_float in one and ref_table_double in the other. */
#ifndef PLX_NUMBER_H
#define PLX_NUMBER_H

#if defined(REAL_IS_double)
typedef double real;
#define REAL(name) name##_double
#elif defined(REAL_IS_float)
typedef float real;
#define REAL(name) name##_float
#else
#error "a reference source is compiled with REAL_IS_float or REAL_IS_double"
#endif

#endif
