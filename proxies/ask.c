/* SPDX-License-Identifier: MIT
 *
 * Questions to a queue; see ask.h. The queue answers during the call or later, on the same thread.
 */
#include "proxies/ask.h"

#include <stdlib.h>
#include <string.h>

void ask_close(struct ask *ask)
{
    for (size_t i = 0; i < ask->count; i++)
        message_close(&ask->entries[i].body);
    free(ask->entries);
    ask->entries = NULL;
    ask->count = 0;
    message_close(&ask->reply);
}

void ask_end(struct ask *ask, bool is_ok, bool was_there)
{
    ask->is_ok = is_ok;
    ask->was_there = was_there;
    ask->done(ask);
}

static const char *place_name(enum queue_place place)
{
    switch (place) {
    case QUEUE_LEASED:
        return "inflight";
    case QUEUE_RETRYING:
        return "retrying";
    case QUEUE_DEAD:
        return "dead";
    default:
        return "queued";
    }
}

static int copy_entry(struct ask_entry *to, const struct queue_entry *from, int64_t now_ms)
{
    *to = (struct ask_entry){.id = from->id,
                             .bytes = from->bytes,
                             .age_ms = now_ms > from->taken_ms ? now_ms - from->taken_ms : 0,
                             .attempts = from->attempts,
                             .state = place_name(from->place)};
    if (from->reason)
        strncpy(to->reason, from->reason, sizeof to->reason - 1);
    return from->body ? message_append_copy(&to->body, from->body) : 0;
}

static void tell_page(void *context, bool is_ok, const struct queue_entry *entries, size_t count,
                      uint64_t next_id)
{
    struct ask *ask = context;
    ask->entries = is_ok ? calloc(count + 1, sizeof *ask->entries) : NULL;
    for (size_t i = 0; ask->entries && i < count; i++) {
        ask->count++;
        if (copy_entry(&ask->entries[i], &entries[i], ask->asked_ms) != 0)
            is_ok = false;
    }
    ask->next_id = next_id;
    ask_end(ask, is_ok && ask->entries, false);
}

static void tell_done(void *context, bool is_ok, bool was_there)
{
    ask_end(context, is_ok, was_there);
}

static void tell_settled(void *context, bool is_ok, const struct queue_entry *entries, size_t count,
                         uint64_t next_id)
{
    (void)entries;
    (void)count;
    (void)next_id;
    ask_end(context, is_ok, is_ok);
}

/* A page is answered when all before it is committed, whatever is on it. */
void ask_settle(struct ask *ask, struct queue *queue)
{
    if (queue_fd(queue) == -1)
        ask_end(ask, true, true); /* in memory, where a page is a walk through all there is */
    else
        queue_page(queue, false, ask->id, 1, false, tell_settled, ask);
}

static void tell_ticket(void *context, bool is_ok, enum queue_ticket state, const struct message *reply,
                        const char *reason)
{
    struct ask *ask = context;
    ask->state = state;
    if (reason)
        strncpy(ask->reason, reason, sizeof ask->reason - 1);
    if (reply && message_append_copy(&ask->reply, reply) != 0)
        is_ok = false;
    ask_end(ask, is_ok, state != QUEUE_TICKET_UNKNOWN);
}

void ask_queue(struct ask *ask, struct queue *queue, int64_t now_ms)
{
    ask->asked_ms = now_ms;
    switch (ask->what) {
    case ASK_PAGE:
    case ASK_DEAD_PAGE:
        queue_page(queue, ask->what == ASK_DEAD_PAGE, ask->id, ask->max, ask->with_bodies, tell_page, ask);
        return;
    case ASK_DROP:
        queue_drop(queue, ask->id, tell_done, ask);
        return;
    case ASK_DEAD_DROP:
        queue_drop_dead(queue, ask->id, tell_done, ask);
        return;
    case ASK_DEAD_RETRY:
        queue_retry_dead(queue, ask->id, tell_done, ask);
        return;
    case ASK_TICKET:
        queue_find_ticket(queue, ask->ticket, strlen(ask->ticket), QUEUE_OWNER_ANY, tell_ticket, ask);
        return;
    }
}
