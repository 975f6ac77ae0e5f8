/* SPDX-License-Identifier: MIT
 *
 * A queue whose items are rows of a store (buffer/store.h). Keeps in memory what is being stored, what is
 * being delivered and a bounded head of what waits; the rest is AWAY, on disk only, all of it behind that
 * head.
 *
 *     id:    ... LEASED, RETRYING, WAITING ... | away_from ... AWAY ... | STAGED, answered but not given out
 * |
 *
 * Owns the operations that it has not yet handed over and the answers that it has not yet given out. Answers
 * come in the order in which the store committed, so that whatever was shed before a page arrives is in it.
 */
#include "buffer/queue_ops.h"
#include "buffer/store.h"
#include "buffer/store_ops.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEAD_MESSAGES = 1024, /* waiting in memory */
    HEAD_BYTES = 4 << 20,
    STAGED_MESSAGES = 8192, /* on their way to the disk */
    STAGED_BYTES = 16 << 20,
    UNSETTLED_MAX = 64, /* deliveries whose delete is not committed: each may be repeated after a crash */
    REVIVED_MAX = 1024, /* dead letters brought back at a time */
    OPEN_WAIT_MS = 60000,
    PAGE_MAX_BYTES = 4 << 20,
};

/* Who asked the store something, until told: by one of these. */
struct asker {
    struct list link;
    queue_page_fn *page;
    queue_done_fn *done;
    queue_ticket_fn *ticket;
    void *context;
};

struct queue_disk {
    struct queue base;
    struct store_port *port;
    struct list outgoing; /* for the next commit */
    unsigned outgoing_lazy;
    struct list answered; /* received, not yet dealt with */
    struct list askers;   /* whose questions are under way */
    size_t staged_count, staged_bytes;
    uint64_t away_from; /* the first id on disk only; 0: none is */
    uint64_t away, away_bytes;
    int64_t away_taken_ms; /* of about the oldest one */
    bool is_loading;
    unsigned dropping; /* questions under way */
    bool is_sending;
    bool is_held_back; /* a lease was refused until deletes are committed */
    bool keeps_replies, remembers;
    unsigned changing;       /* changes that the store has not yet heard of */
    struct queue_item *shed; /* given out, to be let go at the next call */
    struct list shells;      /* AWAY items that stay because of their envelope, by id */
    int64_t clock_offset;    /* store's clock - owner's clock */
    uint64_t restored, damaged, revived;
};

/* In what the medium has as attempts: sent at least once, whether or not that counts as an attempt. */
#define SENT_MARK (UINT32_C(1) << 31)

#define DISK(queue)     ((struct queue_disk *)(queue))
#define OP(list_link)   LIST_ENTRY(list_link, struct store_op, link)
#define ITEM(list_link) LIST_ENTRY(list_link, struct queue_item, link)

static struct store_op *send(struct queue_disk *disk, enum store_op_kind kind, uint64_t id, size_t data_bytes)
{
    struct store_op *op = store_op_new(kind, id, data_bytes);
    if (op)
        list_append(&disk->outgoing, &op->link);
    return op;
}

/* An operation that nobody waits for. When memory is too short for it the medium keeps what it has: a message
 * may then be delivered once more after a restart. */
static struct store_op *send_lazy(struct queue_disk *disk, enum store_op_kind kind, uint64_t id,
                                  size_t data_bytes)
{
    struct store_op *op = send(disk, kind, id, data_bytes);
    disk->outgoing_lazy += op != NULL;
    return op;
}

/* A question of `asker`, who is copied. NULL when memory is short. */
static struct store_op *send_question(struct queue_disk *disk, enum store_op_kind kind, uint64_t id,
                                      const struct asker *asker)
{
    struct asker *copy = malloc(sizeof *copy);
    struct store_op *op = copy ? send(disk, kind, id, 0) : NULL;
    if (!op) {
        free(copy);
        return NULL;
    }
    *copy = *asker;
    list_append(&disk->askers, &copy->link);
    op->context = copy;
    return op;
}

/* Who is to be told of the answer. */
static struct asker take_asker(struct asker *under_way)
{
    struct asker asker = *under_way;
    list_remove(&under_way->link);
    free(under_way);
    return asker;
}

