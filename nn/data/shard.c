/* shard.c: reading token shards, in place.
 *
 *     .plxtok    ours, see shard_format.h: documents by table
 *     .bin       of llm.c and modded-nanogpt: 256 int32 of header (magic, version, tokens, zeros),
 * then the tokens: magic 20240520, version 1: uint16        magic 20240801, version 7: uint32
 *
 * A .bin has no table; documents are cut at the separator. Both projects write it before every
 * document, so that is the rule: a document begins with its separator, and what precedes the first
 * one continues a document of the previous shard. A shard whose last token is the separator but
 * whose first is not was written the other way round: there, a document ends with it.
 *
 * Everything is checked before the first document is added: sizes exactly, every id, every row of
 * the table and the hash. */
#include "data/corpus_parts.h"
#include "data/shard_format.h"

#include <string.h>
#include <xxhash.h>

enum { LLMC_HEADER_BYTES = 1024, LLMC_EVAL_MAGIC = 20240522 };

/* A petabyte: more is damage, and sums over files stay far from overflow. */
static const uint64_t MAX_SOURCE_BYTES = UINT64_C(1) << 50;

static const struct llmc_kind {
    int32_t magic, version;
    uint8_t width;
} llmc_kinds[] = {{20240520, 1, 2}, {20240801, 7, 4}};

enum shard_format shard_detect(const unsigned char *data, size_t size)
{
    int32_t magic;
    if (size >= 8 && memcmp(data, SHARD_MAGIC, 8) == 0) return SHARD_PLXTOK;
    if (size < sizeof magic) return SHARD_NONE;
    memcpy(&magic, data, sizeof magic);
    if (magic == LLMC_EVAL_MAGIC) return SHARD_LLMC_EVAL;
    for (size_t i = 0; i < sizeof llmc_kinds / sizeof *llmc_kinds; i++)
        if (magic == llmc_kinds[i].magic) return SHARD_LLMC;
    return SHARD_NONE;
}

/* ---- Ids ---- */

static uint32_t token_at(const void *tokens, int width, int64_t index)
{
    return width == 2 ? ((const uint16_t *)tokens)[index] : ((const uint32_t *)tokens)[index];
}

/* The largest id decides first: that pass has no branch a token and runs at the speed of memory. */
static uint32_t largest_id(const void *tokens, int width, int64_t count)
{
    uint32_t largest = 0;
    if (width == 2) {
        uint16_t most = 0;
        for (int64_t i = 0; i < count; i++)
            most = ((const uint16_t *)tokens)[i] > most ? ((const uint16_t *)tokens)[i] : most;
        return most;
    }
    for (int64_t i = 0; i < count; i++)
        largest = ((const uint32_t *)tokens)[i] > largest ? ((const uint32_t *)tokens)[i] : largest;
    return largest;
}

static plx_status check_ids(const void *tokens, int width, int64_t count, int64_t vocab_size,
                            const char *name, struct error *err)
{
    if (count == 0 || largest_id(tokens, width, count) < vocab_size) return PLX_OK;
    int64_t index = 0;
    while (token_at(tokens, width, index) < vocab_size) index++;
    return error_set(err, PLX_BAD_DATA, "%s: token %lld has the id %u but the vocabulary has %lld",
                     name, (long long)index, token_at(tokens, width, index), (long long)vocab_size);
}

/* ---- llm.c ---- */

static const struct llmc_kind *llmc_find(int32_t magic)
{
    const struct llmc_kind *kind = llmc_kinds;
    while (kind->magic != magic) kind++;
    return kind;
}

static plx_status llmc_check(const unsigned char *data, size_t size, const char *name, int *width,
                             int64_t *count, struct error *err)
{
    int32_t header[3];
    REQUIRE(err, size >= LLMC_HEADER_BYTES, PLX_BAD_DATA,
            "%s: has %zu bytes but its header alone has %d", name, size, LLMC_HEADER_BYTES);
    memcpy(header, data, sizeof header);
    const struct llmc_kind *kind = llmc_find(header[0]);
    REQUIRE(err, header[1] == kind->version, PLX_BAD_DATA,
            "%s: version is %d but a shard of magic %d must have %d", name, header[1], kind->magic,
            kind->version);
    REQUIRE(err, header[2] >= 0, PLX_BAD_DATA, "%s: the header says %d tokens", name, header[2]);
    uint64_t expected = LLMC_HEADER_BYTES + (uint64_t)header[2] * kind->width;
    REQUIRE(err, size == expected, PLX_BAD_DATA,
            "%s: has %zu bytes but %d tokens of %d bytes and the header make %llu", name, size,
            header[2], kind->width, (unsigned long long)expected);
    *width = kind->width;
    *count = header[2];
    return PLX_OK;
}

