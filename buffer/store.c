/* SPDX-License-Identifier: MIT
 *
 * The store thread: takes what queues hand over, in order, and commits it in groups. Owns the only connection
 * (buffer/store_file.c) and all ports. Its lists are guarded by mutexes that are never held across a call to
 * the disk.
 *
 *   queue --submit--> incoming --> pending --group--> COMMIT --> outbox --flush--> answers --receive--> queue
 *          store.mutex                                         (by port)         port.mutex, eventfd
 *
 * After a failed commit the puts of its group are answered as failed, everything else stays pending until it
 * succeeds: acks, attempts and burials are facts that the queues already live by.
 */
#include "buffer/store.h"

#include "buffer/store_ops.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    GROUP_MESSAGES = 1024,
    GROUP_BYTES = 4 << 20,
    LAZY_MAX = 32, /* of one group's lazy operations that cause a commit */
    LAZY_MS = 100,
    TIDY_MS = 1000, /* of quiet before giving space back */
    SPACE_MS = 500, /* between looks at a full disk */
    REOPEN_MS = 100,
    REOPEN_MAX_MS = 5000,
    UPKEEP_MS = 1000, /* between looks for old replies */
    UPKEEP_ROWS = 256,
    UPKEEP_IDLE_MAX_MS = 3600 * 1000,
};

struct store_port {
    struct list link; /* the store's */
    struct store *store;
    char name[72];               /* the chain's */
    struct store_port_conf conf; /* the store thread's, once submitted to */
    int fd;
    uint32_t chain;            /* 0 until opened */
    struct store_op *closing;  /* made beforehand, so that closing cannot fail */
    struct list outbox;        /* the store thread's: answered, not yet handed back */
    int64_t unsynced_since_ms; /* -1: nothing */
    pthread_mutex_t mutex;
    struct list answers;
    atomic_uint unsettled;
    atomic_bool is_signalled; /* there may be answers; set before the eventfd is written */
    atomic_uint wake_below;   /* the owner waits for `unsettled` to fall below; 0: it does not */
};

enum mode { USABLE, FULL, BROKEN };

struct store {
    struct store_conf conf;
    struct store_file *file;
    pthread_t thread;

    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct list incoming;
    bool is_closing;
    struct store_stats stats;
    struct histogram commits; /* the store thread adds */
    atomic_bool is_usable, has_reserve;

    /* the store thread's own */
    struct list ports, pending;
    size_t pending_lazy;
    int64_t lazy_since_ms;
    enum mode mode;
    bool is_salvaging; /* BROKEN, but only until damage is set aside */
    bool is_blocked;   /* FULL, and not even what frees space could be written */
    int64_t retry_at_ms, retry_after_ms;
    int64_t tidy_at_ms; /* INT64_MAX: nothing to tidy */
    int64_t upkeep_at_ms;
    bool is_draining;
};

#define OP(list_link)   LIST_ENTRY(list_link, struct store_op, link)
#define PORT(list_link) LIST_ENTRY(list_link, struct store_port, link)

