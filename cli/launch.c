/* launch.c: see launch.h. */
#include "launch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/place.h"
#include "process.h"

/* For the other ranks to end by themselves once one has failed. */
#define GRACE_SECONDS 10.0

/* The last word of a rank, in one write that no other one can cut. */
struct report {
    int rank;
    plx_status status;
    bool lost; /* only because another rank ended */
    char text[1024];
};
_Static_assert(sizeof(struct report) <= 4096, "a report is one atomic write to a pipe");

struct launch {
    int count;
    pid_t *ranks; /* [count]; 0: has ended */
    int running;
    int listener, port;
    int report_in, report_out; /* the pipe of reports */
    char job[32];
    struct report first; /* the lowest rank's cause, or else a consequence */
    bool reported;
    int failed, failed_wait; /* the first rank that ended badly by itself, and how; -1: none */
    bool killed;             /* by us */
    struct error *err;
};

/* ---- Signals ---- */

/* The second Ctrl-C asks twice; other signals, which schedulers repeat, once. */
static volatile sig_atomic_t asked_to_stop;

static void count_signal(int signal_number)
{
    if (signal_number == SIGINT || asked_to_stop == 0) asked_to_stop++;
}

static void ignore_signal(int signal_number)
{
    (void)signal_number;
}

/* SIGCHLD needs a handler only to end a poll early. */
static void install_handlers(void)
{
    struct sigaction stop = {.sa_handler = count_signal}, child = {.sa_handler = ignore_signal};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &stop, NULL);
    sigaction(SIGCHLD, &child, NULL);
}

static void signal_ranks(const struct launch *launch, int signal_number)
{
    for (int r = 0; r < launch->count; r++)
        if (launch->ranks[r] > 0) kill(launch->ranks[r], signal_number);
}

/* ---- Starting ---- */

static plx_status open_listener(struct launch *launch)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    launch->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = launch->listener >= 0 &&
                bind(launch->listener, (struct sockaddr *)&address, size) == 0 &&
                listen(launch->listener, SOMAXCONN) == 0 &&
                getsockname(launch->listener, (struct sockaddr *)&address, &size) == 0;
    REQUIRE(launch->err, good, PLX_IO_ERROR, "no port of 127.0.0.1 for %d ranks: %s", launch->count,
            strerror(errno));
    launch->port = ntohs(address.sin_port);
    return PLX_OK;
}

static plx_status open_reports(struct launch *launch)
{
    int ends[2];
    uint64_t job[2];
    REQUIRE(launch->err, pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, PLX_IO_ERROR,
            "no pipe for the reports of %d ranks: %s", launch->count, strerror(errno));
    launch->report_in = ends[0];
    launch->report_out = ends[1];
    REQUIRE(launch->err, getrandom(job, sizeof job, 0) == sizeof job, PLX_IO_ERROR,
            "no random numbers to name the job: %s", strerror(errno));
    snprintf(launch->job, sizeof launch->job, "%llx%llx", (unsigned long long)job[0],
             (unsigned long long)job[1]);
    return PLX_OK;
}

/* The command line of a rank: the same as of this process. */
static char **make_arguments(const struct option_settings *settings)
{
    static char program[] = "parallax", command[] = "train";
    char **arguments = calloc((size_t)settings->argc + 2, sizeof *arguments);
    if (arguments == NULL) return NULL;
    arguments[0] = program;
    arguments[1] = command;
    for (int i = 1; i < settings->argc; i++) arguments[i + 1] = settings->argv[i];
    return arguments;
}

static bool set_number(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    return setenv(name, text, 1) == 0;
}

