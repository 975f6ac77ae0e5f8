/* SPDX-License-Identifier: MIT
 *
 * A bounded queue of messages between a frontend and a backend, the same for every store.
 *
 * The life of an item; it is on exactly one of these lists, and the list is its state:
 *
 *              put                 lease                 ack
 *    (caller) -----> WAITING ----------------> LEASED ----------> gone, delivered
 *                      ^  |                     |  |
 *                      |  | remove              |  | remove: failed, expired, dropped
 *                      |  v                     |  v
 *                 nack |  gone                  |  gone
 *                      +---- RETRYING <---------+
 *                                               | bury
 *                                               +----> DEAD (kept, listed)
 *
 * One thread owns a queue and makes all calls. No call blocks: what a disk must do is done by the store
 * thread, which wakes the owner. All times are monotonic milliseconds given by the caller.
 */
#ifndef PROXYD_BUFFER_QUEUE_H
#define PROXYD_BUFFER_QUEUE_H

#include "buffer/list.h"
#include "buffer/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue;

enum queue_full_policy { QUEUE_REJECT, QUEUE_DROP_OLDEST, QUEUE_DROP_NEWEST, QUEUE_BLOCK };

/* Bounds on waiting, retrying and leased items together. 0 means no bound. */
struct queue_limits {
    uint64_t max_messages;
    uint64_t max_bytes; /* payload of all frames */
    bool is_ordered;    /* an item waiting for its retry holds back everything behind it */
};

enum queue_place { QUEUE_NOWHERE, QUEUE_STAGED, QUEUE_WAITING, QUEUE_RETRYING, QUEUE_LEASED, QUEUE_DEAD };

struct queue_item {
    uint64_t id;             /* rising in the order of put, never reused by this queue */
    int64_t taken_ms;        /* when the chain took it; its age counts from here */
    int64_t retry_ms;        /* RETRYING: not before this */
    uint32_t attempts;       /* failed deliveries that count towards a dead letter */
    uint32_t retries;        /* attempts after the first, for the backend's own use */
    bool was_sent;           /* at least one attempt was handed to libzmq: its outcome is unknown */
    enum queue_place place;  /* the queue's */
    uint32_t port;           /* with `envelope`: which socket of the frontend it came in by */
    uint64_t connection;     /* with `envelope`: the frontend's mark of the caller's connection */
    struct list route;       /* the frontend's; taken off its list when the item is gone */
    struct message envelope; /* the way back to the caller; empty when nobody waits for an answer */
    struct message body;     /* what is delivered */
    uint32_t hint;           /* the backend's: where the last attempt went */
    void *call;              /* the backend's while LEASED */
    struct list link;        /* the queue's, as all below: its place */
    struct list age;         /* all that is queued or in flight, oldest first */
    size_t bytes;            /* what it counts for, fixed when put */
    uint32_t slot;           /* RETRYING: where in the heap */
};

struct queue_stats {
    uint64_t queued;       /* staged, waiting and retrying */
    uint64_t inflight;     /* leased */
    uint64_t dead;         /* dead letters now listed */
    uint64_t bytes;        /* of queued and inflight */
    uint64_t restored;     /* brought back by the store at open */
    uint64_t dead_dropped; /* dead letters let go, oldest first, because these too reached the bounds */
    int64_t oldest_ms;     /* taken_ms of the oldest queued or inflight item; -1 when there is none */
};

enum queue_result {
    QUEUE_TAKEN,
    QUEUE_FULL,   /* a bound would be passed */
    QUEUE_BROKEN, /* the store cannot take anything now */
};

/* A queue in memory. NULL when memory is short. */
struct queue *queue_memory_new(const struct queue_limits *limits);

/* Releases the queue and every item in it; what a durable store has on its medium stays there. */
void queue_free(struct queue *queue);

/* An empty item that belongs to the caller until it is put. NULL when memory is short. */
struct queue_item *queue_item_new(struct queue *queue);

/* Gives back an item that was never put (or came back from a failed put). */
void queue_item_free(struct queue *queue, struct queue_item *item);

/* Whether an item with a body of so many bytes would fit now. */
bool queue_has_room(const struct queue *queue, size_t bytes);

/* Puts `item` at the end. QUEUE_TAKEN: the queue owns it (the pointer stays good until the item is gone).
 * Otherwise it still belongs to the caller, unchanged. */
enum queue_result queue_put(struct queue *queue, struct queue_item *item);

/* Sends everything put since the last commit on its way to the medium. Once per turn of the loop. */
void queue_commit(struct queue *queue);

/* The next item whose put has ended, in order, each exactly once: *is_stored tells whether the promise of
 * the store holds for it. When it does not, the owner answers and calls queue_remove. NULL when there is
 * none now. */
struct queue_item *queue_next_stored(struct queue *queue, bool *is_stored);

/* What an ack may claim once queue_next_stored said so: "queued", "written" or "synced". */
const char *queue_ack_level(const struct queue *queue);

/* The next item to deliver, now LEASED; NULL when none may go. An item due for a retry goes first. */
struct queue_item *queue_lease(struct queue *queue, int64_t now_ms);

/* The oldest item that is not leased (WAITING or RETRYING), left where it is; NULL when there is none. */
struct queue_item *queue_oldest(const struct queue *queue);

/* A leased item was delivered: it is gone. `reply` (may be NULL) is kept where the store keeps replies. */
void queue_ack(struct queue *queue, struct queue_item *item, const struct message *reply);

/* A leased item goes back, before everything not yet sent, not to be leased before `retry_ms`. */
void queue_nack(struct queue *queue, struct queue_item *item, int64_t retry_ms);

/* An item in any place is gone for good: failed, expired or dropped. The owner has already answered. */
void queue_remove(struct queue *queue, struct queue_item *item);

/* A leased item becomes a dead letter with this one-word reason (at most 31 bytes are kept). Dead letters
 * stand beside the bounds of the queue and keep within the same ones by themselves: the oldest make room. */
void queue_bury(struct queue *queue, struct queue_item *item, const char *reason);

/* When the next RETRYING item is due; INT64_MAX when there is none. */
int64_t queue_next_retry_ms(const struct queue *queue);

void queue_stats(const struct queue *queue, struct queue_stats *stats);

#endif
