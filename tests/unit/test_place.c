/* Which rank a process is under every launcher: what the launchers were seen to set (torchrun 2,
 * Open MPI 4.1, MPICH 4.0, Slurm 22.05), and what must not make a rank of a process that is alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/place.h"

enum { VARIABLES = 10 };

struct place_case {
    const char *what;
    const char *environment[VARIABLES]; /* NAME=VALUE */
    const char *launcher;               /* NULL: alone */
    int rank, size, local_rank;
    const char *address;
    int port;          /* -1: any of those that jobs have by their names */
    const char *error; /* a part of the sentence; NULL: none */
};

static const struct place_case cases[] = {
    {"nothing", {NULL}, NULL, 0, 1, 0, "", 0, NULL},
    {"by hand",
     {"RANK=1", "WORLD_SIZE=4", "LOCAL_RANK=1", "MASTER_ADDR=a", "MASTER_PORT=5"},
     "torchrun",
     1,
     4,
     1,
     "a",
     5,
     NULL},
    {"torchrun",
     {"RANK=3", "WORLD_SIZE=4", "LOCAL_RANK=1", "LOCAL_WORLD_SIZE=2", "MASTER_ADDR=a",
      "MASTER_PORT=5", "TORCHELASTIC_RUN_ID=none", "TORCHELASTIC_USE_AGENT_STORE=True"},
     "torchrun",
     3,
     4,
     1,
     "a",
     6,
     NULL},
    {"a run of its own under a launcher",
     {"RANK=0", "WORLD_SIZE=1", "LOCAL_RANK=0", "SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2",
      "SLURM_LOCALID=1"},
     "torchrun",
     0,
     1,
     0,
     "",
     0,
     NULL},
    {"mpirun of Open MPI on one host",
     {"OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_LOCAL_RANK=1",
      "OMPI_COMM_WORLD_LOCAL_SIZE=2", "PMIX_NAMESPACE=802357249"},
     "Open MPI",
     1,
     2,
     1,
     "127.0.0.1",
     -1,
     NULL},
    {"the same on two hosts",
     {"OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_LOCAL_RANK=0",
      "OMPI_COMM_WORLD_LOCAL_SIZE=1", "PMIX_NAMESPACE=802357249", "MASTER_ADDR=a"},
     "Open MPI",
     1,
     2,
     0,
     "a",
     -1,
     NULL},
    {"the same in a job of Slurm, with a port",
     {"OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_LOCAL_RANK=1",
      "OMPI_COMM_WORLD_LOCAL_SIZE=2", "PMIX_NAMESPACE=802357249", "SLURM_PROCID=0",
      "SLURM_STEP_NUM_TASKS=8", "SLURM_LOCALID=0", "MASTER_PORT=7"},
     "Open MPI",
     1,
     2,
     1,
     "127.0.0.1",
     7,
     NULL},
    {"mpirun -np 1",
     {"OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE=1", "OMPI_COMM_WORLD_LOCAL_RANK=0",
      "OMPI_COMM_WORLD_LOCAL_SIZE=1"},
     NULL,
     0,
     1,
     0,
     "",
     0,
     NULL},
    {"mpirun of MPICH",
     {"PMI_RANK=2", "PMI_SIZE=3", "MPI_LOCALRANKID=2", "MPI_LOCALNRANKS=3"},
     "MPICH",
     2,
     3,
     2,
     "127.0.0.1",
     20000,
     NULL},
    {"srun on one host",
     {"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=1", "SLURM_STEP_TASKS_PER_NODE=2",
      "SLURM_JOB_ID=4", "SLURM_STEP_ID=0"},
     "Slurm",
     1,
     2,
     1,
     "127.0.0.1",
     -1,
     NULL},
    {"srun --mpi=pmi2",
     {"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=1", "SLURM_STEP_TASKS_PER_NODE=2",
      "SLURM_JOB_ID=4", "SLURM_STEP_ID=0", "PMI_RANK=1", "PMI_SIZE=2"},
     "Slurm",
     1,
     2,
     1,
     "127.0.0.1",
     -1,
     NULL},
    {"srun on two hosts",
     {"SLURM_PROCID=3", "SLURM_STEP_NUM_TASKS=4", "SLURM_LOCALID=0",
      "SLURM_STEP_TASKS_PER_NODE=3,1", "SLURM_JOB_ID=4", "SLURM_STEP_ID=0", "MASTER_ADDR=n1",
      "MASTER_PORT=9"},
     "Slurm",
     3,
     4,
     0,
     "n1",
     9,
     NULL},
    {"srun -n 1",
     {"SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=1", "SLURM_LOCALID=0", "SLURM_STEP_TASKS_PER_NODE=1"},
     NULL,
     0,
     1,
     0,
     "",
     0,
     NULL},
    {"the script of a job of four tasks",
     {"SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_NPROCS=4", "SLURM_LOCALID=0",
      "SLURM_TASKS_PER_NODE=3,1", "SLURM_JOB_ID=5", "SLURM_NNODES=2"},
     NULL,
     0,
     1,
     0,
     "",
     0,
     NULL},
    {"the shell of salloc",
     {"SLURM_NTASKS=4", "SLURM_NPROCS=4", "SLURM_TASKS_PER_NODE=3,1", "SLURM_JOB_ID=6"},
     NULL,
     0,
     1,
     0,
     "",
     0,
     NULL},

    {"no size", {"RANK=0"}, "torchrun", 0, 1, 0, "", 0, "WORLD_SIZE: is not set"},
    {"no rank", {"WORLD_SIZE=2"}, "torchrun", 0, 1, 0, "", 0, "RANK: is not set"},
    {"size 0",
     {"RANK=0", "WORLD_SIZE=0", "LOCAL_RANK=0"},
     "torchrun",
     0,
     1,
     0,
     "",
     0,
     "WORLD_SIZE: \"0\" is not a number from 1 to 4096"},
    {"a rank too many",
     {"OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_LOCAL_RANK=1"},
     "Open MPI",
     0,
     1,
     0,
     "",
     0,
     "OMPI_COMM_WORLD_RANK: \"2\" is not a number from 0 to 1"},
    {"a size that is no number",
     {"PMI_RANK=0", "PMI_SIZE=two", "MPI_LOCALRANKID=0"},
     "MPICH",
     0,
     1,
     0,
     "",
     0,
     "PMI_SIZE: \"two\" is not"},
    {"by hand, no address",
     {"RANK=1", "WORLD_SIZE=2", "LOCAL_RANK=1", "MASTER_PORT=5"},
     "torchrun",
     0,
     1,
     0,
     "",
     0,
     "MASTER_ADDR: is not set, though WORLD_SIZE is 2"},
    {"by hand, no port",
     {"RANK=1", "WORLD_SIZE=2", "LOCAL_RANK=1", "MASTER_ADDR=a"},
     "torchrun",
     0,
     1,
     0,
     "",
     0,
     "MASTER_PORT: is not set"},
    {"two hosts, no address",
     {"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=0",
      "SLURM_STEP_TASKS_PER_NODE=1(x2)"},
     "Slurm",
     0,
     1,
     0,
     "",
     0,
     "MASTER_ADDR: is not set, though SLURM_STEP_NUM_TASKS is 2"},
    {"the last port is torchrun's",
     {"RANK=1", "WORLD_SIZE=2", "LOCAL_RANK=1", "MASTER_ADDR=a", "MASTER_PORT=65535",
      "TORCHELASTIC_USE_AGENT_STORE=True"},
     "torchrun",
     0,
     1,
     0,
     "",
     0,
     "MASTER_PORT: 65535 is torchrun's own"},
};

