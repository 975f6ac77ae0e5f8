/* SPDX-License-Identifier: MIT
 *
 * A running chain; see chain.h. The loop is one page (chain_run, turn); everything it does takes bounded time
 * and never blocks but in poller_wait. Other threads leave their wishes in `wanted` and read `published`,
 * both under one mutex that is held for a copy only.
 */
#include "proxies/chain.h"

#include "proxies/ask.h"
#include "proxies/back.h"
#include "proxies/dedupe.h"
#include "proxies/dialect.h"
#include "proxies/door.h"
#include "proxies/front.h"
#include "proxies/kinds.h"
#include "proxies/poller.h"
#include "proxies/retry.h"
#include "proxies/tickets.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

enum {
    TAKEN_PER_TURN = 256, /* messages, and bytes: */
    TAKEN_BYTES_PER_TURN = 1 << 20,
    SENT_PER_TURN = 256,
    DEDUPE_MAX = 65536,       /* requests remembered */
    CREDIT = 1000,            /* of drain_rate, for one message */
    ANSWERS_LINGER_MS = 1000, /* at the end: for answers and publications on their way */
};

struct wishes {
    bool is_paused, is_draining, is_stopping;
    int64_t stop_by_ms;
};

struct published {
    enum chain_state state;
    struct ledger ledger;
    uint64_t queue_bytes;
    int64_t oldest_taken_ms; /* -1 = none */
    uint64_t turns;
    bool is_stopped;
    struct upstream_stats *upstreams; /* upstream_count rows */
    uint32_t worker_count;
    struct worker_stats *workers;
};

struct chain {
    const struct chain_conf *conf;
    struct surroundings around;
    struct poller poller;
    struct waker *waker;
    bool is_woken; /* set by the poller */
    struct front *front;
    struct back *back;
    struct queue *queue;
    struct tickets *tickets; /* NULL = none */
    struct dedupe *dedupe;   /* NULL = off */
    bool has_news;           /* of the queue; set by the poller */
    struct list storing;     /* of queue_item.wait: callers to be told when it is stored */
    struct list patient;     /* of queue_item.wait: stored, their callers wait for the reply; oldest first */
    int64_t credit, credit_ms; /* drain_rate: what may be sent now, and as of when */
    struct ledger ledger;
    struct queue_item *spare;   /* to take the next message into */
    struct queue_item *pending; /* when_full = block: taken, and the queue has no room */
    uint64_t turn_bytes;        /* taken in this turn */
    bool has_backlog;           /* the last turn stopped at its budget */
    int64_t unconnected_ms;     /* since when no upstream is connected; -1 = one is */
    uint64_t turns;
    uint16_t now_us;   /* how far into now_ms this turn began */
    struct wishes now; /* the loop's copy */

    pthread_t thread;
    bool is_started;
    int daemon_waker;
    uint32_t upstream_count;
    struct upstream_stats *rows; /* the loop's, copied when published, as the next */
    uint32_t worker_count;
    struct worker_stats *workers; /* NULL: nobody connects to the backend to work */

    struct histogram requests; /* the loop adds */
    atomic_bool is_turning;    /* counters may be ahead of `published` */
    _Atomic int64_t pinged_ms; /* since when a ping waits for the loop; 0 = none does */
    pthread_mutex_t mutex;
    struct wishes wanted;       /* guarded by mutex */
    struct list asks;           /* guarded by mutex: struct ask not looked at yet */
    struct published published; /* guarded by mutex */
};

static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The time of the next turn. */
static int64_t look_at_clock(struct chain *chain)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    chain->now_us = (uint16_t)(now.tv_nsec / 1000 % 1000);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- answering ---- */

static void answer(struct chain *chain, const struct queue_item *item, const struct message *body,
                   int64_t now_ms)
{
    if (item->envelope.count > 0)
        chain->conf->kind->front->answer(chain->front, item, body, now_ms);
}

static void answer_error(struct chain *chain, const struct queue_item *item, enum reason reason,
                         int64_t now_ms)
{
    if (item->envelope.count == 0)
        return;
    struct message body = {0};
    if (chain->conf->dialect->error(&item->body, reason, &body) == 0)
        answer(chain, item, &body, now_ms);
    message_close(&body);
}

static void answer_ack(struct chain *chain, const struct queue_item *item, const char *level,
                       const char *ticket, int64_t now_ms)
{
    if (item->envelope.count == 0)
        return;
    struct message body = {0};
    if (chain->conf->dialect->ack(&item->body, level, ticket, &body) == 0)
        answer(chain, item, &body, now_ms);
    message_close(&body);
}

/* The caller of a message that was in the queue is about to be answered; one that has no caller is delivered. */
static void count_time(struct chain *chain, const struct queue_item *item, int64_t now_ms)
{
    if (item->envelope.count == 0 && chain->conf->kind->answer != ANSWER_NEVER)
        return;
    int64_t took_us = (now_ms - item->taken_ms) * 1000 + chain->now_us - item->taken_us;
    histogram_add(&chain->requests, (uint64_t)took_us, now_ms);
}

/* ---- the ends of a message ---- */

static void leave_queue(struct chain *chain, struct queue_item *item)
{
    chain->conf->kind->back->forget(chain->back, item);
    queue_remove(chain->queue, item);
}

static void fail(struct chain *chain, struct queue_item *item, enum reason reason, int64_t now_ms)
{
    chain->ledger.failed[reason]++;
    count_time(chain, item, now_ms);
    answer_error(chain, item, reason, now_ms);
    leave_queue(chain, item);
}

