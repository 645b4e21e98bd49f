/* train.c: see train.h.
 *
 * Different words are kept once, with their number. Every pair of neighbours knows how often it
 * occurs and in which words it ever did; merging one visits only those words. A heap offers the
 * pairs by a number that was right once and may have become too high, which is seen, and corrected,
 * when the pair comes up. */
#include "tokenizer/train.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/parts.h"
#include "tokenizer/vocab_block.h"

enum { LONGEST_WORD = 256 };

struct word {
    int64_t count;
    uint32_t start;       /* its text, then its ids, in the trainer's arrays */
    uint16_t bytes, size; /* of its text, of its ids */
};

struct pair {
    int32_t left, right; /* left -1: an empty slot */
    int64_t count;
    int64_t offered; /* the highest number that the heap has for it; 0: it is not there */
    uint32_t *words;
    uint32_t word_count, word_capacity;
};

struct offer {
    int64_t count;
    int32_t left, right;
};

struct bpe_trainer {
    char *expression; /* as given, NULL: none */
    struct pattern *pattern;
    struct matcher *matcher;
    struct word *words;
    uint32_t word_count, word_capacity;
    uint32_t *slots; /* word + 1, 0: empty */
    uint32_t slot_count;
    char *text;
    uint32_t text_bytes, text_capacity;
    int32_t *ids; /* [text_bytes] */
    struct pair *pairs;
    uint32_t pair_slots, pair_count;
    struct offer *heap;
    int64_t heap_count, heap_capacity;
    int32_t *visited; /* [word_count]: the merge that a word was last looked at for */
    struct merge_pair *merges;
    int64_t merge_count;
};

static plx_status out_of_memory(struct error *err)
{
    return error_set(err, PLX_OUT_OF_MEMORY, "no memory to train a tokenizer");
}

/* ---- Making and freeing ---- */

plx_status bpe_trainer_create(const char *expression, struct bpe_trainer **trainer,
                              struct error *err)
{
    struct bpe_trainer *made = calloc(1, sizeof *made);
    *trainer = NULL;
    if (made == NULL) return out_of_memory(err);
    const char *used = expression != NULL ? expression : "\\s*\\S+";
    plx_status status = pattern_create(used, strlen(used), "the training", &made->pattern, err);
    if (status == PLX_OK) status = matcher_create(made->pattern, &made->matcher, err);
    if (status == PLX_OK && expression != NULL && (made->expression = strdup(expression)) == NULL)
        status = out_of_memory(err);
    if (status != PLX_OK) {
        bpe_trainer_destroy(made);
        return status;
    }
    *trainer = made;
    return PLX_OK;
}

void bpe_trainer_destroy(struct bpe_trainer *trainer)
{
    if (trainer == NULL) return;
    for (uint32_t i = 0; i < trainer->pair_slots; i++) free(trainer->pairs[i].words);
    matcher_destroy(trainer->matcher);
    pattern_destroy(trainer->pattern);
    free(trainer->expression);
    free(trainer->words);
    free(trainer->slots);
    free(trainer->text);
    free(trainer->ids);
    free(trainer->pairs);
    free(trainer->heap);
    free(trainer->visited);
    free(trainer->merges);
    free(trainer);
}

int64_t bpe_trainer_words(const struct bpe_trainer *trainer)
{
    return trainer->word_count;
}

/* ---- Counting words ---- */

static uint32_t *find_word(const struct bpe_trainer *trainer, const char *text, size_t size)
{
    uint32_t slot = vocab_text_slot(text, size, trainer->slot_count);
    for (; trainer->slots[slot] > 0; slot = (slot + 1) & (trainer->slot_count - 1)) {
        const struct word *word = &trainer->words[trainer->slots[slot] - 1];
        if (word->bytes == size && memcmp(trainer->text + word->start, text, size) == 0) break;
    }
    return &trainer->slots[slot];
}

