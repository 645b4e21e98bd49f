/* hub_meet.c: how the ranks of a job find each other; see hub.h.
 *
 * Rank 0 polls its listening socket and the callers that have not finished their greeting; nobody
 * who calls and says nothing can hold up the others. The other ranks call again and again, because
 * rank 0 may not listen yet. When all have greeted, rank 0 answers each with the greeting it knows
 * them by, and only then a rank takes itself to be connected. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/hub.h"
#include "process.h"

#define GREETING_MAGIC   UINT64_C(0x314b4e4152584c50) /* "PLXRANK1" */
#define GREETING_SECONDS 5                            /* for a greeting, once connected */
#define CALL_PAUSE_MS    50

struct greeting {
    uint64_t magic, job;
    uint32_t rank, size;
};

/* A caller whose greeting is not complete. */
struct caller {
    int socket;
    double since;
    size_t got;
    struct greeting greeting;
};

enum { CALLERS = 64 };

/* The meeting as rank 0 holds it. */
struct meeting {
    struct hub *hub;
    const struct place *place;
    int listener;
    int present, refused;
    struct caller callers[CALLERS];
    int count;
};

/* ---- Sockets ---- */

/* Small frames must leave at once, and a machine that loses its power must be noticed. */
static void set_options(int socket)
{
    const int on = 1, probes = 3, interval = 10, idle = HUB_SILENCE_SECONDS - probes * interval;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

/* Addresses to call, or, with AI_PASSIVE, to listen at. */
static plx_status resolve(const struct place *place, const char *address, int flags, int family,
                          struct addrinfo **list, struct error *err)
{
    char port[16];
    snprintf(port, sizeof port, "%d", place->port);
    const struct addrinfo hints = {
        .ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    int failure = getaddrinfo(address, port, &hints, list);
    REQUIRE(err, failure == 0, PLX_INVALID_ARGUMENT, "MASTER_ADDR: \"%s\" is not known: %s",
            place->address, gai_strerror(failure));
    return PLX_OK;
}

/* ---- Rank 0 ---- */

/* A name of this machine alone keeps others out; otherwise ranks may come by any interface. */
static bool is_local(const char *address)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "::1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(address, names[i]) == 0) return true;
    return false;
}

static plx_status listen_at(const struct place *place, int *listener, struct error *err)
{
    struct addrinfo *named, *list;
    TRY(resolve(place, place->address, 0, AF_UNSPEC, &named, err));
    int family = named->ai_family;
    freeaddrinfo(named);
    TRY(resolve(place, is_local(place->address) ? place->address : NULL, AI_PASSIVE, family, &list,
                err));
    const int on = 1;
    *listener = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good =
        *listener >= 0 && setsockopt(*listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(*listener, list->ai_addr, list->ai_addrlen) == 0 && listen(*listener, SOMAXCONN) == 0;
    int problem = errno;
    freeaddrinfo(list);
    if (good) return PLX_OK;
    if (*listener >= 0) close(*listener);
    return error_set(err, PLX_IO_ERROR, "MASTER_PORT: rank 0 cannot listen at %s port %d: %s",
                     place->address, place->port, strerror(problem));
}

/* The descriptor must be what --gpus says it is. */
static plx_status take_listener(const struct place *place, int *listener, struct error *err)
{
    int listening = 0;
    socklen_t size = sizeof listening;
    bool good =
        getsockopt(place->listener, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
    REQUIRE(err, good, PLX_INVALID_ARGUMENT, "%s: descriptor %d is not a listening socket",
            PLACE_LAUNCHED, place->listener);
    *listener = place->listener;
    return PLX_OK;
}

static void forget(struct meeting *meeting, int index, bool refused)
{
    if (refused) {
        close(meeting->callers[index].socket);
        meeting->refused++;
    }
    meeting->callers[index] = meeting->callers[--meeting->count];
}

/* A complete greeting: a rank of this job takes its seat. */
static plx_status admit(struct meeting *meeting, int index)
{
    struct hub *hub = meeting->hub;
    const struct caller *caller = &meeting->callers[index];
    const struct greeting *greeting = &caller->greeting;
    if (greeting->magic != GREETING_MAGIC || greeting->job != meeting->place->job) {
        forget(meeting, index, true);
        return PLX_OK;
    }
    REQUIRE(hub->err, greeting->size == (uint32_t)hub->size, PLX_INVALID_ARGUMENT,
            "WORLD_SIZE: is %u for a rank that called, but %d for rank 0", greeting->size,
            hub->size);
    REQUIRE(hub->err, greeting->rank > 0 && greeting->rank < (uint32_t)hub->size,
            PLX_INVALID_ARGUMENT, "RANK: one rank calls itself %u of %d", greeting->rank,
            hub->size);
    REQUIRE(hub->err, hub->sockets[greeting->rank] < 0, PLX_INVALID_ARGUMENT,
            "RANK: two ranks call themselves %u", greeting->rank);
    hub->sockets[greeting->rank] = caller->socket;
    meeting->present++;
    forget(meeting, index, false);
    return PLX_OK;
}

/* What a caller has sent so far; one that hangs up is forgotten. */
static plx_status hear(struct meeting *meeting, int index)
{
    struct caller *caller = &meeting->callers[index];
    ssize_t got = recv(caller->socket, (char *)&caller->greeting + caller->got,
                       sizeof caller->greeting - caller->got, MSG_DONTWAIT);
    bool nothing = got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK);
    if (got <= 0) {
        if (!nothing) forget(meeting, index, true);
        return PLX_OK;
    }
    caller->got += (size_t)got;
    return caller->got == sizeof caller->greeting ? admit(meeting, index) : PLX_OK;
}

static void receive_caller(struct meeting *meeting)
{
    int socket = accept4(meeting->listener, NULL, NULL, SOCK_CLOEXEC);
    if (socket < 0) return;
    set_options(socket);
    meeting->callers[meeting->count++] =
        (struct caller){.socket = socket, .since = process_seconds()};
}

/* One look at everybody; returns after a second at most. */
static plx_status look(struct meeting *meeting)
{
    struct pollfd polled[CALLERS + 1];
    const int count = meeting->count;
    for (int i = 0; i < count; i++)
        polled[i] = (struct pollfd){.fd = meeting->callers[i].socket, .events = POLLIN};
    polled[count] =
        (struct pollfd){.fd = count < CALLERS ? meeting->listener : -1, .events = POLLIN};
    int ready = poll(polled, (nfds_t)count + 1, 1000);
    /* From the end: forgetting one moves the last into its place. */
    for (int i = count - 1; i >= 0; i--) {
        if (ready > 0 && polled[i].revents)
            TRY(hear(meeting, i));
        else if (process_seconds() - meeting->callers[i].since > GREETING_SECONDS)
            forget(meeting, i, true);
    }
    if (ready > 0 && polled[count].revents) receive_caller(meeting);
    return PLX_OK;
}

static plx_status missing(const struct meeting *meeting, double seconds)
{
    const struct hub *hub = meeting->hub;
    int first = 1;
    while (first < hub->size - 1 && hub->sockets[first] >= 0) first++;
    return error_set(hub->err, PLX_IO_ERROR,
                     "after %.0f seconds %d of %d ranks have come to %s port %d, rank %d not; %d "
                     "other connections were refused",
                     seconds, meeting->present, hub->size, meeting->place->address,
                     meeting->place->port, first, meeting->refused);
}

static plx_status await_ranks(struct meeting *meeting, double seconds)
{
    struct hub *hub = meeting->hub;
    const double begin = process_seconds();
    while (meeting->present < hub->size) {
        TRY(look(meeting));
        if (process_seconds() - begin > seconds && meeting->present < hub->size)
            return missing(meeting, seconds);
    }
    for (int r = 1; r < hub->size; r++) {
        const struct greeting known = {GREETING_MAGIC, meeting->place->job, (uint32_t)r,
                                       (uint32_t)hub->size};
        TRY(hub_send(hub, r, HUB_BYTES, &known, sizeof known));
    }
    return PLX_OK;
}

static plx_status hold_meeting(struct hub *hub, const struct place *place, double seconds)
{
    struct meeting *meeting = calloc(1, sizeof *meeting);
    REQUIRE(hub->err, meeting != NULL, PLX_OUT_OF_MEMORY, "no memory to meet the other ranks");
    *meeting = (struct meeting){.hub = hub, .place = place, .listener = -1, .present = 1};
    plx_status status = place->listener >= 0 ? take_listener(place, &meeting->listener, hub->err)
                                             : listen_at(place, &meeting->listener, hub->err);
    if (status == PLX_OK) status = await_ranks(meeting, seconds);
    for (int i = 0; i < meeting->count; i++) close(meeting->callers[i].socket);
    if (meeting->listener >= 0) close(meeting->listener);
    free(meeting);
    return status;
}

/* ---- The other ranks ---- */

/* A caller whose own port happens to be the one it calls is connected to itself. */
static bool is_itself(int socket)
{
    struct sockaddr_storage own = {0}, other = {0};
    socklen_t own_size = sizeof own, other_size = sizeof other;
    return getsockname(socket, (struct sockaddr *)&own, &own_size) == 0 &&
           getpeername(socket, (struct sockaddr *)&other, &other_size) == 0 &&
           own_size == other_size && memcmp(&own, &other, own_size) == 0;
}

/* A socket that is connected, or -1. */
static int call(const struct addrinfo *list)
{
    for (; list != NULL; list = list->ai_next) {
        int caller = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (caller < 0) continue;
        const struct timeval limit = {.tv_sec = GREETING_SECONDS};
        setsockopt(caller, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        bool connected = connect(caller, list->ai_addr, list->ai_addrlen) == 0;
        int problem = connected ? ECONNREFUSED : errno;
        if (connected && !is_itself(caller)) return caller;
        close(caller);
        errno = problem;
    }
    return -1;
}

static plx_status greet(struct hub *hub, const struct place *place, double seconds)
{
    const struct greeting mine = {GREETING_MAGIC, place->job, (uint32_t)place->rank,
                                  (uint32_t)place->size};
    struct greeting answer;
    set_options(hub->sockets[0]);
    /* Rank 0 answers when all are there. */
    bool answered = send(hub->sockets[0], &mine, sizeof mine, MSG_NOSIGNAL) == sizeof mine &&
                    hub_wait(hub->sockets[0], POLLIN, seconds);
    struct error problem = {0};
    struct error *err = hub->err;
    hub->err = &problem;
    plx_status status = answered ? hub_receive(hub, 0, HUB_BYTES, &answer, sizeof answer)
                                 : error_set(&problem, PLX_IO_ERROR, "%s", strerror(errno));
    hub->err = err;
    bool good = status == PLX_OK && memcmp(&answer, &mine, sizeof mine) == 0;
    REQUIRE(err, good, PLX_IO_ERROR,
            "%s port %d answers, but not as rank 0 of this job with its %d ranks: %s",
            place->address, place->port, place->size,
            problem.text[0] ? problem.text : "it greets another rank");
    return PLX_OK;
}

static plx_status call_meeting(struct hub *hub, const struct place *place, double seconds)
{
    struct addrinfo *list;
    TRY(resolve(place, place->address, 0, AF_UNSPEC, &list, hub->err));
    const double begin = process_seconds();
    while ((hub->sockets[0] = call(list)) < 0 && process_seconds() - begin < seconds)
        poll(NULL, 0, CALL_PAUSE_MS);
    int problem = errno;
    freeaddrinfo(list);
    REQUIRE(hub->err, hub->sockets[0] >= 0, PLX_IO_ERROR,
            "rank 0 cannot be reached at %s port %d for %.0f seconds: %s", place->address,
            place->port, seconds, strerror(problem));
    return greet(hub, place, seconds);
}

plx_status hub_open(struct hub *hub, const struct place *place, double seconds, struct error *err)
{
    *hub = (struct hub){.rank = place->rank, .size = place->size, .err = err};
    hub->sockets = malloc((size_t)place->size * sizeof *hub->sockets);
    REQUIRE(err, hub->sockets != NULL, PLX_OUT_OF_MEMORY, "no memory for the sockets of %d ranks",
            place->size);
    for (int r = 0; r < place->size; r++) hub->sockets[r] = -1;
    plx_status status =
        place->rank == 0 ? hold_meeting(hub, place, seconds) : call_meeting(hub, place, seconds);
    if (status != PLX_OK) hub_close(hub);
    return status;
}