/* max_age has come. What was never sent is certainly not delivered; of the rest nobody knows. */
static void expire(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    if (item->was_sent) {
        fail(chain, item, REASON_TIMEOUT, now_ms);
        return;
    }
    chain->ledger.expired++;
    count_time(chain, item, now_ms);
    answer_error(chain, item, REASON_UNAVAILABLE, now_ms);
    leave_queue(chain, item);
}

static void drop(struct chain *chain, struct queue_item *item, enum drop reason, int64_t now_ms)
{
    chain->ledger.dropped[reason]++;
    answer_error(chain, item, REASON_QUEUE_FULL, now_ms);
    leave_queue(chain, item);
}

/* ---- storing ---- */

static bool acks_when_stored(const struct chain *chain)
{
    return chain->conf->kind->answer == ANSWER_STORED;
}

/* A request that is on the disk only is not kept in memory for its caller's sake; its ack, which may repeat
 * some of it, takes its place. */
static void keep_only_ack(struct chain *chain, struct queue_item *item)
{
    char ticket[QUEUE_TICKET_BYTES];
    struct message ack = {0};
    queue_ticket(chain->queue, item, ticket);
    if (acks_when_stored(chain) && item->envelope.count > 0)
        chain->conf->dialect->ack(&item->body, queue_ack_level(chain->queue), ticket, &ack);
    message_move(&item->body, &ack);
}

/* The caller has its one answer; the message goes on without it. */
static void answer_accepted(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    char ticket[QUEUE_TICKET_BYTES];
    count_time(chain, item, now_ms);
    queue_ticket(chain->queue, item, ticket);
    if (item->place == QUEUE_AWAY)
        answer(chain, item, &item->body, now_ms);
    else
        answer_ack(chain, item, queue_ack_level(chain->queue), ticket, now_ms);
    message_close(&item->envelope);
    list_remove(&item->wait);
}

/* Those who sent the same as `item` hear the same. */
static void settle_duplicates(struct chain *chain, struct queue_item *item, bool is_stored, int64_t now_ms)
{
    struct dedupe_entry *entry = item->note;
    if (!entry)
        return;
    item->note = NULL;
    entry->is_stored = is_stored;
    queue_ticket(chain->queue, item, entry->ticket);
    LIST_EACH_SAFE (link, following, &entry->waiting) {
        struct queue_item *duplicate = LIST_ENTRY(link, struct queue_item, wait);
        if (is_stored)
            answer_ack(chain, duplicate, queue_ack_level(chain->queue), entry->ticket, now_ms);
        else
            answer_error(chain, duplicate, REASON_STORE_FAILED, now_ms);
        queue_item_free(chain->queue, duplicate);
    }
    if (!is_stored)
        dedupe_remove(chain->dedupe, entry);
}

/* What the store has promised, or could not. */
static void settle_stored(struct chain *chain, int64_t now_ms)
{
    bool is_stored;
    struct queue_item *item;
    while ((item = queue_next_stored(chain->queue, &is_stored)) != NULL) {
        settle_duplicates(chain, item, is_stored, now_ms);
        list_remove(&item->wait);
        if (is_stored && item->place == QUEUE_AWAY)
            keep_only_ack(chain, item);
        if (!is_stored)
            fail(chain, item, REASON_STORE_FAILED, now_ms);
        else if (acks_when_stored(chain) && chain->conf->queue.patience_ms > 0)
            list_append(&chain->patient, &item->wait);
        else if (acks_when_stored(chain))
            answer_accepted(chain, item, now_ms);
    }
}

static int64_t patience_ends_ms(const struct chain *chain)
{
    struct list *link = list_first(&chain->patient);
    return link ? LIST_ENTRY(link, struct queue_item, wait)->taken_ms + chain->conf->queue.patience_ms
                : INT64_MAX;
}

static void end_patience(struct chain *chain, int64_t now_ms)
{
    while (patience_ends_ms(chain) <= now_ms)
        answer_accepted(chain, LIST_ENTRY(chain->patient.next, struct queue_item, wait), now_ms);
}

/* Sends on what was put, and settles what is stored by now. */
static void commit(struct chain *chain, int64_t now_ms)
{
    queue_commit(chain->queue);
    settle_stored(chain, now_ms);
}

/* True when the same request came lately: its caller gets the first one's ticket. */
static bool is_duplicate(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    if (!chain->dedupe)
        return false;
    uint8_t digest[RUNTIME_DIGEST_BYTES];
    chain->around.runtime->digest(item->sender, &item->body, digest);
    struct dedupe_entry *entry = dedupe_find(chain->dedupe, digest, now_ms);
    if (!entry) {
        item->note = dedupe_add(chain->dedupe, digest, now_ms);
        return false;
    }
    chain->ledger.accepted++;
    chain->ledger.dropped[DROP_DUPLICATE]++;
    if (entry->is_stored) {
        answer_ack(chain, item, queue_ack_level(chain->queue), entry->ticket, now_ms);
        queue_item_free(chain->queue, item);
    } else {
        list_append(&entry->waiting, &item->wait);
    }
    return true;
}

/* A message that did not get into the queue is not remembered as having come. */
static void forget_digest(struct chain *chain, struct queue_item *item)
{
    if (item->note)
        dedupe_remove(chain->dedupe, item->note);
    item->note = NULL;
}

/* ---- intake ---- */

/* A message that never entered the queue. */
static void refuse(struct chain *chain, struct queue_item *item, enum reason reason, int64_t now_ms)
{
    chain->ledger.accepted++;
    chain->ledger.failed[reason]++;
    answer_error(chain, item, reason, now_ms);
    queue_item_free(chain->queue, item);
}

static void refuse_as_dropped(struct chain *chain, struct queue_item *item, enum drop reason, int64_t now_ms)
{
    chain->ledger.accepted++;
    chain->ledger.dropped[reason]++;
    if (reason != DROP_MALFORMED)
        answer_error(chain, item, REASON_QUEUE_FULL, now_ms);
    queue_item_free(chain->queue, item);
}

