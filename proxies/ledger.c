/* SPDX-License-Identifier: MIT
 *
 * The tables of reasons; see ledger.h.
 */
#include "proxies/ledger.h"

static const struct reason_info reasons[REASON_COUNT] = {
    [REASON_BAD_REQUEST] = {"bad-request", 400, -32600, "the request cannot be read"},
    [REASON_DENIED] = {"denied", 403, -32001, "this user may not use this chain"},
    [REASON_TOO_LARGE] = {"too-large", 413, -32002, "the message is larger than the chain allows"},
    [REASON_RATE_LIMITED] = {"rate-limited", 429, -32003, "too many messages in a short time"},
    [REASON_FAILED] = {"failed", 500, -32004, "the proxy failed; the outcome is unknown"},
    [REASON_UNAVAILABLE] = {"unavailable", 502, -32005, "no upstream could be reached"},
    [REASON_QUEUE_FULL] = {"queue-full", 503, -32006, "the queue is full"},
    [REASON_SHUTTING_DOWN] = {"shutting-down", 503, -32007, "the chain is shutting down"},
    [REASON_TIMEOUT] = {"timeout", 504, -32008, "no answer in time; the outcome is unknown"},
    [REASON_LOST] = {"lost", 504, -32010, "the connection broke after sending; the outcome is unknown"},
    [REASON_STORE_FAILED] = {"store-failed", 507, -32009, "the store failed; the outcome is unknown"},
};

static const char *const drops[DROP_COUNT] = {
    [DROP_MALFORMED] = "malformed",   [DROP_DUPLICATE] = "duplicate", [DROP_OLDEST] = "oldest",
    [DROP_NEWEST] = "newest",         [DROP_OPERATOR] = "operator",   [DROP_DAMAGED] = "damaged",
    [DROP_UNVERIFIED] = "unverified",
};

const struct reason_info *reason_info(enum reason reason)
{
    return &reasons[reason];
}

const char *drop_name(enum drop drop)
{
    return drops[drop];
}