static plx_status read_under(const char *const *environment, struct place *place, struct error *err)
{
    clearenv();
    for (int i = 0; i < VARIABLES && environment[i] != NULL; i++) {
        char text[128];
        const char *equals = strchr(environment[i], '=');
        snprintf(text, sizeof text, "%.*s", (int)(equals - environment[i]), environment[i]);
        assert_int_equal(setenv(text, equals + 1, 1), 0);
    }
    error_clear(err);
    return place_read(place, err);
}

static void check_case(const struct place_case *expected)
{
    struct error err = {0};
    struct place place;
    plx_status status = read_under(expected->environment, &place, &err);
    if (expected->error != NULL) {
        assert_int_equal(status, PLX_INVALID_ARGUMENT);
        if (strstr(err.text, expected->error) == NULL) fail_msg("says: %s", err.text);
    } else if (status != PLX_OK) {
        fail_msg("is refused: %s", err.text);
    }
    const struct launcher *launcher = place_launcher();
    assert_string_equal(launcher != NULL ? launcher->name : "", expected->launcher ?: "");
    assert_int_equal(place.rank, expected->rank);
    assert_int_equal(place.size, expected->size);
    assert_int_equal(place.local_rank, expected->local_rank);
    assert_string_equal(place.address, expected->address);
    if (expected->port >= 0) assert_int_equal(place.port, expected->port);
    if (expected->port < 0) assert_in_range(place.port, 20000, 29999);
    assert_int_equal(place.listener, -1);
}

static void test_launchers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        print_message("%s\n", cases[i].what);
        check_case(&cases[i]);
    }
}

/* All ranks of a job have the same name and port; those of another step, of another job, and of one
 * that PARALLAX_JOB tells apart, another name. */
static void test_jobs(void **state)
{
    (void)state;
    static const char *const steps[][VARIABLES] = {
        {"SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=0",
         "SLURM_STEP_TASKS_PER_NODE=2", "SLURM_JOB_ID=4", "SLURM_STEP_ID=0"},
        {"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=1",
         "SLURM_STEP_TASKS_PER_NODE=2", "SLURM_JOB_ID=4", "SLURM_STEP_ID=0"},
        {"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=1",
         "SLURM_STEP_TASKS_PER_NODE=2", "SLURM_JOB_ID=4", "SLURM_STEP_ID=1"},
        {"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=1",
         "SLURM_STEP_TASKS_PER_NODE=2", "SLURM_JOB_ID=5", "SLURM_STEP_ID=0"},
        {"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_LOCALID=1",
         "SLURM_STEP_TASKS_PER_NODE=2", "SLURM_JOB_ID=4", "SLURM_STEP_ID=0", "PARALLAX_JOB=x"},
    };
    enum { STEPS = sizeof steps / sizeof *steps };
    struct place places[STEPS];
    struct error err = {0};
    for (int i = 0; i < STEPS; i++)
        assert_int_equal(read_under(steps[i], &places[i], &err), PLX_OK);
    assert_true(places[0].job == places[1].job && places[0].port == places[1].port);
    for (int i = 1; i < STEPS; i++)
        for (int j = i + 1; j < STEPS; j++) {
            assert_true(places[i].job != places[j].job);
            assert_int_not_equal(places[i].port, places[j].port);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launchers),
        cmocka_unit_test(test_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