/* Drops the oldest until `item` fits. False when dropping cannot help: all are in flight, or on their way to
 * the medium. */
static bool make_room(struct chain *chain, const struct queue_item *item, int64_t now_ms)
{
    while (!queue_has_room(chain->queue, item->body.bytes)) {
        struct queue_item *oldest = queue_oldest(chain->queue);
        if (!oldest) {
            commit(chain, now_ms); /* this turn's own messages can be dropped, too */
            oldest = queue_oldest(chain->queue);
        }
        if (!oldest)
            return false;
        drop(chain, oldest, DROP_OLDEST, now_ms);
    }
    return true;
}

static void taken(struct chain *chain, struct queue_item *item)
{
    chain->ledger.accepted++;
    if (acks_when_stored(chain))
        list_append(&chain->storing, &item->wait);
}

static void put_when_full(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    switch (chain->conf->queue.when_full) {
    case QUEUE_BLOCK:
        chain->pending = item;
        return;
    case QUEUE_DROP_NEWEST:
        refuse_as_dropped(chain, item, DROP_NEWEST, now_ms);
        return;
    case QUEUE_DROP_OLDEST:
        if (!make_room(chain, item, now_ms))
            refuse_as_dropped(chain, item, DROP_NEWEST, now_ms);
        else if (queue_put(chain->queue, item) == QUEUE_TAKEN)
            taken(chain, item);
        else
            refuse(chain, item, REASON_STORE_FAILED, now_ms);
        return;
    default:
        refuse(chain, item, REASON_QUEUE_FULL, now_ms);
    }
}

static bool can_be_sent(const struct chain *chain, const struct queue_item *item)
{
    const struct back_ops *ops = chain->conf->kind->back;
    return !ops->carries || ops->carries(chain->back, &item->body);
}

static void accept_message(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    int64_t max_bytes = chain->conf->queue.max_bytes;
    if (chain->now.is_draining || chain->now.is_stopping) {
        refuse(chain, item, REASON_SHUTTING_DOWN, now_ms);
        return;
    }
    if (max_bytes > 0 && item->body.bytes > (uint64_t)max_bytes) { /* no waiting or dropping would help */
        refuse(chain, item, REASON_QUEUE_FULL, now_ms);
        return;
    }
    if (!can_be_sent(chain, item)) {
        refuse(chain, item, REASON_BAD_REQUEST, now_ms);
        return;
    }
    if (is_duplicate(chain, item, now_ms))
        return;
    switch (queue_put(chain->queue, item)) {
    case QUEUE_TAKEN:
        taken(chain, item);
        return;
    case QUEUE_FULL:
        forget_digest(chain, item);
        put_when_full(chain, item, now_ms);
        return;
    default:
        forget_digest(chain, item);
        refuse(chain, item, REASON_STORE_FAILED, now_ms);
    }
}

static void retry_pending(struct chain *chain, int64_t now_ms)
{
    struct queue_item *item = chain->pending;
    if (!item)
        return;
    chain->pending = NULL;
    accept_message(chain, item, now_ms);
}

static bool is_intake_stopped(const struct chain *chain)
{
    bool has_callers = chain->conf->kind->front->has_callers;
    if (chain->pending)
        return true;
    /* Callers hear of a drain, and of a store out of order; publishers cannot be told, their messages wait. */
    if (!has_callers && (chain->now.is_draining || chain->now.is_stopping))
        return true;
    return !queue_can_take(chain->queue) && !(has_callers && queue_is_broken(chain->queue));
}

/* Takes one message; false when there is none. */
static bool take_message(struct chain *chain, int64_t now_ms)
{
    if (!chain->spare)
        chain->spare = queue_item_new(chain->queue);
    struct queue_item *item = chain->spare;
    if (!item)
        return false;
    enum front_taken taken = chain->conf->kind->front->take(chain->front, item, now_ms);
    if (taken == FRONT_NOTHING)
        return false;
    chain->spare = NULL;
    chain->turn_bytes += item->body.bytes;
    item->taken_ms = now_ms;
    item->taken_us = chain->now_us;
    switch (taken) {
    case FRONT_MESSAGE:
        accept_message(chain, item, now_ms);
        return true;
    case FRONT_TOO_LARGE:
        refuse(chain, item, REASON_TOO_LARGE, now_ms);
        return true;
    case FRONT_DENIED:
        refuse(chain, item, REASON_DENIED, now_ms);
        return true;
    case FRONT_RATE_LIMITED:
        refuse(chain, item, REASON_RATE_LIMITED, now_ms);
        return true;
    case FRONT_MALFORMED:
        refuse_as_dropped(chain, item, DROP_MALFORMED, now_ms);
        return true;
    case FRONT_SHORT:
        refuse(chain, item, REASON_FAILED, now_ms);
        return true;
    default:
        queue_item_free(chain->queue, item);
        return true;
    }
}

static void take_messages(struct chain *chain, int64_t now_ms)
{
    chain->turn_bytes = 0;
    for (int i = 0; i < TAKEN_PER_TURN && chain->turn_bytes < TAKEN_BYTES_PER_TURN; i++) {
        if (is_intake_stopped(chain) || !take_message(chain, now_ms))
            return;
    }
}

/* ---- delivery ---- */

static bool is_durable(const struct chain *chain)
{
    return chain->conf->queue.store != STORE_MEMORY;
}

static void retry(struct chain *chain, struct queue_item *item, int64_t delay_ms, int64_t now_ms)
{
    item->retries++;
    chain->ledger.retries++;
    queue_nack(chain->queue, item, now_ms + delay_ms);
}

