/* SPDX-License-Identifier: MIT
 *
 * What became of every message. In each snapshot
 *
 *     accepted = delivered + failed{reason} + expired + dropped{reason} + dead + queued + inflight
 *
 * Also the reasons themselves, with their codes: the same words in replies, logs and metrics.
 */
#ifndef PROXYD_PROXIES_LEDGER_H
#define PROXYD_PROXIES_LEDGER_H

#include <stdint.h>

/* Why a message failed. The code is a promise: after 400, 403, 413, 429, 502 and 503 the message was not
 * delivered and never will be; after 500, 504 and 507 its outcome is unknown. */
enum reason {
    REASON_BAD_REQUEST,
    REASON_DENIED,
    REASON_TOO_LARGE,
    REASON_RATE_LIMITED,
    REASON_FAILED,
    REASON_UNAVAILABLE,
    REASON_QUEUE_FULL,
    REASON_SHUTTING_DOWN,
    REASON_TIMEOUT,
    REASON_LOST,
    REASON_STORE_FAILED,
    REASON_COUNT
};

struct reason_info {
    const char *name; /* "queue-full" */
    int code;         /* 503 */
    int jsonrpc_code; /* -32006 */
    const char *text; /* one line for a person */
};

/* The facts about `reason`; static. */
const struct reason_info *reason_info(enum reason reason);

enum drop {
    DROP_MALFORMED,
    DROP_DUPLICATE,
    DROP_OLDEST,
    DROP_NEWEST,
    DROP_OPERATOR,
    DROP_DAMAGED,
    DROP_UNVERIFIED,
    DROP_COUNT
};

/* "malformed" and so on; static. */
const char *drop_name(enum drop drop);

/* A plain value: one thread writes, readers get copies (chain_stats). */
struct ledger {
    uint64_t accepted;
    uint64_t delivered;
    uint64_t failed[REASON_COUNT];
    uint64_t expired;
    uint64_t dropped[DROP_COUNT];
    uint64_t dead;
    uint64_t queued;
    uint64_t inflight;
    /* beside the sum */
    uint64_t retries;         /* attempts after the first */
    uint64_t recreates;       /* sockets replaced */
    uint64_t redelivered;     /* attempts made although an earlier one may have arrived */
    uint64_t orphaned;        /* answers whose caller was gone */
    uint64_t restored;        /* accepted because a store brought them back */
    uint64_t stray;           /* replies that belong to no request in flight */
    uint64_t heartbeats;      /* heartbeats received and swallowed */
    uint64_t slow_subscriber; /* episodes of a full subscriber at a PUB */
};

#endif