static void hand_over(struct queue_disk *disk)
{
    if (list_is_empty(&disk->outgoing))
        return;
    store_submit(disk->port, &disk->outgoing);
    disk->outgoing_lazy = 0;
}

/* ---- in ---- */

static bool disk_is_broken(const struct queue *queue)
{
    return !store_is_usable(((const struct queue_disk *)queue)->port);
}

static bool disk_can_take(const struct queue *queue)
{
    const struct queue_disk *disk = (const struct queue_disk *)queue;
    return store_is_usable(disk->port) && disk->staged_count < STAGED_MESSAGES &&
           disk->staged_bytes < STAGED_BYTES;
}

static uint32_t attempts_to_keep(const struct queue_item *item)
{
    return item->attempts | (item->was_sent ? SENT_MARK : 0);
}

static enum queue_result disk_put(struct queue *queue, struct queue_item *item)
{
    struct queue_disk *disk = DISK(queue);
    size_t flat_bytes = message_flat_bytes(&item->body);
    if (!disk_can_take(queue) || flat_bytes > STORE_MESSAGE_MAX)
        return QUEUE_BROKEN;
    struct store_op *op = send(disk, STORE_OP_PUT, item->id, flat_bytes);
    if (!op)
        return QUEUE_BROKEN;
    queue_random(queue, item->secret);
    message_flatten(&item->body, op->data);
    op->row.bytes = item->bytes;
    op->row.taken = item->taken_ms + disk->clock_offset;
    op->row.attempts = item->attempts_kept = attempts_to_keep(item);
    op->row.owner = item->owner;
    memcpy(op->row.secret, item->secret, sizeof op->row.secret);
    op->row.has_digest = item->digest != NULL;
    if (item->digest)
        memcpy(op->row.digest, item->digest, sizeof op->row.digest);
    op->context = item;
    item->op = op;
    disk->staged_count++;
    disk->staged_bytes += flat_bytes;
    return QUEUE_TAKEN;
}

/* Lets go of the item that was given out last, if it is away and nobody left an envelope in it. */
static void let_go(struct queue_disk *disk)
{
    struct queue_item *item = disk->shed;
    disk->shed = NULL;
    if (!item)
        return;
    if (item->envelope.count > 0)
        list_append(&disk->shells, &item->link);
    else
        queue_item_free(&disk->base, item);
}

static bool head_has_room(const struct queue_disk *disk)
{
    return disk->base.waiting_count < HEAD_MESSAGES && disk->base.waiting_bytes < HEAD_BYTES;
}

/* Items that stayed away for their envelope need not, once it is gone. Callers are answered in order, so that
 * looking at the first is enough. */
static void drop_shells(struct queue_disk *disk)
{
    struct list *link;
    while ((link = list_first(&disk->shells)) && ITEM(link)->envelope.count == 0) {
        list_remove(link);
        queue_item_free(&disk->base, ITEM(link));
    }
}

/* The end of a put: the item to give out, NULL when it was removed meanwhile. */
static struct queue_item *end_put(struct queue_disk *disk, struct store_op *op, bool *is_stored)
{
    struct queue_item *item = op->context;
    disk->staged_count--;
    disk->staged_bytes -= op->row.flat_bytes;
    *is_stored = op->is_done;
    if (!item) {
        if (op->is_done) {
            struct store_op *undo = send_lazy(disk, STORE_OP_DELETE, op->row.id, 0);
            if (undo) {
                undo->is_far = true;
                undo->row.has_digest = op->row.has_digest;
            }
        }
        return NULL;
    }
    item->op = NULL;
    if (!op->is_done) {
        list_remove(&item->link); /* STAGED, but no longer on its way */
    } else if (disk->away_from == 0 && head_has_room(disk)) {
        queue_set_waiting(&disk->base, item);
    } else {
        if (disk->away_from == 0) {
            disk->away_from = item->id;
            disk->away_taken_ms = item->taken_ms;
        }
        disk->away++;
        disk->away_bytes += item->bytes;
        queue_set_away(&disk->base, item);
        disk->shed = item;
    }
    return item;
}

/* ---- back from the disk ---- */

static void forget_away(struct queue_disk *disk, uint64_t count, uint64_t bytes)
{
    disk->away -= count;
    disk->away_bytes -= bytes;
    disk->base.live -= count;
    disk->base.live_bytes -= bytes;
}

