/* SPDX-License-Identifier: MIT
 *
 * One running chain: a thread that takes messages in at a frontend, keeps them in a queue and moves them out
 * at a backend. What is in here may be called from any thread; nothing waits for the chain's loop except
 * chain_join.
 *
 *      callers --> [ frontend ] --> [ queue ] --> [ backend ] --> upstreams
 *                       ^                              |
 *                       +----------- replies ----------+
 */
#ifndef PROXYD_PROXIES_CHAIN_H
#define PROXYD_PROXIES_CHAIN_H

#include "proxies/conf.h"
#include "proxies/event.h"
#include "proxies/ledger.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chain;
struct monitor;
struct resolver;

/* What every chain of a daemon shares. Outlives the chains. */
struct runtime {
    void *zmq; /* the context */
    struct monitor *monitor;
    struct resolver *resolver;
    struct event_sink events;
};

/* Starts the helpers (monitor thread, resolver) and the libzmq context, sized for `socket_count` sockets.
 * -1 with a reason in `err`. */
int runtime_open(struct runtime *runtime, int socket_count, struct event_sink events, char *err,
                 size_t err_size);

/* Ends them. All chains must be freed. Waits until libzmq has sent what is left, at most for each socket's
 * own linger. */
void runtime_close(struct runtime *runtime);

enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_UP, UPSTREAM_DOWN };
enum chain_state { CHAIN_UP, CHAIN_DEGRADED, CHAIN_DOWN, CHAIN_PAUSED, CHAIN_DRAINING };

/* "up", "degraded" and so on; static. */
const char *upstream_state_name(enum upstream_state state);
const char *chain_state_name(enum chain_state state);

struct upstream_stats {
    const char *endpoint; /* as configured; lives as long as the chain's configuration */
    enum upstream_state state;
    const char *cause; /* static: auth-denied, mechanism-mismatch, refused, silent, unresolved; or NULL */
    uint32_t inflight;
    uint32_t connections; /* with a finished handshake */
    const char *peer;     /* static: how requests are told apart there, "lockstep" or "envelope"; or NULL */
};

struct chain_stats {
    enum chain_state state;
    struct ledger ledger; /* balanced */
    uint64_t queue_bytes; /* of queued and inflight */
    int64_t oldest_ms;    /* age of the oldest queued or inflight message; -1 when there is none */
    uint32_t upstream_count;
    struct upstream_stats *upstreams; /* upstream_count rows; freed by chain_stats_close */
};

/* A consistent copy of the state at the end of the chain's last turn. -1 when memory is short. */
int chain_stats(struct chain *chain, struct chain_stats *stats);
void chain_stats_close(struct chain_stats *stats);

/* Makes a chain and binds its endpoints; takes no message yet. `conf` and `runtime` must outlive it.
 * NULL with a reason in `err` (an address in use, a live ipc socket…). */
struct chain *chain_open(const struct chain_conf *conf, struct runtime *runtime, char *err, size_t err_size);

/* Starts its thread. -1 with a reason in `err`. */
int chain_start(struct chain *chain, char *err, size_t err_size);

const struct chain_conf *chain_conf(const struct chain *chain);

/* Intake goes on, sending stops; and the reverse, which also ends a drain. */
void chain_pause(struct chain *chain);
void chain_resume(struct chain *chain);

/* New requests hear `shutting-down`, the queue empties. */
void chain_drain(struct chain *chain);

/* Drains for at most `drain_ms`; then what is unsent hears `shutting-down`, what was sent `lost`, and the
 * thread ends. Called again with 0 it ends at once. */
void chain_stop(struct chain *chain, int64_t drain_ms);

/* True once the thread has ended. */
bool chain_is_stopped(const struct chain *chain);

/* Is written to (as an eventfd) when the chain has ended or its state has changed, so that a daemon need
 * not poll; -1 = none. Set before chain_start. */
void chain_set_waker(struct chain *chain, int eventfd);

/* A sign of life: asks the loop to turn; chain_turns counts its turns. */
void chain_ping(struct chain *chain);
uint64_t chain_turns(const struct chain *chain);

/* Waits for the thread (if started) and releases the chain. */
void chain_free(struct chain *chain);

#endif
