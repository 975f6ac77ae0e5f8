/* SPDX-License-Identifier: MIT
 *
 * A frontend takes messages in and, where there are callers, gives them their answers. What all kinds of
 * frontend have in common; each kind is one file with one symbol.
 */
#ifndef PROXYD_PROXIES_FRONT_H
#define PROXYD_PROXIES_FRONT_H

#include "buffer/queue.h"
#include "proxies/conf.h"
#include "proxies/runtime.h"
#include "proxies/stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct front;

enum front_taken {
    FRONT_NOTHING,
    FRONT_MESSAGE,      /* `item` holds a message for the queue */
    FRONT_TOO_LARGE,    /* over the limits; `item` holds the way back, or not even that */
    FRONT_DENIED,       /* its user may not use the chain; `item` holds the way back */
    FRONT_RATE_LIMITED, /* its user sends too much; likewise */
    FRONT_MALFORMED,    /* no request in RFC 28's sense */
    FRONT_SWALLOWED,    /* a heartbeat: not a message, dealt with */
    FRONT_SHORT         /* memory was short and the message is lost; `item` may hold the way back */
};

struct front_ops {
    bool has_callers; /* messages come with a way back */

    /* Opens every endpoint of `conf`. The pointers must outlive it. NULL with a reason in `err`. */
    struct front *(*open)(const struct chain_conf *conf, const struct surroundings *around, char *err,
                          size_t err_size);

    /* Closes them; answers on their way may still leave for `linger_ms`. */
    void (*close)(struct front *front, int linger_ms);

    /* Moves connections on and sends answers that waited for room. */
    void (*tick)(struct front *front, int64_t now_ms);

    /* When tick is due next without anything happening; INT64_MAX when never. */
    int64_t (*next_ms)(const struct front *front);

    /* Takes one message into the empty `item`. */
    enum front_taken (*take)(struct front *front, struct queue_item *item, int64_t now_ms);

    /* True while take might find something. With `is_stopped` nobody takes now: descriptors are quietened. */
    bool (*has_input)(struct front *front, bool is_stopped);

    /* has_callers: sends `body` to the caller of `item`, or keeps it until there is room, and counts what can no
     * longer be delivered as orphaned. Takes the body, and the way back. */
    void (*answer)(struct front *front, struct queue_item *item, struct message *body, int64_t now_ms);

    /* has_callers: whether the caller of `item` leaves so much of its answers unread that it should not get another. */
    bool (*is_clogged)(struct front *front, const struct queue_item *item);

    /* Writes the rows of the publishers that it connects to, at most one for each endpoint, and returns how
     * many. `rows` NULL only counts. */
    uint32_t (*upstreams)(const struct front *front, struct upstream_stats *rows);
};

extern const struct front_ops front_rep;
extern const struct front_ops front_sub;

#endif
