/* place.h: which rank of a run this process is, as its environment says.
 *
 * A run on several devices is several processes of this program, one a device. Whoever starts them
 * tells each one its place by variables, which every launcher names differently: a rank, how many
 * there are, and which of those on its machine it is: the GPU it takes. MASTER_ADDR and MASTER_PORT
 * say where rank 0 awaits the others; a launcher that says that all are on one machine needs
 * neither. PARALLAX_JOB, which may be absent, is any text that all ranks of a job share and no
 * other process knows. */
#ifndef NN_PLACE_H
#define NN_PLACE_H

#include <stdint.h>

#include "core/error.h"

enum { PLACE_SIZE_MAX = 4096 };

/* A program that starts ranks, and the names of its variables. */
struct launcher {
    const char *name;
    const char *rank, *size, *local_rank;
    const char *local_size; /* reads as size does where all ranks are on one machine; or NULL */
    const char *job[2];     /* what tells its jobs apart; NULL: nothing */
};

/* Who made this process a rank; NULL: nobody. RANK or WORLD_SIZE is always believed; the variables
 * of other launchers count where there is more than one rank, so that what a launcher started once
 * may start ranks of its own. */
const struct launcher *place_launcher(void);

struct place {
    int rank, size; /* size 1: alone; nothing else is set then */
    int local_rank;
    char address[256];
    int port;
    uint64_t job; /* a hash of PARALLAX_JOB and of the launcher's name for it; 0: none */
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
