/* SPDX-License-Identifier: MIT
 *
 * Whose a routing id is. A ROUTER gives a name to whoever comes with it last, and answers go by that name; so a
 * name that a user has come with is that user's, on that port, while it is connected and for a while after.
 * Not thread safe: its owner, the guard, locks.
 */
#ifndef PROXYD_PROXIES_CLAIMS_H
#define PROXYD_PROXIES_CLAIMS_H

#include "buffer/list.h"
#include "proxies/zmtp.h"

#include <stdint.h>

/* A name stays reserved for so long after its last connection; of those, at most so many. */
#define CLAIMS_KEPT_MS (10 * 60 * 1000)
#define CLAIMS_KEPT    10000

struct claims {
    struct list lists[1024];
    struct list left; /* whose connections are gone, the longest first */
    uint32_t left_count;
    uint64_t seed; /* random: which list a name is in is not for peers to choose */
};

struct claim;

/* None yet; `seed` is random. */
void claims_init(struct claims *claims, uint64_t seed);

/* Frees all of them; their connections must be gone. */
void claims_clear(struct claims *claims);

/* The name of a connection to `port`, taken by its user; NULL when it is another user's, or memory is short.
 * Until that user is proven it is only lent. */
struct claim *claims_take(struct claims *claims, uint64_t port, const struct zmtp_claim *said,
                          int64_t now_ms);

/* The connection that took it was let in. */
void claims_prove(struct claim *claim);

/* One of the connections that took it has gone; with the last of them goes a name that was only lent. */
void claims_leave(struct claims *claims, struct claim *claim, int64_t now_ms);

#endif