static void lose(struct queue_disk *disk, uint64_t count, uint64_t bytes)
{
    disk->damaged += count;
    forget_away(disk, count, bytes);
}

/* The item for a row: its shell, if it has one, else a new one. */
static struct queue_item *item_for(struct queue_disk *disk, uint64_t id)
{
    LIST_EACH (link, &disk->shells) {
        struct queue_item *shell = ITEM(link);
        if (shell->id == id) {
            list_remove(&shell->link);
            return shell;
        }
        if (shell->id > id)
            break;
    }
    return queue_item_new(&disk->base);
}

static struct queue_item *item_of_row(struct queue_disk *disk, const struct store_row *row)
{
    struct queue_item *item = item_for(disk, row->id);
    if (!item)
        return NULL;
    message_close(&item->body);
    if (message_unflatten(&item->body, row->flat, row->flat_bytes) != 0) {
        queue_item_free(&disk->base, item);
        return NULL;
    }
    item->id = row->id;
    item->bytes = row->bytes;
    item->taken_ms = row->taken - disk->clock_offset;
    item->attempts_kept = row->attempts;
    item->attempts = row->attempts & ~SENT_MARK;
    item->was_sent = row->attempts > 0;
    item->owner = row->owner;
    memcpy(item->secret, row->secret, sizeof item->secret);
    return item;
}

static void disk_nacked(struct queue *queue, struct queue_item *item)
{
    if (attempts_to_keep(item) == item->attempts_kept)
        return;
    struct store_op *op = send_lazy(DISK(queue), STORE_OP_ATTEMPTS, item->id, 0);
    if (op)
        op->count = item->attempts_kept = attempts_to_keep(item);
}

static void end_load(struct queue_disk *disk, struct store_op *op)
{
    disk->is_loading = false;
    if (op->has_failed || disk->dropping > 0) /* a message of it may be dropped by now: again later */
        return;
    uint64_t stop = UINT64_MAX; /* items from here on have not been given out yet */
    if (!list_is_empty(&disk->base.staged))
        stop = ITEM(list_first(&disk->base.staged))->id;
    disk->away_from = op->next < stop ? op->next : 0;
    LIST_EACH (link, &op->rows) {
        struct store_found *found = LIST_ENTRY(link, struct store_found, link);
        if (found->row.id >= stop)
            break;
        if (found->is_damaged) {
            lose(disk, 1, 0);
            continue;
        }
        struct queue_item *item = item_of_row(disk, &found->row);
        if (!item || !queue_bring_back(&disk->base, item)) {
            if (item)
                queue_item_free(&disk->base, item);
            disk->away_from = found->row.id; /* memory is short: again later */
            return;
        }
        disk->away--;
        disk->away_bytes -= item->bytes;
        disk->away_taken_ms = item->taken_ms;
    }
    if (disk->away_from == 0 && (disk->away > 0 || disk->away_bytes > 0)) /* that was all: the rest is lost */
        lose(disk, disk->away, disk->away_bytes);
}

static void load_more(struct queue_disk *disk)
{
    const struct queue *base = &disk->base;
    if (disk->away_from == 0 || disk->is_loading || base->waiting_count > HEAD_MESSAGES / 2 ||
        base->waiting_bytes > HEAD_BYTES / 2)
        return;
    struct store_op *op = send(disk, STORE_OP_LOAD, disk->away_from, 0);
    if (!op)
        return;
    op->count = HEAD_MESSAGES - (uint32_t)base->waiting_count;
    op->max_bytes = HEAD_BYTES - base->waiting_bytes;
    disk->is_loading = true;
}

/* ---- answers to questions ---- */

