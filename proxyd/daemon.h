/* SPDX-License-Identifier: MIT
 *
 * The daemon: starts everything in order, waits for signals, the control socket and the chains in one loop
 * that never blocks, and stops everything in reverse.
 */
#ifndef PROXYD_PROXYD_DAEMON_H
#define PROXYD_PROXYD_DAEMON_H

#include "proxyd/config.h"

/* Prepares the process: standard streams, limits, file modes, random seed, and the signals that daemon_run reads
 * blocked in this thread and in those it starts. Before anything else. */
void daemon_prepare(void);

/* Runs until a signal or the control socket stops it. The exit status: 0, or 1 when something failed, which
 * the log says. Takes `config`. */
int daemon_run(struct config *config);

#endif