static void bury(struct chain *chain, struct queue_item *item, const char *reason)
{
    chain->conf->kind->back->forget(chain->back, item);
    EVENT(&chain->around.runtime->events, EVENT_WARNING, "dead-letter",
          EVENT_TEXT("chain", chain->conf->name), EVENT_NUMBER("attempts", item->attempts),
          EVENT_TEXT("reason", reason));
    queue_bury(chain->queue, item, reason);
}

static void settle_failure(struct chain *chain, const struct back_outcome *outcome, int64_t now_ms)
{
    struct queue_item *item = outcome->item;
    const struct backend_conf *backend = &chain->conf->backend;
    const struct queue_conf *bounds = &chain->conf->queue;
    enum reason reason = outcome->result == BACK_TIMEOUT ? REASON_TIMEOUT : REASON_LOST;
    bool is_too_old = bounds->max_age_ms > 0 && now_ms - item->taken_ms >= bounds->max_age_ms;
    bool may_retry = chain->conf->kind->retries_forever || item->retries < backend->retries;
    int64_t delay_ms =
        retry_delay_ms(item->retries + 1, backend->backoff_ms, backend->backoff_max_ms, retry_random());
    if (outcome->was_alone && bounds->max_attempts > 0 && ++item->attempts >= bounds->max_attempts)
        bury(chain, item, reason_info(reason)->name);
    else if (may_retry && !is_too_old)
        retry(chain, item, chain->conf->kind->is_ordered && !outcome->was_alone ? 0 : delay_ms, now_ms);
    else
        fail(chain, item, reason, now_ms);
}

static void settle(struct chain *chain, struct back_outcome *outcome, int64_t now_ms)
{
    struct queue_item *item = outcome->item;
    switch (outcome->result) {
    case BACK_DELIVERED:
        break;
    case BACK_UNSENT:
        queue_nack(chain->queue, item, now_ms);
        return;
    case BACK_UNFIT:
        fail(chain, item, REASON_BAD_REQUEST, now_ms);
        return;
    default:
        settle_failure(chain, outcome, now_ms);
        return;
    }
    chain->ledger.delivered++;
    count_time(chain, item, now_ms);
    if (chain->conf->kind->answer == ANSWER_SENT)
        answer_ack(chain, item, NULL, NULL, now_ms);
    else
        answer(chain, item, outcome->reply, now_ms); /* buffered: where its caller was patient */
    chain->conf->kind->back->forget(chain->back, item);
    queue_ack(chain->queue, item, outcome->reply);
}

static void settle_outcomes(struct chain *chain, int64_t now_ms)
{
    struct back_outcome outcome;
    while (chain->conf->kind->back->next_outcome(chain->back, &outcome))
        settle(chain, &outcome, now_ms);
}

/* drain_rate as a token bucket that holds a tenth of a second's messages, and at least one. */
static void refill_credit(struct chain *chain, int64_t now_ms)
{
    int64_t rate = chain->conf->queue.drain_rate;
    int64_t most = rate * CREDIT / 10 > CREDIT ? rate * CREDIT / 10 : CREDIT;
    int64_t passed_ms = now_ms - chain->credit_ms < 1000 ? now_ms - chain->credit_ms : 1000;
    chain->credit_ms = now_ms;
    chain->credit += passed_ms * rate; /* CREDIT a message, 1000 ms a second */
    chain->credit = chain->credit < most ? chain->credit : most;
}

static bool has_credit(const struct chain *chain)
{
    return chain->conf->queue.drain_rate == 0 || chain->credit >= CREDIT;
}

static int64_t credit_due_ms(const struct chain *chain)
{
    int64_t rate = chain->conf->queue.drain_rate;
    return has_credit(chain) ? INT64_MAX : chain->credit_ms + (CREDIT - chain->credit + rate - 1) / rate;
}

static void send_messages(struct chain *chain, int64_t now_ms)
{
    const struct back_ops *ops = chain->conf->kind->back;
    chain->has_backlog = false;
    refill_credit(chain, now_ms);
    for (int i = 0; i < SENT_PER_TURN; i++) {
        if (chain->now.is_paused || !has_credit(chain) || !ops->has_room(chain->back, now_ms))
            return;
        struct queue_item *item = queue_lease(chain->queue, now_ms);
        if (!item)
            return;
        if (is_durable(chain) && !can_be_sent(chain, item)) {
            bury(chain, item, reason_info(REASON_BAD_REQUEST)->name); /* taken when the backend was another */
            continue;
        }
        if (!ops->send(chain->back, item, now_ms)) {
            queue_nack(chain->queue, item, now_ms);
            return;
        }
        chain->credit -= chain->conf->queue.drain_rate > 0 ? CREDIT : 0;
        settle_outcomes(chain, now_ms);
    }
    chain->has_backlog = true;
}

/* ---- deadlines ---- */

/* When the oldest message that is not in flight runs out of time, and how it then ends. */
struct verdict {
    int64_t due_ms; /* INT64_MAX = never */
    bool is_unavailable;
};

static struct verdict verdict_on(const struct chain *chain, const struct queue_item *oldest)
{
    struct verdict verdict = {INT64_MAX, false};
    if (!oldest)
        return verdict;
    if (chain->conf->queue.max_age_ms > 0)
        verdict.due_ms = oldest->taken_ms + chain->conf->queue.max_age_ms;
    int64_t timeout_ms = chain->conf->backend.timeout_ms;
    if (chain->unconnected_ms < 0 || timeout_ms == 0 || chain->conf->kind->retries_forever ||
        chain->now.is_paused)
        return verdict;
    int64_t since_ms = oldest->taken_ms > chain->unconnected_ms ? oldest->taken_ms : chain->unconnected_ms;
    if (since_ms + timeout_ms < verdict.due_ms)
        verdict = (struct verdict){since_ms + timeout_ms, true};
    return verdict;
}

