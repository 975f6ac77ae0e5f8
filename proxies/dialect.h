/* SPDX-License-Identifier: MIT
 *
 * What proxyd says in the caller's own format when it must answer by itself: acks, errors, heartbeats.
 * One file and one row in the table for each dialect; all are pure.
 */
#ifndef PROXYD_PROXIES_DIALECT_H
#define PROXYD_PROXIES_DIALECT_H

#include "buffer/message.h"
#include "proxies/ledger.h"

#include <stdbool.h>

struct dialect {
    const char *name;
    const char *heartbeat; /* the one frame that only proves liveness; NULL where there is none */

    /* Appends the ack for `request` (its body, possibly not valid in the dialect) to the empty `out`.
     * `level` ("queued", "written", "synced") and `ticket` are NULL for an ack of rep-pub.
     * -1 when memory is short. */
    int (*ack)(const struct message *request, const char *level, const char *ticket, struct message *out);

    /* Likewise the error. */
    int (*error)(const struct message *request, enum reason reason, struct message *out);
};

extern const struct dialect dialect_raw, dialect_pyzmqrpc, dialect_jsonrpc, dialect_red, dialect_zmqframework;

/* The dialect of that name; NULL when there is none. */
const struct dialect *dialect_find(const char *name);

/* All names, separated by ", ", for error messages; static. */
const char *dialect_names(void);

/* True when `body` is exactly the dialect's heartbeat. */
bool dialect_is_heartbeat(const struct dialect *dialect, const struct message *body);

#endif
