/* SPDX-License-Identifier: MIT
 *
 * proxyctl's commands on queues, dead letters and tickets: pages asked one after the other, never a dump, with
 * progress on stderr where there are many.
 */
#ifndef PROXYD_PROXYD_QUEUECTL_H
#define PROXYD_PROXYD_QUEUECTL_H

#include "proxyd/commands.h"

#include <jansson.h>
#include <stdbool.h>

/* Asks the daemon; takes `params`. The result (the caller's), or NULL after it has complained. */
typedef json_t *queuectl_ask_fn(void *context, enum command_id id, json_t *params);

/* Carries out COMMAND_QUEUE, COMMAND_DEAD or COMMAND_TICKET with its `count` words, the chain's name first.
 * Returns proxyctl's exit status. */
int queuectl_run(enum command_id id, char **words, int count, bool is_json, queuectl_ask_fn *ask,
                 void *context);

#endif
