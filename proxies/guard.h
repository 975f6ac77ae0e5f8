/* SPDX-License-Identifier: MIT
 *
 * What keeps one peer from using up the whole daemon, where libzmq would let it. It stands between libzmq and
 * the kernel: the executable has its own listen, accept4, connect, recv and close, which libzmq's calls reach first.
 *
 *   connections  are counted where they are accepted, in total and by address; at a limit the oldest that has
 *                not finished its handshake gives way, or else the new one. libzmq has no such limit.
 *   messages     that outgrow their limits end their connection while they arrive. libzmq hands a message over
 *                when it is complete, and keeps any number of frames until then.
 *   routing ids  that begin with zero end the connection that claims one: a ROUTER aborts when it has handed
 *                out the same. One that another user has come with does, too (claims.h).
 *   what is left by peers who have gone, of messages that a chain does not read for now, keeps newcomers out when it is
 *                too much. libzmq keeps all of it, whoever comes and goes.
 *   descriptors  that run out cost the connection that asked for one. libzmq's listeners spin, or abort.
 *
 * There is one guard in a process, as there is one libc.
 */
#ifndef PROXYD_PROXIES_GUARD_H
#define PROXYD_PROXIES_GUARD_H

#include "proxies/event.h"
#include "proxies/zmtp.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of all connections that peers make; 0 = no limit. */
struct guard_conf {
    int64_t max_connections;
    int64_t max_connections_per_address; /* IPv6: per /64. ipc has no addresses */
    int64_t kept_descriptors;            /* what the daemon needs besides them */
};

/* Of the connections that peers make to one socket. */
struct guard_limits {
    const char *chain; /* for events; NULL: they do not count towards max_connections */
    struct zmtp_limits message;
    int kept_messages; /* of one peer, unread, by libzmq; 0 = any number */
    bool keeps_ids;    /* peers come with PLAIN: a routing id is the user's who came with it */
};

struct guard_stats {
    uint64_t connections; /* now */
    uint64_t refused;     /* ever: not accepted, or given up for a newer one */
    uint64_t cut;         /* ever: for what they sent */
};

/* Begins to guard, before the first guard_bind. Fewer descriptors than the limits need lower max_connections,
 * with a warning. -1 with a reason in `err`. */
int guard_open(const struct guard_conf *conf, struct event_sink events, char *err, size_t err_size);

/* Ends it, after libzmq has ended. */
void guard_close(void);

/* zmq_bind, with everything that connects to it guarded; `limits` is copied. `listener` is a socket that listens there
 * already, which libzmq takes over, or -1. Without guard_open: zmq_bind. -1 with zmq_errno(): ENOTSUP when libzmq does
 * not reach the kernel through us. */
int guard_bind(void *zmq, const char *address, int listener, const struct guard_limits *limits);

struct guard_call;

/* zmq_connect to an `address` that is numeric, of a socket that connects once; the connection keeps the limits of a
 * message, and counts as none. `*call` is NULL, or to be ended when the socket is closed. -1 with zmq_errno(). */
int guard_connect(void *zmq, const char *address, const struct guard_limits *limits,
                  struct guard_call **call);

/* The call is over; its connection goes when libzmq closes it. NULL does nothing. */
void guard_end_call(struct guard_call *call);

/* The socket bound with this `listener` is about to be closed: from here on it accepts nobody, who then waits for
 * the next one at that address. */
void guard_retire(int listener);

/* How the socket bound with this `listener` is read: whether it is `is_behind`, messages waiting there, and how many
 * were `taken` ever. Its reader tells, and tells again while it is behind. */
void guard_note_reading(int listener, bool is_behind, uint64_t taken);

/* The connection that a descriptor is now, a number never given twice; 0 = none that a peer made. Any thread. */
uint64_t guard_serial(int fd);

/* Ends a connection, if it is still that one. Any thread. */
void guard_end(int fd, uint64_t serial);

/* Ends the connections that peers of that routing id have to sockets of that chain: whatever libzmq still holds for
 * them is not delivered. A peer with CURVE hides its routing id. Returns how many there were. Any thread. */
unsigned guard_cut(const char *chain, const void *routing_id, size_t size);

/* The counters. Any thread. */
struct guard_stats guard_stats(void);

#endif
