/* softmax_impl.h: what the files of this folder share: the kernel rows and the reference.
 *
 * A kernel file defines one const struct kernel_row a pass and declares it here; softmax.c lists it
 * in the table of that pass, above the rows it is preferred to. Nothing else is edited. Read
 * softmax_ref.c first: it is the definition. */
#ifndef PLX_SOFTMAX_IMPL_H
#define PLX_SOFTMAX_IMPL_H

#include "attention/attention.h"

/* The ordered rows of a pass, which must be one. */
struct kernel_table softmax_table(plx_pass pass);

/* Kernels of other files. */
extern const struct kernel_row softmax_forward_any, softmax_backward_any; /* CUDA; decode too */
extern const struct kernel_row softmax_forward_sm90, softmax_decode_sm90; /* CUDA, Hopper */
extern const struct kernel_row softmax_backward_sm90;

/* The reference, computed in float or in double. Its workspace is a few rows a thread. */
size_t softmax_ref_workspace_float(const struct attention_problem *problem);
size_t softmax_ref_workspace_double(const struct attention_problem *problem);
void softmax_ref_forward_float(const struct attention_problem *problem, void *workspace);
void softmax_ref_forward_double(const struct attention_problem *problem, void *workspace);
void softmax_ref_backward_float(const struct attention_problem *problem, void *workspace);
void softmax_ref_backward_double(const struct attention_problem *problem, void *workspace);

/* Tiled kernels: softmax_avx512.c (x86-64 only) and softmax_portable.c. */
extern const struct kernel_row softmax_forward_avx512_f32;
extern const struct kernel_row softmax_forward_avx512_bf16;
extern const struct kernel_row softmax_forward_avx512_f16;
extern const struct kernel_row softmax_forward_portable;
extern const struct kernel_row softmax_backward_avx512_f32;
extern const struct kernel_row softmax_backward_avx512_bf16;
extern const struct kernel_row softmax_backward_avx512_f16;
extern const struct kernel_row softmax_backward_portable;
extern const struct kernel_row softmax_decode_avx512_f32;
extern const struct kernel_row softmax_decode_avx512_bf16;
extern const struct kernel_row softmax_decode_avx512_f16;
extern const struct kernel_row softmax_decode_portable;

#endif
