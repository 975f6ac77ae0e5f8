/* SPDX-License-Identifier: MIT
 *
 * An operator's question to a chain's queue: what is in it, drop this, retry that, what became of a ticket. Asked
 * from any thread (chain_ask), answered by the chain's loop, never a dump: pages.
 */
#ifndef PROXYD_PROXIES_ASK_H
#define PROXYD_PROXIES_ASK_H

#include "buffer/queue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ask_what {
    ASK_PAGE,       /* messages queued and in flight, from `id` on, at most `max` */
    ASK_DEAD_PAGE,  /* dead letters, likewise */
    ASK_DROP,       /* drop message `id`; one in flight is not dropped */
    ASK_DEAD_DROP,  /* drop dead letter `id` */
    ASK_DEAD_RETRY, /* queue dead letter `id` again, before everything not yet sent */
    ASK_TICKET      /* what became of `ticket`, whoever owns it */
};

struct ask_entry {
    uint64_t id;
    uint64_t bytes;
    int64_t age_ms;
    uint32_t attempts;
    const char *state; /* static: "queued", "retrying", "inflight" or "dead" */
    char reason[QUEUE_REASON_BYTES];
    struct message body; /* empty unless asked for */
};

struct chain;

struct ask {
    enum ask_what what;
    uint64_t id;
    uint32_t max;
    bool with_bodies;
    char ticket[QUEUE_TICKET_BYTES];

    /* The answer. `done` is called once, on the chain's thread or by chain_free; the ask is the asker's again from then
     * on. */
    void (*done)(struct ask *ask);
    void *context;
    bool is_ok;     /* false: the store cannot tell now, or the chain has ended */
    bool was_there; /* DROP, DEAD_*: there was such a message, and it was done */
    struct ask_entry *entries;
    size_t count;
    uint64_t next_id; /* where the next page begins; 0 after the last */
    enum queue_ticket state;
    char reason[QUEUE_REASON_BYTES];
    struct message reply;

    struct list link; /* the chain's, as all below */
    int64_t asked_ms;
    struct chain *chain;
    void (*asker)(struct ask *ask);
};

/* Releases what an answer holds, not the ask itself. */
void ask_close(struct ask *ask);

/* For a chain's loop: puts the question to the queue. ASK_DROP: for a message that is not in memory. */
void ask_queue(struct ask *ask, struct queue *queue, int64_t now_ms);

/* For a chain's loop: ends an ask as done, once what was done in the queue is on its medium, too. */
void ask_settle(struct ask *ask, struct queue *queue);

/* For a chain's loop: ends an ask with this answer. */
void ask_end(struct ask *ask, bool is_ok, bool was_there);

#endif
