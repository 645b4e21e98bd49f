/* attend.c: attention through the public verbs of libparallax; see attend.h.
 *
 * A pass of a mechanism is two verbs: how much workspace, and run. They stand in a table by
 * mechanism and pass, so both mechanisms share the one function below. Which kernel runs is the
 * context's business. */
#include "ops/attend.h"

#include "ops/scratch.h"

/* The two mechanisms' argument structs differ; everything here is stated in Parallax's. */
static struct plx_softmax_args attend_softmax_args(const struct plx_parallax_args *args)
{
    return (struct plx_softmax_args){.q = args->q,
                                     .k = args->k,
                                     .v = args->v,
                                     .o = args->o,
                                     .lse = args->lse,
                                     .d_o = args->d_o,
                                     .dq = args->dq,
                                     .dk = args->dk,
                                     .dv = args->dv};
}

static plx_status attend_softmax_workspace(plx_context *context,
                                           const struct plx_attention *attention, plx_pass pass,
                                           const struct plx_parallax_args *args, size_t *bytes)
{
    struct plx_softmax_args softmax = attend_softmax_args(args);
    return plx_softmax_workspace(context, attention, pass, &softmax, bytes);
}

static plx_status attend_softmax_forward(plx_context *context,
                                         const struct plx_attention *attention,
                                         const struct plx_parallax_args *args, void *workspace,
                                         size_t bytes, plx_stream stream)
{
    struct plx_softmax_args softmax = attend_softmax_args(args);
    return plx_softmax_forward(context, attention, &softmax, workspace, bytes, stream);
}

static plx_status attend_softmax_backward(plx_context *context,
                                          const struct plx_attention *attention,
                                          const struct plx_parallax_args *args, void *workspace,
                                          size_t bytes, plx_stream stream)
{
    struct plx_softmax_args softmax = attend_softmax_args(args);
    return plx_softmax_backward(context, attention, &softmax, workspace, bytes, stream);
}

static plx_status attend_softmax_decode(plx_context *context, const struct plx_attention *attention,
                                        const struct plx_parallax_args *args, void *workspace,
                                        size_t bytes, plx_stream stream)
{
    struct plx_softmax_args softmax = attend_softmax_args(args);
    return plx_softmax_decode(context, attention, &softmax, workspace, bytes, stream);
}

typedef plx_status (*attend_workspace)(plx_context *context, const struct plx_attention *attention,
                                       plx_pass pass, const struct plx_parallax_args *args,
                                       size_t *bytes);
typedef plx_status (*attend_verb)(plx_context *context, const struct plx_attention *attention,
                                  const struct plx_parallax_args *args, void *workspace,
                                  size_t bytes, plx_stream stream);

static const struct attend_mechanism {
    const char *name;
    attend_workspace workspace;
    attend_verb run[PLX_DECODE + 1];
} attend_mechanisms[] = {
    [PLX_SOFTMAX] = {.name = "softmax",
                     .workspace = attend_softmax_workspace,
                     .run = {attend_softmax_forward, attend_softmax_backward,
                             attend_softmax_decode}},
    [PLX_PARALLAX] = {.name = "parallax",
                      .workspace = plx_parallax_workspace,
                      .run = {plx_parallax_forward, plx_parallax_backward, plx_parallax_decode}},
};

static plx_status attend_run(struct backend *be, const struct attend *attend, plx_pass pass)
{
    static const char *const pass_names[] = {"forward", "backward", "decode"};
    const struct attend_mechanism *mechanism = &attend_mechanisms[attend->mechanism];
    size_t bytes = 0;
    plx_status status =
        mechanism->workspace(be->context, attend->attention, pass, attend->args, &bytes);
    REQUIRE(be->err, status == PLX_OK, status, "%s attention, %s workspace: %s", mechanism->name,
            pass_names[pass], plx_error(be->context));

    size_t mark = arena_mark(&be->scratch);
    void *workspace;
    status = scratch_push(be, mechanism->name, bytes, &workspace);
    if (status == PLX_OK && !arena_is_measuring(&be->scratch)) {
        status = mechanism->run[pass](be->context, attend->attention, attend->args, workspace,
                                      bytes, be->stream);
        if (status != PLX_OK)
            error_set(be->err, status, "%s attention, %s: %s", mechanism->name, pass_names[pass],
                      plx_error(be->context));
    }
    arena_release(&be->scratch, mark);
    return status;
}

plx_status attend_forward(struct backend *be, const struct attend *attend)
{
    return attend_run(be, attend, PLX_FORWARD);
}

plx_status attend_backward(struct backend *be, const struct attend *attend)
{
    return attend_run(be, attend, PLX_BACKWARD);
}

plx_status attend_append(struct backend *be, const struct append *append)
{
    if (arena_is_measuring(&be->scratch)) return PLX_OK;
    plx_status status = plx_cache_append(be->context, append->attention, append->args, be->stream);
    REQUIRE(be->err, status == PLX_OK, status, "append: %s", plx_error(be->context));
    return PLX_OK;
}

plx_status attend_decode(struct backend *be, const struct attend *attend)
{
    return attend_run(be, attend, PLX_DECODE);
}
