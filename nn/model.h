/* model.h: a decoder language model in the shape of Qwen-3, whose mixer is chosen per layer.
 *
 *     token ids -> embedding -> L x ( x += mixer(norm(x)); x += mlp(norm(x)) ) -> norm -> head ->
 * loss
 *
 * A batch is always one flat list of N tokens cut into sequences by offsets: a dense [B,T] batch is
 * N = B T with equal offsets, and packed documents are the same thing with uneven ones. Attention
 * never crosses an offset; positions restart wherever the caller says.
 *
 * Call order for training: model_create, model_init (or model_load in io/model_file.h),
 * model_reserve, then per micro-batch model_loss_backward, per step the optimiser, then
 * model_zero_grads. Reading order: model_config.h (what a model is), layers/block.h,
 * mixers/mixer.h, models/decoder.c. */
#ifndef NN_MODEL_H
#define NN_MODEL_H

#include "core/param.h"
#include "model_config.h"
#include "op.h"
#include "ops/draw.h"

struct model;

struct batch {
    int64_t tokens;           /* N */
    int64_t sequences;        /* number of offsets minus one */
    const int32_t *ids;       /* [N] */
    const int32_t *targets;   /* [N]; negative: not scored */
    const int32_t *positions; /* [N], restarting in every sequence */
    const int32_t *offsets;   /* [sequences + 1], from 0 to N */
    /* NULL, and every sequence sees its own tokens. Otherwise sequence s sees the tokens
     * keys[key_offsets[s]] .. keys[key_offsets[s + 1] - 1] of the batch, the last of which are its
     * own: texts that begin alike share what they begin with. Forward passes only. */
    const int32_t *keys;
    const int32_t *key_offsets; /* [sequences + 1], from 0 */
    /* Sequences count as of unlike lengths even where all are alike, so that batches of a kind run
     * the same way. */
    bool uneven;
};
/* Whether its sequences are taken for rows of one length. */
bool batch_is_even(const struct batch *batch);

enum recompute {
    RECOMPUTE_NONE,      /* every activation of every block is kept */
    RECOMPUTE_SELECTIVE, /* heads after norm, gate and rotation are not kept: a pass over what was
                            projected makes them again */
    RECOMPUTE_FULL       /* only block inputs are kept; backward runs a block's forward again */
};

/* Builds the parameter table and allocates values (zeroed). The model keeps be and uses it until
 * destroyed; be's scratch grows to what the model needs. */
plx_status model_create(struct backend *be, const struct model_config *config,
                        struct model **model);
void model_destroy(struct model *model);
/* The parameter table alone, without values: what a folder of such a model holds. */
plx_status model_describe(const struct model_config *config, struct param_list *params,
                          struct error *err);
const struct model_config *model_get_config(const struct model *model);
struct param_list *model_params(struct model *model);
/* What the model was made on: its device and stream are where the parameters are. */
struct backend *model_backend(const struct model *model);
/* Start values drawn from a seed, the same bits on every device. */
plx_status model_init(struct model *model, uint64_t seed);

/* Sizes and allocates gradients (if with_grads), activations for batches of at most tokens tokens
 * in at most sequences sequences, and scratch, by a dry run. May be called again with other limits.
 */
struct model_memory {      /* bytes */
    size_t params, active; /* values, and copies of them in the activation dtype */
    size_t grads, activations, scratch;
    size_t inputs; /* ids, targets and the like on the device */
};
plx_status model_reserve(struct model *model, int64_t tokens, int64_t sequences, bool with_grads,
                         enum recompute recompute, struct model_memory *memory);
/* On top of that: for batches of model_score that share what they begin with, with at most so many
 * keys. */
plx_status model_reserve_keys(struct model *model, int64_t keys);

/* Sum over scored tokens of the cross-entropy in nats (double), and how many tokens were scored.
 * Chunked over tokens, so [N,V] logits never exist at once. */
struct model_loss {
    double sum;
    int64_t count;
};
plx_status model_loss(struct model *model, const struct batch *batch, struct model_loss *loss);
/* The same, and gradients of scale * sum added to every parameter's grad. loss NULL: nothing is
 * waited for, and the sum is added to what model_loss_read gives. */
plx_status model_loss_backward(struct model *model, const struct batch *batch, double scale,
                               struct model_loss *loss);
/* Is told, while model_loss_backward queues its work, whenever what it has queued completes the
 * gradients of some parameters, first .. first + count - 1: every parameter once a call, the last
 * blocks' first. NULL: nobody is told. */
typedef plx_status (*model_gradients_queued)(void *user, int first, int count);
void model_tell_gradients(struct model *model, model_gradients_queued queued, void *user);
/* Whether model_loss_backward, from when a shape of batch comes for the second time, launches a
 * graph of it where the device has graphs (ops/replay.h); parameters and their gradients must stay
 * as they are laid out. model_forget_graphs: the next ones are captured anew. */