static void end_page(struct queue_disk *disk, struct store_op *op)
{
    struct asker asker = take_asker(op->context);
    size_t room = 1, count = 0;
    LIST_EACH (link, &op->rows)
        room++;
    struct queue_entry *entries = calloc(room, sizeof *entries);
    struct message *bodies = calloc(room, sizeof *bodies);
    bool is_ok = entries && bodies && !op->has_failed;
    LIST_EACH (link, &op->rows) {
        const struct store_found *found = LIST_ENTRY(link, struct store_found, link);
        const struct store_row *row = &found->row;
        if (!is_ok || found->is_damaged)
            continue;
        bool is_dead = op->kind == STORE_OP_PAGE_DEAD;
        const struct queue_item *item = is_dead ? NULL : queue_find(&disk->base, row->id);
        entries[count] = (struct queue_entry){.id = row->id,
                                              .bytes = row->bytes,
                                              .taken_ms = row->taken - disk->clock_offset,
                                              .attempts = item ? item->attempts : row->attempts & ~SENT_MARK,
                                              .place = is_dead ? QUEUE_DEAD
                                                       : item  ? item->place
                                                               : QUEUE_AWAY,
                                              .reason = row->reason};
        if (op->is_far) { /* with bodies */
            is_ok = message_unflatten(&bodies[count], row->flat, row->flat_bytes) == 0;
            entries[count].body = &bodies[count];
        }
        count++;
    }
    asker.page(asker.context, is_ok, entries, is_ok ? count : 0, is_ok ? op->next : 0);
    for (size_t i = 0; bodies && i < count; i++)
        message_close(&bodies[i]);
    free(bodies);
    free(entries);
}

static void end_ticket(struct store_op *op)
{
    struct asker asker = take_asker(op->context);
    struct message reply;
    message_init(&reply);
    bool is_ok = !op->has_failed;
    struct list *found = list_first(&op->rows);
    if (is_ok && found) {
        const struct store_row *row = &LIST_ENTRY(found, struct store_found, link)->row;
        is_ok = message_unflatten(&reply, row->flat, row->flat_bytes) == 0;
    }
    asker.ticket(asker.context, is_ok, (enum queue_ticket)op->ticket,
                 op->ticket == STORE_TICKET_DONE ? &reply : NULL,
                 op->ticket == STORE_TICKET_DEAD ? op->row.reason : NULL);
    message_close(&reply);
}

static void end_drop(struct queue_disk *disk, const struct store_op *op)
{
    disk->dropping--;
    if (op->is_done)
        forget_away(disk, 1, op->bytes);
}

static void end_drop_dead(struct queue_disk *disk, const struct store_op *op)
{
    if (!op->is_done)
        return;
    disk->base.dead_count--;
    disk->base.dead_bytes -= op->bytes;
}

/* False when it could not be brought back. */
static bool end_retry_dead(struct queue_disk *disk, struct store_op *op)
{
    struct queue *base = &disk->base;
    struct list *found = list_first(&op->rows);
    disk->revived--;
    if (!op->is_done || !found)
        return op->is_done;
    const struct store_row *row = &LIST_ENTRY(found, struct store_found, link)->row;
    if (disk->away_from != 0 && row->id >= disk->away_from) { /* it comes with its page */
        queue_count_revived(base, row->bytes);
        disk->away++;
        disk->away_bytes += row->bytes;
        return true;
    }
    struct queue_item *item = item_of_row(disk, row);
    if (item && !queue_revive(base, item)) {
        queue_item_free(base, item); /* memory is short: queued on disk, delivered after a restart */
        return false;
    }
    if (item)
        disk_nacked(base, item);
    return true;
}

static void end_change(struct queue_disk *disk, struct store_op *op)
{
    struct asker asker = take_asker(op->context);
    bool is_done = op->is_done;
    if (op->kind == STORE_OP_DROP)
        end_drop(disk, op);
    else if (op->kind == STORE_OP_DROP_DEAD)
        end_drop_dead(disk, op);
    else
        is_done = end_retry_dead(disk, op);
    asker.done(asker.context, !op->has_failed, is_done);
}

static void end_trim(struct queue_disk *disk, struct store_op *op)
{
    if (!op->is_done)
        return;
    disk->base.dead_count -= op->count;
    disk->base.dead_bytes -= op->bytes;
    disk->base.dead_dropped += op->count;
}

static void promise(struct queue_disk *disk, int64_t sync_ms)
{
    disk->base.ack_level = sync_ms == 0 ? "synced" : "written";
}

/* The last of several changes counts. */
static void end_settings(struct queue_disk *disk, const struct store_op *op)
{
    struct store_port_conf conf;
    memcpy(&conf, op->data, sizeof conf);
    if (--disk->changing == 0)
        promise(disk, conf.sync_ms);
}

