/* SPDX-License-Identifier: MIT
 *
 * The doors of all chains: who may connect (auth/zap.h) and whose messages may pass (auth/users.h), as the
 * configuration has it. Owns the ZAP thread, the users and keys files in force, and the audit.
 */
#ifndef PROXYD_PROXYD_DOORS_H
#define PROXYD_PROXYD_DOORS_H

#include "auth/zap.h"
#include "proxies/door.h"
#include "proxies/event.h"
#include "proxyd/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct doors;

/* Loads the files of users and keys and starts to answer for every side that asks. To be called before the
 * first chain is opened, and `config` must outlive the doors. `waker` is an eventfd that is written to when
 * doors_are_kept has become false. NULL with a reason in `err`. */
struct doors *doors_open(const struct config *config, void *zmq, struct event_sink events, int waker,
                         char *err, size_t err_size);

/* Closes them; all chains must be freed. NULL is fine. */
void doors_close(struct doors *doors);

/* What chains ask; lives as long as the doors. */
const struct doorman *doors_doorman(const struct doors *doors);

/* How many files of users and keys are in force. */
size_t doors_file_count(const struct doors *doors);

/* Another configuration, in two steps. doors_prepare reads all files of users and keys again; after it, chains of `next`
 * can be opened, and nothing is in force yet. False after every problem was told. Then either doors_commit puts it in
 * force (false when memory is short, and nothing has changed), and `next` must outlive the doors, or doors_revert
 * forgets it. Once no chain of the configuration before is left: doors_settle. */
bool doors_prepare(struct doors *doors, const struct config *next, users_problem_fn *problem, void *context);
bool doors_commit(struct doors *doors, const struct config *next);
void doors_revert(struct doors *doors);
void doors_settle(struct doors *doors);

/* False when nobody answers for the protected sockets any more; `*reason` then says why. */
bool doors_are_kept(const struct doors *doors, const char **reason);

/* True when they have shown a sign of life since the last call; asks for the next one. */
bool doors_turn(struct doors *doors);

/* How many attempts to connect there were, by verdict; zeros where nobody is asked. */
void doors_stats(const struct doors *doors, uint64_t totals[static ZAP_VERDICTS]);

#endif