static void end_overdue(struct chain *chain, int64_t now_ms)
{
    if (chain->conf->kind->back->is_connected(chain->back))
        chain->unconnected_ms = -1;
    else if (chain->unconnected_ms < 0)
        chain->unconnected_ms = now_ms;
    struct queue_item *oldest;
    while ((oldest = queue_oldest(chain->queue)) != NULL) {
        struct verdict verdict = verdict_on(chain, oldest);
        if (verdict.due_ms > now_ms)
            return;
        if (!verdict.is_unavailable)
            expire(chain, oldest, now_ms);
        else
            fail(chain, oldest, oldest->was_sent ? REASON_TIMEOUT : REASON_UNAVAILABLE, now_ms);
    }
}

static bool is_finished(const struct chain *chain, int64_t now_ms)
{
    if (!chain->now.is_stopping)
        return false;
    if (now_ms >= chain->now.stop_by_ms)
        return true;
    struct queue_stats stats;
    queue_stats(chain->queue, &stats);
    bool is_still = stats.inflight == 0 && !chain->pending && list_is_empty(&chain->storing);
    return is_still && (stats.queued == 0 || chain->now.is_paused || is_durable(chain));
}

static int64_t next_turn_ms(struct chain *chain, int64_t now_ms)
{
    const struct kind *kind = chain->conf->kind;
    bool has_input = kind->front->has_input(chain->front, is_intake_stopped(chain));
    bool may_enter = chain->pending && queue_has_room(chain->queue, chain->pending->body.bytes);
    if (has_input || may_enter || chain->has_backlog || kind->back->has_input(chain->back) ||
        (chain->tickets && tickets_have_input(chain->tickets)) || is_finished(chain, now_ms))
        return now_ms;
    int64_t retry_ms = queue_next_retry_ms(chain->queue);
    const int64_t due[] = {
        kind->front->next_ms(chain->front),
        kind->back->next_ms(chain->back),
        verdict_on(chain, queue_oldest(chain->queue)).due_ms,
        retry_ms > now_ms ? retry_ms : INT64_MAX, /* one that is due waits for room */
        patience_ends_ms(chain),
        queue_oldest(chain->queue) ? credit_due_ms(chain) : INT64_MAX,
        chain->tickets ? tickets_next_ms(chain->tickets) : INT64_MAX,
        chain->now.is_stopping ? chain->now.stop_by_ms : INT64_MAX,
    };
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < sizeof due / sizeof *due; i++)
        next = due[i] < next ? due[i] : next;
    return next;
}

/* ---- what others see ---- */

static enum chain_state state_of(const struct chain *chain)
{
    if (chain->now.is_draining || chain->now.is_stopping)
        return CHAIN_DRAINING;
    if (chain->now.is_paused)
        return CHAIN_PAUSED;
    uint32_t up = 0;
    for (uint32_t i = 0; i < chain->upstream_count; i++)
        up += chain->rows[i].state == UPSTREAM_UP;
    bool is_whole = up == chain->upstream_count;
    for (uint32_t i = 0; i < chain->worker_count; i++)
        is_whole = is_whole && chain->workers[i].state == WORKER_LIVE;
    return is_whole ? CHAIN_UP : up > 0 ? CHAIN_DEGRADED : CHAIN_DOWN;
}

static void publish(struct chain *chain, bool is_stopped)
{
    struct queue_stats stats;
    queue_stats(chain->queue, &stats);
    chain->ledger.queued = stats.queued;
    chain->ledger.inflight = stats.inflight;
    chain->ledger.dead = stats.dead;
    uint32_t count = chain->conf->kind->front->upstreams(chain->front, chain->rows);
    chain->conf->kind->back->upstreams(chain->back, chain->rows + count);
    if (chain->workers)
        chain->worker_count = chain->conf->kind->back->workers(chain->back, chain->workers);
    enum chain_state state = state_of(chain);

    pthread_mutex_lock(&chain->mutex);
    bool is_news = state != chain->published.state || is_stopped;
    chain->published.state = state;
    chain->published.ledger = chain->ledger;
    chain->published.ledger.accepted += stats.restored;
    chain->published.ledger.restored = stats.restored;
    chain->published.ledger.dropped[DROP_OLDEST] += stats.dead_dropped;
    chain->published.ledger.dropped[DROP_DAMAGED] += stats.damaged;
    chain->published.queue_bytes = stats.bytes;
    chain->published.oldest_taken_ms = stats.oldest_ms;
    chain->published.turns = chain->turns;
    chain->published.is_stopped = is_stopped;
    memcpy(chain->published.upstreams, chain->rows, chain->upstream_count * sizeof *chain->rows);
    chain->published.worker_count = chain->worker_count;
    for (uint32_t i = 0; i < chain->worker_count; i++)
        chain->published.workers[i] = chain->workers[i];
    pthread_mutex_unlock(&chain->mutex);
    if (!is_news)
        return;
    EVENT(&chain->around.runtime->events, EVENT_INFO, "chain-state", EVENT_TEXT("chain", chain->conf->name),
          EVENT_TEXT("state", is_stopped ? "stopped" : chain_state_name(state)));
    if (chain->daemon_waker != -1)
        eventfd_write(chain->daemon_waker, 1);
}

/* Whoever has an answer finds it counted: a turn that may have sent it is let end first. Turns are short; one that
 * is not is not waited for. */
