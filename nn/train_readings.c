/* train_readings.c: see train_readings.h. */
#include "train_readings.h"

#include <stdlib.h>

#include "process.h"

enum { ROW = 2, MOST_ROWS = 1024 };

int train_readings_depth(const struct device *device, int64_t log_every)
{
    if (device->kind == PLX_CPU) return 1;
    return log_every < MOST_ROWS ? (int)log_every : MOST_ROWS;
}

plx_status train_readings_create(struct train_readings *readings, struct backend *be, int depth)
{
    const int64_t shape[2] = {depth, ROW};
    const size_t rows = (size_t)depth;
    struct arena measuring = arena_measuring(be->device);
    *readings = (struct train_readings){.be = be, .depth = depth};
    arena_tensor(&measuring, PLX_F64, 2, shape);
    TRY(backend_arena(be, measuring.used, &readings->arena));
    readings->rows = arena_tensor(&readings->arena, PLX_F64, 2, shape);
    readings->steps = calloc(rows, sizeof *readings->steps);
    readings->host = calloc(rows * (ROW + 1), sizeof *readings->host);
    readings->scored = calloc(rows, sizeof *readings->scored);
    REQUIRE(be->err, readings->steps && readings->host && readings->scored, PLX_OUT_OF_MEMORY,
            "no memory for the numbers of %d steps", depth);
    readings->losses = readings->host + ROW * rows;
    return PLX_OK;
}

void train_readings_destroy(struct train_readings *readings)
{
    arena_destroy(&readings->arena);
    free(readings->steps);
    free(readings->host);
    free(readings->scored);
    *readings = (struct train_readings){0};
}

/* Loss (0) or norm (1) of a row, f64 [1]. */
static struct plx_tensor cell(const struct train_readings *readings, int row, int column)
{
    const int64_t one = 1;
    struct plx_tensor number =
        plx_tensor_dense((double *)readings->rows.data + ROW * row + column, PLX_F64, 1, &one);
    number.device = readings->rows.device;
    return number;
}

plx_status train_readings_add(struct train_readings *readings, struct model *model,
                              const struct optim *optim, const struct train_progress *step,
                              int64_t scored)
{
    const struct backend *be = readings->be;
    const int row = readings->count;
    const struct plx_tensor loss = cell(readings, row, 0), norm = cell(readings, row, 1),
                            last = optim_norm(optim);
    TRY(model_loss_take(model, &loss));
    TRY(be->device->copy(norm.data, last.data, sizeof(double), be->stream, be->err));
    readings->steps[row] = *step;
    readings->scored[row] = scored;
    readings->count++;
    return PLX_OK;
}

plx_status train_readings_read(struct train_readings *readings, struct comm *comm)
{
    const struct backend *be = readings->be;
    const int count = readings->count;
    TRY(be->device->download(readings->host, readings->rows.data,
                             (size_t)count * ROW * sizeof(double), be->stream, be->err));
    const double seconds = (process_seconds() - readings->began) / count;
    for (int i = 0; i < count; i++) readings->losses[i] = readings->host[ROW * i];
    TRY(comm_sum(comm, readings->losses, count));
    for (int i = 0; i < count; i++) {
        struct train_progress *step = &readings->steps[i];
        step->loss = readings->losses[i] / (double)readings->scored[i];
        step->grad_norm = readings->host[ROW * i + 1];
        step->seconds = seconds;
    }
    return PLX_OK;
}
