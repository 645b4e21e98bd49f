/* hub_watch.c: see hub_watch.h. */
#include "comm/hub_watch.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process.h"

struct hub_watch {
    const struct hub *hub; /* its sockets do not change while they are watched */
    double grace;
    hub_end end;
    void *user;
    pthread_t thread;
    int wake; /* an eventfd: what the mutex guards has changed */

    pthread_mutex_t ending; /* its holder is not ended; guards the rest */
    bool over;
    bool lost;
    struct error cause; /* why this rank has failed, as it says itself */
    char clause[sizeof((struct error *)0)->text];

    /* The thread's own. */
    struct pollfd *polled; /* [size + 1]; the last is wake */
    double *answered;      /* [size]: when a machine was last seen to have nothing to acknowledge */
};

/* ---- The thread ---- */

static bool is_over(struct hub_watch *watch)
{
    pthread_mutex_lock(&watch->ending);
    bool over = watch->over;
    pthread_mutex_unlock(&watch->ending);
    return over;
}

static bool has_failed(struct hub_watch *watch)
{
    pthread_mutex_lock(&watch->ending);
    bool failed = watch->cause.status != PLX_OK;
    pthread_mutex_unlock(&watch->ending);
    return failed;
}

/* Whether a machine has been silent for too long. Its last acknowledgement may be old only because
 * it had nothing to acknowledge, as where it sends for minutes; so that must be long ago, too. */
static bool is_silent(struct hub_watch *watch, int rank)
{
    const double now = process_seconds(), silence = hub_silence(watch->polled[rank].fd);
    if (silence == 0) watch->answered[rank] = now;
    return fmin(silence, now - watch->answered[rank]) >= HUB_SILENCE_SECONDS;
}

/* One look, until something happens or for HUB_LOOK_SECONDS: a rank that is lost, or -1. */
static int look(struct hub_watch *watch, int *problem)
{
    const int size = watch->hub->size;
    poll(watch->polled, (nfds_t)size + 1, (int)(1000 * HUB_LOOK_SECONDS));
    for (int r = 0; r < size; r++) {
        if (watch->polled[r].fd < 0) continue;
        if (watch->polled[r].revents != 0) return r;
        if (!is_silent(watch, r)) continue;
        *problem = ETIMEDOUT;
        return r;
    }
    return -1;
}

static void give_grace(struct hub_watch *watch)
{
    struct pollfd wake = {.fd = watch->wake, .events = POLLIN};
    eventfd_t count;
    while (!is_over(watch) && poll(&wake, 1, (int)(1000 * watch->grace)) != 0)
        eventfd_read(watch->wake, &count);
}

/* The errno of a connection that has ended is read only here, because that clears it, and until now
 * the rank could have come to see it by itself. */
static void end_rank(struct hub_watch *watch, int rank, int problem)
{
    if (watch->cause.status == PLX_OK) {
        struct error loss = {0};
        socklen_t size = sizeof problem;
        if (problem == 0)
            getsockopt(watch->hub->sockets[rank], SOL_SOCKET, SO_ERROR, &problem, &size);
        plx_status status = hub_say_lost(watch->hub, rank, problem, &loss);
        error_set(&watch->cause, status, "%s%s%s", loss.text, watch->clause[0] ? "; " : "",
                  watch->clause);
        watch->lost = true;
    }
    watch->end(watch->user, watch->lost, &watch->cause);
}

static void *watch_ranks(void *argument)
{
    struct hub_watch *watch = argument;
    int rank = -1, problem = 0;
    while (rank < 0 && !is_over(watch) && !has_failed(watch)) rank = look(watch, &problem);
    give_grace(watch);
    pthread_mutex_lock(&watch->ending);
    if (!watch->over) end_rank(watch, rank, problem);
    pthread_mutex_unlock(&watch->ending);
    return NULL;
}

/* ---- Opening and closing ---- */

/* Signals are for the rank's own thread. */
static int start_thread(struct hub_watch *watch)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int problem = pthread_create(&watch->thread, NULL, watch_ranks, watch);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return problem;
}

static void free_watch(struct hub_watch *watch)
{
    if (watch->wake >= 0) close(watch->wake);
    pthread_mutex_destroy(&watch->ending);
    free(watch->polled);
    free(watch->answered);
    free(watch);
}

/* Allocates what the thread needs and starts it; gives an errno. */
static int begin(struct hub_watch *watch)
{
    const int size = watch->hub->size;
    watch->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->wake < 0) return errno;
    watch->polled = calloc((size_t)size + 1, sizeof *watch->polled);
    watch->answered = calloc((size_t)size, sizeof *watch->answered);
    if (watch->polled == NULL || watch->answered == NULL) return ENOMEM;
    for (int r = 0; r < size; r++) {
        watch->polled[r] = (struct pollfd){.fd = watch->hub->sockets[r], .events = POLLRDHUP};
        watch->answered[r] = process_seconds();
    }
    watch->polled[size] = (struct pollfd){.fd = watch->wake, .events = POLLIN};
    return start_thread(watch);
}

plx_status hub_watch_open(struct hub_watch **watch, const struct hub *hub, double grace,
                          hub_end end, void *user, struct error *err)
{
    *watch = NULL;
    struct hub_watch *made = calloc(1, sizeof *made);
    REQUIRE(err, made != NULL, PLX_OUT_OF_MEMORY, "no memory to watch %d ranks", hub->size);
    *made = (struct hub_watch){.hub = hub, .grace = grace, .end = end, .user = user, .wake = -1};
    pthread_mutex_init(&made->ending, NULL);
    int problem = begin(made);
    if (problem == 0) {
        *watch = made;
        return PLX_OK;
    }
    free_watch(made);
    return error_set(err, PLX_IO_ERROR, "%d ranks cannot be watched: %s", hub->size,
                     strerror(problem));
}

void hub_watch_close(struct hub_watch *watch)
{
    if (watch == NULL) return;
    pthread_mutex_lock(&watch->ending);
    watch->over = true;
    pthread_mutex_unlock(&watch->ending);
    eventfd_write(watch->wake, 1);
    pthread_join(watch->thread, NULL);
    free_watch(watch);
}

/* ---- What the rank says ---- */

void hub_watch_fail(struct hub_watch *watch, bool lost, const struct error *cause)
{
    if (watch == NULL) return;
    pthread_mutex_lock(&watch->ending);
    watch->lost = lost;
    watch->cause = *cause;
    error_set(&watch->cause, PLX_INTERNAL, "rank %d has failed", watch->hub->rank);
    pthread_mutex_unlock(&watch->ending);
    eventfd_write(watch->wake, 1);
}

void hub_watch_hold(struct hub_watch *watch)
{
    if (watch != NULL) pthread_mutex_lock(&watch->ending);
}

void hub_watch_release(struct hub_watch *watch)
{
    if (watch != NULL) pthread_mutex_unlock(&watch->ending);
}

void hub_watch_loss_ends_with(struct hub_watch *watch, const char *clause)
{
    if (watch != NULL) snprintf(watch->clause, sizeof watch->clause, "%s", clause);
}