/* Adds tokens first .. end - 1 of a .bin shard as one document. */
static plx_status llmc_add(struct corpus *corpus, const unsigned char *tokens, int width,
                           int64_t first, int64_t end, struct error *err)
{
    if (first == end) return PLX_OK;
    struct corpus_document document = {.tokens = tokens + first * width,
                                       .count = end - first,
                                       .bytes = -1,
                                       .width = (uint8_t)width};
    return corpus_add(corpus, &document, err);
}

static plx_status llmc_read(struct corpus_reader *reader, const unsigned char *data, size_t size,
                            const char *name, struct error *err)
{
    int width = 0;
    int64_t count = 0, separator = reader->options->separator, first = 0;
    TRY(llmc_check(data, size, name, &width, &count, err));
    const unsigned char *tokens = data + LLMC_HEADER_BYTES;
    TRY(check_ids(tokens, width, count, reader->options->vocab_size, name, err));
    if (count == 0) return PLX_OK;
    bool ends =
        token_at(tokens, width, count - 1) == separator && token_at(tokens, width, 0) != separator;
    for (int64_t i = 0; i < count && separator >= 0; i++) {
        if (token_at(tokens, width, i) != separator) continue;
        int64_t border = ends ? i + 1 : i;
        TRY(llmc_add(reader->corpus, tokens, width, first, border, err));
        first = border;
    }
    return llmc_add(reader->corpus, tokens, width, first, count, err);
}

/* ---- Ours ---- */

/* A shard in memory whose sizes were checked. */
struct plxtok {
    struct shard_header header;
    struct shard_trailer trailer;
    const unsigned char *tokens, *table;
};

static struct shard_row plxtok_row(const struct plxtok *shard, uint64_t index)
{
    struct shard_row row;
    memcpy(&row, shard->table + index * sizeof row, sizeof row);
    return row;
}

static plx_status plxtok_check_header(const struct shard_header *header, int64_t vocab_size,
                                      const char *name, struct error *err)
{
    REQUIRE(err, header->version == SHARD_VERSION, PLX_BAD_DATA,
            "%s: version is %u but this program reads %d", name, header->version, SHARD_VERSION);
    uint32_t width = header->vocab_size <= 65536 ? 2 : 4;
    REQUIRE(err, header->width == width, PLX_BAD_DATA,
            "%s: token width is %u but must be %u for a vocabulary of %llu tokens", name,
            header->width, width, (unsigned long long)header->vocab_size);
    REQUIRE(err, header->reserved == 0, PLX_BAD_DATA,
            "%s: the reserved field is %llu but must be 0", name,
            (unsigned long long)header->reserved);
    REQUIRE(err, header->vocab_size <= (uint64_t)vocab_size, PLX_BAD_DATA,
            "%s: made for a vocabulary of %llu tokens but the model's has %lld", name,
            (unsigned long long)header->vocab_size, (long long)vocab_size);
    return PLX_OK;
}

/* Finds the parts. The counts are bounded by the file's size before they are multiplied, so nothing
 * can wrap. */
static plx_status plxtok_open(const unsigned char *data, size_t size, int64_t vocab_size,
                              const char *name, struct plxtok *shard, struct error *err)
{
    const size_t fixed = sizeof shard->header + sizeof(struct shard_row) + sizeof shard->trailer;
    REQUIRE(err, size >= fixed, PLX_BAD_DATA,
            "%s: has %zu bytes but the smallest token shard has %zu; it is cut off or "
            "damaged",
            name, size, fixed);
    memcpy(&shard->header, data, sizeof shard->header);
    TRY(plxtok_check_header(&shard->header, vocab_size, name, err));
    memcpy(&shard->trailer, data + size - sizeof shard->trailer, sizeof shard->trailer);
    uint64_t tokens = shard->trailer.tokens, documents = shard->trailer.documents;
    bool possible = tokens <= size && documents <= size;
    uint64_t token_bytes = possible ? (tokens * shard->header.width + 7) / 8 * 8 : 0;
    uint64_t expected = possible ? fixed + token_bytes + documents * sizeof(struct shard_row) : 0;
    REQUIRE(err, possible && expected == size, PLX_BAD_DATA,
            "%s: %zu bytes do not hold the %llu tokens and %llu documents that its end states; it "
            "is cut off or damaged",
            name, size, (unsigned long long)tokens, (unsigned long long)documents);
    shard->tokens = data + sizeof shard->header;
    shard->table = shard->tokens + token_bytes;
    uint64_t hash = XXH64(data, size - sizeof hash, 0);
    REQUIRE(err, hash == shard->trailer.hash, PLX_BAD_DATA,
            "%s: damaged: its content has XXH64 %016llx but it states %016llx", name,
            (unsigned long long)hash, (unsigned long long)shard->trailer.hash);
    return PLX_OK;
}

