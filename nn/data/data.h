/* data.h: from files to batches.
 *
 *   corpus      documents as token runs, from text files, folders, JSONL or token shards
 *   loader      a corpus and a seed -> an endless, resumable stream of packed batches
 *
 * All files are treated as hostile: sizes are checked against the file before anything is
 * allocated. */
#ifndef NN_DATA_H
#define NN_DATA_H

#include "core/random.h"
#include "model.h"
#include "tokenizer/tokenizer.h"

/* ---- Corpus ---- */
struct corpus;
struct chat_template;

struct corpus_options {
    /* Files, or folders: walked in sorted order, hidden entries skipped. */
    const char *const *paths;
    int path_count;
    /* For text and JSONL; shards carry ids. */
    const struct tokenizer *tokenizer;
    /* Ids of shards must be below it. */
    int64_t vocab_size;
    /* End-of-text id: appended to every text document; where documents of .bin shards begin or end
     * (shard.c). -1: nothing is appended, each .bin is one document. */
    int32_t separator;
    /* Stop reading text and JSONL after so many, inside a document if need be; 0: all. Shards are
     * not limited. */
    int64_t max_bytes;
    /* Field of a JSONL line; NULL: "text". */
    const char *jsonl_field;
    /* How JSONL lines with chat "messages" are rendered; only what the assistant says in them is a
     * target. NULL: such lines are refused. */
    const struct chat_template *chat;
};

/* Reads everything into memory (shards are mapped). The suffixes .jsonl, .bin and .plxtok tell
 * formats; all else is text, one document a file. Files that are not UTF-8 text or known formats
 * are refused when named directly and skipped when met in a folder; *skipped counts those. Damaged
 * files of known formats are refused always. A file reached twice is read once; an empty one is no
 * document. An empty result is an error naming the paths. */
plx_status corpus_load(const struct corpus_options *options, struct corpus **corpus,
                       int64_t *skipped, struct error *err);
void corpus_destroy(struct corpus *corpus);
int64_t corpus_documents(const struct corpus *corpus);
int64_t corpus_tokens(const struct corpus *corpus);
/* Bytes of source text that the tokens stand for, for bits per byte; 0 where unknown (shards). */
int64_t corpus_bytes(const struct corpus *corpus);
/* Tokens of one document, its separator included; at least 1. */
int64_t corpus_document_tokens(const struct corpus *corpus, int64_t document);
/* Ids of one document: copies tokens first .. first + count - 1 into ids. Of a token that is no
 * target, which only chats have, ~id. */
void corpus_read(const struct corpus *corpus, int64_t document, int64_t first, int64_t count,
                 int32_t *ids);
/* Moves a fraction of the documents (chosen by seed) into a second corpus; with fewer than 20
 * documents, the tail of every document instead. Both stay valid until destroyed; they share
 * memory. */
plx_status corpus_split(struct corpus *corpus, double fraction, uint64_t seed,
                        struct corpus **held_out, struct error *err);
/* A hash of the token content, recorded in checkpoints so that a resume on other data is noticed.
 */
uint64_t corpus_fingerprint(const struct corpus *corpus);

/* ---- Token shards ---- */
/* Our own shard: magic "PLXTOK1\0", see shard_format.h. Reads also llm.c and modded-nanogpt .bin.
 * The name must end in .plxtok for corpus_load to know it. */
struct shard_writer;
plx_status shard_writer_create(const char *path, int64_t vocab_size, struct shard_writer **writer,
                               struct error *err);
/* Adds one document, its separator included. source_bytes: of the text it came from; -1 where
 * unknown. After a failure only close is left to call. */
plx_status shard_writer_add(struct shard_writer *writer, const int32_t *ids, int64_t count,
                            int64_t source_bytes, struct error *err);
/* Completes the file and moves it into place; with finish false, discards it. Frees the writer. */
plx_status shard_writer_close(struct shard_writer *writer, bool finish, struct error *err);

/* ---- Loader ---- */
struct loader;

struct loader_options {
    int64_t rows;    /* B: rows of a micro-batch */
    int64_t context; /* T: tokens a row */
    uint64_t seed;
    bool shuffle;      /* documents, anew each epoch */
    bool shuffle_rows; /* rows too: an epoch's stream is cut into rows of T tokens, which come in an
                          order drawn from the seed, so that a batch mixes rows from all over the
                          text. The last row of an epoch's stream may be shorter */
    bool mask_documents; /* attention and positions restart at document borders */
    bool loop;           /* start another epoch at the end; otherwise loader_next ends */
};

/* Where a stream is: enough to continue exactly. */
struct loader_position {
    int64_t epoch, document, token; /* document: index in this epoch's order; token: within it */
    int64_t tokens_seen;
};

/* Refuses a corpus in which nothing is to be predicted. The corpus must outlive the loader and not
 * be split meanwhile. */
plx_status loader_create(const struct corpus *corpus, const struct loader_options *options,
                         struct loader **loader, struct error *err);
void loader_destroy(struct loader *loader);
/* The next batch; arrays belong to the loader and hold until the next call. A row of T tokens takes
 * T + 1 from the stream, inputs all but the last, targets all but the first, and the next row
 * begins with that last one. *more is false, and the batch empty, when a loader that does not loop
 * has nothing left (the last batch may be shorter). Tokens of a chat that the assistant does not
 * say are -1 as targets. Targets that cross from one document into the next are -1 under
 * mask_documents, so a very small batch may have no scored token. Sequences begin at row borders,
 * and under mask_documents at documents; a separator belongs to the document it ends. */
plx_status loader_next(struct loader *loader, struct batch *batch, bool *more, struct error *err);
/* Of the next batch. A loader of the same corpus and options that seeks there gives what this one
 * would have. */
struct loader_position loader_position(const struct loader *loader);
/* Refuses a position that this corpus cannot have. */
plx_status loader_seek(struct loader *loader, struct loader_position position, struct error *err);
/* No batch has more sequences. */
int64_t loader_max_sequences(const struct loader *loader);

#endif
