/* SPDX-License-Identifier: MIT
 *
 * The control socket: JSON-RPC 2.0, one frame a request or batch, over a ROUTER that serves REQ and DEALER peers. It
 * lives in the main loop, never waits, and owns nothing but its socket: what it operates on is lent to it.
 */
#ifndef PROXYD_PROXYD_CONTROL_H
#define PROXYD_PROXYD_CONTROL_H

#include "proxies/chain.h"
#include "proxyd/config.h"
#include "proxyd/inspect.h"
#include "proxyd/report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control;

/* What the methods read and move. Outlives the control. */
struct control_scope {
    void *zmq;
    const struct report_scope *report;
    struct inspect *inspect;       /* for questions that chains answer later */
    void (*stop)(void *context);   /* ends the daemon in order; called from control_turn */
    void (*reload)(void *context); /* asks for a reload; likewise */
    void *context;
};

/* Binds `conf->control`: an ipc socket gets mode 0600, or 0660 and the group of `control_group`.
 * NULL with a reason in `err`. */
struct control *control_open(const struct daemon_conf *conf, const struct control_scope *scope, char *err,
                             size_t err_size);

/* The descriptor to poll for reading. It is edge-triggered, as ZMQ_FD is: control_turn must follow. */
int control_fd(const struct control *control);

/* Answers what has arrived, a bounded number of requests. True when more may be waiting: call it again
 * without polling. */
bool control_turn(struct control *control, int64_t now_ms);

/* A reload begins: whoever has asked for one until now hears what comes of it. */
void control_begin_reload(struct control *control);
void control_tell_reload(struct control *control, const struct reload_result *result);

/* The daemon stops: whoever has asked for a reload hears that. */
void control_refuse_reloads(struct control *control);

/* Gives the last answers a moment to leave and releases the socket. */
void control_close(struct control *control);

#endif
