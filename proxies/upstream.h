/* SPDX-License-Identifier: MIT
 *
 * One upstream endpoint of a REQ backend: its connections, the requests in flight on each, their deadline,
 * and what happens when it passes.
 *
 *   upstream ── connection (a DEALER) ── flight, flight, flight …   oldest first; the oldest one's clock runs
 *            └─ connection            ── flight
 *
 * In lock-step a connection carries one request at a time, `["", body…]`, which every server understands, and
 * there are as many connections as the window asks for. Once a reply shows that the peer is a REP socket, one
 * connection carries them all, `[id, "", body…]`: REP sends the id back with its reply.
 */
#ifndef PROXYD_PROXIES_UPSTREAM_H
#define PROXYD_PROXIES_UPSTREAM_H

#include "proxies/flights.h"
#include "proxies/link.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct upstream {
    const struct chain_conf *conf;
    const struct surroundings *around;
    struct flights *flights;
    struct link_conf link_conf;
    struct backoff backoff;
    struct list connections; /* at least one; the first tells the cause when none is up */
    struct list with_room;   /* of them: those whose peers may get another request, once they are up */
    uint32_t connection_count, inflight;
    bool is_suspect; /* requests went unanswered: one in flight, a probe, until one is answered */
    bool is_careful; /* one in flight until the peer's type is known: nothing may overtake */
    bool was_up;     /* as of the last event, like last_cause */
    const char *last_cause;
    int64_t ticked_ms;
};

/* Prepares it, and binds where it binds. The pointers must outlive it. -1 with a reason in `err`. */
int upstream_open(struct upstream *upstream, const struct endpoint *endpoint, const struct chain_conf *conf,
                  const struct surroundings *around, struct flights *flights, bool is_careful, char *err,
                  size_t err_size);

/* Closes all connections at once. Its flights are forgotten. */
void upstream_close(struct upstream *upstream);

/* Connects, reads replies, abandons what took too long: ended flights are in flights.ended. `waiting`
 * messages would like to be sent. */
void upstream_tick(struct upstream *upstream, uint64_t waiting, int64_t now_ms);

int64_t upstream_next_ms(const struct upstream *upstream);
bool upstream_has_input(const struct upstream *upstream);

/* Some connection is up. */
bool upstream_is_connected(const struct upstream *upstream);

/* A request may be sent now. */
bool upstream_has_room(const struct upstream *upstream, int64_t now_ms);

/* Sends `item`; false when it was not taken after all. */
bool upstream_send(struct upstream *upstream, struct queue_item *item, int64_t now_ms);

/* Gives up every connection that has requests in flight; they end as lost. */
void upstream_abandon(struct upstream *upstream, int64_t now_ms);

/* Its row for status. */
void upstream_stats(const struct upstream *upstream, struct upstream_stats *row);

#endif
