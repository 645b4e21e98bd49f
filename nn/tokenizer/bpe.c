/* bpe.c: see bpe.h. Short words search all neighbours for the lowest rank after every merge, which
 * is the faster way up to some dozens; long ones keep the possible merges in a heap, so that a
 * megabyte without a space takes no quadratic time. */
#include "tokenizer/bpe.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_WORD = 48 };

void bpe_scratch_clear(struct bpe_scratch *scratch)
{
    free(scratch->memory);
    *scratch = (struct bpe_scratch){0};
}

void *bpe_scratch_reserve(struct bpe_scratch *scratch, size_t bytes)
{
    if (bytes <= scratch->bytes) return scratch->memory;
    free(scratch->memory);
    scratch->memory = malloc(bytes);
    scratch->bytes = scratch->memory != NULL ? bytes : 0;
    return scratch->memory;
}

/* ---- Short words ---- */

struct candidate {
    int32_t rank, id; /* rank INT32_MAX: the two stay apart */
};

static struct candidate candidate_of(const struct vocab *vocab, int32_t left, int32_t right)
{
    const struct vocab_merge *merge = vocab_find_merge(vocab, left, right);
    return merge != NULL ? (struct candidate){merge->rank, merge->id}
                         : (struct candidate){INT32_MAX, -1};
}

static int64_t merge_short(const struct vocab *vocab, int32_t *ids, int64_t count)
{
    struct candidate pairs[SHORT_WORD];
    for (int64_t i = 0; i + 1 < count; i++) pairs[i] = candidate_of(vocab, ids[i], ids[i + 1]);
    while (count > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < count; i++)
            if (pairs[i].rank < pairs[best].rank) best = i;
        if (pairs[best].rank == INT32_MAX) break;
        ids[best] = pairs[best].id;
        count--;
        memmove(ids + best + 1, ids + best + 2, (size_t)(count - best - 1) * sizeof *ids);
        memmove(pairs + best, pairs + best + 1, (size_t)(count - best - 1) * sizeof *pairs);
        if (best > 0) pairs[best - 1] = candidate_of(vocab, ids[best - 1], ids[best]);
        if (best + 1 < count) pairs[best] = candidate_of(vocab, ids[best], ids[best + 1]);
    }
    return count;
}

/* ---- Long words ---- */

/* A merge that was possible when it was found; it still is while both tokens are there. */
struct proposal {
    int32_t rank, at, left, right, id;
};

/* The tokens as a list: previous and next are positions, -1 at the ends. An absorbed token has the
 * id -1. */
struct word {
    const struct vocab *vocab;
    int32_t *ids, *previous, *next;
    struct proposal *heap;
    int64_t heap_count;
};

static bool goes_before(const struct proposal *a, const struct proposal *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static void push(struct word *word, struct proposal proposal)
{
    int64_t at = word->heap_count++;
    while (at > 0 && goes_before(&proposal, &word->heap[(at - 1) / 2])) {
        word->heap[at] = word->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    word->heap[at] = proposal;
}

static struct proposal pop(struct word *word)
{
    struct proposal first = word->heap[0], moving = word->heap[--word->heap_count];
    int64_t at = 0, child;
    while ((child = 2 * at + 1) < word->heap_count) {
        if (child + 1 < word->heap_count && goes_before(&word->heap[child + 1], &word->heap[child]))
            child++;
        if (!goes_before(&word->heap[child], &moving)) break;
        word->heap[at] = word->heap[child];
        at = child;
    }
    word->heap[at] = moving;
    return first;
}

static void propose(struct word *word, int32_t at)
{
    int32_t right = at >= 0 ? word->next[at] : -1;
    if (right < 0) return;
    const struct vocab_merge *merge =
        vocab_find_merge(word->vocab, word->ids[at], word->ids[right]);
    if (merge != NULL)
        push(word, (struct proposal){merge->rank, at, merge->left, merge->right, merge->id});
}

static void apply(struct word *word, struct proposal proposal)
{
    int32_t at = proposal.at, right = word->next[at];
    if (word->ids[at] != proposal.left || right < 0 || word->ids[right] != proposal.right) return;
    word->ids[at] = proposal.id;
    word->ids[right] = -1;
    word->next[at] = word->next[right];
    if (word->next[right] >= 0) word->previous[word->next[right]] = at;
    propose(word, word->previous[at]);
    propose(word, at);
}

static bool reserve(struct bpe_scratch *scratch, int64_t count, struct word *word)
{
    /* Every token is proposed once at first, and every merge proposes two more. */
    size_t heap = (size_t)count * 3 * sizeof(struct proposal);
    char *memory = bpe_scratch_reserve(scratch, heap + (size_t)count * 2 * sizeof(int32_t));
    if (memory == NULL) return false;
    word->heap = (struct proposal *)(void *)memory;
    word->previous = (int32_t *)(void *)(memory + heap);
    word->next = word->previous + count;
    return true;
}

static int64_t merge_long(const struct vocab *vocab, struct bpe_scratch *scratch, int32_t *ids,
                          int64_t count)
{
    struct word word = {.vocab = vocab, .ids = ids};
    if (count > INT32_MAX || !reserve(scratch, count, &word)) return -1;
    for (int32_t i = 0; i < count; i++) {
        word.previous[i] = i - 1;
        word.next[i] = i + 1 < count ? i + 1 : -1;
    }
    for (int32_t i = 0; i < count; i++) propose(&word, i);
    while (word.heap_count > 0) apply(&word, pop(&word));
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] >= 0) ids[left++] = ids[i];
    return left;
}

int64_t bpe_merge(const struct vocab *vocab, struct bpe_scratch *scratch, int32_t *ids,
                  int64_t count)
{
    if (count < 2 || vocab->header->merge_count == 0) return count;
    return count <= SHORT_WORD ? merge_short(vocab, ids, count)
                               : merge_long(vocab, scratch, ids, count);
}
