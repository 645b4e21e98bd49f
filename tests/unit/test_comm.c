/* Ranks that meet by sockets: sums are those of the definition bit for bit, owners alone have what
 * they own, and callers that are no ranks of the job change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/comm.h"

enum { RANKS = 3, COUNT = 20000 };

/* A port that nobody listens at now. */
static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    close(listener);
    return ntohs(address.sin_port);
}

static void set_place(int rank, int size, int port)
{
    char text[16];
    const struct {
        const char *name;
        int value;
    } numbers[] = {
        {"RANK", rank}, {"LOCAL_RANK", rank}, {"WORLD_SIZE", size}, {"MASTER_PORT", port}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(text, sizeof text, "%d", numbers[i].value);
        setenv(numbers[i].name, text, 1);
    }
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("PARALLAX_MEETING_SECONDS", "20", 1);
}

/* What a rank does in a process of its own; false fails the test. */
typedef bool (*rank_body)(struct comm *comm, struct error *err);

static int run_rank(rank_body body, int rank, int port)
{
    struct error err = {0};
    struct comm *comm;
    set_place(rank, RANKS, port);
    bool good = comm_open(&comm, &err) == PLX_OK && comm_attach(comm, PLX_CPU) == PLX_OK &&
                body(comm, &err);
    if (!good) fprintf(stderr, "rank %d: %s\n", rank, err.text);
    comm_close(good ? comm : NULL, true);
    return good ? 0 : 1;
}

static void run_ranks(rank_body body, int port)
{
    pid_t ranks[RANKS];
    for (int r = 0; r < RANKS; r++) {
        ranks[r] = fork();
        if (ranks[r] == 0) _exit(run_rank(body, r, port));
    }
    for (int r = 0; r < RANKS; r++) {
        int how;
        assert_int_equal(waitpid(ranks[r], &how, 0), ranks[r]);
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
}

/* Numbers of very different sizes, so that the order of a sum shows. */
static float number(int rank, int i)
{
    return ldexpf((float)sin(1.0 + i + 7919.0 * rank), (i * 7 + rank * 11) % 30 - 15);
}

static float sum_in_order(int i)
{
    float sum = number(0, i);
    for (int r = 1; r < RANKS; r++) sum += number(r, i);
    return sum;
}

static bool sums_and_owners(struct comm *comm, struct error *err)
{
    static float memory[COUNT];
    static double wide[COUNT];
    const int64_t count = COUNT;
    const struct plx_tensor y = plx_tensor_dense(memory, PLX_F32, 1, &count),
                            w = plx_tensor_dense(wide, PLX_F64, 1, &count);
    bool good = true;
    for (int i = 0; i < COUNT; i++) memory[i] = number(comm->rank, i);
    if (comm->ops->all_reduce(comm, &y, NULL) != PLX_OK) return false;
    for (int i = 0; i < COUNT; i++) good = good && memory[i] == sum_in_order(i);
    for (int owner = 0; owner < RANKS; owner++) {
        for (int i = 0; i < COUNT; i++) memory[i] = number(comm->rank, i);
        if (comm->ops->reduce(comm, &y, owner, NULL) != PLX_OK) return false;
        for (int i = 0; comm->rank == owner && i < COUNT; i++)
            good = good && memory[i] == sum_in_order(i);
        for (int i = 0; i < COUNT; i++) wide[i] = comm->rank == owner ? 3.5 * i : -1;
        if (comm->ops->broadcast(comm, &w, owner, NULL) != PLX_OK) return false;
        for (int i = 0; i < COUNT; i++) good = good && wide[i] == 3.5 * i;
    }
    if (!good) error_set(err, PLX_INTERNAL, "a sum or a broadcast is wrong");
    return good;
}

static bool numbers_of_the_host(struct comm *comm, struct error *err)
{
    double values[2] = {1e16 * (comm->rank == 0), 1.0 + comm->rank};
    char word[8] = "rank 0";
    if (comm_sum(comm, values, 2) != PLX_OK) return false;
    bool good = values[0] == 1e16 && values[1] == 6;
    word[5] = (char)('0' + comm->rank);
    if (comm_give(comm, 2, word, sizeof word) != PLX_OK) return false;
    good = good && strcmp(word, comm->rank == 1 ? "rank 1" : "rank 2") == 0;
    good = good && comm_agree(comm, "the weather", 7) == PLX_OK;
    good = good && comm_agree(comm, "the weather", (uint64_t)(comm->rank == 2)) != PLX_OK;
    good = good && strstr(err->text, "the weather: 1 of 3 ranks differ") != NULL;
    error_clear(err);
    return good;
}

static void test_sums_and_owners(void **state)
{
    (void)state;
    run_ranks(sums_and_owners, free_port());
}

static void test_numbers_of_the_host(void **state)
{
    (void)state;
    run_ranks(numbers_of_the_host, free_port());
}

/* Calls the port until somebody listens. */
static int call_port(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)port)};
    for (int tries = 0; tries < 1000; tries++) {
        int caller = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(caller, (struct sockaddr *)&address, sizeof address) == 0) return caller;
        close(caller);
        usleep(10000);
    }
    return -1;
}