static void await_turn(struct chain *chain)
{
    const struct timespec pause = {.tv_nsec = 50000};
    uint64_t turns = chain_turns(chain);
    for (int i = 0; i < 100 && atomic_load(&chain->is_turning) && chain_turns(chain) == turns; i++)
        nanosleep(&pause, NULL);
}

int chain_stats(struct chain *chain, struct chain_stats *stats)
{
    *stats = (struct chain_stats){.upstream_count = chain->upstream_count};
    stats->upstreams = calloc(chain->upstream_count + 1, sizeof *stats->upstreams);
    stats->workers = calloc(chain->workers ? BACK_WORKERS_MAX : 1, sizeof *stats->workers);
    if (!stats->upstreams || !stats->workers) {
        chain_stats_close(stats);
        return -1;
    }
    await_turn(chain);
    pthread_mutex_lock(&chain->mutex);
    const struct published *published = &chain->published;
    stats->state = published->state;
    stats->ledger = published->ledger;
    stats->queue_bytes = published->queue_bytes;
    int64_t taken_ms = published->oldest_taken_ms;
    memcpy(stats->upstreams, published->upstreams, chain->upstream_count * sizeof *stats->upstreams);
    stats->worker_count = published->worker_count;
    for (uint32_t i = 0; i < published->worker_count; i++)
        stats->workers[i] = published->workers[i];
    pthread_mutex_unlock(&chain->mutex);
    int64_t now_ms = clock_ms();
    stats->oldest_ms = taken_ms < 0 ? -1 : now_ms - taken_ms;
    for (uint32_t i = 0; i < stats->worker_count; i++)
        stats->workers[i].heard_ms = now_ms - stats->workers[i].heard_ms;
    histogram_read(&chain->requests, now_ms, &stats->requests);
    return 0;
}

void chain_stats_close(struct chain_stats *stats)
{
    free(stats->upstreams);
    free(stats->workers);
    *stats = (struct chain_stats){0};
}

/* ---- operators' questions ---- */

/* Between the queue's answer and the asker's ear: what is gone now counts as dropped. */
static void count_drop(struct ask *ask)
{
    struct chain *chain = ask->chain;
    if (ask->is_ok && ask->was_there)
        chain->ledger.dropped[DROP_OPERATOR]++;
    ask->done = ask->asker;
    ask->done(ask);
}

static void ask_counting(struct chain *chain, struct ask *ask, int64_t now_ms)
{
    ask->chain = chain;
    ask->asker = ask->done;
    ask->done = count_drop;
    ask_queue(ask, chain->queue, now_ms);
}

/* A dropped message is in the ledger; one in flight is not dropped. */
static void drop_for_operator(struct chain *chain, struct ask *ask, int64_t now_ms)
{
    struct queue_item *item = queue_find(chain->queue, ask->id);
    if (!item) {
        ask_counting(chain, ask, now_ms);
        return;
    }
    bool may_go = item->place == QUEUE_WAITING || item->place == QUEUE_RETRYING;
    if (may_go)
        drop(chain, item, DROP_OPERATOR, now_ms);
    ask_end(ask, true, may_go);
}

static void answer_ask(struct chain *chain, struct ask *ask, int64_t now_ms)
{
    if (ask->what == ASK_DROP)
        drop_for_operator(chain, ask, now_ms);
    else if (ask->what == ASK_DEAD_DROP)
        ask_counting(chain, ask, now_ms);
    else
        ask_queue(ask, chain->queue, now_ms);
}

static struct ask *next_ask(struct chain *chain)
{
    pthread_mutex_lock(&chain->mutex);
    struct list *link = list_first(&chain->asks);
    if (link)
        list_remove(link);
    pthread_mutex_unlock(&chain->mutex);
    return link ? LIST_ENTRY(link, struct ask, link) : NULL;
}

static void answer_asks(struct chain *chain, int64_t now_ms)
{
    struct ask *ask;
    while ((ask = next_ask(chain)) != NULL)
        answer_ask(chain, ask, now_ms);
}

void chain_ask(struct chain *chain, struct ask *ask)
{
    pthread_mutex_lock(&chain->mutex);
    bool is_stopped = chain->published.is_stopped;
    if (!is_stopped)
        list_append(&chain->asks, &ask->link);
    pthread_mutex_unlock(&chain->mutex);
    if (is_stopped)
        ask_end(ask, false, false);
    else
        waker_wake(chain->waker);
}

/* ---- the loop ---- */

static void read_wishes(struct chain *chain)
{
    pthread_mutex_lock(&chain->mutex);
    chain->now = chain->wanted;
    pthread_mutex_unlock(&chain->mutex);
}

static void turn(struct chain *chain, int64_t now_ms)
{
    const struct kind *kind = chain->conf->kind;
    if (chain->around.front_door)
        chain->around.runtime->doorman->refresh(chain->around.front_door);
    kind->front->tick(chain->front, now_ms);
    retry_pending(chain, now_ms);
    take_messages(chain, now_ms);
    settle_stored(chain, now_ms);
    answer_asks(chain, now_ms);
    if (chain->tickets)
        tickets_tick(chain->tickets, now_ms);
    struct queue_stats stats;
    queue_stats(chain->queue, &stats);
    kind->back->tick(chain->back, stats.queued, now_ms);
    settle_outcomes(chain, now_ms);
    send_messages(chain, now_ms);
    end_overdue(chain, now_ms);
    end_patience(chain, now_ms);
    queue_commit(chain->queue);
    chain->turns++;
}

