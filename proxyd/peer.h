/* SPDX-License-Identifier: MIT
 *
 * One ZeroMQ socket for a command line tool: what proxyctl speaks to a daemon with, and what its try-out
 * commands are made of. It waits, but never longer than it is told.
 */
#ifndef PROXYD_PROXYD_PEER_H
#define PROXYD_PROXYD_PEER_H

#include "buffer/message.h"
#include "proxies/conf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer;

struct peer_conf {
    int type; /* ZMQ_REQ, … */
    const char *endpoint;
    bool binds;                            /* unless the endpoint says otherwise */
    const struct credentials *credentials; /* NULL = none */
    const struct text_list *subscribe;     /* SUB: prefixes; NULL = everything */
    bool heeds_signals;                    /* SIGINT and SIGTERM end a wait, not the process */
};

enum peer_result {
    PEER_OK,
    PEER_TIMED_OUT,
    PEER_FAILED,     /* peer_cause says why */
    PEER_INTERRUPTED /* by a signal that it heeds */
};

/* Binds, or begins to connect. NULL with a reason in `err`. */
struct peer *peer_open(const struct peer_conf *conf, char *err, size_t err_size);

/* Waits until somebody is connected. With `deadline_ms` INT64_MAX without end; so below. */
enum peer_result peer_await(struct peer *peer, int64_t deadline_ms);

/* Takes the next message into the empty `message`. A connection that breaks is PEER_FAILED once; waiting on
 * connects it again. */
enum peer_result peer_receive(struct peer *peer, struct message *message, int64_t deadline_ms);

/* Sends a copy of `message`. */
enum peer_result peer_send(struct peer *peer, const struct message *message, int64_t deadline_ms);

/* Waits for a signal, or until `deadline_ms`. */
enum peer_result peer_sleep(struct peer *peer, int64_t deadline_ms);

/* Why it is not connected, one word (static): refused, auth-denied, …, lost. */
const char *peer_cause(const struct peer *peer);

/* Gives what was sent a second to leave, and releases the peer (NULL is allowed). */
void peer_close(struct peer *peer);

#endif
