/* replay.c: see replay.h. */
#include "ops/replay.h"

static const void *scratch_of(const struct backend *be)
{
    return be->scratch.base + be->scratch.used;
}

bool replay_is_stale(const struct replay *replay, const struct backend *be)
{
    return replay->graph != NULL && replay->scratch != scratch_of(be);
}

void replay_forget(struct replay *replay, const struct backend *be)
{
    if (replay->graph != NULL) be->device->graph_destroy(replay->graph);
    replay->graph = NULL;
}

/* Work may leave scratch taken that its caller gives back, so where it began is noted before. */
static plx_status capture(struct replay *replay, struct backend *be, replay_work work, void *user)
{
    replay_forget(replay, be);
    replay->scratch = scratch_of(be);
    TRY(be->device->capture_begin(be->stream, be->err));
    plx_status status = work(user);
    plx_status ended =
        be->device->capture_end(be->stream, &replay->graph, status == PLX_OK ? be->err : NULL);
    if (status != PLX_OK) replay_forget(replay, be);
    return status != PLX_OK ? status : ended;
}

plx_status replay_run(struct replay *replay, struct backend *be, replay_work work, void *user)
{
    if (be->device->capture_begin == NULL || !replay->prepared) {
        replay->prepared = true;
        return work(user);
    }
    if (replay->graph == NULL || replay_is_stale(replay, be)) TRY(capture(replay, be, work, user));
    return be->device->graph_launch(replay->graph, be->stream, be->err);
}