const char *store_event_name(enum store_event_kind kind)
{
    static const char *const names[] = {
        [STORE_EVENT_DAMAGED] = "store-damaged", [STORE_EVENT_SALVAGED] = "store-salvaged",
        [STORE_EVENT_DISK_FULL] = "disk-full",   [STORE_EVENT_FAILED] = "store-failed",
        [STORE_EVENT_RESUMED] = "store-resumed",
    };
    return names[kind];
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t now_ms(void)
{
    return now_us() / 1000;
}

static bool is_put(const struct store_op *op)
{
    return op->kind == STORE_OP_PUT;
}

static bool is_question(const struct store_op *op)
{
    return op->kind >= STORE_OP_OPEN;
}

static bool is_lazy(const struct store_op *op)
{
    return !is_put(op) && !is_question(op);
}

static void splice(struct list *to, struct list *from)
{
    if (list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

/* ---- operations and ports, from the queues' side ---- */

struct store_op *store_op_new(enum store_op_kind kind, uint64_t id, size_t data_bytes)
{
    struct store_op *op = malloc(sizeof *op + data_bytes);
    if (!op)
        return NULL;
    *op = (struct store_op){.kind = kind, .row.id = id, .row.flat = op->data, .row.flat_bytes = data_bytes};
    list_init(&op->rows);
    return op;
}

void store_op_free(struct store_op *op)
{
    LIST_EACH_SAFE (link, next, &op->rows)
        free(LIST_ENTRY(link, struct store_found, link));
    free(op);
}

void store_ops_free(struct list *ops)
{
    LIST_EACH_SAFE (link, next, ops)
        store_op_free(OP(link));
    list_init(ops);
}

struct store_port *store_port_new(struct store *store, const char *name, const struct store_port_conf *conf)
{
    struct store_port *port = calloc(1, sizeof *port);
    struct store_op *closing = store_op_new(STORE_OP_CLOSE, 0, 0);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!port || !closing || fd < 0) {
        free(port);
        free(closing);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    port->closing = closing;
    port->fd = fd;
    port->store = store;
    snprintf(port->name, sizeof port->name, "%s", name);
    port->conf = *conf;
    port->unsynced_since_ms = -1;
    pthread_mutex_init(&port->mutex, NULL);
    list_init(&port->link);
    list_init(&port->outbox);
    list_init(&port->answers);
    return port;
}

static void free_port(struct store_port *port)
{
    list_remove(&port->link);
    store_ops_free(&port->outbox);
    store_ops_free(&port->answers);
    pthread_mutex_destroy(&port->mutex);
    close(port->fd);
    free(port);
}

void store_submit(struct store_port *port, struct list *ops)
{
    struct store *store = port->store;
    unsigned lazy = 0;
    LIST_EACH (link, ops) {
        OP(link)->port = port;
        lazy += is_lazy(OP(link));
    }
    atomic_fetch_add(&port->unsettled, lazy);
    pthread_mutex_lock(&store->mutex);
    bool was_empty = list_is_empty(&store->incoming);
    splice(&store->incoming, ops);
    pthread_mutex_unlock(&store->mutex);
    if (was_empty)
        pthread_cond_signal(&store->wake);
}

void store_receive(struct store_port *port, struct list *ops)
{
    if (!atomic_exchange(&port->is_signalled, false))
        return;
    pthread_mutex_lock(&port->mutex);
    splice(ops, &port->answers);
    pthread_mutex_unlock(&port->mutex);
}

void store_settle(const struct store_port *port)
{
    uint64_t count;
    ssize_t ignored = read(port->fd, &count, sizeof count);
    (void)ignored;
}

int store_port_fd(const struct store_port *port)
{
    return port->fd;
}

bool store_is_usable(const struct store_port *port)
{
    return atomic_load(&port->store->is_usable);
}

static void signal_port(struct store_port *port)
{
    uint64_t one = 1;
    /* First the flag: the write may wake an owner who preempts us, and who would turn in circles without it. */
    atomic_store(&port->is_signalled, true);
    ssize_t ignored = write(port->fd, &one, sizeof one); /* full counters signal as well */
    (void)ignored;
}

unsigned store_unsettled(const struct store_port *port)
{
    return atomic_load(&port->unsettled);
}

static void signal_settled(struct store_port *port)
{
    unsigned below = atomic_load(&port->wake_below);
    if (below > 0 && atomic_load(&port->unsettled) < below && atomic_exchange(&port->wake_below, 0) > 0)
        signal_port(port);
}

void store_wake_below(struct store_port *port, unsigned limit)
{
    atomic_store(&port->wake_below, limit);
    signal_settled(port);
}

/* ---- the store thread ---- */

static void tell(struct store *store, enum store_event_kind kind, const char *text)
{
    if (store->conf.event)
        store->conf.event(store->conf.context, kind, text, 0);
}

static const char little_space[] = "little space is left";

static void tell_reason(struct store *store, enum store_event_kind kind, const char *reason)
{
    char text[512];
    snprintf(text, sizeof text, "%s: %s", store->conf.directory, reason);
    tell(store, kind, text);
}

static void answer(struct store_op *op, bool is_done)
{
    op->is_done = is_done;
    list_remove(&op->link);
    list_append(&op->port->outbox, &op->link);
}

/* Hands back what was answered; each owner is woken once. */
static void flush(struct store *store)
{
    LIST_EACH (link, &store->ports) {
        struct store_port *port = PORT(link);
        signal_settled(port);
        if (list_is_empty(&port->outbox))
            continue;
        pthread_mutex_lock(&port->mutex);
        bool was_empty = list_is_empty(&port->answers);
        splice(&port->answers, &port->outbox);
        pthread_mutex_unlock(&port->mutex);
        if (was_empty)
            signal_port(port);
    }
}

static void settle(struct store_op *op)
{
    atomic_fetch_sub(&op->port->unsettled, 1);
    list_remove(&op->link);
    store_op_free(op);
}

static enum store_result put(struct store *store, struct store_op *op)
{
    const struct store_port_conf *conf = &op->port->conf;
    enum store_result result = store_file_put(store->file, &op->row);
    if (result == STORE_OK && op->row.has_digest)
        result = store_file_remember(store->file, &op->row, store_file_now(store->file) - conf->remember_ms,
                                     conf->remember_max);
    return result;
}

/* Of a message that was never sent, or whose put was answered as failed: whoever sends the same again must not hear
 * that it is there. */
static enum store_result forget_digest(struct store *store, const struct store_op *op)
{
    return op->row.has_digest ? store_file_forget(store->file, op->row.id) : STORE_OK;
}

static enum store_result carry_out(struct store *store, struct store_op *op)
{
    struct store_file *file = store->file;
    enum store_result result;
    bool was_there;
    switch (op->kind) {
    case STORE_OP_PUT:
        return put(store, op);
    case STORE_OP_DELETE:
        result = forget_digest(store, op);
        return result == STORE_OK ? store_file_delete(file, op->row.id, op->is_far, &was_there) : result;
    case STORE_OP_EXPIRE:
        result = forget_digest(store, op);
        return result == STORE_OK ? store_file_expire(file, op->row.id, op->is_far) : result;
    case STORE_OP_REPLY:
        return store_file_reply(file, op->row.id, op->row.flat, op->row.flat_bytes, op->bytes);
    case STORE_OP_ATTEMPTS:
        return store_file_set_attempts(file, op->row.id, op->count);
    case STORE_OP_BURY:
        return store_file_bury(file, op->row.id, op->count, op->row.reason);
    default:
        return STORE_OK;
    }
}

/* Replies give way to messages, and to time. */
static enum store_result keep_up(struct store *store, struct store_port *port, bool is_due)
{
    const struct store_port_conf *conf = &port->conf;
    const struct store_chain *chain = port->chain ? store_file_chain(store->file, port->chain) : NULL;
    enum store_result result = STORE_OK;
    if (!chain || conf->keep_replies_ms == 0)
        return STORE_OK;
    while (result == STORE_OK && chain->replies > 0 &&
           ((conf->max_messages && chain->live + chain->replies > conf->max_messages) ||
            (conf->max_bytes && chain->live_bytes + chain->reply_bytes > conf->max_bytes)))
        result = store_file_expire_replies(store->file, port->chain, INT64_MAX, 1);
    if (!is_due || result != STORE_OK)
        return result;
    int64_t now = store_file_now(store->file);
    result = store_file_expire_replies(store->file, port->chain, now - conf->keep_replies_ms, UPKEEP_ROWS);
    if (result == STORE_OK)
        result = store_file_forget_replies(store->file, port->chain, now - 2 * conf->keep_replies_ms,
                                           conf->max_messages ? conf->max_messages : UINT64_MAX, UPKEEP_ROWS);
    return result;
}

/* Whether this commit must reach the medium: some message in it was promised to, or one before it by now. */
static bool must_sync(struct store *store, struct list *end, int64_t now)
{
    for (struct list *link = store->pending.next; link != end; link = link->next)
        if (OP(link)->port->conf.sync_ms == 0)
            return true;
    LIST_EACH (link, &store->ports)
        if (PORT(link)->unsynced_since_ms >= 0 &&
            now - PORT(link)->unsynced_since_ms >= PORT(link)->conf.sync_ms)
            return true;
    return false;
}

static void note_all_synced(struct store *store)
{
    LIST_EACH (link, &store->ports)
        PORT(link)->unsynced_since_ms = -1;
}

static void note_sync(struct store *store, struct list *end, bool is_synced, int64_t now)
{
    if (is_synced) {
        note_all_synced(store);
        return;
    }
    for (struct list *link = store->pending.next; link != end; link = link->next)
        if (OP(link)->port->unsynced_since_ms < 0)
            OP(link)->port->unsynced_since_ms = now;
}

/* The end of the next group: up to the first question, and within the bounds. */
static struct list *end_of_group(struct store *store, size_t *puts)
{
    size_t bytes = 0;
    *puts = 0;
    struct list *link = store->pending.next;
    for (; link != &store->pending && !is_question(OP(link)); link = link->next) {
        if (*puts >= GROUP_MESSAGES || bytes >= GROUP_BYTES)
            break;
        *puts += is_put(OP(link));
        bytes += OP(link)->row.flat_bytes;
    }
    return link;
}

static bool is_any_unsynced(const struct store *store)
{
    LIST_EACH (link, &store->ports)
        if (PORT(link)->unsynced_since_ms >= 0)
            return true;
    return false;
}

static enum store_result write_group(struct store *store, struct list *end, bool is_synced)
{
    int64_t now = now_ms();
    enum store_result result = store_file_begin(store->file, is_synced);
    for (struct list *link = store->pending.next; link != end && result == STORE_OK; link = link->next)
        result = carry_out(store, OP(link));
    bool is_due = now >= store->upkeep_at_ms;
    LIST_EACH (link, &store->ports)
        if (result == STORE_OK)
            result = keep_up(store, PORT(link), is_due);
    if (is_due)
        store->upkeep_at_ms = now + UPKEEP_MS;
    if (result == STORE_OK)
        result = store_file_commit(store->file);
    if (result == STORE_OK && is_synced &&
        is_any_unsynced(store)) /* the commit may have had nothing to write */
        result = store_file_sync(store->file);
    return result;
}

static void count_commit(struct store *store, size_t puts, int64_t began_us)
{
    int64_t ended_us = now_us(), took_us = ended_us - began_us;
    histogram_add(&store->commits, (uint64_t)took_us, ended_us / 1000);
    pthread_mutex_lock(&store->mutex);
    struct store_stats *stats = &store->stats;
    stats->messages_total += puts;
    if ((uint64_t)took_us > stats->commit_us_max)
        stats->commit_us_max = (uint64_t)took_us;
    if (puts > stats->largest_group)
        stats->largest_group = puts;
    pthread_mutex_unlock(&store->mutex);
}

/* The owners of queues hear of it: they stop taking messages, or go on. */
static void set_mode(struct store *store, enum mode mode)
{
    store->mode = mode;
    if (atomic_exchange(&store->is_usable, mode == USABLE) == (mode == USABLE))
        return;
    LIST_EACH (link, &store->ports)
        signal_port(PORT(link));
}

/* A full store still reads and deletes; a broken one does nothing. Nobody shall wait for what it does not do,
 * but the queues for what they must hear. */
static bool must_fail(const struct store *store, const struct store_op *op)
{
    if (store->mode == FULL)
        return is_put(op);
    bool may_wait = is_lazy(op) || op->kind == STORE_OP_LOAD || op->kind == STORE_OP_CHANGE ||
                    op->kind == STORE_OP_CLOSE || (op->kind == STORE_OP_OPEN && store->is_salvaging);
    return store->mode == BROKEN && !may_wait;
}

/* Whether a commit that failed happened is not known: the message is deleted should it be there. */
static void undo_later(struct store *store, struct store_op *put)
{
    struct store_op *undo = store_op_new(STORE_OP_DELETE, put->row.id, 0);
    if (!undo)
        return;
    undo->port = put->port;
    undo->is_far = true;
    undo->row.has_digest = put->row.has_digest;
    atomic_fetch_add(&undo->port->unsettled, 1);
    store->pending_lazy++;
    list_insert_after(&put->link, &undo->link);
}

static void fail_waiting(struct store *store)
{
    LIST_EACH_SAFE (link, next, &store->pending) {
        struct store_op *op = OP(link);
        if (!must_fail(store, op))
            continue;
        if (op->kind == STORE_OP_PUT && store->mode == BROKEN)
            undo_later(store, op);
        op->has_failed = true;
        answer(op, false);
    }
    flush(store);
}

static void fall_back(struct store *store, enum store_result result)
{
    store_file_rollback(store->file);
    char reason[256];
    snprintf(reason, sizeof reason, "%s", store_file_error(store->file));
    enum mode before = store->mode;
    if (result == STORE_FULL) {
        set_mode(store, FULL);
        store->is_blocked = !store_file_give_reserve(store->file);
        if (!store->is_blocked)
            result = store_file_truncate_log(store->file);
        store->retry_at_ms = now_ms() + SPACE_MS;
        if (before == USABLE)
            tell_reason(store, STORE_EVENT_DISK_FULL, reason);
    }
    if (result == STORE_BROKEN || result == STORE_CORRUPT) {
        set_mode(store, BROKEN);
        store->is_salvaging = result == STORE_CORRUPT;
        store->retry_after_ms = store->is_salvaging ? 0 : REOPEN_MS;
        store->retry_at_ms = now_ms() + store->retry_after_ms;
        if (before != BROKEN)
            tell_reason(store, STORE_EVENT_FAILED, reason);
    }
    fail_waiting(store);
}

/* Commits the next group. False when that failed. */
static bool run_group(struct store *store)
{
    size_t puts;
    struct list *end = end_of_group(store, &puts);
    int64_t began_us = now_us();
    bool is_synced = must_sync(store, end, began_us / 1000);
    enum store_result result = write_group(store, end, is_synced);
    if (result != STORE_OK) {
        fall_back(store, result);
        return false;
    }
    note_sync(store, end, is_synced, began_us / 1000);
    count_commit(store, puts, began_us);
    while (store->pending.next != end) {
        struct store_op *op = OP(store->pending.next);
        if (is_put(op)) {
            answer(op, true);
        } else {
            store->pending_lazy--;
            settle(op);
        }
    }
    flush(store);
    store->lazy_since_ms = now_ms();
    store->tidy_at_ms = store->lazy_since_ms + TIDY_MS;
    if (store->mode == USABLE && !store_file_has_space(store->file)) {
        set_mode(store, FULL);
        store->retry_at_ms = now_ms() + SPACE_MS;
        tell_reason(store, STORE_EVENT_DISK_FULL, little_space);
    }
    result = store_file_checkpoint(store->file);
    if (result != STORE_OK)
        fall_back(store, result);
    return result == STORE_OK;
}

struct reading {
    struct store_op *op;
    bool is_short;
    bool has_damaged;
};

static void keep_row(void *context, uint64_t id, const struct store_row *row)
{
    struct reading *reading = context;
    size_t size = row ? row->flat_bytes : 0;
    struct store_found *found = malloc(sizeof *found + size);
    if (!found) {
        reading->is_short = true;
        return;
    }
    found->is_damaged = !row;
    reading->has_damaged |= !row;
    found->row = row ? *row : (struct store_row){.id = id};
    if (size > 0)
        memcpy(found->data, row->flat, size);
    found->row.flat = found->data;
    list_append(&reading->op->rows, &found->link);
}

static enum store_result set_aside(struct store *store, struct store_op *op)
{
    uint64_t count = 0;
    enum store_result result = store_file_begin(store->file, true);
    LIST_EACH (link, &op->rows) {
        struct store_found *found = LIST_ENTRY(link, struct store_found, link);
        if (found->is_damaged && result == STORE_OK)
            result = store_file_set_aside(store->file, found->row.id);
        count += found->is_damaged;
    }
    if (result == STORE_OK)
        result = store_file_commit(store->file);
    if (result == STORE_OK && store->conf.event) {
        char text[128];
        snprintf(text, sizeof text, "messages of chain %s were kept aside", op->port->name);
        store->conf.event(store->conf.context, STORE_EVENT_DAMAGED, text, count);
    }
    return result;
}

static enum store_result read_rows(struct store *store, struct store_op *op)
{
    struct reading reading = {.op = op};
    enum store_table table = op->kind == STORE_OP_PAGE_DEAD ? STORE_DEAD : STORE_MESSAGES;
    enum store_result result = store_file_read(store->file, table, op->row.id, op->count, op->max_bytes,
                                               keep_row, &reading, &op->next);
    if (result == STORE_OK && reading.has_damaged && op->kind == STORE_OP_LOAD)
        result = set_aside(store, op);
    op->has_failed = reading.is_short;
    return result;
}

/* A question that changes something has a commit of its own: an operator asks it. */
static enum store_result change(struct store *store, struct store_op *op, bool *was_there)
{
    struct store_file *file = store->file;
    const struct store_chain *chain = store_file_chain(file, op->port->chain);
    uint64_t id = op->row.id, bytes = chain->live_bytes + chain->dead_bytes;
    enum store_result result = store_file_begin(file, true);
    if (result == STORE_OK)
        result = op->kind == STORE_OP_DROP        ? store_file_delete(file, id, op->is_far, was_there)
                 : op->kind == STORE_OP_DROP_DEAD ? store_file_delete_dead(file, id, was_there)
                                                  : store_file_unbury(file, id, was_there);
    if (result == STORE_OK && *was_there && op->kind == STORE_OP_DROP)
        result = store_file_forget(file, id);
    if (result == STORE_OK)
        result = store_file_commit(file);
    op->bytes = bytes - chain->live_bytes - chain->dead_bytes;
    if (result == STORE_OK && *was_there && op->kind == STORE_OP_RETRY_DEAD) {
        op->count = 1;
        result = read_rows(store, op);
    }
    return result;
}

static enum store_result open_chain(struct store *store, struct store_op *op)
{
    struct store_port *port = op->port;
    uint32_t number;
    enum store_result result = store_file_begin(store->file, true);
    if (result == STORE_OK)
        result = store_file_open_chain(store->file, port->name, op->count, &number);
    if (result == STORE_OK && port->conf.remember_ms == 0)
        result = store_file_forget_all(store->file, number);
    if (result == STORE_OK)
        result = store_file_commit(store->file);
    if (result != STORE_OK)
        return result;
    port->chain = number;
    op->chain = *store_file_chain(store->file, number);
    op->row.taken = store_file_now(store->file);
    struct reading reading = {.op = op};
    result = store_file_recall(store->file, number, op->row.taken - port->conf.remember_ms, op->row.taken,
                               keep_row, &reading);
    op->has_failed = reading.is_short;
    return result;
}

/* Whoever hears of it may promise by the new settings, whatever it was that was put before. */
static enum store_result change_port(struct store *store, const struct store_op *op)
{
    struct store_port_conf *conf = &op->port->conf;
    memcpy(conf, op->data, sizeof *conf);
    if (conf->sync_ms > 0 || op->port->unsynced_since_ms < 0)
        return STORE_OK;
    enum store_result result = store_file_sync(store->file);
    if (result == STORE_OK)
        note_all_synced(store);
    return result;
}

/* Says so in the mark. */
static enum store_result note_sending(struct store *store, struct store_op *op)
{
    enum store_result result = store_file_begin(store->file, true);
    if (result == STORE_OK)
        store_file_set_sending(store->file, op->port->chain);
    return result == STORE_OK ? store_file_commit(store->file) : result;
}

static void note_id(void *context, uint64_t id, const struct store_row *row)
{
    (void)row;
    *(uint64_t *)context = id;
}

/* Deletes the oldest dead letters beyond the bounds. */
static enum store_result trim_dead(struct store *store, struct store_op *op)
{
    const struct store_port_conf *conf = &op->port->conf;
    const struct store_chain *chain = store_file_chain(store->file, op->port->chain);
    uint64_t bytes_before = chain->dead_bytes;
    enum store_result result = store_file_begin(store->file, true);
    while (result == STORE_OK && ((conf->max_messages && chain->dead > conf->max_messages) ||
                                  (conf->max_bytes && chain->dead_bytes > conf->max_bytes))) {
        uint64_t id = 0, next;
        bool was_there = false;
        result = store_file_read(store->file, STORE_DEAD, (uint64_t)chain->number << STORE_SEQUENCE_BITS, 1,
                                 0, note_id, &id, &next);
        if (result == STORE_OK && id != 0)
            result = store_file_delete_dead(store->file, id, &was_there);
        if (!was_there)
            break;
        op->count++;
    }
    op->bytes = bytes_before - chain->dead_bytes;
    return result == STORE_OK ? store_file_commit(store->file) : result;
}

static enum store_result find_ticket(struct store *store, struct store_op *op)
{
    struct store_row row;
    unsigned char secret[STORE_SECRET_BYTES];
    memcpy(secret, op->row.secret, sizeof secret);
    int64_t keep_ms = op->port->conf.keep_replies_ms;
    enum store_result result = store_file_find(store->file, op->row.id, secret, op->row.owner,
                                               store_file_now(store->file) - keep_ms, &op->ticket, &row);
    if (result != STORE_OK)
        return result;
    if (op->ticket == STORE_TICKET_DEAD)
        memcpy(op->row.reason, row.reason, sizeof row.reason);
    if (op->ticket == STORE_TICKET_DONE) {
        struct reading reading = {.op = op};
        keep_row(&reading, row.id, &row);
        op->has_failed = reading.is_short;
        free((void *)row.flat);
    }
    return STORE_OK;
}

/* Answers the question at the front of `pending`. False when the store failed on it. */
static bool run_question(struct store *store)
{
    struct store_op *op = OP(store->pending.next);
    enum store_result result = STORE_OK;
    bool is_done = true;
    switch (op->kind) {
    case STORE_OP_CLOSE:
        free_port(op->port);
        list_remove(&op->link);
        store_op_free(op);
        return true;
    case STORE_OP_OPEN:
        result = open_chain(store, op);
        break;
    case STORE_OP_FIND:
        result = find_ticket(store, op);
        break;
    case STORE_OP_CHANGE:
        result = change_port(store, op);
        break;
    case STORE_OP_SENDING:
        result = note_sending(store, op);
        break;
    case STORE_OP_TRIM_DEAD:
        result = trim_dead(store, op);
        break;
    case STORE_OP_LOAD:
    case STORE_OP_PAGE:
    case STORE_OP_PAGE_DEAD:
        result = read_rows(store, op);
        break;
    default:
        result = change(store, op, &is_done);
        break;
    }
    if (result != STORE_OK) {
        LIST_EACH_SAFE (link, next, &op->rows)
            free(LIST_ENTRY(link, struct store_found, link));
        list_init(&op->rows);
        if (result == STORE_FULL) { /* it was to write something */
            op->has_failed = true;
            answer(op, false);
        }
        fall_back(store, result);
        return false;
    }
    answer(op, is_done && !op->has_failed);
    flush(store);
    return true;
}

/* The next try of a store that is full or broken. */
static void retry(struct store *store)
{
    int64_t now = now_ms();
    if (store->mode == FULL) {
        store->retry_at_ms = now + SPACE_MS;
        store->is_blocked = false;
        if (!store_file_has_space(store->file))
            return;
    } else {
        enum store_result result = store_file_reopen(store->file);
        store->is_salvaging = false;
        if (result != STORE_OK) {
            store->retry_after_ms = store->retry_after_ms == 0                  ? REOPEN_MS
                                    : store->retry_after_ms < REOPEN_MAX_MS / 2 ? store->retry_after_ms * 2
                                                                                : REOPEN_MAX_MS;
            store->retry_at_ms = now + store->retry_after_ms;
            return;
        }
    }
    store->is_blocked = false;
    tell(store, STORE_EVENT_RESUMED, store->conf.directory);
    set_mode(store, USABLE);
}

/* Gives space back, step by step. */
static void tidy(struct store *store)
{
    bool is_done;
    enum store_result result = store_file_tidy(store->file, &is_done);
    if (result != STORE_OK)
        fall_back(store, result);
    if (result == STORE_OK && !is_done)
        store->tidy_at_ms = now_ms();
    else if (store->mode == FULL) /* perhaps too tight even for this, and only this gives space back */
        store->tidy_at_ms = now_ms() + TIDY_MS;
    else
        store->tidy_at_ms = INT64_MAX;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Whether the front of `pending` should be dealt with now: lazy operations wait for company. */
static bool has_work(const struct store *store, int64_t now)
{
    if (store->mode == BROKEN || store->is_blocked || list_is_empty(&store->pending))
        return false;
    if (store->is_draining || store->pending_lazy >= LAZY_MAX || now - store->lazy_since_ms >= LAZY_MS)
        return true;
    LIST_EACH (link, &store->pending)
        if (!is_lazy(OP(link)))
            return true;
    return false;
}

/* When something unsynced must be synced, or old replies looked after, if nothing else happens. */
static int64_t group_deadline(const struct store *store)
{
    int64_t at = INT64_MAX;
    LIST_EACH (link, &store->ports) {
        const struct store_port *port = PORT(link);
        if (port->unsynced_since_ms >= 0)
            at = least(at, port->unsynced_since_ms + port->conf.sync_ms);
        const struct store_chain *chain = port->chain ? store_file_chain(store->file, port->chain) : NULL;
        if (chain && port->conf.keep_replies_ms > 0 && chain->replies + chain->expired > 0)
            at = least(at, store->upkeep_at_ms + least(port->conf.keep_replies_ms / 16, UPKEEP_IDLE_MAX_MS));
    }
    return at;
}

/* When the thread has something to do of its own. */
static int64_t next_deadline(const struct store *store)
{
    int64_t at = store->mode != USABLE ? store->retry_at_ms : INT64_MAX;
    if (store->mode == BROKEN || store->is_blocked)
        return at;
    if (store->pending_lazy > 0)
        at = least(at, store->lazy_since_ms + LAZY_MS);
    return least(least(at, group_deadline(store)), store->tidy_at_ms);
}

/* Waits for work, and takes it. False when the store is to close. */
static bool take(struct store *store)
{
    struct list taken;
    list_init(&taken);
    pthread_mutex_lock(&store->mutex);
    for (;;) {
        int64_t now = now_ms(), at = next_deadline(store);
        if (!list_is_empty(&store->incoming) || store->is_closing || has_work(store, now) || at <= now)
            break;
        if (at == INT64_MAX) {
            pthread_cond_wait(&store->wake, &store->mutex);
        } else {
            struct timespec until = {.tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000};
            pthread_cond_timedwait(&store->wake, &store->mutex, &until);
        }
    }
    splice(&taken, &store->incoming);
    bool is_closing = store->is_closing;
    pthread_mutex_unlock(&store->mutex);
    LIST_EACH (link, &taken) {
        struct store_op *op = OP(link);
        if (is_lazy(op) && store->pending_lazy++ == 0)
            store->lazy_since_ms = now_ms();
        if (op->kind == STORE_OP_OPEN)
            list_append(&store->ports, &op->port->link);
    }
    splice(&store->pending, &taken);
    return !is_closing;
}

/* Does what is to be done now. */
static void work(struct store *store)
{
    if (store->mode != USABLE && now_ms() >= store->retry_at_ms)
        retry(store);
    if (store->mode != USABLE)
        fail_waiting(store);
    while (has_work(store, now_ms())) {
        bool is_well = is_question(OP(store->pending.next)) ? run_question(store) : run_group(store);
        if (!is_well)
            return;
    }
    if (store->mode == BROKEN || store->is_blocked)
        return;
    if (group_deadline(store) <= now_ms() && !run_group(store))
        return;
    if (store->tidy_at_ms <= now_ms() && list_is_empty(&store->pending))
        tidy(store);
}

static void *store_main(void *context)
{
    struct store *store = context;
    while (take(store)) {
        work(store);
        atomic_store(&store->has_reserve, store_file_has_reserve(store->file));
    }
    store->is_draining = true;
    store->retry_at_ms = 0; /* one more try, if it takes one */
    work(store);
    return NULL;
}

/* ---- opening and closing ---- */

struct store *store_open(const struct store_conf *conf, char *err, size_t err_bytes)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store) {
        snprintf(err, err_bytes, "out of memory");
        return NULL;
    }
    store->conf = *conf;
    list_init(&store->incoming);
    list_init(&store->ports);
    list_init(&store->pending);
    store->tidy_at_ms = now_ms() + TIDY_MS; /* the last run may have had no time for it */
    if (store_file_open(&store->file, conf, err, err_bytes) != STORE_OK) {
        free(store);
        return NULL;
    }
    set_mode(store, store_file_has_space(store->file) ? USABLE : FULL);
    atomic_store(&store->has_reserve, store_file_has_reserve(store->file));
    store->retry_at_ms = now_ms() + SPACE_MS;
    if (store->mode == FULL)
        tell_reason(store, STORE_EVENT_DISK_FULL, little_space);
    pthread_mutex_init(&store->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int code = pthread_create(&store->thread, NULL, store_main, store);
    if (code == 0)
        return store;
    snprintf(err, err_bytes, "cannot start a thread: %s", strerror(code));
    pthread_cond_destroy(&store->wake);
    pthread_mutex_destroy(&store->mutex);
    store_file_close(store->file);
    free(store);
    return NULL;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&store->mutex);
    store->is_closing = true;
    pthread_mutex_unlock(&store->mutex);
    pthread_cond_signal(&store->wake);
    pthread_join(store->thread, NULL);
    store_file_close(store->file);
    LIST_EACH_SAFE (link, next, &store->ports)
        free_port(PORT(link));
    store_ops_free(&store->pending);
    pthread_cond_destroy(&store->wake);
    pthread_mutex_destroy(&store->mutex);
    free(store);
}

void store_stats(struct store *store, struct store_stats *stats)
{
    pthread_mutex_lock(&store->mutex);
    *stats = store->stats;
    pthread_mutex_unlock(&store->mutex);
    histogram_read(&store->commits, now_ms(), &stats->commits);
    stats->bytes_written_total = store_file_bytes_written();
    stats->is_usable = atomic_load(&store->is_usable);
    stats->has_reserve = atomic_load(&store->has_reserve);
}

void store_port_close(struct store_port *port)
{
    struct list ops;
    list_init(&ops);
    list_append(&ops, &port->closing->link);
    port->closing = NULL;
    store_submit(port, &ops);
}