static plx_status grow_slots(struct bpe_trainer *trainer, struct error *err)
{
    free(trainer->slots);
    trainer->slot_count = trainer->slot_count > 0 ? 2 * trainer->slot_count : 1 << 16;
    trainer->slots = calloc(trainer->slot_count, sizeof *trainer->slots);
    if (trainer->slots == NULL) return out_of_memory(err);
    for (uint32_t i = 0; i < trainer->word_count; i++) {
        const struct word *word = &trainer->words[i];
        *find_word(trainer, trainer->text + word->start, word->bytes) = i + 1;
    }
    return PLX_OK;
}

static plx_status grow_words(struct bpe_trainer *trainer, size_t size, struct error *err)
{
    if (trainer->word_count == trainer->word_capacity) {
        uint32_t capacity = 2 * trainer->word_capacity + 1024;
        struct word *words = realloc(trainer->words, capacity * sizeof *words);
        if (words == NULL) return out_of_memory(err);
        trainer->words = words;
        trainer->word_capacity = capacity;
    }
    if (size > trainer->text_capacity - trainer->text_bytes) {
        REQUIRE(err, trainer->text_capacity < UINT32_MAX / 4, PLX_BAD_DATA,
                "the text has too many different words: more than %u bytes of them",
                trainer->text_bytes);
        uint32_t capacity = 2 * trainer->text_capacity + (1 << 20);
        char *text = realloc(trainer->text, capacity);
        if (text == NULL) return out_of_memory(err);
        trainer->text = text;
        trainer->text_capacity = capacity;
    }
    return PLX_OK;
}

static plx_status count_word(struct bpe_trainer *trainer, const char *text, size_t size,
                             struct error *err)
{
    if (size > LONGEST_WORD) return PLX_OK;
    if (2 * trainer->word_count >= trainer->slot_count) TRY(grow_slots(trainer, err));
    uint32_t *slot = find_word(trainer, text, size);
    if (*slot > 0) {
        trainer->words[*slot - 1].count++;
        return PLX_OK;
    }
    TRY(grow_words(trainer, size, err));
    memcpy(trainer->text + trainer->text_bytes, text, size);
    trainer->words[trainer->word_count++] =
        (struct word){1, trainer->text_bytes, (uint16_t)size, (uint16_t)size};
    trainer->text_bytes += (uint32_t)size;
    *slot = trainer->word_count;
    return PLX_OK;
}

plx_status bpe_trainer_add(struct bpe_trainer *trainer, const char *text, size_t size,
                           struct error *err)
{
    size_t start, end;
    for (size_t at = 0; at < size; at = end) {
        TRY(matcher_next(trainer->matcher, text, size, at, &start, &end, err));
        if (end > start) TRY(count_word(trainer, text + start, end - start, err));
    }
    return PLX_OK;
}

/* ---- Counting pairs ---- */

static struct pair *find_pair(const struct bpe_trainer *trainer, int32_t left, int32_t right)
{
    uint32_t slot = vocab_merge_slot(left, right, trainer->pair_slots);
    while (trainer->pairs[slot].left >= 0 &&
           (trainer->pairs[slot].left != left || trainer->pairs[slot].right != right))
        slot = (slot + 1) & (trainer->pair_slots - 1);
    return &trainer->pairs[slot];
}

static plx_status grow_pairs(struct bpe_trainer *trainer, struct error *err)
{
    struct pair *old = trainer->pairs;
    uint32_t old_slots = trainer->pair_slots;
    uint32_t slots = old_slots > 0 ? 2 * old_slots : 1 << 14;
    struct pair *pairs = calloc(slots, sizeof *pairs);
    if (pairs == NULL) return out_of_memory(err);
    for (uint32_t i = 0; i < slots; i++) pairs[i].left = -1;
    trainer->pairs = pairs;
    trainer->pair_slots = slots;
    for (uint32_t i = 0; i < old_slots; i++)
        if (old[i].left >= 0) *find_pair(trainer, old[i].left, old[i].right) = old[i];
    free(old);
    return PLX_OK;
}

