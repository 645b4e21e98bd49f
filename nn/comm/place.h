/* place.h: which rank of a run this process is, as its environment says.
 *
 * A run on several devices is several processes of this program, one a device. Whoever starts them
 * (`parallax train --gpus N`, torchrun, srun, mpirun) tells each one by the variables that torchrun
 * made common: RANK and WORLD_SIZE, LOCAL_RANK (among the ranks of its machine: the GPU it takes),
 * and MASTER_ADDR and MASTER_PORT, where rank 0 awaits the others. PARALLAX_JOB, which may be
 * absent, is any text that all ranks of a job share and no other process knows. */
#ifndef NN_PLACE_H
#define NN_PLACE_H

#include <stdint.h>

#include "core/error.h"

enum { PLACE_SIZE_MAX = 4096 };

struct place {
    int rank, size; /* size 1: alone; nothing else is set then */
    int local_rank;
    char address[256];
    int port;
    uint64_t job; /* a hash of PARALLAX_JOB; 0: none */
    int listener; /* a socket that listens at the port already (rank 0, inherited); -1: none */
};

/* Variables that are missing or cannot be true are PLX_INVALID_ARGUMENT. */
plx_status place_read(struct place *place, struct error *err);

/* What `parallax train --gpus N` tells its ranks: PARALLAX_LAUNCHED holds two file descriptors,
 * LISTENER,REPORT: the listening socket (rank 0 alone has it) and the pipe on which a rank tells
 * why it ends. *report is -1 where another program started this one. */
#define PLACE_LAUNCHED "PARALLAX_LAUNCHED"
plx_status place_launched(int *listener, int *report, struct error *err);

#endif