static void end_question(struct queue_disk *disk, struct store_op *op)
{
    switch (op->kind) {
    case STORE_OP_LOAD:
        end_load(disk, op);
        break;
    case STORE_OP_PAGE:
    case STORE_OP_PAGE_DEAD:
        end_page(disk, op);
        break;
    case STORE_OP_FIND:
        end_ticket(op);
        break;
    case STORE_OP_DROP:
    case STORE_OP_DROP_DEAD:
    case STORE_OP_RETRY_DEAD:
        end_change(disk, op);
        break;
    case STORE_OP_CHANGE:
        end_settings(disk, op);
        break;
    case STORE_OP_TRIM_DEAD:
        end_trim(disk, op);
        break;
    default:
        break;
    }
}

static struct queue_item *disk_next_stored(struct queue *queue, bool *is_stored)
{
    struct queue_disk *disk = DISK(queue);
    let_go(disk);
    if (list_is_empty(&disk->answered))
        store_receive(disk->port, &disk->answered);
    struct queue_item *item = NULL;
    for (struct list *link; !item && (link = list_first(&disk->answered));) {
        struct store_op *op = OP(link);
        list_remove(link);
        if (op->kind == STORE_OP_PUT)
            item = end_put(disk, op, is_stored);
        else
            end_question(disk, op);
        store_op_free(op);
    }
    return item;
}

static void disk_commit(struct queue *queue)
{
    struct queue_disk *disk = DISK(queue);
    let_go(disk);
    drop_shells(disk);
    load_more(disk);
    hand_over(disk);
    if (disk->is_held_back)
        store_wake_below(disk->port, UNSETTLED_MAX);
}

/* ---- out ---- */

static bool disk_may_lease(struct queue *queue)
{
    struct queue_disk *disk = DISK(queue);
    if (!disk->is_sending)
        disk->is_sending = send(disk, STORE_OP_SENDING, 0, 0) != NULL;
    disk->is_held_back = disk->outgoing_lazy + store_unsettled(disk->port) >= UNSETTLED_MAX;
    return !disk->is_held_back;
}

static void disk_gone(struct queue *queue, struct queue_item *item, const struct message *reply,
                      bool is_expired)
{
    struct queue_disk *disk = DISK(queue);
    if (item->place == QUEUE_STAGED) {
        if (item->op)
            item->op->context = NULL;
        return; /* deleted when its write is answered, or not there at all */
    }
    if (item->place == QUEUE_AWAY) {
        disk->away--;
        disk->away_bytes -= item->bytes;
        if (disk->shed == item)
            disk->shed = NULL;
    }
    bool keeps = reply && disk->keeps_replies;
    enum store_op_kind end = is_expired && disk->keeps_replies ? STORE_OP_EXPIRE : STORE_OP_DELETE;
    struct store_op *op = keeps ? send_lazy(disk, STORE_OP_REPLY, item->id, message_flat_bytes(reply))
                                : send_lazy(disk, end, item->id, 0);
    if (!op)
        return;
    op->is_far = item->place == QUEUE_AWAY;
    op->row.has_digest = disk->remembers && item->place != QUEUE_LEASED && !item->was_sent;
    if (keeps) {
        message_flatten(reply, op->data);
        op->bytes = reply->bytes;
    }
}

static void disk_bury(struct queue *queue, struct queue_item *item)
{
    struct queue_disk *disk = DISK(queue);
    struct store_op *op = send_lazy(disk, STORE_OP_BURY, item->id, 0);
    if (op) {
        op->count = item->attempts;
        memcpy(op->row.reason, item->reason, sizeof op->row.reason);
    }
    if (queue_has_too_many_dead(queue))
        send(disk, STORE_OP_TRIM_DEAD, 0, 0);
}

/* ---- questions ---- */

static void disk_page(struct queue *queue, bool is_dead, uint64_t from_id, uint32_t max, bool with_bodies,
                      queue_page_fn *tell, void *context)
{
    struct queue_disk *disk = DISK(queue);
    uint64_t first = disk->base.last_id >> STORE_SEQUENCE_BITS << STORE_SEQUENCE_BITS;
    const struct asker asker = {.page = tell, .context = context};
    struct store_op *op = send_question(disk, is_dead ? STORE_OP_PAGE_DEAD : STORE_OP_PAGE,
                                        from_id > first ? from_id : first, &asker);
    if (!op) {
        tell(context, false, NULL, 0, 0);
        return;
    }
    op->count = max;
    op->max_bytes = PAGE_MAX_BYTES;
    op->is_far = with_bodies;
}

