/* SPDX-License-Identifier: MIT
 *
 * The one place where sockets are made. Every option is set and read back before bind or connect; what a
 * socket lacks here, it does not have. A socket belongs to one thread.
 */
#ifndef PROXYD_PROXIES_SOCKET_H
#define PROXYD_PROXIES_SOCKET_H

#include "proxies/conf.h"
#include "proxies/guard.h"
#include "proxies/inproc.h"
#include "proxies/poller.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A peer that says nothing, not even a heartbeat, is given up after this long at most. */
#define SOCKET_HEARTBEAT_MS         5000
#define SOCKET_HEARTBEAT_TIMEOUT_MS 10000
/* A connection and its handshake take at most so long each. */
#define SOCKET_HANDSHAKE_MS 5000

struct door;

struct socket_options {
    int type;                /* ZMQ_ROUTER, … An XPUB is told of every subscription */
    int send_hwm;            /* messages kept for one peer; 0 = no bound: the caller has one */
    int receive_hwm;         /* likewise */
    int64_t max_frame_bytes; /* a larger frame cuts the connection, and so does a larger message */
    int64_t max_frames;      /* a message of more cuts the connection. Of both, 0 = no limit */
    const char *chain;       /* where bound: whose connections these are; NULL = not counted as a chain's */
    bool may_fall_silent;    /* its owner stops reading at times: its own silence must not cut the link */
    const struct credentials *credentials; /* connecting: towards the peer; NULL = none */
    const struct door *door;               /* bound: who may come in; NULL = everybody */
    const struct text_list *subscribe;     /* SUB: prefixes */
    const char *subscribe_also;            /* SUB: one more; NULL = none */
};

struct socket {
    void *zmq; /* NULL while closed */
    int type;  /* ZMQ_ROUTER, … */
    struct poller *poller;
    struct guard_limits limits; /* of what its peers may do */
    struct guard_call *call;    /* where it has connected; NULL = unguarded */
    int listener;          /* where bound at a listener (listener.h): libzmq's descriptor of it; else -1 */
    bool is_inproc;        /* and then, once it is bound or connected: */
    struct inproc *inproc; /* the name; else NULL */
    uint64_t taken;        /* messages, ever */
    bool is_behind;        /* as last told to the guard */
    bool is_ready; /* may have input: its descriptor fired, or a call on it may have swallowed the signal */
};

/* Makes the socket and adds it to `poller` (NULL: the caller polls by itself). -1 with a reason in `err`. */
int socket_open(struct socket *socket, void *zmq_context, struct poller *poller,
                const struct socket_options *options, const struct endpoint *endpoint, char *err,
                size_t err_size);

/* Binds to `endpoint`, which must outlive that, by a listener where there can be one. -1 with a reason in `err`. */
int socket_bind(struct socket *socket, const struct endpoint *endpoint, char *err, size_t err_size);

/* Connects to `address` (numeric where it is tcp), once: libzmq does not reconnect. -1 with a reason. */
int socket_connect(struct socket *socket, const char *address, char *err, size_t err_size);

/* Closes it now; what was not sent is thrown away. Closing a closed one does nothing. */
void socket_close(struct socket *socket);

/* Closes it, and lets libzmq send what it holds for at most so long. */
void socket_close_gently(struct socket *socket, int linger_ms);

/* Whether messages wait there that nobody reads for now; see guard_note_reading. */
void socket_note_reading(struct socket *socket, bool is_behind);

/* Asks libzmq for the socket's state, so that its descriptor does not fire for what is known already. A PUB
 * takes in subscriptions by it. */
void socket_settle(struct socket *socket);

#endif
