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
    bool (*can_take)(const struct queue *queue);
    bool (*is_broken)(const struct queue *queue);
    /* `item` is about to be staged. Anything but QUEUE_TAKEN leaves it with the caller, unchanged. */
    enum queue_result (*put)(struct queue *queue, struct queue_item *item);
    void (*commit)(struct queue *queue);
    struct queue_item *(*next_stored)(struct queue *queue, bool *is_stored);
    /* Whether anything may be leased now; asked before each lease that would give something. */
    bool (*may_lease)(struct queue *queue);
    /* `item` leaves for good, still in its place. `reply` is for an ack only and may be NULL. */
    void (*gone)(struct queue *queue, struct queue_item *item, const struct message *reply, bool is_expired);
    /* `item` is RETRYING again. */
    void (*nacked)(struct queue *queue, struct queue_item *item);
    /* A letter is dead: counted, no longer in memory. Without this, items in memory are the dead letters. */
    void (*bury)(struct queue *queue, struct queue_item *item);
    int (*fd)(const struct queue *queue);
    void (*settle)(const struct queue *queue);
    void (*stats)(const struct queue *queue, struct queue_stats *stats);
    void (*find_ticket)(struct queue *queue, uint64_t id, const unsigned char *secret, uint64_t owner,
                        queue_ticket_fn *tell, void *context);
    void (*page)(struct queue *queue, bool is_dead, uint64_t from_id, uint32_t max, bool with_bodies,
                 queue_page_fn *tell, void *context);
    void (*drop)(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context);
    void (*drop_dead)(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context);
    void (*retry_dead)(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context);
    void (*change)(struct queue *queue, const struct queue_disk_conf *conf);
    /* Gives back items that only the store knows. */
    void (*release)(struct queue *queue);
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
    size_t held;                                         /* items of `ages` */
    uint64_t live, live_bytes;                           /* what the bounds are about: queued and in flight */
    uint64_t waiting_count, waiting_bytes, leased_count; /* in memory */
    uint64_t dead_count, dead_bytes, dead_dropped;
    struct list pool;
    size_t pool_count;
    size_t random_left; /* bytes at the end of `random` not yet used */
    unsigned char random[32 * QUEUE_SECRET_BYTES];
};

void queue_init(struct queue *queue, const struct queue_ops *ops, const struct queue_limits *limits);

/* A STAGED item is stored: it is WAITING now, behind all others that are. */
void queue_set_waiting(struct queue *queue, struct queue_item *item);

/* A STAGED item is stored, but waits on the medium only: it is AWAY. */
void queue_set_away(struct queue *queue, struct queue_item *item);

/* An item from the medium that counts already is WAITING now. False when memory is short. */
bool queue_bring_back(struct queue *queue, struct queue_item *item);

/* A dead letter of so many bytes counts as queued again. */
void queue_count_revived(struct queue *queue, size_t bytes);

/* The same for one in memory, which is RETRYING now, due at once. False when memory is short. */
bool queue_revive(struct queue *queue, struct queue_item *item);

/* Whether dead letters are beyond the bounds. */
bool queue_has_too_many_dead(const struct queue *queue);

/* The ticket of a message with this id and secret. */
void queue_write_ticket(uint64_t id, const unsigned char secret[QUEUE_SECRET_BYTES],
                        char text[QUEUE_TICKET_BYTES]);

/* Unguessable bytes. */
void queue_random(struct queue *queue, unsigned char secret[QUEUE_SECRET_BYTES]);

#endif