/* What was in flight is given up; a durable queue keeps it, and tries it again with the next start. */
static void end_inflight(struct chain *chain, int64_t now_ms)
{
    chain->conf->kind->back->abandon(chain->back, now_ms);
    struct back_outcome outcome;
    while (chain->conf->kind->back->next_outcome(chain->back, &outcome)) {
        if (outcome.result == BACK_DELIVERED || outcome.result == BACK_UNSENT) {
            settle(chain, &outcome, now_ms);
        } else if (is_durable(chain)) {
            chain->conf->kind->back->forget(chain->back, outcome.item);
            queue_nack(chain->queue, outcome.item, now_ms);
        } else {
            fail(chain, outcome.item, REASON_LOST, now_ms);
        }
    }
}

/* Whoever still waits hears how it ended: what was sent is lost, what was not never will be, what is stored is
 * kept. */
static void end_all(struct chain *chain, int64_t now_ms)
{
    retry_pending(chain, now_ms);
    commit(chain, now_ms);
    end_inflight(chain, now_ms);
    LIST_EACH_SAFE (link, following, &chain->patient)
        answer_accepted(chain, LIST_ENTRY(link, struct queue_item, wait), now_ms);
    LIST_EACH_SAFE (link, following, &chain->storing) {
        struct queue_item *item = LIST_ENTRY(link, struct queue_item, wait);
        answer_error(chain, item, REASON_STORE_FAILED, now_ms);
        settle_duplicates(chain, item, false, now_ms);
        list_remove(link);
    }
    struct queue_item *item;
    while (!is_durable(chain) && (item = queue_oldest(chain->queue)) != NULL)
        fail(chain, item, item->was_sent ? REASON_LOST : REASON_SHUTTING_DOWN, now_ms);
    queue_commit(chain->queue);
}

static void *chain_run(void *argument)
{
    struct chain *chain = argument;
    char name[16];
    snprintf(name, sizeof name, "%s", chain->conf->name);
    pthread_setname_np(pthread_self(), name);
    int64_t now_ms = look_at_clock(chain);
    while (read_wishes(chain), !is_finished(chain, now_ms)) {
        atomic_store(&chain->is_turning, true);
        turn(chain, now_ms);
        publish(chain, false);
        atomic_store(&chain->is_turning, false);
        int64_t next_ms = next_turn_ms(chain, now_ms);
        now_ms = clock_ms();
        poller_wait(&chain->poller, next_ms == INT64_MAX ? INT64_MAX
                                    : next_ms > now_ms   ? next_ms - now_ms
                                                         : 0);
        if (chain->is_woken) {
            chain->is_woken = false;
            waker_clear(chain->waker);
            atomic_store(&chain->pinged_ms, 0);
        }
        if (chain->has_news) {
            chain->has_news = false;
            queue_settle(chain->queue);
        }
        now_ms = look_at_clock(chain);
    }
    end_all(chain, now_ms);
    publish(chain, true);
    struct ask *ask;
    while ((ask = next_ask(chain)) != NULL)
        ask_end(ask, false, false);
    return NULL;
}

/* ---- life ---- */

static void release(struct chain *chain)
{
    if (chain->front)
        chain->conf->kind->front->close(chain->front, chain->is_started ? ANSWERS_LINGER_MS : 0);
    if (chain->back)
        chain->conf->kind->back->close(chain->back, chain->is_started ? ANSWERS_LINGER_MS : 0);
    if (chain->queue) {
        if (chain->spare)
            queue_item_free(chain->queue, chain->spare);
        if (queue_fd(chain->queue) != -1)
            poller_remove(&chain->poller, queue_fd(chain->queue));
        queue_free(chain->queue);
    }
    tickets_close(chain->tickets, ANSWERS_LINGER_MS);
    dedupe_free(chain->dedupe);
    if (chain->around.front_door)
        chain->around.runtime->doorman->close(chain->around.front_door);
    if (chain->around.back_door)
        chain->around.runtime->doorman->close(chain->around.back_door);
    if (chain->poller.epoll != -1)
        poller_close(&chain->poller);
    if (chain->waker)
        waker_release(chain->waker);
    pthread_mutex_destroy(&chain->mutex);
    free(chain->published.upstreams);
    free(chain->published.workers);
    free(chain->rows);
    free(chain->workers);
    free(chain);
}

static int open_doors(struct chain *chain, char *err, size_t err_size)
{
    const struct doorman *doorman = chain->around.runtime->doorman;
    if (!doorman)
        return 0;
    bool has_back_door = !kind_has_req_back(chain->conf->kind); /* PUB: who may subscribe; or who may work */
    struct surroundings *around = &chain->around;
    around->front_door = doorman->open(doorman->context, chain->conf, DOOR_FRONTEND, err, err_size);
    if (!around->front_door)
        return -1;
    if (has_back_door)
        around->back_door = doorman->open(doorman->context, chain->conf, DOOR_BACKEND, err, err_size);
    return has_back_door && !around->back_door ? -1 : 0;
}

static int open_queue(struct chain *chain, char *err, size_t err_size)
{
    const struct queue_conf *conf = &chain->conf->queue;
    const struct queue_limits limits = {.max_messages = (uint64_t)conf->max_messages,
                                        .max_bytes = (uint64_t)conf->max_bytes,
                                        .is_ordered = chain->conf->kind->is_ordered};
    const struct queue_disk_conf disk = {
        .name = chain->conf->name,
        .limits = limits,
        .window = (uint32_t)(chain->conf->backend.window * (int64_t)chain->conf->backend.endpoints.count),
        .sync_ms = conf->sync_ms,
        .keep_replies_ms = chain->conf->frontend.tickets.count > 0 ? conf->keep_replies_ms : 0,
        .now_ms = clock_ms()};
    snprintf(err, err_size, "out of memory or descriptors");
    if (is_durable(chain))
        chain->queue = queue_disk_open(chain->around.runtime->store, &disk, err, err_size);
    else
        chain->queue = queue_memory_new(&limits);
    if (chain->queue && conf->dedupe_ms > 0)
        chain->dedupe = dedupe_new(conf->dedupe_ms, DEDUPE_MAX);
    if (!chain->queue || (conf->dedupe_ms > 0 && !chain->dedupe))
        return -1;
    int fd = queue_fd(chain->queue);
    return fd == -1 ? 0 : poller_add(&chain->poller, fd, &chain->has_news);
}

