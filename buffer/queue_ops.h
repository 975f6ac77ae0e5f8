/* SPDX-License-Identifier: MIT
 *
 * What a store provides to be a queue, and what buffer/queue.c does for all of them: places, order, bounds
 * and counters of the items in memory. Included by queue.c and the stores, by nobody else.
 */
#ifndef PROXYD_BUFFER_QUEUE_OPS_H
#define PROXYD_BUFFER_QUEUE_OPS_H

#include "buffer/queue.h"

/* Any of these but `free` may be NULL: then items in memory are all there is. */
struct queue_ops {
    /* `item` is about to be staged. Anything but QUEUE_TAKEN leaves it with the caller, unchanged. */
    enum queue_result (*put)(struct queue *queue, struct queue_item *item);
    void (*commit)(struct queue *queue);
    struct queue_item *(*next_stored)(struct queue *queue, bool *is_stored);
    /* `item` leaves for good. `reply` is for an ack only and may be NULL. */
    void (*gone)(struct queue *queue, struct queue_item *item, const struct message *reply);
    /* `item` is RETRYING again. */
    void (*nacked)(struct queue *queue, struct queue_item *item);
    void (*buried)(struct queue *queue, struct queue_item *item, const char *reason);
    /* Adds to what the items in memory say. */
    void (*stats)(const struct queue *queue, struct queue_stats *stats);
    /* Releases the store's struct, which begins with the queue; the items are gone already. */
    void (*free)(struct queue *queue);
};

/* The beginning of every store's own struct. */
struct queue {
    const struct queue_ops *ops;
    struct queue_limits limits;
    const char *ack_level;
    uint64_t last_id;
    struct list staged, waiting, leased, dead;
    struct list ages;             /* STAGED, WAITING, RETRYING and LEASED, oldest first */
    struct queue_item *idle;      /* the first of `ages` that is WAITING or RETRYING */
    struct queue_item **retrying; /* a heap: room for every item of `ages` */
    size_t retrying_count, retrying_room;
    size_t held;               /* items of `ages` */
    uint64_t live, live_bytes; /* what the bounds are about: queued and in flight */
    uint64_t leased_count;
    uint64_t dead_count, dead_bytes, dead_dropped;
    struct list pool;
    size_t pool_count;
};

void queue_init(struct queue *queue, const struct queue_ops *ops, const struct queue_limits *limits);

/* A STAGED item is stored: it is WAITING now, behind all others that are. */
void queue_set_waiting(struct queue *queue, struct queue_item *item);

#endif