/* In the new process: its place, and the descriptors it keeps. */
static bool take_place(const struct launch *launch, int rank)
{
    char launched[32];
    int listener = rank == 0 ? launch->listener : -1;
    snprintf(launched, sizeof launched, "%d,%d", listener, launch->report_out);
    return fcntl(launch->report_out, F_SETFD, 0) == 0 &&
           (listener < 0 || fcntl(listener, F_SETFD, 0) == 0) && set_number("RANK", rank) &&
           set_number("LOCAL_RANK", rank) && set_number("WORLD_SIZE", launch->count) &&
           set_number("MASTER_PORT", launch->port) && setenv("MASTER_ADDR", "127.0.0.1", 1) == 0 &&
           setenv("PARALLAX_JOB", launch->job, 1) == 0 &&
           setenv(PLACE_LAUNCHED, launched, 1) == 0 &&
           unsetenv("TORCHELASTIC_USE_AGENT_STORE") == 0;
}

/* In the new process: becomes a rank. A group of its own keeps the terminal's Ctrl-C for the
 * starter, must not forbid it to write there, and the kernel kills it with the starter. */
static void become_rank(const struct launch *launch, int rank, pid_t starter, char **arguments)
{
    setpgid(0, 0);
    signal(SIGTTOU, SIG_IGN);
    bool good = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == starter;
    if (good && take_place(launch, rank)) execv("/proc/self/exe", arguments);
    _exit(127);
}

static plx_status start_ranks(struct launch *launch, const struct option_settings *settings)
{
    char **arguments = make_arguments(settings);
    REQUIRE(launch->err, arguments != NULL, PLX_OUT_OF_MEMORY, "no memory for %d arguments",
            settings->argc);
    plx_status status = PLX_OK;
    const pid_t starter = getpid();
    for (int r = 0; status == PLX_OK && r < launch->count; r++) {
        pid_t child = fork();
        if (child == 0) become_rank(launch, r, starter, arguments);
        if (child < 0)
            status = error_set(launch->err, PLX_IO_ERROR, "rank %d of %d cannot be started: %s", r,
                               launch->count, strerror(errno));
        else
            launch->ranks[r] = child;
        launch->running += child > 0;
    }
    free(arguments);
    return status;
}

/* ---- Waiting ---- */

static void read_reports(struct launch *launch)
{
    struct report report;
    while (read(launch->report_in, &report, sizeof report) == (ssize_t)sizeof report) {
        bool better = !launch->reported || (launch->first.lost && !report.lost) ||
                      (launch->first.lost == report.lost && report.rank < launch->first.rank);
        if (better) launch->first = report;
        launch->reported = true;
    }
}

/* Takes note of every rank that has ended. */
static void reap(struct launch *launch)
{
    int how;
    for (pid_t child; (child = waitpid(-1, &how, WNOHANG)) > 0;) {
        for (int r = 0; r < launch->count; r++) {
            if (launch->ranks[r] != child) continue;
            launch->ranks[r] = 0;
            launch->running--;
            bool badly = !WIFEXITED(how) || WEXITSTATUS(how) != 0;
            /* A death by a signal is a cause; an exit may be the consequence of one. */
            bool graver =
                launch->failed < 0 || (WIFEXITED(launch->failed_wait) && WIFSIGNALED(how));
            if (!badly || launch->killed || !graver) continue;
            launch->failed = r;
            launch->failed_wait = how;
        }
    }
}

/* Ctrl-C once: every rank finishes the step; twice: they are killed. */
static void pass_signals_on(struct launch *launch, int *passed)
{
    if (asked_to_stop <= *passed) return;
    *passed = asked_to_stop;
    launch->killed = launch->killed || *passed > 1;
    signal_ranks(launch, *passed > 1 ? SIGKILL : SIGINT);
}

static void await_ranks(struct launch *launch)
{
    int passed = 0;
    double failed_at = 0;
    while (launch->running > 0) {
        struct pollfd reports = {.fd = launch->report_in, .events = POLLIN};
        poll(&reports, 1, 100);
        read_reports(launch);
        reap(launch);
        pass_signals_on(launch, &passed);
        if (launch->failed < 0 || launch->running == 0) continue;
        if (failed_at == 0) failed_at = process_seconds();
        double grace = WIFSIGNALED(launch->failed_wait) ? 0 : GRACE_SECONDS;
        if (process_seconds() - failed_at < grace) continue;
        launch->killed = true;
        signal_ranks(launch, SIGKILL);
    }
    read_reports(launch);
}

