/* checkpoint_parts.h: what the files of checkpoints share: checkpoint.c saves and loads,
 * checkpoint_state.c is state.json, checkpoint_manifest.c is manifest.json, checkpoint_list.c the
 * folders of a run. */
#ifndef NN_CHECKPOINT_PARTS_H
#define NN_CHECKPOINT_PARTS_H

#include "io/checkpoint.h"

enum { CHECKPOINT_PATH = 4096 };

/* FOLDER/NAME into path[CHECKPOINT_PATH]. */
plx_status checkpoint_join(const char *folder, const char *name, char *path, struct error *err);

/* state.json; optimizer_steps is what the optimiser's bias corrections count. Malloc'd. */
plx_status checkpoint_format_state(const struct train_state *state, int64_t optimizer_steps,
                                   char **json, struct error *err);
/* The same on the way back; optimizer_steps may be NULL. */
plx_status checkpoint_parse_steps(const char *json, size_t size, const char *name,
                                  struct train_state *state, int64_t *optimizer_steps,
                                  struct error *err);
plx_status checkpoint_load_steps(const char *folder, struct train_state *state,
                                 int64_t *optimizer_steps, struct error *err);

/* manifest.json: size and XXH64 of every file that a checkpoint may hold, in the order of
 * checkpoint_manifest.c; all zero where it is not present. */
enum { CHECKPOINT_FILES = 6 + COMPANIONS };
struct checkpoint_manifest {
    struct checkpoint_file {
        int64_t size;
        uint64_t hash;
        bool present;
    } files[CHECKPOINT_FILES];
};
/* The text is malloc'd. */
plx_status checkpoint_format_manifest(const struct checkpoint_manifest *manifest, char **json,
                                      struct error *err);
plx_status checkpoint_parse_manifest(const char *json, size_t size, const char *name,
                                     struct checkpoint_manifest *manifest, struct error *err);
/* Hashes every file that a checkpoint holds and writes manifest.json. */
plx_status checkpoint_write_manifest(const char *folder, struct error *err);

/* A folder in RUN/checkpoints, by its suffix. */
enum checkpoint_kind {
    CHECKPOINT_COMPLETE, /* step-N */
    CHECKPOINT_ASIDE,    /* step-N.old: complete, while another step-N takes its place */
    CHECKPOINT_PARTIAL,  /* step-N.partial: being written, or its writer died */
    CHECKPOINT_REMOVED,  /* step-N.removed: being removed, or its remover died */
    CHECKPOINT_KINDS
};
struct checkpoint_item {
    int64_t step;
    enum checkpoint_kind kind;
};
struct checkpoint_list {
    struct checkpoint_item *items; /* newest first, complete ones before others of the step */
    int count;
};
/* Empty where RUN/checkpoints does not exist. The caller frees items. */
plx_status checkpoint_list_read(const char *run, struct checkpoint_list *list, struct error *err);
/* RUN/checkpoints/step-NNNNNNNN with the kind's suffix into path[CHECKPOINT_PATH]. */
plx_status checkpoint_folder(const char *run, struct checkpoint_item item, char *path,
                             struct error *err);

#endif