/* False when it was answered at once. */
static bool change(struct queue *queue, enum store_op_kind kind, uint64_t id, queue_done_fn *tell,
                   void *context)
{
    bool is_ours = id >> STORE_SEQUENCE_BITS == queue->last_id >> STORE_SEQUENCE_BITS;
    const struct asker asker = {.done = tell, .context = context};
    struct store_op *op = is_ours ? send_question(DISK(queue), kind, id, &asker) : NULL;
    if (!op) {
        tell(context, !is_ours, false);
        return false;
    }
    op->is_far = true;
    return true;
}

static void disk_drop(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context)
{
    if (DISK(queue)->away_from == 0 || id < DISK(queue)->away_from)
        tell(context, true, false); /* all there is is in memory */
    else if (change(queue, STORE_OP_DROP, id, tell, context))
        DISK(queue)->dropping++;
}

static void disk_drop_dead(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context)
{
    change(queue, STORE_OP_DROP_DEAD, id, tell, context);
}

static void disk_retry_dead(struct queue *queue, uint64_t id, queue_done_fn *tell, void *context)
{
    struct queue_disk *disk = DISK(queue);
    if (disk->revived + queue->retrying_count >= REVIVED_MAX || !queue_has_room(queue, 0)) {
        tell(context, true, false);
        return;
    }
    disk->revived += change(queue, STORE_OP_RETRY_DEAD, id, tell, context);
}

static void disk_find_ticket(struct queue *queue, uint64_t id, const unsigned char *secret, uint64_t owner,
                             queue_ticket_fn *tell, void *context)
{
    bool is_ours = id >> STORE_SEQUENCE_BITS == queue->last_id >> STORE_SEQUENCE_BITS;
    const struct asker asker = {.ticket = tell, .context = context};
    struct store_op *op = is_ours ? send_question(DISK(queue), STORE_OP_FIND, id, &asker) : NULL;
    if (!op) {
        tell(context, !is_ours, QUEUE_TICKET_UNKNOWN, NULL, NULL);
        return;
    }
    op->row.owner = owner;
    memcpy(op->row.secret, secret, sizeof op->row.secret);
}

static void disk_settle(const struct queue *queue)
{
    store_settle(((const struct queue_disk *)queue)->port);
}

static int disk_fd(const struct queue *queue)
{
    return store_port_fd(((const struct queue_disk *)queue)->port);
}

static void disk_stats(const struct queue *queue, struct queue_stats *stats)
{
    const struct queue_disk *disk = (const struct queue_disk *)queue;
    stats->restored = disk->restored;
    stats->damaged = disk->damaged;
    if (stats->oldest_ms == -1 && disk->away > 0)
        stats->oldest_ms = disk->away_taken_ms;
}

/* ---- open and free ---- */

static void disk_free(struct queue *queue)
{
    struct queue_disk *disk = DISK(queue);
    hand_over(disk);
    store_port_close(disk->port);
    store_ops_free(&disk->answered);
    free(disk);
}

/* Nobody waits for an answer that cannot come any more. */
static void tell_askers(struct queue_disk *disk)
{
    struct list *link;
    while ((link = list_first(&disk->askers)) != NULL) {
        struct asker asker = take_asker(LIST_ENTRY(link, struct asker, link));
        if (asker.page)
            asker.page(asker.context, false, NULL, 0, 0);
        else if (asker.done)
            asker.done(asker.context, false, false);
        else
            asker.ticket(asker.context, false, QUEUE_TICKET_UNKNOWN, NULL, NULL);
    }
}

static void disk_release(struct queue *queue)
{
    struct queue_disk *disk = DISK(queue);
    tell_askers(disk);
    let_go(disk);
    LIST_EACH_SAFE (link, next, &disk->shells)
        queue_item_free(queue, ITEM(link));
}

/* What the store is told of the configuration. */
static struct store_port_conf port_conf_of(const struct queue_disk_conf *conf)
{
    return (struct store_port_conf){
        .max_messages = conf->limits.max_messages,
        .max_bytes = conf->limits.max_bytes,
        .sync_ms = conf->sync_ms,
        .keep_replies_ms = conf->keep_replies_ms,
        .remember_ms = conf->remember_ms,
        .remember_max = conf->remember_max,
    };
}

