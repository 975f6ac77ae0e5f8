/* SPDX-License-Identifier: MIT
 *
 * What all queues share: the items in memory, their places, order, bounds and counters. Owns every item from
 * put to the end and a bounded pool of used ones. Knows nothing of disks: stores hang on to it by queue_ops.
 *
 * Waiting items are a list in the order of put. Retrying ones are a binary heap, because their times are not
 * in any order: by id when the queue is ordered (the first one holds back the rest), else by time.
 */
#include "buffer/fnv.h"
#include "buffer/queue_ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { POOL_MAX = 1024 }; /* half a megabyte a chain */

#define ITEM(list_link) LIST_ENTRY(list_link, struct queue_item, link)
#define AGED(list_link) LIST_ENTRY(list_link, struct queue_item, age)

void queue_init(struct queue *queue, const struct queue_ops *ops, const struct queue_limits *limits)
{
    *queue = (struct queue){.ops = ops, .limits = *limits, .ack_level = "queued"};
    list_init(&queue->staged);
    list_init(&queue->waiting);
    list_init(&queue->leased);
    list_init(&queue->dead);
    list_init(&queue->ages);
    list_init(&queue->pool);
}

static void free_items(struct list *head)
{
    LIST_EACH_SAFE (link, next, head) {
        struct queue_item *item = ITEM(link);
        message_close(&item->envelope);
        message_close(&item->body);
        free(item);
    }
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    if (queue->ops->release)
        queue->ops->release(queue);
    LIST_EACH_SAFE (link, next, &queue->ages) {
        list_remove(&AGED(link)->link);
        list_append(&queue->pool, &AGED(link)->link);
    }
    free_items(&queue->dead);
    free_items(&queue->pool);
    free(queue->retrying);
    queue->ops->free(queue);
}

struct queue_item *queue_item_new(struct queue *queue)
{
    struct list *link = list_first(&queue->pool);
    struct queue_item *item;
    if (link) {
        list_remove(link);
        queue->pool_count--;
        item = ITEM(link);
    } else if (!(item = malloc(sizeof *item))) {
        return NULL;
    }
    item->id = 0;
    item->taken_ms = 0;
    item->retry_ms = 0;
    item->attempts = 0;
    item->retries = 0;
    item->was_sent = false;
    item->place = QUEUE_NOWHERE;
    item->port = 0;
    item->connection = 0;
    item->hint = 0;
    item->call = NULL;
    item->owner = 0;
    item->bytes = 0;
    item->slot = 0;
    item->attempts_kept = 0;
    item->op = NULL;
    memset(item->secret, 0, sizeof item->secret);
    item->reason[0] = 0;
    message_init(&item->envelope);
    message_init(&item->body);
    list_init(&item->link);
    list_init(&item->age);
    list_init(&item->route);
    list_init(&item->wait);
    item->note = NULL;
    item->digest = NULL;
    item->sender = 0;
    return item;
}

void queue_item_free(struct queue *queue, struct queue_item *item)
{
    list_remove(&item->route);
    list_remove(&item->wait);
    message_close(&item->envelope);
    message_close(&item->body);
    if (queue->pool_count >= POOL_MAX) {
        free(item);
        return;
    }
    list_prepend(&queue->pool, &item->link);
    queue->pool_count++;
}

/* ---- retrying: the heap ---- */

static bool goes_before(const struct queue *queue, const struct queue_item *a, const struct queue_item *b)
{
    if (!queue->limits.is_ordered && a->retry_ms != b->retry_ms)
        return a->retry_ms < b->retry_ms;
    return a->id < b->id;
}

static void heap_set(struct queue *queue, size_t slot, struct queue_item *item)
{
    queue->retrying[slot] = item;
    item->slot = (uint32_t)slot;
}

