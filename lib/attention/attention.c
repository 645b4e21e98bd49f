/* attention.c: from checked arguments to a running kernel, for softmax attention and Parallax
 * alike.
 *
 * attention_check (attention_check.c) has made the problem trustworthy; here a batch of any layout
 * is cut into sequences, the workspace is checked, what no sequence covers is cleared, and the
 * chosen row runs. */
#include "attention/attention.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/tensor.h"
#include "cuda/device.h"

struct attention_sequence attention_sequence(const struct attention_problem *problem, int64_t n)
{
    struct attention_sequence sequence = {n, 0, problem->T, n, 0, problem->S};
    if (problem->q_offsets.data) {
        const int32_t *q = problem->q_offsets.data;
        const int32_t *k = problem->k_offsets.data ? problem->k_offsets.data : q;
        sequence.q_batch = sequence.k_batch = 0;
        sequence.q_start = q[n];
        sequence.T = q[n + 1] - q[n];
        sequence.k_start = k[n];
        sequence.S = k[n + 1] - k[n];
    }
    if (problem->q_lengths.data) sequence.T = ((const int32_t *)problem->q_lengths.data)[n];
    if (problem->k_lengths.data) sequence.S = ((const int32_t *)problem->k_lengths.data)[n];
    return sequence;
}

/* Stores a constant in count elements; zero and -infinity are exact in every dtype of an
 * output. */
static void attention_fill(const struct plx_tensor *tensor, int64_t offset, int64_t count,
                           float value)
{
    void *data = tensor_at(tensor, offset);
    for (int64_t n = 0; n < count; n++) dtype_store(data, tensor->dtype, n, (double)value);
}

/* Rows first .. end - 1 of batch entry b of [B,T,H,D] or [B,T,H]; an absent tensor has rank 0. */
static void attention_clear(const struct plx_tensor *tensor, int64_t b, int64_t first, int64_t end,
                            float value)
{
    if (plx_tensor_count(tensor) == 0) return;
    for (int64_t t = first; t < end; t++) {
        if (tensor->rank == 3) {
            attention_fill(tensor, tensor_offset(tensor, b, t, 0), tensor->shape[2], value);
            continue;
        }
        for (int64_t h = 0; h < tensor->shape[2]; h++)
            attention_fill(tensor, tensor_offset(tensor, b, t, h), tensor->shape[3], value);
    }
}

/* Writes the outputs of queries from q_first and keys from k_first on, of batch entry b. */
static void attention_clear_entry(const struct attention_problem *p, int64_t b, int64_t q_first,
                                  int64_t k_first)
{
    if (p->pass == PLX_BACKWARD) {
        attention_clear(&p->dq, b, q_first, p->T, 0);
        attention_clear(&p->dr, b, q_first, p->T, 0);
        attention_clear(&p->dk, b, k_first, p->S, 0);
        attention_clear(&p->dv, b, k_first, p->S, 0);
        return;
    }
    attention_clear(&p->o, b, q_first, p->T, 0);
    attention_clear(&p->lse, b, q_first, p->T, -INFINITY);
    attention_clear(&p->probe_mean, b, q_first, p->T, 0);
    attention_clear(&p->value_mean, b, q_first, p->T, 0);
}

static plx_status attention_check_workspace(plx_context *context, const struct kernel_row *row,
                                            size_t needed, const void *workspace, size_t bytes)
{
    CHECK(context, bytes >= needed, PLX_WORKSPACE_TOO_SMALL,
          "workspace: %zu bytes are fewer than the %zu that kernel \"%s\" needs", bytes, needed,
          row->name);
    CHECK(context, needed == 0 || workspace, PLX_INVALID_ARGUMENT,
          "workspace: is NULL but kernel \"%s\" needs %zu bytes", row->name, needed);
    CHECK(context, needed == 0 || (uintptr_t)workspace % 64 == 0, PLX_INVALID_ARGUMENT,
          "workspace: address ends in %d but must be a multiple of 64",
          (int)((uintptr_t)workspace % 64));
    return PLX_OK;
}

