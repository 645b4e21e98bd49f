/* cache.c: compiled vocabularies in $XDG_CACHE_HOME/parallax (by default ~/.cache/parallax).
 *
 * A file is named by the hash of the tokenizer.json that it was made from, which its header repeats
 * together with a hash of its own content; vocab_open checks the rest. So a changed tokenizer.json
 * has no compiled form yet, a damaged form is passed over, and nothing must ever be invalidated. */
#include "tokenizer/parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/file.h"

enum { PATH_SIZE = 4096 };

/* False where the environment names no folder. */
static bool cache_folder(char *path, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (cache != NULL && cache[0] == '/')
        length = snprintf(path, size, "%s/parallax", cache);
    else if (home != NULL && home[0] == '/')
        length = snprintf(path, size, "%s/.cache/parallax", home);
    return length > 0 && (size_t)length < size;
}

static bool cache_path(uint64_t hash, char *path, size_t size)
{
    char folder[PATH_SIZE];
    if (!cache_folder(folder, sizeof folder)) return false;
    int length = snprintf(path, size, "%s/%016" PRIx64 ".vocab", folder, hash);
    return length > 0 && (size_t)length < size;
}

bool cache_find(const char *source, size_t size, struct vocab *vocab)
{
    char path[PATH_SIZE];
    struct file_map map;
    uint64_t hash = vocab_source_hash(source, size);
    if (!cache_path(hash, path, sizeof path) || !file_exists(path) ||
        file_map(path, &map, NULL) != PLX_OK)
        return false;
    bool good = vocab_open((void *)map.data, map.size, true, vocab) &&
                vocab->header->source_hash == hash && vocab->header->source_size == size;
    if (!good) file_unmap(&map);
    return good;
}

void cache_store(const struct vocab *vocab)
{
    char folder[PATH_SIZE], path[PATH_SIZE];
    if (!cache_folder(folder, sizeof folder) ||
        !cache_path(vocab->header->source_hash, path, sizeof path))
        return;
    if (file_make_folder(folder, NULL) != PLX_OK) return;
    file_replace(path, vocab->header, vocab->block_size, NULL);
}
