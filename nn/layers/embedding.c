/* embedding.c: token ids to rows of a table [V,E], and rows' gradients back into it.
 *
 * Where the output head is tied to the embedding, both add to the same gradient. Embedding tables
 * belong to their own optimiser group: rows see few tokens, which is no matter for an
 * orthogonalised update. */
#include "layers/layers.h"

int embedding_add(struct param_list *params, plx_dtype dtype, int64_t vocab, int64_t width,
                  double std, const char *name)
{
    return param_add(params, dtype, 2, (int64_t[]){vocab, width}, PARAM_INIT_NORMAL, std,
                     PARAM_EMBEDDING, "%s.weight", name);
}

plx_status embedding_forward(struct backend *be, int table, const struct param_list *params,
                             const struct plx_tensor *ids, const struct plx_tensor *y)
{
    const struct packed *packed = &params->items[table].packed;
    if (packed->kind != PACKING_NONE) return be->ops->unpack(be, y, packed, ids);
    return be->ops->embed(be, y, &params->items[table].active, ids);
}

plx_status embedding_backward(struct backend *be, int table, const struct param_list *params,
                              const struct plx_tensor *ids, const struct plx_tensor *dy)
{
    if (params->items[table].frozen) return PLX_OK;
    return be->ops->embed_backward(be, &params->items[table].grad, dy, ids);
}