/* A silent caller, one that sends noise, one that hangs up in the middle: each comes before the
 * ranks do, and each is forgotten. */
static void test_strangers(void **state)
{
    (void)state;
    int port = free_port();
    pid_t strangers = fork();
    if (strangers == 0) {
        char noise[300];
        memset(noise, 'x', sizeof noise);
        int silent = call_port(port), noisy = call_port(port), hasty = call_port(port);
        bool sent = send(noisy, noise, sizeof noise, MSG_NOSIGNAL) > 0 &&
                    send(hasty, "PLXRANK1", 8, MSG_NOSIGNAL) == 8;
        close(hasty);
        /* The noisy one is hung up on. */
        bool refused = recv(noisy, noise, sizeof noise, 0) <= 0;
        _exit(silent >= 0 && sent && refused ? 0 : 1);
    }
    pid_t first = fork();
    if (first == 0) _exit(run_rank(numbers_of_the_host, 0, port));
    int how;
    assert_int_equal(waitpid(strangers, &how, 0), strangers);
    assert_int_equal(how, 0);
    pid_t others[RANKS] = {0};
    for (int r = 1; r < RANKS; r++) {
        others[r] = fork();
        if (others[r] == 0) _exit(run_rank(numbers_of_the_host, r, port));
    }
    others[0] = first;
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(waitpid(others[r], &how, 0), others[r]);
        assert_int_equal(how, 0);
    }
}

/* A rank that ends early is a loss to the others, and said to be one. */
static bool leave_early(struct comm *comm, struct error *err)
{
    if (comm->rank == 1) _exit(0);
    bool noticed = comm_barrier(comm) != PLX_OK && comm_lost(comm);
    const char *who = comm->rank == 0 ? "rank 1 has ended" : "rank 0 has ended";
    bool named = strstr(err->text, who) != NULL;
    _exit(noticed && named ? 0 : 1);
}

static void test_lost_rank(void **state)
{
    (void)state;
    run_ranks(leave_early, free_port());
}

/* ---- Ranks that are watched ---- */

static void must_not_end(void *user, bool lost, const struct error *err)
{
    (void)user;
    fprintf(stderr, "ended without a reason (lost %d): %s\n", lost, err->text);
    _exit(1);
}

/* What is said through the hub, and its orderly end, is no loss. */
static bool talk_watched(struct comm *comm, struct error *err)
{
    if (comm_watch(comm, 0, must_not_end, NULL) != PLX_OK) return false;
    for (int i = 0; i < 20; i++)
        if (!sums_and_owners(comm, err)) return false;
    return numbers_of_the_host(comm, err);
}

/* How a watched rank must end: with a sentence that begins so, or not at all. */
struct ending {
    bool lost;
    plx_status status;
    const char *sentence;
};