static plx_status plxtok_check_table(const struct plxtok *shard, const char *name,
                                     struct error *err)
{
    struct shard_row row = plxtok_row(shard, 0);
    REQUIRE(err, row.token == 0 && row.byte == 0, PLX_BAD_DATA,
            "%s: document 0 begins at token %llu, byte %llu but must at 0, 0", name,
            (unsigned long long)row.token, (unsigned long long)row.byte);
    for (uint64_t d = 0; d < shard->trailer.documents; d++) {
        struct shard_row next = plxtok_row(shard, d + 1);
        REQUIRE(err, next.token > row.token && next.token <= shard->trailer.tokens, PLX_BAD_DATA,
                "%s: document %llu has the tokens %llu to %llu of %llu", name,
                (unsigned long long)d, (unsigned long long)row.token,
                (unsigned long long)next.token, (unsigned long long)shard->trailer.tokens);
        REQUIRE(err, next.byte >= row.byte && next.byte <= MAX_SOURCE_BYTES, PLX_BAD_DATA,
                "%s: document %llu has the source bytes %llu to %llu", name, (unsigned long long)d,
                (unsigned long long)row.byte, (unsigned long long)next.byte);
        row = next;
    }
    REQUIRE(err, row.token == shard->trailer.tokens && row.byte == shard->trailer.bytes,
            PLX_BAD_DATA,
            "%s: the table ends at token %llu, byte %llu but the file states %llu and %llu", name,
            (unsigned long long)row.token, (unsigned long long)row.byte,
            (unsigned long long)shard->trailer.tokens, (unsigned long long)shard->trailer.bytes);
    return PLX_OK;
}

static plx_status plxtok_read(struct corpus_reader *reader, const unsigned char *data, size_t size,
                              const char *name, struct error *err)
{
    struct plxtok shard;
    TRY(plxtok_open(data, size, reader->options->vocab_size, name, &shard, err));
    TRY(plxtok_check_table(&shard, name, err));
    int width = (int)shard.header.width;
    TRY(check_ids(shard.tokens, width, (int64_t)shard.trailer.tokens,
                  (int64_t)shard.header.vocab_size, name, err));
    struct shard_row row = plxtok_row(&shard, 0);
    for (uint64_t d = 0; d < shard.trailer.documents; d++) {
        struct shard_row next = plxtok_row(&shard, d + 1);
        uint32_t last = token_at(shard.tokens, width, (int64_t)next.token - 1);
        struct corpus_document document = {
            .tokens = shard.tokens + row.token * (uint64_t)width,
            .count = (int64_t)(next.token - row.token),
            .bytes = shard.trailer.bytes > 0 ? (int64_t)(next.byte - row.byte) : -1,
            .width = (uint8_t)width,
            .silent = last == (int64_t)reader->options->separator};
        TRY(corpus_add(reader->corpus, &document, err));
        row = next;
    }
    return PLX_OK;
}

plx_status corpus_add_shard(struct corpus_reader *reader, const unsigned char *data, size_t size,
                            const char *name, struct error *err)
{
    switch (shard_detect(data, size)) {
    case SHARD_PLXTOK:
        return plxtok_read(reader, data, size, name, err);
    case SHARD_LLMC:
        return llmc_read(reader, data, size, name, err);
    case SHARD_LLMC_EVAL:
        return error_set(err, PLX_BAD_DATA,
                         "%s: is an llm.c evaluation set (magic %d), which holds questions with "
                         "answers and no running text",
                         name, LLMC_EVAL_MAGIC);
    case SHARD_NONE:
        break;
    }
    return error_set(err, PLX_BAD_DATA,
                     "%s: is no token shard: it begins with none of the known magics (PLXTOK1, "
                     "20240520, 20240801)",
                     name);
}
