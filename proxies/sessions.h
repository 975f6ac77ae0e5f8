/* SPDX-License-Identifier: MIT
 *
 * Whether the session of a message is valid: asks an RPC server, remembers its answers, and never waits. A question goes
 * out as a message comes in, so that its answer is mostly there when the message's turn has come.
 */
#ifndef PROXYD_PROXIES_SESSIONS_H
#define PROXYD_PROXIES_SESSIONS_H

#include "buffer/queue.h"
#include "proxies/conf.h"
#include "proxies/runtime.h"
#include "proxies/stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Questions on their way at once. */
enum { SESSIONS_WINDOW = 16 };

struct sessions;

/* Connects to the server that `conf` names. The pointers must outlive it. NULL with a reason in `err`. */
struct sessions *sessions_open(const struct chain_conf *conf, const struct surroundings *around, char *err,
                               size_t err_size);

/* NULL is fine. */
void sessions_close(struct sessions *sessions);

/* Sends questions and reads answers. */
void sessions_tick(struct sessions *sessions, int64_t now_ms);

/* When tick is due next without anything happening (INT64_MAX when never), and whether it would find something now. */
int64_t sessions_next_ms(const struct sessions *sessions);
bool sessions_has_input(const struct sessions *sessions);

enum session_result {
    SESSION_VALID,
    SESSION_INVALID, /* or has no session, or nobody could tell in time */
    SESSION_UNKNOWN  /* the server is being asked */
};

/* What is known of a message; asks where nothing is. */
enum session_result sessions_look(struct sessions *sessions, struct queue_item *item, int64_t now_ms);

/* Writes the server's row. */
void sessions_upstream(const struct sessions *sessions, struct upstream_stats *row);

#endif
