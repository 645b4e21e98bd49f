/* error.h: how code above the library reports failure: a status, and a sentence that names the
 * file, the field and both values. The caller owns the struct; nothing here is global.
 *
 *     plx_status config_load(const char *path, struct config *config, struct error *err);
 *     ...
 *     return error_set(err, PLX_BAD_DATA, "%s: hidden_size is %lld but must be positive", path,
 * value);
 */
#ifndef NN_ERROR_H
#define NN_ERROR_H

#include "core/try.h"
#include "parallax/parallax.h"

struct error {
    plx_status status;
    char text[1024];
};

/* Stores status and sentence, control bytes replaced, and returns status. The first failure wins: a
 * second call on a struct that already holds one leaves its text alone. err may be NULL. */
plx_status error_set(struct error *err, plx_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void error_clear(struct error *err);

/* Leaves the calling function with a status and a sentence unless the condition holds. */
#define REQUIRE(err, condition, status, ...)                                                       \
    do {                                                                                           \
        if (!(condition)) return error_set((err), (status), __VA_ARGS__);                          \
    } while (0)

#endif
