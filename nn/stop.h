/* stop.h: strings that end a text, found in bytes that arrive token by token.
 *
 * A string may lie across tokens, so bytes that could still become one are held back until it is
 * decided; what comes out never holds a part of a string that ended the text. */
#ifndef NN_STOP_H
#define NN_STOP_H

#include "core/error.h"

/* Takes a text piece by piece; false: no more is wanted. */
typedef bool (*text_sink)(void *user, const char *bytes, size_t size);

struct stop_filter {
    const char *const *strings;
    int count;
    char *held; /* bytes that may be the beginning of a string; shorter than the longest one */
    size_t held_size;
    bool found;
};

/* The strings must outlive the filter; none may be empty. */
plx_status stop_filter_open(struct stop_filter *filter, const char *const *strings, int count,
                            struct error *err);
void stop_filter_close(struct stop_filter *filter);
/* Hands on what is decided, perhaps nothing. false: the text is over, because a string was found
 * (found says so, and what stands behind it is dropped) or the sink wants no more. */
bool stop_filter_write(struct stop_filter *filter, const char *bytes, size_t size, text_sink sink,
                       void *user);
/* The text ends without a string: hands on what was held back. */
void stop_filter_end(struct stop_filter *filter, text_sink sink, void *user);

#endif
