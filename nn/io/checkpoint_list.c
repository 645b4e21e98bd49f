/* checkpoint_list.c: the folders in RUN/checkpoints, and which of them is the newest sound one.
 *
 * Nothing here writes. A half-written or damaged checkpoint is passed over with a sentence; where
 * only damaged ones are left, that is an error, so that no run starts anew over the ruins of
 * another. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint_parts.h"
#include "io/file.h"

static const char *const suffixes[CHECKPOINT_KINDS] = {[CHECKPOINT_COMPLETE] = "",
                                                       [CHECKPOINT_ASIDE] = ".old",
                                                       [CHECKPOINT_PARTIAL] = ".partial",
                                                       [CHECKPOINT_REMOVED] = ".removed"};

plx_status checkpoint_folder(const char *run, struct checkpoint_item item, char *path,
                             struct error *err)
{
    int length = snprintf(path, CHECKPOINT_PATH, "%s/checkpoints/step-%08" PRId64 "%s", run,
                          item.step, suffixes[item.kind]);
    REQUIRE(err, length >= 0 && length < CHECKPOINT_PATH, PLX_INVALID_ARGUMENT,
            "%.200s...: the path is too long", run);
    return PLX_OK;
}

/* Reads a name that checkpoint_folder can have made. */
static bool parse_name(const char *name, struct checkpoint_item *item)
{
    if (strncmp(name, "step-", 5) != 0) return false;
    size_t digits = strspn(name + 5, "0123456789");
    if (digits < 8 || digits > 18 || (digits > 8 && name[5] == '0')) return false;
    item->step = strtoll(name + 5, NULL, 10);
    for (int kind = 0; kind < CHECKPOINT_KINDS; kind++) {
        item->kind = (enum checkpoint_kind)kind;
        if (strcmp(name + 5 + digits, suffixes[kind]) == 0) return true;
    }
    return false;
}

static int compare_items(const void *left, const void *right)
{
    const struct checkpoint_item *a = left, *b = right;
    if (a->step != b->step) return a->step > b->step ? -1 : 1;
    return (int)a->kind - (int)b->kind;
}

static plx_status add_item(struct checkpoint_list *list, struct checkpoint_item item,
                           struct error *err)
{
    struct checkpoint_item *items = realloc(list->items, ((size_t)list->count + 1) * sizeof *items);
    REQUIRE(err, items != NULL, PLX_OUT_OF_MEMORY, "out of memory for a list of checkpoints");
    list->items = items;
    items[list->count++] = item;
    return PLX_OK;
}

plx_status checkpoint_list_read(const char *run, struct checkpoint_list *list, struct error *err)
{
    char path[CHECKPOINT_PATH];
    *list = (struct checkpoint_list){0};
    TRY(checkpoint_join(run, "checkpoints", path, err));
    DIR *folder = opendir(path);
    if (folder == NULL && errno == ENOENT) return PLX_OK;
    REQUIRE(err, folder != NULL, PLX_IO_ERROR, "%s: cannot list: %s", path, strerror(errno));
    plx_status status = PLX_OK;
    struct dirent *entry;
    struct checkpoint_item item;
    while (status == PLX_OK && (errno = 0, entry = readdir(folder)) != NULL)
        if (parse_name(entry->d_name, &item)) status = add_item(list, item, err);
    if (status == PLX_OK && errno != 0)
        status = error_set(err, PLX_IO_ERROR, "%s: cannot list: %s", path, strerror(errno));
    closedir(folder);
    if (status == PLX_OK && list->count > 0)
        qsort(list->items, (size_t)list->count, sizeof *list->items, compare_items);
    if (status != PLX_OK) {
        free(list->items);
        *list = (struct checkpoint_list){0};
    }
    return status;
}

/* ---- The newest sound one -------------------------------------------------------------------- */

struct search {
    checkpoint_note note;
    void *user;
    int damaged;
    struct error first; /* about the newest damaged one */
};

/* Whether the folder at path is a sound checkpoint; says why it is not. Where memory runs out, that
 * says nothing of the folder, and the search fails. */
static plx_status check_sound(struct search *search, enum checkpoint_kind kind, const char *path,
                              bool *sound, struct error *err)
{
    struct error problem = {0};
    *sound = false;
    if (kind == CHECKPOINT_REMOVED) return PLX_OK;
    if (kind == CHECKPOINT_PARTIAL)
        error_set(&problem, PLX_BAD_DATA, "%s: was never completed and is ignored", path);
    else if (checkpoint_verify(path, &problem) == PLX_OK)
        *sound = true;
    else if (problem.status != PLX_OUT_OF_MEMORY && search->damaged++ == 0)
        search->first = problem;
    REQUIRE(err, problem.status != PLX_OUT_OF_MEMORY, PLX_OUT_OF_MEMORY, "%s", problem.text);
    if (!*sound && search->note != NULL) search->note(search->user, problem.text);
    return PLX_OK;
}

static plx_status search_list(struct search *search, const char *run,
                              const struct checkpoint_list *list, char *path, size_t size,
                              bool *found, struct error *err)
{
    char folder[CHECKPOINT_PATH];
    bool sound;
    for (int i = 0; i < list->count; i++) {
        TRY(checkpoint_folder(run, list->items[i], folder, err));
        TRY(check_sound(search, list->items[i].kind, folder, &sound, err));
        if (!sound) continue;
        REQUIRE(err, strlen(folder) < size, PLX_INVALID_ARGUMENT, "%.200s...: the path is too long",
                folder);
        memcpy(path, folder, strlen(folder) + 1);
        *found = true;
        return PLX_OK;
    }
    REQUIRE(err, search->damaged == 0, PLX_BAD_DATA,
            "%s: none of its %d checkpoints is sound; of the newest: %s", run, search->damaged,
            search->first.text);
    return PLX_OK;
}

plx_status checkpoint_latest(const char *run, char *path, size_t size, bool *found,
                             checkpoint_note note, void *user, struct error *err)
{
    struct search search = {.note = note, .user = user};
    struct checkpoint_list list;
    *found = false;
    if (size > 0) path[0] = '\0';
    TRY(checkpoint_list_read(run, &list, err));
    plx_status status = search_list(&search, run, &list, path, size, found, err);
    free(list.items);
    return status;
}