/* The store is told; until it has answered, no ack claims more than before. */
static void disk_change(struct queue *queue, const struct queue_disk_conf *conf)
{
    struct queue_disk *disk = DISK(queue);
    const struct store_port_conf port_conf = port_conf_of(conf);
    struct store_op *op = send(disk, STORE_OP_CHANGE, 0, sizeof port_conf);
    disk->keeps_replies = conf->keep_replies_ms > 0;
    disk->remembers = conf->remember_ms > 0;
    if (conf->sync_ms > 0)
        promise(disk, conf->sync_ms);
    if (!op)
        return;
    memcpy(op->data, &port_conf, sizeof port_conf);
    disk->changing++;
}

static const struct queue_ops disk_ops = {
    .can_take = disk_can_take,
    .is_broken = disk_is_broken,
    .put = disk_put,
    .commit = disk_commit,
    .next_stored = disk_next_stored,
    .may_lease = disk_may_lease,
    .gone = disk_gone,
    .nacked = disk_nacked,
    .bury = disk_bury,
    .fd = disk_fd,
    .settle = disk_settle,
    .stats = disk_stats,
    .find_ticket = disk_find_ticket,
    .page = disk_page,
    .drop = disk_drop,
    .drop_dead = disk_drop_dead,
    .retry_dead = disk_retry_dead,
    .change = disk_change,
    .release = disk_release,
    .free = disk_free,
};

/* Waits for the answer to the first question, the only one there is. */
static struct store_op *wait_answer(struct queue_disk *disk)
{
    struct pollfd ready = {.fd = store_port_fd(disk->port), .events = POLLIN};
    while (list_is_empty(&disk->answered) && poll(&ready, 1, OPEN_WAIT_MS) > 0) {
        store_settle(disk->port);
        store_receive(disk->port, &disk->answered);
    }
    struct list *link = list_first(&disk->answered);
    if (!link)
        return NULL;
    list_remove(link);
    return OP(link);
}

struct queue *queue_disk_open(struct store *store, const struct queue_disk_conf *conf, char *err,
                              size_t err_bytes)
{
    const struct store_port_conf port_conf = port_conf_of(conf);
    struct queue_disk *disk = calloc(1, sizeof *disk);
    if (!disk || !(disk->port = store_port_new(store, conf->name, &port_conf))) {
        free(disk);
        snprintf(err, err_bytes, "out of memory or descriptors");
        return NULL;
    }
    struct queue *base = &disk->base;
    queue_init(base, &disk_ops, &conf->limits);
    promise(disk, conf->sync_ms);
    disk->keeps_replies = conf->keep_replies_ms > 0;
    disk->remembers = conf->remember_ms > 0;
    list_init(&disk->outgoing);
    list_init(&disk->answered);
    list_init(&disk->askers);
    list_init(&disk->shells);
    struct store_op *op = send(disk, STORE_OP_OPEN, 0, 0);
    if (op)
        op->count = conf->window;
    hand_over(disk);
    op = op ? wait_answer(disk) : NULL;
    if (!op || !op->is_done) {
        snprintf(err, err_bytes, "the store cannot be used now");
        if (op)
            store_op_free(op);
        queue_free(base);
        return NULL;
    }
    const struct store_chain *chain = &op->chain;
    disk->clock_offset = op->row.taken - conf->now_ms;
    base->last_id = ((uint64_t)chain->number << STORE_SEQUENCE_BITS) + chain->next_sequence - 1;
    base->live = disk->away = chain->live;
    base->live_bytes = disk->away_bytes = chain->live_bytes;
    base->dead_count = chain->dead;
    base->dead_bytes = chain->dead_bytes;
    disk->damaged = chain->lost;
    disk->restored = chain->live + chain->dead + chain->lost;
    disk->away_from = chain->live > 0 ? (uint64_t)chain->number << STORE_SEQUENCE_BITS : 0;
    disk->away_taken_ms = chain->oldest_taken - disk->clock_offset;
    LIST_EACH (link, &op->rows) {
        const struct store_row *row = &LIST_ENTRY(link, struct store_found, link)->row;
        char ticket[QUEUE_TICKET_BYTES];
        queue_write_ticket(row->id, row->secret, ticket);
        conf->recall(conf->context, row->digest, row->id, ticket, row->taken - disk->clock_offset);
    }
    store_op_free(op);
    disk_commit(base);
    return base;
}
