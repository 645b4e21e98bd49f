/* block.c: the pre-norm residual block, h = x + mixer(norm(x)), y = h + mlp(norm(h)).
 *
 * Forward is six numbered steps; backward cites the step it reverses; decode is the same with
 * nothing kept, where norms are part of the products behind them. Parameter names are those of the
 * configuration's family. */
#include "layers/block.h"

#include <stdio.h>

bool block_create(struct block *block, const struct model_config *config, int layer,
                  struct precision precision, struct param_list *params)
{
    const plx_dtype dtype = precision.storage;
    const struct tensor_names *names = model_tensor_names(config->family);
    const int64_t E = config->hidden_size;
    char prefix[64], mixer_prefix[96], mlp_prefix[96];
    snprintf(prefix, sizeof prefix, "model.layers.%d", layer);
    snprintf(mixer_prefix, sizeof mixer_prefix, "%s.%s", prefix, names->mixer);
    snprintf(mlp_prefix, sizeof mlp_prefix, "%s.mlp", prefix);
    *block = (struct block){.kind = config->layer[layer].mixer,
                            .width = E,
                            .precision = precision,
                            .first_param = params->count};
    if (!rmsnorm_create(&block->mixer_norm, params, dtype, E, config->norm_eps, PARAM_INIT_ONE,
                        prefix, names->mixer_norm))
        return false;
    block->mixer = block->kind->create(block->kind, config, layer, mixer_prefix, precision, params);
    bool complete = block->mixer != NULL &&
                    rmsnorm_create(&block->mlp_norm, params, dtype, E, config->norm_eps,
                                   PARAM_INIT_ONE, prefix, names->mlp_norm) &&
                    mlp_create(&block->mlp, params, precision, E, config->intermediate_size,
                               config->initializer_range, mlp_prefix);
    block->param_count = params->count - block->first_param;
    return complete;
}

void block_destroy(struct block *block)
{
    if (block->mixer != NULL) block->kind->destroy(block->mixer);
    block->mixer = NULL;
}

void block_carve(const struct block *block, int64_t tokens, enum record_parts parts,
                 struct arena *arena, struct block_record *record)
{
    const int64_t shape[2] = {tokens, block->width};
    const plx_dtype storage = block->precision.storage, activation = block->precision.activation;
    if (parts & RECORD_KEPT) {
        record->mixer_rstd = arena_tensor(arena, storage, 1, shape);
        record->h = arena_tensor(arena, activation, 2, shape);
        record->mlp_rstd = arena_tensor(arena, storage, 1, shape);
    }
    block->kind->carve(block->mixer, tokens, parts, arena, record->mixer);
    if (parts & RECORD_KEPT) mlp_carve(&block->mlp, tokens, arena, &record->mlp);
}

/* Room in scratch for norm(x) or norm(h), which backward makes again from what it reads anyway. */
static struct plx_tensor normed_carve(struct backend *be, const struct block *block,
                                      const struct plx_tensor *x)
{
    return arena_tensor(&be->scratch, block->precision.activation, 2, x->shape);
}

plx_status block_forward(struct backend *be, const struct block *block, struct param_list *params,
                         const struct batch_view *batch, const struct plx_tensor *x,
                         const struct block_record *record, const struct plx_tensor *y)
{
    const struct block_record *keep = record;
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor normed = normed_carve(be, block, x);
    /* 1, 2, 3: h = x + mixer(norm(x)). */
    TRY(rmsnorm_forward(be, &block->mixer_norm, params, x, &normed, &keep->mixer_rstd));
    TRY(block->kind->forward(be, block->mixer, params, batch, &normed, keep->mixer, x, &keep->h));
    /* 4, 5, 6: y = h + mlp(norm(h)). */
    TRY(rmsnorm_forward(be, &block->mlp_norm, params, &keep->h, &normed, &keep->mlp_rstd));
    TRY(mlp_forward(be, &block->mlp, params, &normed, &keep->mlp, &keep->h, y));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

plx_status block_recompute(struct backend *be, const struct block *block, struct param_list *params,
                           const struct batch_view *batch, const struct block_record *record)
{
    return block->kind->recompute(be, block->mixer, params, batch, record->mixer);
}

plx_status block_backward(struct backend *be, const struct block *block, struct param_list *params,
                          const struct batch_view *batch, const struct plx_tensor *x,
                          const struct block_record *record, const struct plx_tensor *d)
{
    const struct block_record *keep = record;
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor normed = normed_carve(be, block, x), dnormed = normed_carve(be, block, x);
    /* Steps 6, 5, 4: d holds dy, which is also what reaches h directly; afterwards it is dh. */
    TRY(rmsnorm_forward(be, &block->mlp_norm, params, &keep->h, &normed, &keep->mlp_rstd));
    TRY(mlp_backward(be, &block->mlp, params, d, &normed, &keep->mlp, &dnormed));
    TRY(rmsnorm_backward(be, &block->mlp_norm, params, &dnormed, &keep->h, &keep->mlp_rstd, d, d));
    /* Steps 3, 2, 1: likewise from dh to dx. */
    TRY(rmsnorm_forward(be, &block->mixer_norm, params, x, &normed, &keep->mixer_rstd));
    TRY(block->kind->backward(be, block->mixer, params, batch, &normed, keep->mixer, d, &dnormed));
    TRY(rmsnorm_backward(be, &block->mixer_norm, params, &dnormed, x, &keep->mixer_rstd, d, d));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}

plx_status block_decode(struct backend *be, const struct block *block, struct param_list *params,
                        const struct decode_view *step, const struct plx_tensor *x, void *cache,
                        const struct plx_tensor *y)
{
    size_t mark = arena_mark(&be->scratch);
    struct plx_tensor h = arena_tensor(&be->scratch, block->precision.activation, 2, x->shape);
    TRY(block->kind->decode(be, block->mixer, params, step, &block->mixer_norm, x, cache, &h));
    TRY(mlp_decode(be, &block->mlp, params, &block->mlp_norm, &h, y));
    arena_release(&be->scratch, mark);
    return PLX_OK;
}
