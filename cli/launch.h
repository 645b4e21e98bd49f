/* launch.h: `parallax train --gpus N`: this program once more for every rank, and what becomes of
 * them.
 *
 * The process that starts the ranks computes nothing. It hands each its place in the variables of
 * nn/comm/place.h, passes Ctrl-C on, and ends with them: one rank that fails ends all, with one
 * message, and should this process die, the kernel ends the ranks. */
#ifndef LAUNCH_H
#define LAUNCH_H

#include "options.h"
#include "train.h"

/* Starts `parallax train` with the same arguments as so many ranks and waits for all of them. A
 * failure is the first rank's own sentence, or names the rank that died; where RUN holds a
 * checkpoint the sentence names the last sound one. */
plx_status launch_ranks(const struct option_settings *settings, int count, const char *run,
                        struct error *err);

/* How a rank (place_launcher tells) ends: puts itself in front of the sentence; and where --gpus
 * started it, tells the starter its status and sentence, and that they are only a consequence where
 * lost is set. True where the starter knows, who alone prints then. */
bool launch_report(plx_status status, bool lost, struct error *err);

#endif