/* Adds count occurrences, which may be negative, in a word. */
static plx_status count_pair(struct bpe_trainer *trainer, int32_t left, int32_t right,
                             int64_t count, uint32_t word, struct error *err)
{
    if (2 * trainer->pair_count >= trainer->pair_slots) TRY(grow_pairs(trainer, err));
    struct pair *pair = find_pair(trainer, left, right);
    if (pair->left < 0) {
        *pair = (struct pair){.left = left, .right = right};
        trainer->pair_count++;
    }
    pair->count += count;
    bool listed = pair->word_count > 0 && pair->words[pair->word_count - 1] == word;
    if (count < 0 || listed) return PLX_OK;
    if (pair->word_count == pair->word_capacity) {
        uint32_t capacity = 2 * pair->word_capacity + 4;
        uint32_t *words = realloc(pair->words, capacity * sizeof *words);
        if (words == NULL) return out_of_memory(err);
        pair->words = words;
        pair->word_capacity = capacity;
    }
    pair->words[pair->word_count++] = word;
    return PLX_OK;
}

/* All pairs of a word, sign times its number. */
static plx_status count_pairs(struct bpe_trainer *trainer, uint32_t index, int sign,
                              struct error *err)
{
    const struct word *word = &trainer->words[index];
    const int32_t *ids = trainer->ids + word->start;
    for (int i = 0; i + 1 < word->size; i++)
        TRY(count_pair(trainer, ids[i], ids[i + 1], sign * word->count, index, err));
    return PLX_OK;
}

/* ---- The most frequent pair ---- */

