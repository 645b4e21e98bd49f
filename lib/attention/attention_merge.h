/* attention_merge.h: what joining partial results needs in both mechanisms: checks and elements.
 *
 * Joining is a few multiplications an element, so it is computed in double whatever the dtypes are.
 */
#ifndef PLX_ATTENTION_MERGE_H
#define PLX_ATTENTION_MERGE_H

#include "core/tensor.h"

/* Channels that a merge keeps on the stack, so that each weight is computed once a block. */
enum { MERGE_BLOCK = 64 };

/* Checks [B,T,H,D] of f32, bf16, f16 or f64 (rank 4), or [B,T,H] of f32 or f64 (rank 3): present,
 * with the extents of like. A sentence names parts[index].member, or out.member where index is
 * negative.
 */
plx_status attention_merge_check(plx_context *context, int index, const char *member,
                                 const struct plx_tensor *tensor, int rank,
                                 const struct plx_tensor *like);

/* One element as a double, and back. */
double attention_merge_get(const struct plx_tensor *tensor, int64_t offset);
void attention_merge_set(const struct plx_tensor *tensor, int64_t offset, double value);

/* log(exp(a) + exp(b)); -infinity stands for nothing seen. */
double attention_merge_lse(double a, double b);

#endif