/* ---- The last word ---- */

/* What the user still has, for the end of a sentence. */
static void name_checkpoint(const char *run, char *text, size_t size)
{
    char path[4096];
    bool found = false;
    struct error ignored = {0};
    plx_status status = checkpoint_latest(run, path, sizeof path, &found, NULL, NULL, &ignored);
    if (status == PLX_OK && found)
        snprintf(text, size, "; the last good checkpoint is %s", path);
    else
        snprintf(text, size, "; no checkpoint had been written");
}

static plx_status name_dead_rank(const struct launch *launch, const char *run)
{
    char checkpoint[4400];
    name_checkpoint(run, checkpoint, sizeof checkpoint);
    int how = launch->failed_wait;
    if (WIFSIGNALED(how))
        return error_set(launch->err, PLX_IO_ERROR, "rank %d was killed by signal %d (%s)%s",
                         launch->failed, WTERMSIG(how), strsignal(WTERMSIG(how)), checkpoint);
    return error_set(launch->err, PLX_IO_ERROR, "rank %d ended with exit code %d%s", launch->failed,
                     WEXITSTATUS(how), checkpoint);
}

/* Dies as Ctrl-C alone would have made it. */
static void die_interrupted(void)
{
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
}

static plx_status conclude(const struct launch *launch, const char *run)
{
    bool by_signal = launch->failed >= 0 && WIFSIGNALED(launch->failed_wait);
    if (asked_to_stop > 1 || (asked_to_stop > 0 && by_signal)) die_interrupted();
    if (launch->failed < 0) return PLX_OK;
    const struct report *first = &launch->first;
    if (by_signal || !launch->reported || first->lost) return name_dead_rank(launch, run);
    if (first->rank == 0) return error_set(launch->err, first->status, "%s", first->text);
    return error_set(launch->err, first->status, "rank %d: %s", first->rank, first->text);
}

static plx_status run_ranks(struct launch *launch, const struct option_settings *settings,
                            const char *run)
{
    TRY(open_listener(launch));
    TRY(open_reports(launch));
    install_handlers();
    plx_status status = start_ranks(launch, settings);
    close(launch->listener);
    launch->listener = -1;
    if (status != PLX_OK) {
        launch->killed = true;
        signal_ranks(launch, SIGKILL);
    }
    await_ranks(launch);
    return status == PLX_OK ? conclude(launch, run) : status;
}

plx_status launch_ranks(const struct option_settings *settings, int count, const char *run,
                        struct error *err)
{
    struct launch launch = {.count = count,
                            .listener = -1,
                            .report_in = -1,
                            .report_out = -1,
                            .failed = -1,
                            .err = err,
                            .ranks = calloc((size_t)count, sizeof *launch.ranks)};
    REQUIRE(err, launch.ranks != NULL, PLX_OUT_OF_MEMORY, "no memory for %d ranks", count);
    plx_status status = run_ranks(&launch, settings, run);
    const int descriptors[] = {launch.listener, launch.report_in, launch.report_out};
    for (int i = 0; i < 3; i++)
        if (descriptors[i] >= 0) close(descriptors[i]);
    free(launch.ranks);
    return status;
}

bool launch_report(plx_status status, bool lost, struct error *err)
{
    int listener, pipe;
    bool launched = place_launched(&listener, &pipe, NULL) == PLX_OK && pipe >= 0;
    const char *rank = getenv(place_launcher()->rank),
               *sentence = err->text[0] ? err->text : plx_status_text(status);
    struct report report = {.rank = rank ? atoi(rank) : 0, .status = status, .lost = lost};
    snprintf(report.text, sizeof report.text, "%s", sentence);
    error_clear(err);
    error_set(err, status, "rank %d: %.1000s", report.rank, report.text);
    return launched && write(pipe, &report, sizeof report) == (ssize_t)sizeof report;
}
