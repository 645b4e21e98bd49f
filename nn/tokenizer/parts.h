/* parts.h: the inside of a tokenizer, shared by the files of this folder only.
 *
 *     json_read.c     tokenizer.json -> vocabulary and rules      vocab.c     tokens and merges,
 * one block json_rules.c    its rules: what happens before the merges   cache.c     that block on
 * disk json_write.c    vocabulary -> tokenizer.json                encoder.c   text -> words -> ids
 */
#ifndef NN_TOKENIZER_PARTS_H
#define NN_TOKENIZER_PARTS_H

#include <jansson.h>

#include "tokenizer/added.h"
#include "tokenizer/pattern.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

#define TOKENIZER_END_OF_TEXT "<|endoftext|>"

/* Added tokens of one first byte are tried one by one, so their number is bounded; real
 * vocabularies have up to some thousands. */
enum { TOKENIZER_MAX_ADDED = 4096, TOKENIZER_MAX_STEPS = 16, TOKENIZER_MAX_FRAME = 8 };

/* A row of "added_tokens". */
struct added_token {
    int32_t id;
    char *content; /* terminated; no NUL inside */
    size_t size;
    bool special;
    bool single_word;    /* only where no word character touches it */
    bool lstrip, rstrip; /* takes the white space on that side with it */
    bool normalized;     /* looked for in the normalised text, by its normalised content */
};

/* What becomes of the text that a pattern matches, and of the text between. */
enum split_behaviour {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
};

/* One pre-tokeniser: cuts a piece of text into smaller ones. */
struct split_step {
    struct pattern *pattern; /* NULL: no cut, the step only adds the space */
    enum split_behaviour behaviour;
    bool invert;       /* the text between the matches is what counts as matched */
    bool prefix_space; /* a piece that begins with none gets a space before */
};

enum rules_kind {
    RULES_BYTES,  /* merges of bytes: tokenizer.json */
    RULES_PIECES, /* merges of characters: SentencePiece's BPE */
    RULES_UNIGRAM /* the likeliest division into pieces: SentencePiece's unigram */
};

/* Everything but the vocabulary. */
struct rules {
    enum rules_kind kind;
    bool nfc;
    bool ignore_merges; /* a word that is a token is that token */
    struct split_step steps[TOKENIZER_MAX_STEPS];
    int step_count;
    struct added_token *added;
    int added_count;
    int32_t before[TOKENIZER_MAX_FRAME], after[TOKENIZER_MAX_FRAME];
    int before_count, after_count;

    /* SentencePiece's. */
    bool dummy_prefix;     /* a space before every text */
    bool trims_spaces;     /* runs of spaces become one, those at the ends none */
    bool byte_fallback;    /* characters that are no piece become bytes, otherwise unknown_id */
    bool splits_at_spaces; /* no piece has a space behind another character */
    int32_t unknown_id;
    float *scores; /* [pieces] */
    float unknown_score;
    int longest_piece; /* bytes */
};

/* root is tokenizer.json with or without model.vocab and model.merges. What it allocates belongs
 * to rules even where it fails. */
plx_status rules_read(const json_t *root, const char *name, struct rules *rules, struct error *err);
void rules_clear(struct rules *rules);

struct tokenizer {
    struct vocab vocab;
    struct rules rules;
    struct added_finder names, normalized_names; /* looked for before and after normalising */
    bool names_need_characters;                  /* a flag of theirs asks what stands beside them */
    int16_t *added_of;                           /* [vocab_size]: index of the added token, or -1 */
    int64_t vocab_size;
    int32_t end_of_text;
    char *source; /* the file's text */
    size_t source_size;
};

/* A vocabulary and rules from one file become a tokenizer, which owns both and a copy of source;
 * whatever fails, the caller owns nothing more. */
plx_status tokenizer_assemble(struct vocab *vocab, struct rules *rules, const char *source,
                              size_t size, const char *name, struct tokenizer **tokenizer,
                              struct error *err);

/* Refuses a tokenizer.json with added tokens that a tokenizer.model beside it lacks. */
plx_status json_check_added(const char *path, const struct tokenizer *pieces, struct error *err);

/* tokenizer.model from memory. */
plx_status tokenizer_parse_pieces(const char *bytes, size_t size, const char *name,
                                  struct tokenizer **tokenizer, struct error *err);

/* malloc'd tokenizer.json of a byte-level BPE vocabulary: tokens 0..255 are the bytes in order,
 * then one token a merge, then the special tokens by name. pattern: what GPT-4 and its successors
 * split by, or NULL for no split at all. */
struct merge_pair {
    int32_t left, right;
};
plx_status tokenizer_format(const struct merge_pair *merges, int64_t merge_count,
                            const char *const *specials, int special_count, const char *pattern,
                            char **json, size_t *size, struct error *err);

/* The compiled form of a tokenizer.json, found by the hash of the file's text. False: there is
 * none, or it is damaged or of another version. */
bool cache_find(const char *source, size_t size, struct vocab *vocab);
/* Best effort: a folder that cannot be written only costs time at the next start. */
void cache_store(const struct vocab *vocab);

#endif
