/* corpus_load.c: paths -> files -> documents; see data.h.
 *
 * A file's name tells how it is read: *.jsonl, *.bin and *.plxtok (token shards), everything else
 * text. Folders are walked depth first, entries in the order of their bytes, so the same tree gives
 * the same corpus everywhere. Every file and folder is read once, known by device and inode: that
 * ends loops of symbolic links, and a file reached by two names does not count twice.
 *
 * What is not text, and a .bin that is no shard, is refused when named and passed over in a folder,
 * where such files are common. A damaged shard or a bad JSONL line is refused in either case: it
 * was meant to be read. */
#include "data/corpus_parts.h"
#include "data/utf8.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- What was read already ---- */

struct identity {
    uint64_t device, inode;
    bool used;
};

/* An open-addressing table; capacity is a power of two and at most half full. */
struct identity_set {
    struct identity *slots;
    size_t capacity, count;
};

static struct identity *identity_find(const struct identity_set *set, uint64_t device,
                                      uint64_t inode)
{
    size_t at = (size_t)((inode ^ device << 32) * UINT64_C(0x9e3779b97f4a7c15) >> 20);
    struct identity *slot = &set->slots[at & (set->capacity - 1)];
    while (slot->used && (slot->device != device || slot->inode != inode))
        slot = &set->slots[++at & (set->capacity - 1)];
    return slot;
}

