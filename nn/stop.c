/* stop.c: see stop.h. The first string to be complete ends the text, and of those complete at the
 * same byte the longest. Strings are few and short: every byte is compared with all of them. */
#include "stop.h"

#include <stdlib.h>
#include <string.h>

plx_status stop_filter_open(struct stop_filter *filter, const char *const *strings, int count,
                            struct error *err)
{
    size_t longest = 0;
    *filter = (struct stop_filter){.strings = strings, .count = count};
    for (int i = 0; i < count; i++) {
        const size_t length = strlen(strings[i]);
        REQUIRE(err, length > 0, PLX_INVALID_ARGUMENT,
                "a stop string is empty, which would end every text before it begins");
        if (length > longest) longest = length;
    }
    filter->held = malloc(longest + 1);
    REQUIRE(err, filter->held != NULL, PLX_OUT_OF_MEMORY, "no memory for stop strings");
    return PLX_OK;
}

void stop_filter_close(struct stop_filter *filter)
{
    free(filter->held);
    *filter = (struct stop_filter){0};
}

/* The longest beginning of a string that what is held ends with: all of a string where it is
 * complete, and then *complete is set. */
static size_t longest_match(const struct stop_filter *filter, bool *complete)
{
    size_t longest = 0, whole = 0;
    for (int i = 0; i < filter->count; i++) {
        const size_t length = strlen(filter->strings[i]);
        size_t part = length < filter->held_size ? length : filter->held_size;
        const char *end = filter->held + filter->held_size;
        while (part > 0 && memcmp(end - part, filter->strings[i], part) != 0) part--;
        if (part == length && part > whole) whole = part;
        if (part > longest) longest = part;
    }
    *complete = whole > 0;
    return whole > 0 ? whole : longest;
}

/* Hands on all but the last keep bytes that are held. */
static bool release(struct stop_filter *filter, size_t keep, text_sink sink, void *user)
{
    const size_t size = filter->held_size - keep;
    bool more = size == 0 || sink(user, filter->held, size);
    memmove(filter->held, filter->held + size, keep);
    filter->held_size = keep;
    return more;
}

bool stop_filter_write(struct stop_filter *filter, const char *bytes, size_t size, text_sink sink,
                       void *user)
{
    if (filter->count == 0) return sink(user, bytes, size);
    for (size_t i = 0; i < size; i++) {
        filter->held[filter->held_size++] = bytes[i];
        const size_t match = longest_match(filter, &filter->found);
        if (!release(filter, match, sink, user)) return false;
        if (!filter->found) continue;
        filter->held_size = 0;
        return false;
    }
    return true;
}

void stop_filter_end(struct stop_filter *filter, text_sink sink, void *user)
{
    if (filter->held_size > 0) release(filter, 0, sink, user);
}
