/* SPDX-License-Identifier: MIT
 *
 * Which requests came lately, so that an identical one is not queued again but gets the first one's ticket.
 * Bounded: when more requests came within the window than fit, the oldest are forgotten. What a durable queue
 * remembers of an earlier run is added at its start (queue_recall_fn). Pure: time is an argument.
 */
#ifndef PROXYD_PROXIES_DEDUPE_H
#define PROXYD_PROXIES_DEDUPE_H

#include "buffer/list.h"
#include "buffer/queue.h"

#include <stdbool.h>
#include <stdint.h>

struct dedupe;

struct dedupe_entry {
    uint8_t digest[QUEUE_DIGEST_BYTES];
    uint64_t id; /* of the message */
    char ticket[QUEUE_TICKET_BYTES];
    bool is_stored;      /* both are good; until then `waiting` collects those who want the ticket, too */
    struct list waiting; /* of queue_item.wait */
    struct list bucket, id_bucket, age;
    int64_t until_ms;
};

/* Remembers requests for `window_ms`, at most `max`. NULL when memory is short. */
struct dedupe *dedupe_new(int64_t window_ms, uint32_t max);

/* Releases it; entries must have nobody waiting. NULL is fine. */
void dedupe_free(struct dedupe *dedupe);

/* The entry of that digest, or NULL. */
struct dedupe_entry *dedupe_find(struct dedupe *dedupe, const uint8_t digest[QUEUE_DIGEST_BYTES],
                                 int64_t now_ms);

/* Adds a digest that is not there. NULL when memory is short: then it is just not remembered. */
struct dedupe_entry *dedupe_add(struct dedupe *dedupe, const uint8_t digest[QUEUE_DIGEST_BYTES],
                                int64_t now_ms);

/* Its request is stored, as that message and under that ticket. */
void dedupe_store(struct dedupe *dedupe, struct dedupe_entry *entry, uint64_t id, const char *ticket);

/* Forgets an entry: its request was not stored after all. */
void dedupe_remove(struct dedupe *dedupe, struct dedupe_entry *entry);

/* Forgets the request that is that message, if it is known: it will not be delivered after all. */
void dedupe_forget(struct dedupe *dedupe, uint64_t id);

#endif
