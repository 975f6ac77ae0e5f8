/* SPDX-License-Identifier: MIT
 *
 * A link is one endpoint's socket, bound or connected: made, watched, and replaced when it broke or its owner
 * gives it up. proxyd owns every reconnect; libzmq would not even try again after a refused handshake. To a
 * WebSocket server it has a PAIR, which websocket.h joins to the connection.
 *
 *    connecting:  WAITING (backoff) -> RESOLVING (a name) -> CONNECTING -> UP -> (lost) WAITING …
 *    bound:       CONNECTING (nobody there) <-> UP (somebody is)
 */
#ifndef PROXYD_PROXIES_LINK_H
#define PROXYD_PROXIES_LINK_H

#include "proxies/monitor.h"
#include "proxies/resolver.h"
#include "proxies/retry.h"
#include "proxies/runtime.h"
#include "proxies/socket.h"
#include "proxies/websocket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum link_state { LINK_WAITING, LINK_RESOLVING, LINK_CONNECTING, LINK_UP };

struct link_conf {
    const struct endpoint *endpoint;
    struct socket_options options;
    int64_t backoff_ms;
    int64_t backoff_max_ms;
};

struct link {
    const struct link_conf *conf;
    const struct surroundings *around;
    struct backoff *backoff; /* shared by all links to one endpoint */
    enum link_state state;
    struct socket socket; /* open in CONNECTING and UP */
    struct watch *watch;
    struct websocket *websocket; /* the far end of the socket, where the endpoint is one; else NULL */
    struct lookup *lookup;
    bool is_ending;      /* the connection broke; what had arrived before is still to be read */
    size_t address;      /* which of the lookup's is being tried */
    int64_t deadline_ms; /* RESOLVING, CONNECTING: when it counts as failed */
    const char *cause;   /* static: why it is not up; NULL before the first failure, and after a success */
    uint32_t handshakes; /* as of the last tick, to notice a peer that left and came back */
};

/* Prepares a link. A bound one is bound now, so that a start can fail: -1 with a reason in `err`; an inproc name
 * that is still taken is tried again. A connecting one starts with its first tick. The pointers must outlive it. */
int link_open(struct link *link, const struct link_conf *conf, const struct surroundings *around,
              struct backoff *backoff, char *err, size_t err_size);

enum link_event {
    LINK_QUIET,
    LINK_CAME_UP, /* a handshake is done: messages may pass */
    LINK_BROKE,   /* it was up, and is not any more; its socket is closed */
    LINK_FAILED   /* it did not come up: link->cause says why, the backoff has started */
};

/* Moves the link on. To be called until LINK_QUIET whenever its loop turned. */
enum link_event link_tick(struct link *link, int64_t now_ms);

/* Messages may be sent. One that is ending is only read from, until its socket is not ready any more; then its tick
 * tells that it broke. */
bool link_is_usable(const struct link *link);

/* When the next tick is due without anything happening; INT64_MAX when never. */
int64_t link_next_ms(const struct link *link);

/* Gives the connection up at once: nothing that its socket holds is delivered any more. It comes back after
 * the backoff, with a new socket. `cause` as in link.cause. */
void link_discard(struct link *link, const char *cause);

/* Closes for good; libzmq may send what it holds for so long. */
void link_close(struct link *link, int linger_ms);

#endif
