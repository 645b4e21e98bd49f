/* place.c: see place.h. */
#include "comm/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* The first row that counts is believed. torchrun's own names come first, so that whoever sets them
 * by hand, or --gpus, is believed under any launcher; Slurm's come last, because other launchers
 * run inside its jobs. What Slurm calls SLURM_NTASKS is of no use: it is set in a job's script too,
 * where there is one process; the numbers of a step exist only for what srun started. */
static const struct launcher launchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", NULL, {"TORCHELASTIC_RUN_ID", NULL}},
    {"Open MPI",
     "OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE",
     {"PMIX_NAMESPACE", NULL}},
    {"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", {NULL, NULL}},
    {"Slurm",
     "SLURM_PROCID",
     "SLURM_STEP_NUM_TASKS",
     "SLURM_LOCALID",
     "SLURM_STEP_TASKS_PER_NODE",
     {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
};

/* Ports that a job may have by its name: below those that systems deal out by themselves. */
enum { PORT_FIRST = 20000, PORTS = 10000 };

static bool says_rank(const struct launcher *launcher)
{
    const char *size = getenv(launcher->size);
    if (launcher == &launchers[0]) return getenv(launcher->rank) != NULL || size != NULL;
    return size != NULL && strcmp(size, "1") != 0 && getenv(launcher->rank) != NULL &&
           getenv(launcher->local_rank) != NULL;
}

const struct launcher *place_launcher(void)
{
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (says_rank(&launchers[i])) return &launchers[i];
    return NULL;
}

/* A whole number of the environment. */
static plx_status read_number(const char *name, long smallest, long largest, int *value,
                              struct error *err)
{
    const char *text = getenv(name);
    char *end = NULL;
    REQUIRE(err, text != NULL, PLX_INVALID_ARGUMENT,
            "%s: is not set, though this process is one of several ranks (RANK or WORLD_SIZE is)",
            name);
    errno = 0;
    long number = strtol(text, &end, 10);
    REQUIRE(err, end != text && *end == 0 && errno == 0 && number >= smallest && number <= largest,
            PLX_INVALID_ARGUMENT, "%s: \"%.64s\" is not a number from %ld to %ld", name, text,
            smallest, largest);
    *value = (int)number;
    return PLX_OK;
}

/* What the ranks of this job share and those of another one do not; 0 where nothing is known. */
static uint64_t hash_job(const struct launcher *launcher)
{
    const char *const names[] = {"PARALLAX_JOB", launcher->job[0], launcher->job[1]};
    uint64_t job = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = names[i] != NULL ? getenv(names[i]) : NULL;
        if (text != NULL) job = XXH64(text, strlen(text), job);
    }
    return job;
}

/* Whether the launcher says that all ranks are on this host. */
static bool is_one_host(const struct launcher *launcher)
{
    const char *local_size = launcher->local_size != NULL ? getenv(launcher->local_size) : NULL;
    return local_size != NULL && strcmp(local_size, getenv(launcher->size)) == 0;
}

static plx_status read_address(const struct launcher *launcher, struct place *place,
                               struct error *err)
{
    const char *text = getenv("MASTER_ADDR");
    if (text == NULL && is_one_host(launcher)) text = "127.0.0.1";
    REQUIRE(err, text != NULL && text[0] != 0, PLX_INVALID_ARGUMENT,
            "MASTER_ADDR: is not set, though %s is %d; it names the host of rank 0", launcher->size,
            place->size);
    REQUIRE(err, strlen(text) < sizeof place->address, PLX_INVALID_ARGUMENT,
            "MASTER_ADDR: has %zu characters, more than the %zu allowed", strlen(text),
            sizeof place->address - 1);
    snprintf(place->address, sizeof place->address, "%s", text);
    return PLX_OK;
}

static plx_status read_port(const struct launcher *launcher, struct place *place, struct error *err)
{
    if (launcher != &launchers[0] && getenv("MASTER_PORT") == NULL) {
        place->port = PORT_FIRST + (int)(place->job % PORTS);
        return PLX_OK;
    }
    return read_number("MASTER_PORT", 1, 65535, &place->port, err);
}

/* Where torchrun keeps a store of its own at MASTER_PORT, the ranks meet at the next port. */
static plx_status leave_port_to_torchrun(struct place *place, struct error *err)
{
    const char *store = getenv("TORCHELASTIC_USE_AGENT_STORE");
    if (store == NULL || strcmp(store, "True") != 0) return PLX_OK;
    REQUIRE(err, place->port < 65535, PLX_INVALID_ARGUMENT,
            "MASTER_PORT: %d is torchrun's own, and there is no next one", place->port);
    place->port++;
    return PLX_OK;
}

plx_status place_launched(int *listener, int *report, struct error *err)
{
    const char *text = getenv(PLACE_LAUNCHED);
    char rest;
    *listener = *report = -1;
    if (text == NULL) return PLX_OK;
    bool good = sscanf(text, "%d,%d%c", listener, report, &rest) == 2 && *report >= 0;
    if (!good) *listener = *report = -1;
    REQUIRE(err, good, PLX_INVALID_ARGUMENT, "%s: \"%.64s\" is not what --gpus sets",
            PLACE_LAUNCHED, text);
    return PLX_OK;
}

plx_status place_read(struct place *place, struct error *err)
{
    const struct launcher *launcher = place_launcher();
    *place = (struct place){.size = 1, .listener = -1};
    if (launcher == NULL) return PLX_OK;
    struct place read = *place;
    TRY(read_number(launcher->size, 1, PLACE_SIZE_MAX, &read.size, err));
    TRY(read_number(launcher->rank, 0, read.size - 1, &read.rank, err));
    TRY(read_number(launcher->local_rank, 0, read.size - 1, &read.local_rank, err));
    if (read.size == 1) return PLX_OK;
    read.job = hash_job(launcher);
    TRY(read_address(launcher, &read, err));
    TRY(read_port(launcher, &read, err));
    TRY(leave_port_to_torchrun(&read, err));
    int report;
    TRY(place_launched(&read.listener, &report, err));
    *place = read;
    return PLX_OK;
}
