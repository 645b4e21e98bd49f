/* checkpoint.c: saving and loading checkpoints; see checkpoint.h for their shape.
 *
 * At every moment of a save the run's newest checkpoint can be loaded. The steps, and what a crash
 * after each leaves:
 *
 *     1  leftovers of writers that died are cleared       nothing new
 *     2  step-N.partial is written and flushed            a leftover
 *     3  a step-N that exists already becomes step-N.old  step-N.old, which counts as complete
 *     4  step-N.partial becomes step-N                    the new checkpoint
 *     5  step-N.old, then checkpoints beyond keep, go     the new checkpoint
 *
 * What goes is first renamed to step-K.removed, so that a half-removed folder is never taken for a
 * checkpoint. */
#include "io/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint_parts.h"
#include "io/file.h"
#include "io/weights.h"

/* ---- Optimiser state as a file --------------------------------------------------------------- */

static int count_states(struct optim *optim)
{
    struct optim_tensor state;
    int count = 0;
    while (optim_state(optim, count, &state)) count++;
    return count;
}

static plx_status save_optimizer(const char *folder, const struct backend *be, struct optim *optim,
                                 struct error *err)
{
    char path[CHECKPOINT_PATH];
    TRY(checkpoint_join(folder, "optimizer.safetensors", path, err));
    int count = count_states(optim);
    struct optim_tensor *states = calloc((size_t)count + 1, sizeof *states);
    struct safetensors_write *entries = calloc((size_t)count + 1, sizeof *entries);
    plx_status status = PLX_OK;
    if (states == NULL || entries == NULL)
        status = error_set(err, PLX_OUT_OF_MEMORY, "%s: out of memory", path);
    for (int i = 0; status == PLX_OK && i < count; i++) {
        optim_state(optim, i, &states[i]);
        entries[i] = (struct safetensors_write){states[i].name, states[i].tensor};
    }
    if (status == PLX_OK)
        status =
            safetensors_save_from(path, entries, count, NULL, be->device, be->stream, NULL, 0, err);
    free(states);
    free(entries);
    return status;
}

/* A resumed run continues bit for bit only from values of its own type. */
static plx_status check_dtype(const struct safetensors_entry *entry, const char *path,
                              const struct plx_tensor *tensor, const char *why, struct error *err)
{
    REQUIRE(err, strcmp(entry->dtype, safetensors_dtype(tensor->dtype)) == 0, PLX_BAD_DATA,
            "%s: tensor %.200s is of dtype %s, but %s is expected%s", path, entry->name,
            entry->dtype, safetensors_dtype(tensor->dtype), why);
    return PLX_OK;
}

static plx_status check_optimizer(const struct safetensors *file, const char *path,
                                  struct optim *optim, struct error *err)
{
    struct optim_tensor state;
    int count = 0;
    for (; optim_state(optim, count, &state); count++) {
        const struct safetensors_entry *entry = safetensors_find(file, state.name);
        REQUIRE(err, entry != NULL, PLX_BAD_DATA,
                "%s: tensor %s, which the optimiser needs, is missing", path, state.name);
        TRY(safetensors_check(entry, path, &state.tensor, err));
        TRY(check_dtype(entry, path, &state.tensor, " (--moments)", err));
    }
    REQUIRE(err, count == safetensors_count(file), PLX_BAD_DATA,
            "%s: holds %d tensors, but the optimiser has %d", path, safetensors_count(file), count);
    return PLX_OK;
}

/* ---- Saving ---------------------------------------------------------------------------------- */

static plx_status save_state(const char *folder, const struct train_state *state,
                             int64_t optimizer_steps, struct error *err)
{
    char path[CHECKPOINT_PATH], *json;
    TRY(checkpoint_join(folder, "state.json", path, err));
    TRY(checkpoint_format_state(state, optimizer_steps, &json, err));
    plx_status status = file_replace(path, json, strlen(json), err);
    free(json);
    return status;
}

/* What one save is about. */
struct save {
    const char *run;
    struct model *model;
    struct optim *optim;
    const struct tokenizer *tokenizer;
    const struct companions *companions;
    const struct train_state *state;
    struct error *err;
};

/* Step 2: everything into the folder, manifest last, all of it flushed. */
static plx_status write_content(const struct save *save, const char *folder)
{
    const struct param_list *params = model_params(save->model);
    plx_dtype dtype = params->count > 0 ? params->items[0].value.dtype : PLX_F32;
    TRY(file_make_folder(folder, save->err));
    TRY(model_save(save->model, save->tokenizer, folder, dtype, save->err));
    if (save->companions != NULL) TRY(companions_write(save->companions, folder, save->err));
    TRY(save_optimizer(folder, model_backend(save->model), save->optim, save->err));
    TRY(save_state(folder, save->state, optim_steps(save->optim), save->err));
    TRY(checkpoint_write_manifest(folder, save->err));
    return file_sync_folder(folder, save->err);
}

/* Step 1. A step-N.old without its step-N is the checkpoint itself, caught between steps 3 and 4.
 */
static plx_status clear_leftovers(const char *run, struct error *err)
{
    struct checkpoint_list list;
    TRY(checkpoint_list_read(run, &list, err));
    plx_status status = PLX_OK;
    for (int i = 0; status == PLX_OK && i < list.count; i++) {
        char path[CHECKPOINT_PATH], complete[CHECKPOINT_PATH];
        struct checkpoint_item item = list.items[i];
        if (item.kind == CHECKPOINT_COMPLETE) continue;
        status = checkpoint_folder(run, item, path, err);
        item.kind = CHECKPOINT_COMPLETE;
        if (status == PLX_OK) status = checkpoint_folder(run, item, complete, err);
        if (status != PLX_OK) break;
        if (list.items[i].kind == CHECKPOINT_ASIDE && !file_exists(complete))
            status = file_rename(path, complete, err);
        else
            status = file_remove_tree(path, err);
    }
    free(list.items);
    return status;
}

