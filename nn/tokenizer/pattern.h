/* pattern.h: the regular expressions of pre-tokenisers, by PCRE2 with its just-in-time compiler.
 *
 * tokenizer.json is written for Oniguruma. What both read alike is passed on, \s is replaced by
 * Oniguruma's set (PCRE2's has U+180E too), and the rest is refused by name. The expressions of the
 * families of GPT-2, Llama-3 and Qwen are recognised, and matched by a scanner that needs no
 * expression. */
#ifndef NN_TOKENIZER_PATTERN_H
#define NN_TOKENIZER_PATTERN_H

#include "core/error.h"

/* GPT-2's, and what its successors write; the scanner knows these. */
extern const char pattern_gpt2[], pattern_llama3[], pattern_qwen[];

struct pattern;

/* where names the expression in messages. */
plx_status pattern_create(const char *expression, size_t size, const char *where,
                          struct pattern **pattern, struct error *err);
/* Matches the text itself. */
plx_status pattern_create_literal(const char *text, size_t size, struct pattern **pattern,
                                  struct error *err);
void pattern_destroy(struct pattern *pattern);

/* What one thread searches with. */
struct matcher;
plx_status matcher_create(const struct pattern *pattern, struct matcher **matcher,
                          struct error *err);
void matcher_destroy(struct matcher *matcher);
/* The first match at or behind from, as [*start, *end) of text[0, size), which is UTF-8;
 * *start is size where there is none. Empty matches are passed over. */
plx_status matcher_next(struct matcher *matcher, const char *text, size_t size, size_t from,
                        size_t *start, size_t *end, struct error *err);
/* Makes the matcher use the expression even where the scanner knows it: for tests that compare. */
void matcher_use_expression(struct matcher *matcher);

#endif
