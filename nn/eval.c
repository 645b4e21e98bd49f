/* eval.c: the loss of a model on held-out text: one pass over a corpus in order, every token scored
 * once.
 *
 * Bits per byte are the nats of all scored tokens over the bytes of text those tokens stand for, by
 * the corpus's ratio of bytes to tokens (so end-of-text tokens cost, and stand for nothing). Called
 * by `parallax eval` and, during training, by train.c. */
#include "train.h"

#include <math.h>

#include "process.h"

static struct loader_options eval_loader_options(const struct eval_options *options)
{
    return (struct loader_options){.rows = options->rows,
                                   .context = options->context,
                                   .mask_documents = options->mask_documents};
}

plx_status eval_max_sequences(const struct corpus *corpus, const struct eval_options *options,
                              int64_t *sequences, struct error *err)
{
    struct loader_options loader_options = eval_loader_options(options);
    struct loader *loader;
    TRY(loader_create(corpus, &loader_options, &loader, err));
    *sequences = loader_max_sequences(loader);
    loader_destroy(loader);
    return PLX_OK;
}

static int64_t eval_total(const struct corpus *corpus, const struct eval_options *options)
{
    int64_t total = corpus_tokens(corpus);
    return options->max_tokens > 0 && options->max_tokens < total ? options->max_tokens : total;
}

static int64_t scored_tokens(const struct batch *batch)
{
    int64_t count = 0;
    for (int64_t n = 0; n < batch->tokens; n++) count += batch->targets[n] >= 0;
    return count;
}

/* Adds up batches until the corpus or the limit ends. Ranks take turns, and each counts them all.
 */
static plx_status eval_sum(struct model *model, const struct corpus *corpus, struct loader *loader,
                           const struct eval_options *options, eval_progress progress, void *user,
                           struct model_loss *sum, struct error *err)
{
    int64_t total = eval_total(corpus, options);
    for (int64_t turn = 0;; turn++) {
        struct batch batch;
        bool more;
        TRY(loader_next(loader, &batch, &more, err));
        if (!more) break;
        struct model_loss loss = {0};
        if (turn % comm_size(options->comm) == comm_rank(options->comm))
            TRY(model_loss(model, &batch, &loss));
        sum->sum += loss.sum;
        sum->count += scored_tokens(&batch);
        if (progress) progress(user, sum->count, total);
        if (options->max_tokens > 0 && sum->count >= options->max_tokens) break;
    }
    return comm_sum(options->comm, &sum->sum, 1);
}

plx_status eval_run(struct model *model, const struct corpus *corpus,
                    const struct eval_options *options, eval_progress progress, void *user,
                    struct eval_result *result, struct error *err)
{
    double start = process_seconds();
    struct loader_options loader_options = eval_loader_options(options);
    struct loader *loader;
    TRY(loader_create(corpus, &loader_options, &loader, err));
    struct model_loss sum = {0};
    plx_status status = eval_sum(model, corpus, loader, options, progress, user, &sum, err);
    loader_destroy(loader);
    TRY(status);
    REQUIRE(err, sum.count > 0, PLX_BAD_DATA,
            "the held-out text has %lld tokens, none of which follows another in its document",
            (long long)corpus_tokens(corpus));
    double bytes = (double)corpus_bytes(corpus) * (double)sum.count / (double)corpus_tokens(corpus);
    *result = (struct eval_result){.loss = sum.sum / (double)sum.count,
                                   .perplexity = exp(sum.sum / (double)sum.count),
                                   .bits_per_byte = bytes > 0 ? sum.sum / M_LN2 / bytes : NAN,
                                   .tokens = sum.count,
                                   .bytes = (int64_t)llround(bytes),
                                   .seconds = process_seconds() - start};
    return PLX_OK;
}