static int open_parts(struct chain *chain, char *err, size_t err_size)
{
    const struct chain_conf *conf = chain->conf;
    chain->waker = waker_new();
    if (poller_open(&chain->poller) != 0 || !chain->waker ||
        poller_add(&chain->poller, waker_fd(chain->waker), &chain->is_woken) != 0) {
        snprintf(err, err_size, "out of memory or descriptors");
        return -1;
    }
    if (open_queue(chain, err, err_size) != 0)
        return -1;
    chain->around.waker = chain->waker;
    if (open_doors(chain, err, err_size) != 0)
        return -1;
    chain->front = conf->kind->front->open(conf, &chain->around, err, err_size);
    if (!chain->front)
        return -1;
    chain->back = conf->kind->back->open(conf, &chain->around, err, err_size);
    if (!chain->back)
        return -1;
    if (conf->frontend.tickets.count > 0) {
        chain->tickets = tickets_open(conf, &chain->around, chain->queue, err, err_size);
        if (!chain->tickets)
            return -1;
    }
    chain->upstream_count =
        conf->kind->front->upstreams(chain->front, NULL) + conf->kind->back->upstreams(chain->back, NULL);
    chain->rows = calloc(chain->upstream_count + 1, sizeof *chain->rows);
    chain->published.upstreams = calloc(chain->upstream_count + 1, sizeof *chain->rows);
    bool has_workers = conf->kind->back->workers != NULL;
    if (has_workers) {
        chain->workers = calloc(BACK_WORKERS_MAX, sizeof *chain->workers);
        chain->published.workers = calloc(BACK_WORKERS_MAX, sizeof *chain->workers);
    }
    if (!chain->rows || !chain->published.upstreams ||
        (has_workers && (!chain->workers || !chain->published.workers))) {
        snprintf(err, err_size, "out of memory");
        return -1;
    }
    return 0;
}

struct chain *chain_open(const struct chain_conf *conf, struct runtime *runtime, char *err, size_t err_size)
{
    struct chain *chain = calloc(1, sizeof *chain);
    if (!chain) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    chain->conf = conf;
    chain->poller.epoll = -1;
    chain->daemon_waker = -1;
    chain->unconnected_ms = -1;
    pthread_mutex_init(&chain->mutex, NULL);
    list_init(&chain->asks);
    list_init(&chain->storing);
    list_init(&chain->patient);
    chain->around = (struct surroundings){
        .runtime = runtime, .poller = &chain->poller, .chain = conf->name, .ledger = &chain->ledger};
    if (open_parts(chain, err, err_size) != 0) {
        release(chain);
        return NULL;
    }
    publish(chain, false);
    return chain;
}

int chain_start(struct chain *chain, char *err, size_t err_size)
{
    int rc = pthread_create(&chain->thread, NULL, chain_run, chain);
    if (rc != 0) {
        snprintf(err, err_size, "cannot start a thread: %s", strerror(rc));
        return -1;
    }
    chain->is_started = true;
    return 0;
}

const struct chain_conf *chain_conf(const struct chain *chain)
{
    return chain->conf;
}

void chain_set_waker(struct chain *chain, int eventfd)
{
    chain->daemon_waker = eventfd;
}

static void set_wishes(struct chain *chain, bool is_paused, bool is_draining)
{
    pthread_mutex_lock(&chain->mutex);
    chain->wanted.is_paused = is_paused;
    chain->wanted.is_draining = is_draining;
    pthread_mutex_unlock(&chain->mutex);
    waker_wake(chain->waker);
}

void chain_pause(struct chain *chain)
{
    set_wishes(chain, true, false);
}

void chain_resume(struct chain *chain)
{
    set_wishes(chain, false, false);
}

void chain_drain(struct chain *chain)
{
    set_wishes(chain, false, true);
}

void chain_stop(struct chain *chain, int64_t drain_ms)
{
    pthread_mutex_lock(&chain->mutex);
    chain->wanted.is_stopping = true;
    chain->wanted.stop_by_ms = clock_ms() + drain_ms;
    pthread_mutex_unlock(&chain->mutex);
    waker_wake(chain->waker);
}

bool chain_is_stopped(const struct chain *chain)
{
    struct chain *unlocked = (struct chain *)chain;
    pthread_mutex_lock(&unlocked->mutex);
    bool is_stopped = chain->published.is_stopped;
    pthread_mutex_unlock(&unlocked->mutex);
    return is_stopped;
}

void chain_ping(struct chain *chain)
{
    atomic_compare_exchange_strong(&chain->pinged_ms, &(int64_t){0}, clock_ms());
    waker_wake(chain->waker);
}

uint64_t chain_turns(const struct chain *chain)
{
    struct chain *unlocked = (struct chain *)chain;
    pthread_mutex_lock(&unlocked->mutex);
    uint64_t turns = chain->published.turns;
    pthread_mutex_unlock(&unlocked->mutex);
    return turns;
}

int64_t chain_silent_ms(const struct chain *chain)
{
    int64_t pinged_ms = atomic_load(&chain->pinged_ms);
    return pinged_ms == 0 ? 0 : clock_ms() - pinged_ms;
}

void chain_free(struct chain *chain)
{
    if (chain->is_started)
        pthread_join(chain->thread, NULL);
    release(chain);
}