static plx_status identity_grow(struct identity_set *set, struct error *err)
{
    struct identity_set larger = {.capacity = set->capacity > 0 ? 2 * set->capacity : 256,
                                  .count = set->count};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    REQUIRE(err, larger.slots != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the list of files");
    for (size_t i = 0; i < set->capacity; i++)
        if (set->slots[i].used)
            *identity_find(&larger, set->slots[i].device, set->slots[i].inode) = set->slots[i];
    free(set->slots);
    *set = larger;
    return PLX_OK;
}

/* *fresh says whether the file was not in the set yet. */
static plx_status identity_add(struct identity_set *set, const struct stat *info, bool *fresh,
                               struct error *err)
{
    if (2 * set->count >= set->capacity) TRY(identity_grow(set, err));
    struct identity *slot = identity_find(set, info->st_dev, info->st_ino);
    *fresh = !slot->used;
    if (slot->used) return PLX_OK;
    *slot = (struct identity){info->st_dev, info->st_ino, true};
    set->count++;
    return PLX_OK;
}

/* ---- One file ---- */

struct walk {
    struct corpus_reader reader;
    struct identity_set seen;
    int64_t skipped;
    char path[4096]; /* of the entry at hand */
};

static bool has_suffix(const char *path, const char *suffix)
{
    size_t size = strlen(path), end = strlen(suffix);
    return size > end && strcmp(path + size - end, suffix) == 0;
}

static plx_status load_shard(struct walk *walk, bool named, struct error *err)
{
    struct file_map map;
    TRY(file_map(walk->path, &map, err));
    if (!named && shard_detect(map.data, map.size) == SHARD_NONE) {
        walk->skipped++;
        file_unmap(&map);
        return PLX_OK;
    }
    plx_status status = corpus_own_map(walk->reader.corpus, &map, err);
    if (status != PLX_OK) {
        file_unmap(&map);
        return status;
    }
    return corpus_add_shard(&walk->reader, map.data, map.size, walk->path, err);
}

/* Looks at no more of a file than max_bytes asks for, and at whole characters. */
static plx_status load_text_map(struct walk *walk, const struct file_map *map, bool named,
                                struct error *err)
{
    const char *text = (const char *)map->data;
    size_t size = map->size;
    if ((int64_t)size > walk->reader.bytes_left)
        size = utf8_cut(text, (size_t)walk->reader.bytes_left);
    size_t bad = utf8_first_bad(text, size);
    if (bad == size) return corpus_add_text(&walk->reader, text, map->size, err);
    REQUIRE(err, !named, PLX_BAD_DATA, "%s: is not UTF-8 text: byte 0x%02x at offset %zu is %s",
            walk->path, (unsigned)map->data[bad], bad,
            map->data[bad] == 0 ? "NUL" : "not well-formed UTF-8");
    walk->skipped++;
    return PLX_OK;
}

static plx_status load_text(struct walk *walk, bool named, struct error *err)
{
    if (walk->reader.bytes_left == 0) return PLX_OK;
    struct file_map map;
    TRY(file_map(walk->path, &map, err));
    const char *text = (const char *)map.data;
    plx_status status = has_suffix(walk->path, ".jsonl")
                            ? corpus_add_jsonl(&walk->reader, text, map.size, walk->path, err)
                            : load_text_map(walk, &map, named, err);
    file_unmap(&map);
    return status;
}

static plx_status load_file(struct walk *walk, bool named, struct error *err)
{
    if (has_suffix(walk->path, ".bin") || has_suffix(walk->path, ".plxtok"))
        return load_shard(walk, named, err);
    return load_text(walk, named, err);
}

/* ---- Folders ---- */

static plx_status load_entry(struct walk *walk, bool named, struct error *err);

static int is_shown(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int compare_names(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);
}

/* Appends a name to the path for the time of one entry. */
static plx_status load_child(struct walk *walk, const char *name, struct error *err)
{
    size_t length = strlen(walk->path), room = sizeof walk->path - length;
    const char *slash = length > 0 && walk->path[length - 1] == '/' ? "" : "/";
    int added = snprintf(walk->path + length, room, "%s%s", slash, name);
    bool fits = added > 0 && (size_t)added < room;
    plx_status status = fits ? load_entry(walk, false, err) : PLX_BAD_DATA;
    walk->path[length] = '\0';
    REQUIRE(err, fits, PLX_BAD_DATA, "%.200s...: the path is longer than %zu bytes", walk->path,
            sizeof walk->path - 1);
    return status;
}

static plx_status load_folder(struct walk *walk, struct error *err)
{
    struct dirent **entries;
    int count = scandir(walk->path, &entries, is_shown, compare_names);
    REQUIRE(err, count >= 0, PLX_IO_ERROR, "%s: cannot list the folder: %s", walk->path,
            strerror(errno));
    plx_status status = PLX_OK;
    for (int i = 0; i < count; i++) {
        if (status == PLX_OK) status = load_child(walk, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* The file or folder at walk->path. Names that lead nowhere, pipes and devices are passed over in
 * folders; file_map refuses them where they are named. */
static plx_status load_entry(struct walk *walk, bool named, struct error *err)
{
    struct stat info;
    if (stat(walk->path, &info) != 0) {
        int reason = errno;
        bool dangling = reason == ENOENT || reason == ELOOP;
        REQUIRE(err, !named && dangling, PLX_IO_ERROR, "%s: cannot read: %s", walk->path,
                strerror(reason));
        walk->skipped++;
        return PLX_OK;
    }
    bool folder = S_ISDIR(info.st_mode), fresh;
    if (!folder && !S_ISREG(info.st_mode) && !named) {
        walk->skipped++;
        return PLX_OK;
    }
    TRY(identity_add(&walk->seen, &info, &fresh, err));
    if (!fresh) return PLX_OK;
    return folder ? load_folder(walk, err) : load_file(walk, named, err);
}

/* ---- The whole ---- */

static plx_status check_options(const struct corpus_options *options, struct error *err)
{
    REQUIRE(err, options->path_count > 0, PLX_INVALID_ARGUMENT, "no data: no file or folder named");
    REQUIRE(err, options->vocab_size > 0 && options->vocab_size <= INT32_MAX, PLX_INVALID_ARGUMENT,
            "the vocabulary size is %lld but must be 1..%d", (long long)options->vocab_size,
            INT32_MAX);
    REQUIRE(err, options->separator >= -1 && options->separator < options->vocab_size,
            PLX_INVALID_ARGUMENT, "the separator is id %d but the vocabulary has %lld",
            options->separator, (long long)options->vocab_size);
    REQUIRE(err, options->max_bytes >= 0, PLX_INVALID_ARGUMENT,
            "the limit of text is %lld bytes but must not be negative",
            (long long)options->max_bytes);
    const struct tokenizer *tokenizer = options->tokenizer;
    REQUIRE(err, tokenizer == NULL || tokenizer_vocab_size(tokenizer) <= options->vocab_size,
            PLX_INVALID_ARGUMENT, "the tokenizer has %lld ids but the model's vocabulary only %lld",
            (long long)tokenizer_vocab_size(tokenizer), (long long)options->vocab_size);
    return PLX_OK;
}

static plx_status load_paths(struct walk *walk, struct error *err)
{
    const struct corpus_options *options = walk->reader.options;
    for (int i = 0; i < options->path_count; i++) {
        const char *path = options->paths[i];
        REQUIRE(err, strlen(path) > 0 && strlen(path) < sizeof walk->path, PLX_INVALID_ARGUMENT,
                "data path %d has %zu bytes but must have 1..%zu", i + 1, strlen(path),
                sizeof walk->path - 1);
        strcpy(walk->path, path);
        TRY(load_entry(walk, true, err));
    }
    return PLX_OK;
}

/* "a, b and 3 more", as far as it fits a sentence. */
static void list_paths(const struct corpus_options *options, char *list, size_t size)
{
    size_t used = 0;
    list[0] = '\0';
    for (int i = 0; i < options->path_count; i++) {
        const char *comma = i > 0 ? ", " : "";
        if (used + strlen(options->paths[i]) + 32 > size) {
            snprintf(list + used, size - used, "%s%d more", comma, options->path_count - i);
            return;
        }
        used += (size_t)snprintf(list + used, size - used, "%s%s", comma, options->paths[i]);
    }
}

static plx_status check_result(const struct walk *walk, struct error *err)
{
    if (walk->reader.corpus->tokens > 0) return PLX_OK;
    char list[512];
    list_paths(walk->reader.options, list, sizeof list);
    return error_set(err, PLX_BAD_DATA, "no text found in %s (%lld files skipped as not text)",
                     list, (long long)walk->skipped);
}

plx_status corpus_load(const struct corpus_options *options, struct corpus **corpus,
                       int64_t *skipped, struct error *err)
{
    *corpus = NULL;
    *skipped = 0;
    TRY(check_options(options, err));
    struct walk *walk = calloc(1, sizeof *walk);
    REQUIRE(err, walk != NULL, PLX_OUT_OF_MEMORY, "cannot allocate the walk over files");
    walk->reader.options = options;
    walk->reader.bytes_left = options->max_bytes > 0 ? options->max_bytes : INT64_MAX;
    plx_status status = corpus_create(&walk->reader.corpus, err);
    if (status == PLX_OK) status = load_paths(walk, err);
    if (status == PLX_OK) status = check_result(walk, err);
    if (status == PLX_OK)
        *corpus = walk->reader.corpus;
    else
        corpus_destroy(walk->reader.corpus);
    *skipped = walk->skipped;
    corpus_reader_clear(&walk->reader);
    free(walk->seen.slots);
    free(walk);
    return status;
}
