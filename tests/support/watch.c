/* watch.c: see watch.h. */
#include "watch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WATCHED_THREADS = 256, NOTICED_SECONDS = 30, PAUSE_SECONDS = 10 };

struct watched {
    char call[256]; /* empty: none */
    double since;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static struct watched watched[WATCHED_THREADS];
static _Thread_local int own = -1;
static int threads, cases, done;
static bool running;
static double most;
static pthread_t watcher;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void watch_call(const char *call)
{
    pthread_mutex_lock(&lock);
    if (own < 0 && threads < WATCHED_THREADS) own = threads++;
    if (own >= 0) {
        snprintf(watched[own].call, sizeof watched[own].call, "%s", call ? call : "");
        watched[own].since = seconds();
    }
    pthread_mutex_unlock(&lock);
}

void watch_case_done(void)
{
    pthread_mutex_lock(&lock);
    done++;
    pthread_mutex_unlock(&lock);
}

/* Prints calls that have run for long; true where one has run for too long. */
static bool report(void)
{
    const double now = seconds();
    bool stuck = false;
    printf("  %d of %d cases done\n", done, cases);
    for (int n = 0; n < threads; n++) {
        const double time = now - watched[n].since;
        if (watched[n].call[0] == '\0' || time < NOTICED_SECONDS) continue;
        printf("    for %.0f s: %s\n", time, watched[n].call);
        stuck |= time > most;
    }
    fflush(stdout);
    return stuck;
}

static void *watch(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    while (running) {
        const double next = seconds() + PAUSE_SECONDS;
        struct timespec until = {.tv_sec = (time_t)next};
        pthread_cond_timedwait(&ended, &lock, &until);
        if (!running || !report()) continue;
        fprintf(stderr, "FAILED a call has not ended within %.0f s\n", most);
        _Exit(1);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

void watch_begin(int count, double limit)
{
    cases = count, done = 0, most = limit, running = true;
    if (pthread_create(&watcher, NULL, watch, NULL) == 0) return;
    fprintf(stderr, "no thread to watch the others\n");
    abort();
}

void watch_end(void)
{
    pthread_mutex_lock(&lock);
    running = false;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&lock);
    pthread_join(watcher, NULL);
}
