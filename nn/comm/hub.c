/* hub.c: frames between ranks; see hub.h. hub_meet.c is how the connections come about. */
#include "comm/hub.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process.h"

struct frame_head {
    uint64_t frame, bytes;
};

/* There is something to acknowledge after bytes were sent, and after more than one question whether
 * there is room for bytes again. */
double hub_silence(int socket)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
    return info.tcpi_unacked > 0 || info.tcpi_probes > 1 ? 1e-3 * info.tcpi_last_ack_recv : 0;
}

bool hub_wait(int socket, short events, double seconds)
{
    const double begin = process_seconds();
    const int look_ms = (int)(1000 * fmin(seconds, HUB_LOOK_SECONDS));
    struct pollfd polled = {.fd = socket, .events = events};
    while (poll(&polled, 1, look_ms) <= 0) {
        double waited = process_seconds() - begin;
        if (waited < seconds && fmin(waited, hub_silence(socket)) < HUB_SILENCE_SECONDS) continue;
        errno = ETIMEDOUT;
        return false;
    }
    return true;
}

static bool must_wait(void)
{
    return errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK;
}

plx_status hub_say_lost(const struct hub *hub, int rank, int problem, struct error *err)
{
    if (problem == ETIMEDOUT)
        return error_set(err, PLX_IO_ERROR,
                         "rank %d is lost to rank %d: its machine has not answered for %d seconds",
                         rank, hub->rank, HUB_SILENCE_SECONDS);
    return error_set(err, PLX_IO_ERROR, "rank %d has ended before rank %d was done with it: %s",
                     rank, hub->rank,
                     problem != 0 ? strerror(problem) : "its connection was closed");
}

static plx_status hub_lost(struct hub *hub, int rank, int problem)
{
    hub->lost = true;
    return hub_say_lost(hub, rank, problem, hub->err);
}

static plx_status send_all(struct hub *hub, int to, const void *data, size_t bytes)
{
    const char *rest = data;
    while (bytes > 0) {
        ssize_t sent = send(hub->sockets[to], rest, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && must_wait() && hub_wait(hub->sockets[to], POLLOUT, INFINITY)) continue;
        if (sent <= 0) return hub_lost(hub, to, errno);
        rest += sent;
        bytes -= (size_t)sent;
    }
    return PLX_OK;
}

plx_status hub_receive_piece(struct hub *hub, int from, void *data, size_t bytes)
{
    char *rest = data;
    while (bytes > 0) {
        ssize_t got = recv(hub->sockets[from], rest, bytes, MSG_DONTWAIT);
        if (got < 0 && must_wait() && hub_wait(hub->sockets[from], POLLIN, INFINITY)) continue;
        if (got <= 0) return hub_lost(hub, from, got < 0 ? errno : 0);
        rest += got;
        bytes -= (size_t)got;
    }
    return PLX_OK;
}

plx_status hub_send(struct hub *hub, int to, enum hub_frame frame, const void *data, size_t bytes)
{
    const struct frame_head head = {frame, bytes};
    TRY(send_all(hub, to, &head, sizeof head));
    return send_all(hub, to, data, bytes);
}

plx_status hub_receive_head(struct hub *hub, int from, enum hub_frame frame, size_t bytes)
{
    struct frame_head head;
    TRY(hub_receive_piece(hub, from, &head, sizeof head));
    REQUIRE(
        hub->err, head.frame == (uint64_t)frame && head.bytes == bytes, PLX_INTERNAL,
        "rank %d sent %llu bytes of kind %llu where rank %d awaits %zu of kind %d: the ranks do "
        "not run the same program on the same options",
        from, (unsigned long long)head.bytes, (unsigned long long)head.frame, hub->rank, bytes,
        (int)frame);
    return PLX_OK;
}

plx_status hub_receive(struct hub *hub, int from, enum hub_frame frame, void *data, size_t bytes)
{
    TRY(hub_receive_head(hub, from, frame, bytes));
    return hub_receive_piece(hub, from, data, bytes);
}

void hub_close(struct hub *hub)
{
    for (int r = 0; hub->sockets != NULL && r < hub->size; r++)
        if (hub->sockets[r] >= 0) close(hub->sockets[r]);
    free(hub->sockets);
    *hub = (struct hub){.size = 1};
}

/* ---- Among all ranks ---- */

plx_status hub_broadcast(struct hub *hub, int owner, enum hub_frame frame, void *data, size_t bytes)
{
    if (hub->rank > 0)
        return owner == hub->rank ? hub_send(hub, 0, frame, data, bytes)
                                  : hub_receive(hub, 0, frame, data, bytes);
    if (owner > 0) TRY(hub_receive(hub, owner, frame, data, bytes));
    for (int r = 1; r < hub->size; r++)
        if (r != owner) TRY(hub_send(hub, r, frame, data, bytes));
    return PLX_OK;
}

static plx_status receive_sum(struct hub *hub, int from, double *values, int count)
{
    TRY(hub_receive_head(hub, from, HUB_NUMBERS, (size_t)count * sizeof *values));
    for (int i = 0; i < count; i++) {
        double theirs;
        TRY(hub_receive_piece(hub, from, &theirs, sizeof theirs));
        values[i] += theirs;
    }
    return PLX_OK;
}

plx_status hub_sum(struct hub *hub, double *values, int count)
{
    const size_t bytes = (size_t)count * sizeof *values;
    if (hub->rank > 0) TRY(hub_send(hub, 0, HUB_NUMBERS, values, bytes));
    for (int r = 1; hub->rank == 0 && r < hub->size; r++) TRY(receive_sum(hub, r, values, count));
    return hub_broadcast(hub, 0, HUB_NUMBERS, values, bytes);
}