static bool goes_before(const struct offer *a, const struct offer *b)
{
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static plx_status push_offer(struct bpe_trainer *trainer, struct offer offer, struct error *err)
{
    if (trainer->heap_count == trainer->heap_capacity) {
        int64_t capacity = 2 * trainer->heap_capacity + 4096;
        struct offer *heap = realloc(trainer->heap, (size_t)capacity * sizeof *heap);
        if (heap == NULL) return out_of_memory(err);
        trainer->heap = heap;
        trainer->heap_capacity = capacity;
    }
    int64_t at = trainer->heap_count++;
    for (; at > 0 && goes_before(&offer, &trainer->heap[(at - 1) / 2]); at = (at - 1) / 2)
        trainer->heap[at] = trainer->heap[(at - 1) / 2];
    trainer->heap[at] = offer;
    return PLX_OK;
}

static struct offer pop_offer(struct bpe_trainer *trainer)
{
    struct offer *heap = trainer->heap, first = heap[0], moving = heap[--trainer->heap_count];
    int64_t at = 0, child;
    while ((child = 2 * at + 1) < trainer->heap_count) {
        if (child + 1 < trainer->heap_count && goes_before(&heap[child + 1], &heap[child])) child++;
        if (!goes_before(&heap[child], &moving)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
    return first;
}

/* Offers a pair unless the heap has it with at least this number. */
static plx_status offer_pair(struct bpe_trainer *trainer, struct pair *pair, struct error *err)
{
    if (pair->count <= pair->offered) return PLX_OK;
    pair->offered = pair->count;
    return push_offer(trainer, (struct offer){pair->count, pair->left, pair->right}, err);
}

/* *best is NULL where no pair is left. */
static plx_status take_best(struct bpe_trainer *trainer, struct pair **best, struct error *err)
{
    *best = NULL;
    while (trainer->heap_count > 0) {
        struct offer offer = pop_offer(trainer);
        struct pair *pair = find_pair(trainer, offer.left, offer.right);
        if (offer.count != pair->offered) continue; /* a higher one was taken already */
        pair->offered = 0;
        if (pair->count == offer.count) {
            *best = pair;
            return PLX_OK;
        }
        TRY(offer_pair(trainer, pair, err));
    }
    return PLX_OK;
}

/* ---- Merging ---- */

static void merge_in_word(struct bpe_trainer *trainer, struct word *word, struct merge_pair pair,
                          int32_t id)
{
    int32_t *ids = trainer->ids + word->start;
    int used = 0;
    for (int i = 0; i < word->size; i++) {
        bool both = i + 1 < word->size && ids[i] == pair.left && ids[i + 1] == pair.right;
        ids[used++] = both ? id : ids[i];
        i += both;
    }
    word->size = (uint16_t)used;
}

static plx_status offer_word(struct bpe_trainer *trainer, const struct word *word, int32_t id,
                             struct error *err)
{
    const int32_t *ids = trainer->ids + word->start;
    for (int i = 0; i + 1 < word->size; i++)
        if (ids[i] == id || ids[i + 1] == id)
            TRY(offer_pair(trainer, find_pair(trainer, ids[i], ids[i + 1]), err));
    return PLX_OK;
}

static plx_status merge_pair(struct bpe_trainer *trainer, struct pair *best, struct error *err)
{
    int32_t id = (int32_t)(256 + trainer->merge_count);
    struct merge_pair merge = {best->left, best->right};
    trainer->merges[trainer->merge_count++] = merge;
    /* The table may move while its pairs are counted, so the list is taken out of it. */
    uint32_t *words = best->words, count = best->word_count;
    best->words = NULL;
    best->word_count = best->word_capacity = 0;
    plx_status status = PLX_OK;
    for (uint32_t i = 0; i < count && status == PLX_OK; i++) {
        if (trainer->visited[words[i]] == id) continue;
        trainer->visited[words[i]] = id;
        status = count_pairs(trainer, words[i], -1, err);
        merge_in_word(trainer, &trainer->words[words[i]], merge, id);
        if (status == PLX_OK) status = count_pairs(trainer, words[i], 1, err);
    }
    /* Only pairs with the new token can have become more frequent. */
    for (uint32_t i = 0; i < count && status == PLX_OK; i++)
        status = offer_word(trainer, &trainer->words[words[i]], id, err);
    free(words);
    return status;
}

static plx_status prepare(struct bpe_trainer *trainer, int64_t merges, struct error *err)
{
    trainer->ids = malloc(((size_t)trainer->text_bytes + 1) * sizeof *trainer->ids);
    trainer->visited = calloc((size_t)trainer->word_count + 1, sizeof *trainer->visited);
    trainer->merges = malloc(((size_t)merges + 1) * sizeof *trainer->merges);
    if (trainer->ids == NULL || trainer->visited == NULL || trainer->merges == NULL)
        return out_of_memory(err);
    for (uint32_t i = 0; i < trainer->text_bytes; i++)
        trainer->ids[i] = (unsigned char)trainer->text[i];
    for (uint32_t i = 0; i < trainer->word_count; i++) TRY(count_pairs(trainer, i, 1, err));
    for (uint32_t i = 0; i < trainer->pair_slots; i++)
        if (trainer->pairs[i].left >= 0) TRY(offer_pair(trainer, &trainer->pairs[i], err));
    return PLX_OK;
}

plx_status bpe_trainer_run(struct bpe_trainer *trainer, const struct bpe_training *training,
                           int64_t *made, struct error *err)
{
    *made = 0;
    TRY(prepare(trainer, training->merges, err));
    while (trainer->merge_count < training->merges) {
        struct pair *best;
        TRY(take_best(trainer, &best, err));
        if (best == NULL || best->count < training->min_count) break;
        TRY(merge_pair(trainer, best, err));
        *made = trainer->merge_count;
        if (training->progress != NULL) training->progress(training->user, *made, training->merges);
    }
    return PLX_OK;
}

plx_status bpe_trainer_format(const struct bpe_trainer *trainer, const char *const *specials,
                              int special_count, char **json, size_t *size, struct error *err)
{
    return tokenizer_format(trainer->merges, trainer->merge_count, specials, special_count,
                            trainer->expression, json, size, err);
}
