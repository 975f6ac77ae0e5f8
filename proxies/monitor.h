/* SPDX-License-Identifier: MIT
 *
 * What libzmq's socket monitors say, reduced to a few atomic facts per socket. One thread does nothing but
 * drain the monitor sockets of all chains: an unread monitor stops libzmq's own I/O thread.
 */
#ifndef PROXYD_PROXIES_MONITOR_H
#define PROXYD_PROXIES_MONITOR_H

#include <stddef.h>
#include <stdint.h>

struct monitor;
struct waker;
struct watch; /* the facts about one socket; shared by its owner and the monitor thread */

/* Starts the thread. NULL with a reason in `err`. */
struct monitor *monitor_open(void *zmq_context, char *err, size_t err_size);

/* Ends it. Every watched socket must be closed. */
void monitor_close(struct monitor *monitor);

/* Watches the ZeroMQ socket `watched`, before its first bind or connect. Every new fact wakes `waker`. The
 * caller owns the watch and releases it after watch_stop. NULL with a reason in `err`. */
struct watch *watch_start(struct monitor *monitor, void *watched, struct waker *waker, char *err,
                          size_t err_size);

/* Ends the monitoring of the socket, which is about to be closed, and lets go of the watch. */
void watch_stop(struct watch *watch, void *watched);

/* Much memory that was in use is not any more: it goes back to the kernel once it is calm. Any thread. */
void monitor_note_freed(struct monitor *monitor);

/* How a connection ended, or did not come about. */
enum watch_end {
    WATCH_OPEN,     /* it has not */
    WATCH_REFUSED,  /* nobody listens, or the address cannot be reached */
    WATCH_LOST,     /* it was there and broke */
    WATCH_SILENT,   /* the peer did not finish its handshake in time */
    WATCH_DENIED,   /* the peer refused our credentials */
    WATCH_MISMATCH, /* the peer wants another security mechanism, or is no such peer at all */
    WATCH_UNTRUSTED /* TLS: the peer's certificate is not to be trusted */
};

struct watch_facts {
    uint32_t handshakes;  /* finished, ever */
    uint32_t connections; /* with a finished handshake, now */
    enum watch_end end;   /* for a connecting socket that never reconnects by itself */
};

/* The facts so far. Any thread. */
struct watch_facts watch_facts(const struct watch *watch);

#endif
