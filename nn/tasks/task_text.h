/* task_text.h: the edits that evaluation harnesses make to a benchmark's texts, and a few of
 * Python's own. All return malloc'd text, or NULL when out of memory. */
#ifndef NN_TASK_TEXT_H
#define NN_TASK_TEXT_H

#include <stddef.h>

/* printf into memory of its own. */
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Bytes of white space that text begins with, and the size that is left without what it ends with.
 */
size_t text_leading_white(const char *text);
size_t text_trimmed_size(const char *text);

/* Python's capitalize: the first character upper case, all others lower. */
char *text_capitalize(const char *text);
/* The first character lower case, all others as they are. */
char *text_lower_first(const char *text);
/* HellaSwag's: titles become sentences, other bracketed notes vanish, double spaces close up. */
char *text_clean_hellaswag(const char *text);
/* WikiText's: from tokens with spaces around them back to prose. */
char *text_detokenize_wikitext(const char *text);
/* Code points, and runs of white space plus one, which is how words of WikiText are counted. */
size_t text_characters(const char *text);
size_t text_words(const char *text);

#endif