/* Takes a complete checkpoint away without ever leaving half of it under its name. */
static plx_status remove_checkpoint(const char *run, struct checkpoint_item item, struct error *err)
{
    char path[CHECKPOINT_PATH], removed[CHECKPOINT_PATH];
    TRY(checkpoint_folder(run, item, path, err));
    item.kind = CHECKPOINT_REMOVED;
    TRY(checkpoint_folder(run, item, removed, err));
    TRY(file_rename(path, removed, err));
    return file_remove_tree(removed, err);
}

/* Steps 3 to 5 for one step: partial takes the place of what may be there. */
static plx_status put_in_place(const struct save *save, const char *partial)
{
    char final[CHECKPOINT_PATH], aside[CHECKPOINT_PATH];
    struct checkpoint_item item = {save->state->step, CHECKPOINT_COMPLETE};
    TRY(checkpoint_folder(save->run, item, final, save->err));
    if (!file_exists(final)) return file_rename(partial, final, save->err);
    item.kind = CHECKPOINT_ASIDE;
    TRY(checkpoint_folder(save->run, item, aside, save->err));
    TRY(file_rename(final, aside, save->err));
    TRY(file_rename(partial, final, save->err));
    return remove_checkpoint(save->run, item, save->err);
}

/* Step 5: of the checkpoints up to this step, the newest keep stay. Later ones belong to a line of
 * the run that was left when it resumed from before them; they are replaced as training reaches
 * them again. */
static plx_status prune(const struct save *save, int keep)
{
    if (keep <= 0) return PLX_OK;
    struct checkpoint_list list;
    TRY(checkpoint_list_read(save->run, &list, save->err));
    plx_status status = PLX_OK;
    int seen = 0;
    for (int i = 0; status == PLX_OK && i < list.count; i++) {
        struct checkpoint_item item = list.items[i];
        if (item.kind != CHECKPOINT_COMPLETE || item.step > save->state->step) continue;
        if (++seen > keep) status = remove_checkpoint(save->run, item, save->err);
    }
    free(list.items);
    return status;
}

plx_status checkpoint_save(const char *run, struct model *model, struct optim *optim,
                           const struct tokenizer *tokenizer, const struct companions *companions,
                           const struct train_state *state, int keep, struct error *err)
{
    struct save save = {run, model, optim, tokenizer, companions, state, err};
    char folder[CHECKPOINT_PATH], partial[CHECKPOINT_PATH];
    REQUIRE(err, state->step >= 0, PLX_INVALID_ARGUMENT, "%s: step %" PRId64 " is negative", run,
            state->step);
    TRY(checkpoint_join(run, "checkpoints", folder, err));
    TRY(checkpoint_folder(run, (struct checkpoint_item){state->step, CHECKPOINT_PARTIAL}, partial,
                          err));
    TRY(file_make_folder(folder, err));
    TRY(clear_leftovers(run, err));
    plx_status status = write_content(&save, partial);
    if (status == PLX_OK) status = put_in_place(&save, partial);
    if (status != PLX_OK) {
        /* On a full disk the space is needed; what cannot be removed now is cleared by the next
         * save. */
        file_remove_tree(partial, NULL);
        return status;
    }
    return prune(&save, keep);
}

/* ---- Loading --------------------------------------------------------------------------------- */

static plx_status check_model_dtypes(const char *folder, struct param_list *params,
                                     struct error *err)
{
    struct weights *weights;
    TRY(weights_open(folder, &weights, err));
    plx_status status = PLX_OK;
    for (int i = 0; status == PLX_OK && i < params->count; i++) {
        const struct weights_row *row = weights_find(weights, params->items[i].name);
        if (row != NULL)
            status = check_dtype(row->entry, row->path, &params->items[i].value, "", err);
    }
    weights_close(weights);
    return status;
}

/* Everything is looked at before anything is changed. */
static plx_status load_tensors(const char *folder, const char *path, struct safetensors *file,
                               struct model *model, struct optim *optim, struct error *err)
{
    TRY(check_model_dtypes(folder, model_params(model), err));
    TRY(check_optimizer(file, path, optim, err));
    TRY(model_load_values(model, folder, err));
    const struct backend *be = model_backend(model);
    struct optim_tensor state;
    for (int i = 0; optim_state(optim, i, &state); i++)
        if (state.tensor.data != NULL) /* otherwise another rank reads it */
            TRY(safetensors_load(safetensors_find(file, state.name), path, &state.tensor,
                                 be->device, be->stream, err));
    return PLX_OK;
}

plx_status checkpoint_load(const char *folder, struct model *model, struct optim *optim,
                           struct error *err)
{
    char path[CHECKPOINT_PATH];
    struct train_state state;
    struct safetensors *file;
    int64_t steps;
    TRY(checkpoint_load_steps(folder, &state, &steps, err));
    train_state_clear(&state);
    TRY(checkpoint_join(folder, "optimizer.safetensors", path, err));
    TRY(safetensors_open(path, &file, err));
    struct error problem = {0};
    plx_status status = load_tensors(folder, path, file, model, optim, &problem);
    safetensors_close(file);
    if (status == PLX_BAD_DATA)
        return error_set(err, status, "%s: is a checkpoint of another model: %s", folder,
                         problem.text);
    if (status != PLX_OK) return error_set(err, status, "%s", problem.text);
    optim_set_steps(optim, steps);
    return PLX_OK;
}
