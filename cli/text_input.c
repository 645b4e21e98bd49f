/* text_input.c: see text_input.h. */
#include "text_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"

#define INPUT_LIMIT ((size_t)1 << 30)

static plx_status grow(char **text, size_t *room, struct error *err)
{
    size_t larger = *room > 0 ? 2 * *room : 65536;
    REQUIRE(err, larger <= 2 * INPUT_LIMIT, PLX_BAD_DATA,
            "standard input: has more than the %zu bytes allowed", INPUT_LIMIT);
    char *grown = realloc(*text, larger);
    REQUIRE(err, grown != NULL, PLX_OUT_OF_MEMORY, "standard input: no memory for %zu bytes",
            larger);
    *text = grown;
    *room = larger;
    return PLX_OK;
}

static plx_status read_all(char **text, size_t *size, struct error *err)
{
    size_t room = 0;
    for (;;) {
        if (*size + 1 >= room) TRY(grow(text, &room, err));
        ssize_t count = read(STDIN_FILENO, *text + *size, room - *size - 1);
        if (count < 0 && errno == EINTR) continue;
        REQUIRE(err, count >= 0, PLX_IO_ERROR, "standard input: cannot be read: %s",
                strerror(errno));
        if (count == 0) break;
        *size += (size_t)count;
    }
    (*text)[*size] = '\0';
    return PLX_OK;
}

static plx_status read_stdin(char **text, size_t *size, struct error *err)
{
    *text = NULL;
    *size = 0;
    plx_status status = read_all(text, size, err);
    if (status == PLX_OK) return PLX_OK;
    free(*text);
    *text = NULL;
    return status;
}

plx_status text_input_read(const char *word, const char *file, char **text, size_t *size,
                           struct error *err)
{
    REQUIRE(err, !(word && file[0]), PLX_INVALID_ARGUMENT,
            "--file: a text is given as an argument (\"%s\") as well", word);
    if (file[0]) return file_read_all(file, INPUT_LIMIT, text, size, err);
    bool from_stdin = word ? strcmp(word, "-") == 0 : !isatty(STDIN_FILENO);
    if (from_stdin) return read_stdin(text, size, err);
    *text = strdup(word ? word : "");
    REQUIRE(err, *text, PLX_OUT_OF_MEMORY, "no memory for a text");
    *size = strlen(*text);
    return PLX_OK;
}
