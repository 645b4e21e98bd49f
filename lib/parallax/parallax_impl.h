/* parallax_impl.h: what the files of this folder share: the kernel rows and the reference.
 *
 * A kernel file defines one const struct kernel_row a pass and declares it here; parallax.c lists
 * it in the table of that pass, above the rows it is preferred to. Nothing else is edited. Read
 * parallax_ref.c first: it is the definition. */
#ifndef PLX_PARALLAX_IMPL_H
#define PLX_PARALLAX_IMPL_H

#include "attention/attention.h"

/* The ordered rows of a pass, which must be one. */
struct kernel_table parallax_table(plx_pass pass);

/* Kernels of other files. */
extern const struct kernel_row parallax_forward_any, parallax_backward_any; /* CUDA; decode too */
extern const struct kernel_row parallax_forward_sm90, parallax_decode_sm90; /* CUDA, Hopper */
extern const struct kernel_row parallax_backward_sm90;

/* The reference, computed in float or in double. Its workspace is a few rows a thread. */
size_t parallax_ref_workspace_float(const struct attention_problem *problem);
size_t parallax_ref_workspace_double(const struct attention_problem *problem);
void parallax_ref_forward_float(const struct attention_problem *problem, void *workspace);
void parallax_ref_forward_double(const struct attention_problem *problem, void *workspace);
void parallax_ref_backward_float(const struct attention_problem *problem, void *workspace);
void parallax_ref_backward_double(const struct attention_problem *problem, void *workspace);

/* Tiled kernels: parallax_avx512.c (x86-64 only) and parallax_portable.c. */
extern const struct kernel_row parallax_forward_avx512_f32;
extern const struct kernel_row parallax_forward_avx512_bf16;
extern const struct kernel_row parallax_forward_avx512_f16;
extern const struct kernel_row parallax_forward_portable;
extern const struct kernel_row parallax_backward_avx512_f32;
extern const struct kernel_row parallax_backward_avx512_bf16;
extern const struct kernel_row parallax_backward_avx512_f16;
extern const struct kernel_row parallax_backward_portable;
extern const struct kernel_row parallax_decode_avx512_f32;
extern const struct kernel_row parallax_decode_avx512_bf16;
extern const struct kernel_row parallax_decode_avx512_f16;
extern const struct kernel_row parallax_decode_portable;

#endif
