/* dispatch.c: walk a table of kernels and take the first that accepts the problem.
 *
 * A forced kernel is the only candidate: where the table lacks it or it refuses, the call fails,
 * because a caller who names a kernel wants that one and no other. */
#include "core/dispatch.h"

#include <string.h>

#include "core/context.h"

plx_status dispatch_choose(plx_context *context, struct kernel_table table, const void *problem,
                           const struct kernel_row **row)
{
    const char *forced = context->kernel[0] ? context->kernel : NULL;
    const struct kernel_row *refused = NULL;
    const char *reason = NULL;
    for (int n = 0; n < table.count; n++) {
        const struct kernel_row *candidate = table.rows[n];
        if (forced && strcmp(candidate->name, forced) != 0) continue;
        reason = candidate->refuse(problem, context);
        if (!reason) {
            *row = candidate;
            return PLX_OK;
        }
        refused = candidate;
    }
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