/* Clears what no sequence covers and runs the rest. */
static plx_status attention_run_cpu(plx_context *context, const struct kernel_row *row,
                                    const struct attention_problem *p, void *workspace)
{
    const bool nothing = attention_is_empty(p);
    for (int64_t b = 0; b < p->B; b++) {
        struct attention_sequence sequence = {0};
        if (!nothing && p->q_offsets.data) break; /* packed: offsets cover every row */
        if (!nothing) sequence = attention_sequence(p, b);
        attention_clear_entry(p, b, sequence.T, sequence.S);
    }
    return nothing ? PLX_OK : row->run(context, p, workspace, NULL);
}

/* Host code cannot write device memory: CUDA kernels clear by themselves, and so see every call. */
static plx_status attention_run_cuda(plx_context *context, const struct kernel_row *row,
                                     const struct attention_problem *p, void *workspace,
                                     plx_stream stream)
{
    int previous;
    TRY(cuda_device_enter(context, &previous));
    plx_status status = row->run(context, p, workspace, stream);
    cuda_device_leave(previous);
    return status;
}

plx_status attention_run(plx_context *context, const struct plx_attention *attention,
                         attention_table table, struct attention_problem *problem, void *workspace,
                         size_t workspace_bytes, plx_stream stream)
{
    const struct kernel_row *row;
    TRY(attention_check(context, attention, problem, false));
    CHECK(context, stream == NULL || context->device != PLX_CPU, PLX_INVALID_ARGUMENT,
          "stream: must be NULL on the CPU");
    if (context->device == PLX_CPU || context->validate)
        TRY(attention_check_lists(context, problem, stream));
    TRY(dispatch_choose(context, table(problem->pass), problem, &row));
    const size_t needed = attention_is_empty(problem) ? 0 : row->workspace(problem);
    TRY(attention_check_workspace(context, row, needed, workspace, workspace_bytes));
    context->last_kernel = row->name;
    if (context->device == PLX_CUDA)
        return attention_run_cuda(context, row, problem, workspace, stream);
    return attention_run_cpu(context, row, problem, workspace);
}

/* Puts the tensors at an address that rows may look at, but not read from. */
static void attention_place(struct attention_problem *p, uintptr_t address)
{
    struct plx_tensor *tensors[] = {&p->q,   &p->r,          &p->k,          &p->v,   &p->o,
                                    &p->lse, &p->probe_mean, &p->value_mean, &p->d_o, &p->dq,
                                    &p->dr,  &p->dk,         &p->dv};
    for (size_t n = 0; n < sizeof tensors / sizeof *tensors; n++)
        if (tensors[n]->rank != 0) tensors[n]->data = (void *)address;
}

/* Where tensors lie may not be known yet, and some rows refuse odd addresses: what is enough for
 * the row of even ones and for that of odd ones is enough wherever they come to lie. A forced row
 * that refuses where they lie now is refused here, as the call would. */
plx_status attention_workspace(plx_context *context, const struct plx_attention *attention,
                               attention_table table, struct attention_problem *problem,
                               size_t *bytes)
{
    const struct kernel_row *row;
    TRY(attention_check(context, attention, problem, true));
    CHECK(context, bytes, PLX_INVALID_ARGUMENT, "bytes: is NULL");
    TRY(dispatch_choose(context, table(problem->pass), problem, &row));
    *bytes = 0;
    for (uintptr_t address = 0; address < 2 && !attention_is_empty(problem); address++) {
        attention_place(problem, address);
        row = dispatch_find(context, table(problem->pass), problem);
        const size_t enough = row ? row->workspace(problem) : 0;
        if (enough > *bytes) *bytes = enough;
    }
    return PLX_OK;
}

plx_status attention_kernel(plx_context *context, const struct plx_attention *attention,
                            attention_table table, struct attention_problem *problem,
                            const char **name)
{
    const struct kernel_row *row;
    TRY(attention_check(context, attention, problem, true));
    CHECK(context, name, PLX_INVALID_ARGUMENT, "name: is NULL");
    TRY(dispatch_choose(context, table(problem->pass), problem, &row));
    *name = row->name;
    return PLX_OK;
}

const char *attention_refuse_none(const void *problem, const plx_context *context)
{
    (void)problem;
    return context->device == PLX_CPU ? NULL : "it runs on the CPU";
}

const char *attention_refuse_amx(const void *problem, const plx_context *context)
{
    (void)problem;
    (void)context;
    return "AMX kernels are not part of this version";
}