/* Brings `item` from the hole at `slot` to where it belongs. */
static void heap_settle(struct queue *queue, size_t slot, struct queue_item *item)
{
    while (slot > 0 && goes_before(queue, item, queue->retrying[(slot - 1) / 2])) {
        heap_set(queue, slot, queue->retrying[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (size_t child; (child = 2 * slot + 1) < queue->retrying_count; slot = child) {
        if (child + 1 < queue->retrying_count &&
            goes_before(queue, queue->retrying[child + 1], queue->retrying[child]))
            child++;
        if (!goes_before(queue, queue->retrying[child], item))
            break;
        heap_set(queue, slot, queue->retrying[child]);
    }
    heap_set(queue, slot, item);
}

static void heap_add(struct queue *queue, struct queue_item *item)
{
    size_t slot = queue->retrying_count++;
    heap_settle(queue, slot, item);
}

static void heap_remove(struct queue *queue, struct queue_item *item)
{
    struct queue_item *last = queue->retrying[--queue->retrying_count];
    if (last != item)
        heap_settle(queue, item->slot, last);
}

/* Reserves a place in the heap for one more item, so that a nack cannot fail. */
static bool heap_reserve(struct queue *queue)
{
    if (queue->held < queue->retrying_room)
        return true;
    size_t room = queue->retrying_room ? queue->retrying_room * 2 : 64;
    struct queue_item **larger =
        room > UINT32_MAX ? NULL : realloc(queue->retrying, room * sizeof(struct queue_item *));
    if (!larger)
        return false;
    queue->retrying = larger;
    queue->retrying_room = room;
    return true;
}

/* ---- ages ---- */

static bool is_idle(const struct queue_item *item)
{
    return item->place == QUEUE_WAITING || item->place == QUEUE_RETRYING;
}

static bool is_older(const struct queue_item *a, const struct queue_item *b)
{
    return a->taken_ms != b->taken_ms ? a->taken_ms < b->taken_ms : a->id < b->id;
}

/* Nearly always at the end: items are put in the order in which they were taken. */
static void insert_by_age(struct queue *queue, struct queue_item *item)
{
    struct list *at = queue->ages.prev;
    while (at != &queue->ages && is_older(item, AGED(at)))
        at = at->prev;
    list_insert_after(at, &item->age);
}

static void now_idle(struct queue *queue, struct queue_item *item)
{
    if (!queue->idle || is_older(item, queue->idle))
        queue->idle = item;
}

static void not_idle_any_more(struct queue *queue, struct queue_item *item)
{
    if (queue->idle != item)
        return;
    struct list *at = item->age.next;
    while (at != &queue->ages && !is_idle(AGED(at)))
        at = at->next;
    queue->idle = at == &queue->ages ? NULL : AGED(at);
}

/* ---- the life of an item ---- */

/* Takes `item` from its place, whichever it is. */
static void leave_place(struct queue *queue, struct queue_item *item)
{
    enum queue_place place = item->place;
    item->place = QUEUE_NOWHERE;
    if (place == QUEUE_RETRYING)
        heap_remove(queue, item);
    else
        list_remove(&item->link);
    if (place == QUEUE_LEASED)
        queue->leased_count--;
    if (place == QUEUE_WAITING) {
        queue->waiting_count--;
        queue->waiting_bytes -= item->bytes;
    }
    if (place == QUEUE_WAITING || place == QUEUE_RETRYING)
        not_idle_any_more(queue, item);
}

static void enter_ages(struct queue *queue, struct queue_item *item)
{
    queue->held++;
    insert_by_age(queue, item);
}

static void leave_ages(struct queue *queue, struct queue_item *item)
{
    list_remove(&item->age);
    queue->held--;
}

static void enter_waiting(struct queue *queue, struct queue_item *item)
{
    item->place = QUEUE_WAITING;
    list_append(&queue->waiting, &item->link);
    queue->waiting_count++;
    queue->waiting_bytes += item->bytes;
    now_idle(queue, item);
}

/* `item` is no longer queued or in flight. */
static void leave_bounds(struct queue *queue, const struct queue_item *item)
{
    queue->live--;
    queue->live_bytes -= item->bytes;
}

bool queue_has_room(const struct queue *queue, size_t bytes)
{
    const struct queue_limits *limits = &queue->limits;
    return (!limits->max_messages || queue->live < limits->max_messages) &&
           (!limits->max_bytes ||
            (bytes <= limits->max_bytes && queue->live_bytes <= limits->max_bytes - bytes));
}

enum queue_result queue_put(struct queue *queue, struct queue_item *item)
{
    if (!queue_has_room(queue, item->body.bytes))
        return QUEUE_FULL;
    if (!heap_reserve(queue))
        return QUEUE_BROKEN;
    item->id = queue->last_id + 1;
    item->bytes = item->body.bytes;
    if (queue->ops->put) {
        enum queue_result result = queue->ops->put(queue, item);
        if (result != QUEUE_TAKEN)
            return result;
    }
    queue->last_id++;
    queue->live++;
    queue->live_bytes += item->bytes;
    item->place = QUEUE_STAGED;
    list_append(&queue->staged, &item->link);
    enter_ages(queue, item);
    return QUEUE_TAKEN;
}

void queue_commit(struct queue *queue)
{
    if (queue->ops->commit)
        queue->ops->commit(queue);
}

void queue_set_waiting(struct queue *queue, struct queue_item *item)
{
    list_remove(&item->link);
    enter_waiting(queue, item);
}

void queue_set_away(struct queue *queue, struct queue_item *item)
{
    list_remove(&item->link);
    leave_ages(queue, item);
    item->place = QUEUE_AWAY;
}

bool queue_bring_back(struct queue *queue, struct queue_item *item)
{
    if (!heap_reserve(queue))
        return false;
    enter_ages(queue, item);
    enter_waiting(queue, item);
    return true;
}

void queue_count_revived(struct queue *queue, size_t bytes)
{
    queue->dead_count--;
    queue->dead_bytes -= bytes;
    queue->live++;
    queue->live_bytes += bytes;
}

bool queue_revive(struct queue *queue, struct queue_item *item)
{
    if (!heap_reserve(queue))
        return false;
    queue_count_revived(queue, item->bytes);
    enter_ages(queue, item);
    item->place = QUEUE_RETRYING;
    item->retry_ms = INT64_MIN;
    item->attempts = 0;
    item->was_sent = true; /* it failed: the outcome of an earlier attempt is unknown */
    heap_add(queue, item);
    now_idle(queue, item);
    return true;
}

void queue_change(struct queue *queue, const struct queue_disk_conf *conf)
{
    queue->limits.max_messages = conf->limits.max_messages;
    queue->limits.max_bytes = conf->limits.max_bytes;
    if (queue->ops->change)
        queue->ops->change(queue, conf);
}

void queue_each(struct queue *queue, void (*look)(void *context, struct queue_item *item), void *context)
{
    LIST_EACH (link, &queue->ages)
        look(context, AGED(link));
}

bool queue_is_broken(const struct queue *queue)
{
    return queue->ops->is_broken && queue->ops->is_broken(queue);
}

bool queue_can_take(const struct queue *queue)
{
    return !queue->ops->can_take || queue->ops->can_take(queue);
}

void queue_settle(const struct queue *queue)
{
    if (queue->ops->settle)
        queue->ops->settle(queue);
}

int queue_fd(const struct queue *queue)
{
    return queue->ops->fd ? queue->ops->fd(queue) : -1;
}

struct queue_item *queue_next_stored(struct queue *queue, bool *is_stored)
{
    if (queue->ops->next_stored)
        return queue->ops->next_stored(queue, is_stored);
    struct list *link = list_first(&queue->staged);
    if (!link)
        return NULL;
    queue_set_waiting(queue, ITEM(link));
    *is_stored = true;
    return ITEM(link);
}

const char *queue_ack_level(const struct queue *queue)
{
    return queue->ack_level;
}

struct queue_item *queue_lease(struct queue *queue, int64_t now_ms)
{
    struct queue_item *item = NULL;
    if (queue->retrying_count > 0 && queue->retrying[0]->retry_ms <= now_ms)
        item = queue->retrying[0];
    else if (queue->retrying_count > 0 && queue->limits.is_ordered)
        return NULL;
    else if (!list_is_empty(&queue->waiting))
        item = ITEM(list_first(&queue->waiting));
    if (!item || (queue->ops->may_lease && !queue->ops->may_lease(queue)))
        return NULL;
    leave_place(queue, item);
    item->place = QUEUE_LEASED;
    list_append(&queue->leased, &item->link);
    queue->leased_count++;
    return item;
}

struct queue_item *queue_oldest(const struct queue *queue)
{
    return queue->idle;
}

void queue_ack(struct queue *queue, struct queue_item *item, const struct message *reply)
{
    if (queue->ops->gone)
        queue->ops->gone(queue, item, reply, false);
    leave_place(queue, item);
    leave_ages(queue, item);
    leave_bounds(queue, item);
    queue_item_free(queue, item);
}

void queue_nack(struct queue *queue, struct queue_item *item, int64_t retry_ms)
{
    leave_place(queue, item);
    item->retry_ms = retry_ms;
    item->place = QUEUE_RETRYING;
    heap_add(queue, item);
    now_idle(queue, item);
    if (queue->ops->nacked)
        queue->ops->nacked(queue, item);
}

static void leave(struct queue *queue, struct queue_item *item, bool is_expired)
{
    bool is_away = item->place == QUEUE_AWAY;
    if (queue->ops->gone)
        queue->ops->gone(queue, item, NULL, is_expired);
    leave_place(queue, item);
    if (!is_away)
        leave_ages(queue, item);
    leave_bounds(queue, item);
    queue_item_free(queue, item);
}

void queue_remove(struct queue *queue, struct queue_item *item)
{
    leave(queue, item, false);
}

void queue_expire(struct queue *queue, struct queue_item *item)
{
    leave(queue, item, true);
}

bool queue_has_too_many_dead(const struct queue *queue)
{
    const struct queue_limits *limits = &queue->limits;
    return (limits->max_messages && queue->dead_count > limits->max_messages) ||
           (limits->max_bytes && queue->dead_bytes > limits->max_bytes);
}

static void remove_dead(struct queue *queue, struct queue_item *item)
{
    leave_place(queue, item);
    queue->dead_count--;
    queue->dead_bytes -= item->bytes;
    queue_item_free(queue, item);
}

void queue_bury(struct queue *queue, struct queue_item *item, const char *reason)
{
    snprintf(item->reason, sizeof item->reason, "%s", reason);
    leave_place(queue, item);
    leave_ages(queue, item);
    leave_bounds(queue, item);
    queue->dead_count++;
    queue->dead_bytes += item->bytes;
    if (queue->ops->bury) {
        queue->ops->bury(queue, item);
        queue_item_free(queue, item);
        return;
    }
    message_close(&item->envelope);
    item->call = NULL;
    item->place = QUEUE_DEAD;
    list_append(&queue->dead, &item->link);
    while (queue_has_too_many_dead(queue)) {
        remove_dead(queue, ITEM(list_first(&queue->dead)));
        queue->dead_dropped++;
    }
}

int64_t queue_next_retry_ms(const struct queue *queue)
{
    return queue->retrying_count > 0 ? queue->retrying[0]->retry_ms : INT64_MAX;
}

void queue_stats(const struct queue *queue, struct queue_stats *stats)
{
    struct list *oldest = list_first(&queue->ages);
    *stats = (struct queue_stats){
        .queued = queue->live - queue->leased_count,
        .inflight = queue->leased_count,
        .dead = queue->dead_count,
        .bytes = queue->live_bytes,
        .dead_dropped = queue->dead_dropped,
        .oldest_ms = oldest ? AGED(oldest)->taken_ms : -1,
    };
    if (queue->ops->stats)
        queue->ops->stats(queue, stats);
}

/* ---- tickets ---- */

void queue_random(struct queue *queue, unsigned char secret[QUEUE_SECRET_BYTES])
{
    if (queue->random_left == 0) {
        size_t got = 0;
        while (got < sizeof queue->random) { /* blocks only before the kernel ever had entropy */
            ssize_t size = getrandom(queue->random + got, sizeof queue->random - got, 0);
            if (size > 0)
                got += (size_t)size;
        }
        queue->random_left = sizeof queue->random;
    }
    queue->random_left -= QUEUE_SECRET_BYTES;
    memcpy(secret, queue->random + queue->random_left, QUEUE_SECRET_BYTES);
    memset(queue->random + queue->random_left, 0, QUEUE_SECRET_BYTES);
}

uint64_t queue_owner(const char *name)
{
    uint64_t hash = fnv_add(FNV_OFFSET, name, strlen(name)); /* names are given by the administrator */
    return hash == 0 || hash == QUEUE_OWNER_ANY ? 1 : hash;
}

void queue_write_ticket(uint64_t id, const unsigned char secret[QUEUE_SECRET_BYTES],
                        char text[QUEUE_TICKET_BYTES])
{
    unsigned char bytes[8 + QUEUE_SECRET_BYTES];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(id >> (56 - 8 * i));
    memcpy(bytes + 8, secret, QUEUE_SECRET_BYTES);
    for (size_t i = 0; i < sizeof bytes; i++) {
        text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    text[2 * sizeof bytes] = '\0';
}

void queue_ticket(struct queue *queue, struct queue_item *item, char text[QUEUE_TICKET_BYTES])
{
    static const unsigned char none[QUEUE_SECRET_BYTES];
    if (memcmp(item->secret, none, sizeof none) == 0)
        queue_random(queue, item->secret);
    queue_write_ticket(item->id, item->secret, text);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_ticket(const void *text, size_t size, unsigned char bytes[8 + QUEUE_SECRET_BYTES])
{
    const char *at = text;
    if (size != QUEUE_TICKET_BYTES - 1)
        return false;
    for (size_t i = 0; i < size; i += 2) {
        int high = hex_digit(at[i]), low = hex_digit(at[i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i / 2] = (unsigned char)(high << 4 | low);
    }
    return true;
}

void queue_find_ticket(struct queue *queue, const void *text, size_t size, uint64_t owner,
                       queue_ticket_fn *tell, void *context)
{
    unsigned char bytes[8 + QUEUE_SECRET_BYTES];
    if (!queue->ops->find_ticket || !read_ticket(text, size, bytes)) {
        tell(context, true, QUEUE_TICKET_UNKNOWN, NULL, NULL);
        return;
    }
    uint64_t id = 0;
    for (int i = 0; i < 8; i++)
        id = id << 8 | bytes[i];
    queue->ops->find_ticket(queue, id, bytes + 8, owner, tell, context);
}

/* ---- for operators ---- */

struct queue_item *queue_find(const struct queue *queue, uint64_t id)
{
    LIST_EACH (link, &queue->ages)
        if (AGED(link)->id == id)
            return AGED(link);
    return NULL;
}

static struct queue_item *find_dead(const struct queue *queue, uint64_t id)
{
    LIST_EACH (link, &queue->dead)
        if (ITEM(link)->id == id)
            return ITEM(link);
    return NULL;
}

static struct queue_item *dead_or_aged(struct list *link, bool is_dead)
{
    return is_dead ? ITEM(link) : AGED(link);
}

void queue_page(struct queue *queue, bool is_dead, uint64_t from_id, uint32_t max, bool with_bodies,
                queue_page_fn *tell, void *context)
{
    if (queue->ops->page) {
        queue->ops->page(queue, is_dead, from_id, max, with_bodies, tell, context);
        return;
    }
    struct queue_entry *entries = calloc(max ? max : 1, sizeof *entries);
    size_t count = 0;
    uint64_t next_id = 0;
    const struct list *items = is_dead ? &queue->dead : &queue->ages;
    for (struct list *link = items->next; entries && link != items; link = link->next) {
        const struct queue_item *item = dead_or_aged(link, is_dead);
        if (item->id < from_id)
            continue;
        size_t at = count; /* nearly always the end: ages are almost in the order of ids */
        while (at > 0 && entries[at - 1].id > item->id)
            at--;
        if (at == max) {
            next_id = next_id == 0 || item->id < next_id ? item->id : next_id;
            continue;
        }
        if (count == max)
            next_id = entries[--count].id;
        memmove(&entries[at + 1], &entries[at], (count - at) * sizeof *entries);
        entries[at] = (struct queue_entry){.id = item->id,
                                           .bytes = item->bytes,
                                           .taken_ms = item->taken_ms,
                                           .attempts = item->attempts,
                                           .place = item->place,
                                           .reason = item->reason,
                                           .body = with_bodies ? &item->body : NULL};
        count++;
    }
    tell(context, entries != NULL, entries, count, next_id);
    free(entries);
}

void queue_drop(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context)
{
    if (queue->ops->drop)
        queue->ops->drop(queue, id, tell, context);
    else
        tell(context, true, false);
}

void queue_drop_dead(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context)
{
    if (queue->ops->drop_dead) {
        queue->ops->drop_dead(queue, id, tell, context);
        return;
    }
    struct queue_item *item = find_dead(queue, id);
    if (item)
        remove_dead(queue, item);
    tell(context, true, item != NULL);
}

void queue_retry_dead(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context)
{
    if (queue->ops->retry_dead) {
        queue->ops->retry_dead(queue, id, tell, context);
        return;
    }
    struct queue_item *item = find_dead(queue, id);
    bool is_revived = item && queue_has_room(queue, item->bytes);
    if (is_revived) {
        list_remove(&item->link);
        is_revived = queue_revive(queue, item);
        if (!is_revived)
            list_append(&queue->dead, &item->link);
    }
    tell(context, true, is_revived);
}
