/* decoder_cache.h: the cache that decoder_cache.c makes and decoder_decode.c fills. */
#ifndef NN_DECODER_CACHE_H
#define NN_DECODER_CACHE_H

#include "models/cache_pages.h"
#include "models/decoder.h"
#include "ops/draw.h"

/* What a pass takes: count tokens of each of some sequences. */
struct pass_shape {
    int64_t sequences, count;
    int64_t rows;  /* of logits that it computes */
    int64_t vocab; /* ids that it draws from; 0: it leaves the logits */
    double penalty;
};
bool pass_shape_equal(const struct pass_shape *a, const struct pass_shape *b);

/* What draws read and write on the device, a row for each row of logits. */
struct pass_draws {
    struct plx_tensor numbers;           /* f64 [sequences, DRAW_NUMBERS] */
    struct plx_tensor ids;               /* i32 [sequences] */
    struct plx_tensor seen, seen_counts; /* i32 [sequences, capacity], [sequences]; for penalties */
    struct draw_numbers *host_numbers;   /* the same on the host */
    int32_t *host_ids, *host_seen, *host_counts;
};

struct model_cache {
    struct model *model;
    int64_t sequences, capacity;
    struct cache_pages pages;
    int64_t *lengths;        /* [sequences]: tokens held, as are the next four */
    int64_t *left;           /* tokens of a step that are still to come */
    int64_t *next;           /* where in the step's ids they begin */
    int64_t *chosen;         /* the sequences of a pass */
    int64_t *wanted;         /* the sequences of its rows of logits */
    int64_t most_tokens;     /* of a pass */
    struct pass_shape sized; /* what a dry run last found to fit the scratch */
    struct arena arena;
    void **mixers;             /* [L] decode records: pools */
    struct plx_tensor numbers; /* i32: what a pass reads besides weights, pages and their table */
    int32_t *host_numbers;     /* the same on the host */
    struct plx_tensor table;   /* i32 [sequences, width]: rows of the sequences of a pass */
    int32_t *host_table;       /* what the device's holds */
    bool penalising;           /* seen is there */
    struct pass_draws draws;
    struct replay repeated; /* the pass of one token of every sequence */
    struct pass_shape captured;
};

/* Bytes of scratch of any pass, by dry runs; the cache's tensors need no data. */
plx_status decode_measure(struct model_cache *cache, size_t *bytes);

#endif
