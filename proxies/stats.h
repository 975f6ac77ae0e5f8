/* SPDX-License-Identifier: MIT
 *
 * What a chain tells of itself: plain values, for control and metrics.
 */
#ifndef PROXYD_PROXIES_STATS_H
#define PROXYD_PROXIES_STATS_H

#include "buffer/histogram.h"
#include "proxies/ledger.h"

#include <stdint.h>

enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_UP, UPSTREAM_DOWN };
enum chain_state { CHAIN_UP, CHAIN_DEGRADED, CHAIN_DOWN, CHAIN_PAUSED, CHAIN_DRAINING };

/* "up", "degraded" and so on; static. */
const char *upstream_state_name(enum upstream_state state);
const char *chain_state_name(enum chain_state state);

struct upstream_stats {
    const char *endpoint; /* as configured; lives as long as the chain's configuration */
    enum upstream_state state;
    /* static: auth-denied, mechanism-mismatch, refused, silent, unresolved or untrusted; or NULL */
    const char *cause;
    uint32_t inflight;
    uint32_t connections; /* with a finished handshake */
    const char *peer;     /* static: how requests are told apart there, "lockstep" or "envelope"; or NULL */
};

/* LATE: it has missed heartbeats; ASIDE: it let an attempt time out, or is not connected. Neither gets requests. */
enum worker_state { WORKER_LIVE, WORKER_LATE, WORKER_ASIDE };

/* "live" and so on; static. */
const char *worker_state_name(enum worker_state state);

enum { WORKER_ID_BYTES = 128 };

struct worker_stats {
    char id[WORKER_ID_BYTES]; /* its routing id */
    enum worker_state state;
    int64_t heard_ms; /* how long ago its last heartbeat came */
    uint32_t inflight;
};

struct chain_stats {
    enum chain_state state;
    const char *dialect;
    int64_t max_messages, max_bytes; /* of the queue; 0 = no bound */
    struct ledger ledger;            /* balanced */
    uint64_t queue_bytes;            /* of queued and inflight */
    /* from taking a message to its caller's answer, unless it was refused; without callers: to its delivery */
    struct histogram_stats requests;
    int64_t oldest_ms; /* age of the oldest queued or inflight message; -1 when there is none */
    uint32_t upstream_count;
    struct upstream_stats *upstreams; /* upstream_count rows; freed by chain_stats_close, as the next */
    uint32_t worker_count;
    struct worker_stats *workers;
};

#endif