static void ends_so(void *user, bool lost, const struct error *err)
{
    const struct ending *ending = user;
    bool good = lost == ending->lost && err->status == ending->status &&
                strncmp(err->text, ending->sentence, strlen(ending->sentence)) == 0;
    if (!good) fprintf(stderr, "lost %d, status %d: %s\n", lost, (int)err->status, err->text);
    _exit(good ? 0 : 1);
}

static bool watch_for(struct comm *comm, struct ending endings[RANKS])
{
    alarm(20);
    return comm_watch(comm, 0.1, ends_so, &endings[comm->rank]) == PLX_OK &&
           comm_barrier(comm) == PLX_OK;
}

/* As a rank waits on a device for what another one does not send any more. */
static _Noreturn void wait_for_ever(void)
{
    for (;;) pause();
}

/* What rank 0 does in a hold is finished, though that takes longer than its grace. */
static bool lose_while_waiting(struct comm *comm, struct error *err)
{
    static struct ending endings[RANKS] = {
        {true, PLX_IO_ERROR,
         "rank 1 has ended before rank 0 was done with it: its connection was closed; all is "
         "saved"},
        {0},
        {true, PLX_IO_ERROR,
         "rank 0 has ended before rank 2 was done with it: its connection was closed"}};
    (void)err;
    if (!watch_for(comm, endings)) return false;
    if (comm->rank == 0) comm_hold(comm);
    if (comm_barrier(comm) != PLX_OK) return false;
    if (comm->rank == 1) _exit(0);
    if (comm->rank == 0) {
        usleep(500000);
        comm_loss_ends_with(comm, "all is saved");
        comm_release(comm);
    }
    wait_for_ever();
}

static void close_for_ever(struct comm *comm, bool orderly)
{
    (void)comm, (void)orderly;
    wait_for_ever();
}

/* Rank 0 fails by itself and the others by its loss, and their exchange does not let go of any. */
static bool fail_without_end(struct comm *comm, struct error *err)
{
    static const struct comm_ops stuck = {.name = "stuck", .close = close_for_ever};
    static struct ending endings[RANKS] = {
        {false, PLX_OUT_OF_MEMORY, "the device is full"},
        {true, PLX_IO_ERROR, "rank 0 has ended before rank 1 was done with it: "},
        {true, PLX_IO_ERROR, "rank 0 has ended before rank 2 was done with it: "}};
    if (!watch_for(comm, endings)) return false;
    comm->ops = &stuck;
    if (comm->rank == 0)
        error_set(err, PLX_OUT_OF_MEMORY, "the device is full");
    else if (comm_barrier(comm) == PLX_OK)
        return false;
    comm_abandon(comm);
    return false;
}

static void test_watched(void **state)
{
    (void)state;
    run_ranks(talk_watched, free_port());
    run_ranks(lose_while_waiting, free_port());
    run_ranks(fail_without_end, free_port());
}

static void test_alone(void **state)
{
    (void)state;
    struct error err = {0};
    struct comm *comm;
    const char *const names[] = {"RANK", "WORLD_SIZE", "LOCAL_RANK"};
    for (size_t i = 0; i < 3; i++) unsetenv(names[i]);
    double value = 5;
    assert_int_equal(comm_open(&comm, &err), PLX_OK);
    assert_null(comm);
    assert_int_equal(comm_attach(comm, PLX_CPU), PLX_OK);
    assert_int_equal(comm_sum(comm, &value, 1), PLX_OK);
    assert_true(value == 5 && comm_size(comm) == 1 && comm_rank(comm) == 0 && !comm_lost(comm));
    assert_int_equal(comm_agree(comm, "anything", 1), PLX_OK);
    assert_int_equal(comm_watch(comm, 0, must_not_end, NULL), PLX_OK);
    comm_hold(comm);
    comm_loss_ends_with(comm, "nothing");
    comm_release(comm);
    comm_close(comm, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_sums_and_owners),
        cmocka_unit_test(test_numbers_of_the_host),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_lost_rank),
        cmocka_unit_test(test_watched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
