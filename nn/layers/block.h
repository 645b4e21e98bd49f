/* block.h: one decoder block, the unit that a model stacks and that backward may recompute.
 *
 *     h = x + mixer(norm(x))        y = h + mlp(norm(h))
 *
 * The block keeps what its backward reads in a record. The block's input x is not in the record: it
 * is the previous block's output, which the model owns. Next: mixers/mixer.h. */
#ifndef NN_BLOCK_H
#define NN_BLOCK_H

#include "layers/layers.h"
#include "mixers/mixer.h"

struct block {
    const struct mixer_kind *kind;
    struct mixer *mixer;
    struct rmsnorm mixer_norm, mlp_norm;
    struct mlp mlp;
    int64_t width;
    struct precision precision;
    int first_param, param_count; /* its rows of the parameter table */
};

struct block_record {
    struct plx_tensor mixer_rstd; /* [N] */
    void *mixer;                  /* kind->record_size bytes, allocated with the block */
    struct plx_tensor h;          /* [N,E] */
    struct plx_tensor mlp_rstd;   /* [N] */
    struct mlp_record mlp;
};

/* Adds the block's parameters; false when out of memory (block_destroy is safe then too). */
bool block_create(struct block *block, const struct model_config *config, int layer,
                  struct precision precision, struct param_list *params);
void block_destroy(struct block *block);
/* Sets the tensors of these parts; record->mixer must point to memory already. */
void block_carve(const struct block *block, int64_t tokens, enum record_parts parts,
                 struct arena *arena, struct block_record *record);

/* x, y [N,E], not overlapping. y NULL: fill the record and stop before the last product. */
plx_status block_forward(struct backend *be, const struct block *block, struct param_list *params,
                         const struct batch_view *batch, const struct plx_tensor *x,
                         const struct block_record *record, const struct plx_tensor *y);
/* Fills the cheap part of a record whose other part forward has left. */
plx_status block_recompute(struct backend *be, const struct block *block, struct param_list *params,
                           const struct batch_view *batch, const struct block_record *record);
/* d [N,E] holds dy and becomes dx: the residual path is in place. */
plx_status block_backward(struct backend *be, const struct block *block, struct param_list *params,
                          const struct batch_view *batch, const struct plx_tensor *x,
                          const struct block_record *record, const struct plx_tensor *d);
/* New tokens through the block; what is kept of them goes into cache. */
plx_status block_decode(struct backend *be, const struct block *block, struct param_list *params,
                        const struct decode_view *step, const struct plx_tensor *x, void *cache,
                        const struct plx_tensor *y);

#endif
