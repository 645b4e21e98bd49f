/* dispatch.c: walk a table of kernels and take the first that accepts the problem.
 *
 * A forced kernel is the only candidate: where the table lacks it or it refuses, the call fails,
 * because a caller who names a kernel wants that one and no other. */
#include "core/dispatch.h"

#include <string.h>

#include "core/context.h"

static bool is_candidate(const plx_context *context, const struct kernel_row *row)
{
    return context->kernel[0] == 0 || strcmp(row->name, context->kernel) == 0;
}

const struct kernel_row *dispatch_find(const plx_context *context, struct kernel_table table,
                                       const void *problem)
{
    for (int n = 0; n < table.count; n++)
        if (is_candidate(context, table.rows[n]) && !table.rows[n]->refuse(problem, context))
            return table.rows[n];
    return NULL;
}

plx_status dispatch_choose(plx_context *context, struct kernel_table table, const void *problem,
                           const struct kernel_row **row)
{
    *row = dispatch_find(context, table, problem);
    if (*row) return PLX_OK;
    const char *forced = context->kernel[0] ? context->kernel : NULL;
    const struct kernel_row *refused = NULL;
    for (int n = 0; n < table.count; n++)
        if (is_candidate(context, table.rows[n])) refused = table.rows[n];
    const char *reason = refused ? refused->refuse(problem, context) : NULL;
    if (forced && !refused)
        return context_fail(context, PLX_UNSUPPORTED,
                            "kernel: \"%s\" is not among the %d kernels of this pass", forced,
                            table.count);
    if (forced)
        return context_fail(context, PLX_UNSUPPORTED, "kernel: \"%s\" was asked for, but %s",
                            forced, reason);
    return context_fail(
        context, PLX_UNSUPPORTED,
        "kernel: none of %d serves this call; the last, \"%s\", does not because %s", table.count,
        refused ? refused->name : "none", reason ? reason : "");
}
