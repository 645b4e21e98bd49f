/* mixer.h: the table of sequence mixers, the part of a block that lets tokens see each other.
 *
 * A mixer reads normalised inputs x [N,E] and writes y [N,E]. It is six functions behind one row:
 * its parameter rows, its activation plan, forward, backward, its decode state, and a decode step.
 * Projections, head norms, rope and gates are shared by a family (attention_family.c serves softmax
 * and Parallax); the mixing itself is a mechanism of libparallax. A new mixer is a new file and one
 * row in mixers.c. */
#ifndef NN_MIXER_H
#define NN_MIXER_H

#include "layers/layers.h"
#include "model.h"

/* A mixer instance in one layer: its configuration and the indices of its parameters. */
struct mixer;

/* A batch as tensors on the backend's device. */
struct batch_view {
    int64_t tokens;
    struct plx_tensor positions;   /* i32 [N] */
    int64_t rows;                  /* sequences, where all have the same length; otherwise 0 */
    struct plx_tensor offsets;     /* i32 [sequences + 1]; where rows is 0 */
    struct plx_tensor keys;        /* i32 [K]: the tokens that sequences see; rank 0: their own */
    struct plx_tensor key_offsets; /* i32 [sequences + 1]; where there are keys */
};

/* New tokens, count of each of some sequences of a cache. */
struct decode_view {
    int64_t sequences, count;
    struct plx_tensor positions; /* i32 [sequences * count] */
    struct plx_tensor k_lengths; /* i32 [sequences]: tokens held, the new ones counted; 0: the
                                    sequence is only taken along */
    struct plx_tensor k_pages;   /* i32 [sequences, P]: which pages hold them */
};

struct mixer_kind {
    const char *name; /* in config.json's mixer_types and --mixer: "softmax", "parallax" */
    plx_mechanism mechanism;
    int products; /* of [T,S] scores with D channels a head, forward and backward, none twice */
    /* Adds parameters named PREFIX.q_proj.weight and so on; returns an instance that the row's
     * destroy frees, or NULL when out of memory. */
    struct mixer *(*create)(const struct mixer_kind *kind, const struct model_config *config,
                            int layer, const char *prefix, struct precision precision,
                            struct param_list *params);
    void (*destroy)(struct mixer *mixer);
    /* Bytes of a block's activation record come from carving it: same code measuring and real. The
     * record itself (struct of tensors) lives in the arena's owner; record_size says how large it
     * is. */
    size_t record_size;
    void (*carve)(const struct mixer *mixer, int64_t tokens, enum record_parts parts,
                  struct arena *arena, void *record);
    /* y = residual + the mixer of x, all [N,E]. */
    plx_status (*forward)(struct backend *be, const struct mixer *mixer, struct param_list *params,
                          const struct batch_view *batch, const struct plx_tensor *x, void *record,
                          const struct plx_tensor *residual, const struct plx_tensor *y);
    /* Fills the cheap part of a record (layers.h) from the other. */
    plx_status (*recompute)(struct backend *be, const struct mixer *mixer,
                            struct param_list *params, const struct batch_view *batch,
                            void *record);
    /* dx overwritten, parameter gradients accumulated. */
    plx_status (*backward)(struct backend *be, const struct mixer *mixer, struct param_list *params,
                           const struct batch_view *batch, const struct plx_tensor *x, void *record,
                           const struct plx_tensor *dy, const struct plx_tensor *dx);
    /* Decode state: a pool of so many pages of so many tokens each, carved into a record likewise.
     */
    size_t cache_record_size;
    void (*carve_cache)(const struct mixer *mixer, plx_dtype dtype, int64_t pages, int64_t page,
                        struct arena *arena, void *cache);
    /* y = x + the mixer of norm(x), both [sequences * count, E], sequence by sequence; what later
     * steps need goes into cache. */
    plx_status (*decode)(struct backend *be, const struct mixer *mixer, struct param_list *params,
                         const struct decode_view *step, const struct rmsnorm *norm,
                         const struct plx_tensor *x, void *cache, const struct plx_tensor *y);
};

/* NULL where no row has the name. */
const struct mixer_kind *mixer_find(const char *name);
/* Row by index, NULL past the last. */
const struct mixer_kind *mixer_at(int index);

#endif