void model_replay(struct model *model, bool replaying);
void model_forget_graphs(struct model *model);
/* The sum of losses since it was last read; waits for the device. */
plx_status model_loss_read(struct model *model, double *sum);
/* The same without waiting: queues that this sum goes to f64 [1] on the device and begins anew. */
plx_status model_loss_take(struct model *model, const struct plx_tensor *sum);
plx_status model_zero_grads(struct model *model);
/* Logits of every token, [N,V] in the host's memory and the storage dtype of the backend; for
 * parity checks. */
plx_status model_logits(struct model *model, const struct batch *batch,
                        const struct plx_tensor *logits);

/* Writes rows first .. first + count - 1 of a parameter (of a vector: elements) as numbers of the
 * backend's storage dtype. */
typedef plx_status (*model_read_rows)(void *user, const struct param *param, int64_t first,
                                      int64_t count, void *values);
/* The same of a model that need not fit memory: the values of one block are there at a time, or a
 * megabyte or so of a table. Every parameter is read from its first row to its last without a gap,
 * a table that is also the head twice. Models that compute the same give the same bits here, even
 * if model_logits may round otherwise. The backend is the CPU's, without packing. */
plx_status model_stream_logits(struct backend *be, const struct model_config *config,
                               const struct batch *batch, model_read_rows read, void *user,
                               const struct plx_tensor *logits);

/* How likely a token is to follow token at of the batch, given what its sequence holds up to there.
 */
struct score_query {
    int32_t at;    /* 0 .. N - 1 */
    int32_t token; /* 0 .. V - 1 */
};
struct score {
    double logprob; /* in nats */
    bool greedy;    /* no other token is likelier; of equal ones the lowest id */
};
/* Answers queries in any order, several after one token too, without [N,V] logits; the batch's
 * targets are not read. */
plx_status model_score(struct model *model, const struct batch *batch,
                       const struct score_query *queries, int64_t count, struct score *scores);

/* ---- Decoding ---- */

/* What a sequence in progress needs: per layer, keys and values seen so far. */
struct model_cache;

/* Keys and values lie in pages of one pool. A sequence takes pages as it grows and gives them back
 * when it ends, so that the pool need only be as large as all sequences together. */
struct model_cache_config {
    int64_t sequences; /* side by side */
    int64_t capacity;  /* most tokens of one */
    int64_t pages;     /* of the pool; 0: as many as all sequences can take */
    int64_t page;      /* tokens of a page; 0: MODEL_CACHE_PAGE */
    bool penalising;   /* for draws with a penalty */
};
/* Decode kernels of GPUs lose a few hundredths to such pages; those of the CPU read tiles of 64. */
enum { MODEL_CACHE_PAGE = 64 };
plx_status model_cache_create(struct model *model, const struct model_cache_config *config,
                              struct model_cache **cache);
void model_cache_destroy(struct model_cache *cache);
struct model_cache_use {
    size_t bytes;        /* of the pool, and what passes read beside it */
    int64_t page, pages; /* of the pool, and ... */
    int64_t taken;       /* ... how many of them sequences hold */
};
struct model_cache_use model_cache_use(const struct model_cache *cache);
/* Tokens held now of a sequence. */
int64_t model_cache_length(const struct model_cache *cache, int64_t sequence);
/* Gives the pages of a sequence back: it is empty, and another text may take its place. */
void model_cache_end(struct model_cache *cache, int64_t sequence);
void model_cache_clear(struct model_cache *cache);
/* Appends counts[s] new tokens to each sequence s (0: none; ids holds them sequence by sequence)
 * and writes the logits that follow its last one into row s of logits, [sequences, V] in the host's
 * memory and the storage dtype; rows of sequences without new tokens stay as they are. Prefill is
 * the same call with many tokens. Equal counts are fastest. Where the pool has too few pages left,
 * nothing is done. */
plx_status model_decode(struct model *model, struct model_cache *cache, const int32_t *ids,
                        const int64_t *counts, const struct plx_tensor *logits);
/* The same, but that the logits stay where they are and what follows is drawn there (ops/draw.h):
 * no more than an id of each sequence comes to the host. */
struct model_draws {
    int64_t vocab;                      /* only ids below it are drawn */
    const struct draw_numbers *numbers; /* [sequences] */
    double penalty;                     /* of the ids that were seen; 1: none */
    const int32_t *const *seen;         /* [sequences], all of one different; with a penalty only */
    const int64_t *seen_counts;         /* [sequences], at most the cache's capacity */
    int32_t *ids; /* [sequences], written where there are new tokens; as of draw in op.h */
};
plx_status model_decode_draw(struct model *model, struct model_cache *cache, const int32_t *ids,
                             const int64_t *counts, const struct model_draws *draws);

#endif
