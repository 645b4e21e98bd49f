/* attention_lists.c: what lengths, offsets and page tables contain: the part of the rules of the
 * public header that needs their entries.
 *
 * On a GPU the lists lie in its memory and may be the work of launches before the call, so reading
 * them waits for the stream. They come in blocks of a fixed size, because the library allocates
 * nothing. */
#include <inttypes.h>
#include <string.h>

#include "attention/attention.h"
#include "core/tensor.h"
#include "cuda/device.h"

enum { LIST_BLOCK = 512 };

/* Entries first .. first + count - 1, counted from the start of the view, at most LIST_BLOCK. */
static plx_status lists_read(plx_context *context, const struct plx_tensor *list, int64_t first,
                             int64_t count, plx_stream stream, int32_t *block)
{
    const void *entries = tensor_at(list, first);
    size_t bytes = (size_t)count * sizeof *block;
    if (context->device == PLX_CUDA)
        return cuda_device_read(context, block, entries, bytes, stream);
    memcpy(block, entries, bytes);
    return PLX_OK;
}

static int64_t lists_block(int64_t left)
{
    return left < LIST_BLOCK ? left : LIST_BLOCK;
}

static plx_status lists_check_lengths(plx_context *context, const char *name,
                                      const struct plx_tensor *lengths, int64_t limit,
                                      plx_stream stream)
{
    int32_t block[LIST_BLOCK];
    for (int64_t first = 0; first < lengths->shape[0]; first += LIST_BLOCK) {
        const int64_t count = lists_block(lengths->shape[0] - first);
        TRY(lists_read(context, lengths, first, count, stream, block));
        for (int64_t n = 0; n < count; n++)
            CHECK(context, block[n] >= 0 && block[n] <= limit, PLX_INVALID_ARGUMENT,
                  "%s: entry %" PRId64 " is %d, not in 0..%" PRId64, name, first + n, block[n],
                  limit);
    }
    return PLX_OK;
}

static plx_status lists_check_offsets(plx_context *context, const char *name,
                                      const struct plx_tensor *offsets, int64_t limit,
                                      plx_stream stream)
{
    int32_t block[LIST_BLOCK], before = 0;
    const int64_t last = offsets->shape[0] - 1;
    for (int64_t first = 0; first <= last; first += LIST_BLOCK) {
        const int64_t count = lists_block(last + 1 - first);
        TRY(lists_read(context, offsets, first, count, stream, block));
        CHECK(context, first > 0 || block[0] == 0, PLX_INVALID_ARGUMENT,
              "%s: entry 0 is %d but must be 0", name, block[0]);
        for (int64_t n = 0; n < count; n++) {
            CHECK(context, block[n] >= before, PLX_INVALID_ARGUMENT,
                  "%s: entry %" PRId64 " is %d, less than the %d before it", name, first + n,
                  block[n], before);
            before = block[n];
        }
    }
    CHECK(context, before == limit, PLX_INVALID_ARGUMENT,
          "%s: entry %" PRId64 " is %d but must be %" PRId64, name, last, before, limit);
    return PLX_OK;
}

/* The pages that lengths reach; lengths are known to be sound. */
static plx_status lists_check_pages(plx_context *context, const struct attention_problem *p,
                                    plx_stream stream)
{
    int32_t block[LIST_BLOCK], length;
    for (int64_t b = 0; b < p->B; b++) {
        TRY(lists_read(context, &p->k_lengths, b, 1, stream, &length));
        const int64_t used = p->page > 0 ? (length + (int64_t)p->page - 1) / p->page : 0;
        for (int64_t first = 0; first < used; first += LIST_BLOCK) {
            const int64_t count = lists_block(used - first);
            TRY(lists_read(context, &p->k_pages, b * p->k_pages.stride[0] + first, count, stream,
                           block));
            for (int64_t n = 0; n < count; n++)
                CHECK(context, block[n] >= 0 && block[n] < p->pages, PLX_INVALID_ARGUMENT,
                      "k_pages: entry %" PRId64 " of sequence %" PRId64
                      " is %d, not one of the %" PRId64 " pages of k",
                      first + n, b, block[n], p->pages);
        }
    }
    return PLX_OK;
}

plx_status attention_check_lists(plx_context *context, const struct attention_problem *p,
                                 plx_stream stream)
{
    if (p->q_lengths.rank)
        TRY(lists_check_lengths(context, "q_lengths", &p->q_lengths, p->T, stream));
    if (p->k_lengths.rank)
        TRY(lists_check_lengths(context, "k_lengths", &p->k_lengths, p->S, stream));
    if (p->q_offsets.rank)
        TRY(lists_check_offsets(context, "q_offsets", &p->q_offsets, p->T, stream));
    if (p->k_offsets.rank)
        TRY(lists_check_offsets(context, "k_offsets", &p->k_offsets, p->S, stream));
    return p->k_pages.rank ? lists_check_pages(context, p, stream) : PLX_OK;
}
