/* sample.h: from logits to text. */
#ifndef NN_SAMPLE_H
#define NN_SAMPLE_H

#include "data/data.h"
#include "model.h"
#include "stop.h"

/* Applied in this order: repetition penalty, temperature, top-k, top-p, min-p, draw. */
struct sample_options {
    double temperature;        /* 0: greedy */
    int64_t top_k;             /* 0: off */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off: keep tokens of at least min_p times the likeliest */
    double repetition_penalty; /* 1: off; over all tokens so far */
    uint64_t seed;
    int64_t max_tokens;   /* new ones */
    int64_t side;         /* most texts side by side; 0: all */
    int64_t cache_tokens; /* most tokens that they hold together; 0: all that they may become */
    bool ignore_end;      /* go on after end of text */
    bool framed;          /* the prompt has the tokens around it already, as a chat's text does */
    int32_t stop_id;      /* ends a text too, where it is above 0 */
    /* Strings that end the text before them; they are not part of it. */
    const char *const *stops;
    int stop_count;
};
struct sample_options sample_options_default(void);
plx_status sample_options_check(const struct sample_options *options, struct error *err);

/* What the draw of a token is told (ops/draw.h). One uniform number a draw, none where greedy: a
 * text is repeated by its seed alone. */
struct draw_numbers sample_numbers(const struct sample_options *options, struct rng *rng);

/* How a prompt becomes ids: names of special tokens in it are meant. */
enum { SAMPLE_ENCODING = TOKENIZER_ADDED | TOKENIZER_FRAME, SAMPLE_FRAMED = TOKENIZER_ADDED };

/* The key-value cache of a run. */
struct sample_cache {
    size_t bytes;
    int64_t page, pages; /* tokens of a page, and pages of the pool */
    int64_t taken;       /* pages that texts held at most at once */
    int64_t apart;       /* pages if each text side by side had room for the longest */
};

struct sample_report {
    int64_t prompt_tokens, new_tokens;
    double prefill_seconds, decode_seconds; /* up to its first new token, and from there on, with
                                               what others took meanwhile */
    bool ended;                             /* by end of text */
    bool stopped;                           /* by a string of stops */
    struct sample_cache cache;
};

/* A text to continue. The sink is called with the bytes of new tokens as they come; what may become
 * a stop string waits. */
struct sample_request {
    const char *prompt;
    size_t size;
    text_sink sink;
    void *user;
    /* NULL, or called when the text is over and those of all requests before it are. */
    plx_status (*done)(struct sample_request *request, struct error *err);
    struct sample_report report; /* written */
};
/* Continues texts side by side with a KV cache; where one ends, the next begins as soon as the
 * cache has pages for all that it may become. A prompt longer than the model's context, a prompt
 * with max_tokens more, or one that needs more than the whole cache is refused with both numbers,
 * before any text begins. An empty prompt starts from end of text. Text number i draws by seed + i,
 * whatever its company: alone with that seed it would go on the same way, but for rounding in
 * products of several rows at once. */
plx_status sample_requests(struct model *model, const struct tokenizer *tokenizer,
                           struct sample_request *requests, int64_t count,
                           const struct sample_options *options, struct error *err);
/* One text. */
plx_status sample_run(struct model *model, const struct tokenizer *tokenizer, const char *prompt,
                      size_t prompt_size, const struct sample_options *options, text_sink sink,
                      void *user, struct sample_report *report, struct error *err);

#endif
