/* SPDX-License-Identifier: MIT
 *
 * A running chain; see chain.h. The loop is one page (chain_run, turn); everything it does takes bounded time
 * and never blocks but in poller_wait. Other threads leave their wishes in `wanted` and read `published`,
 * both under one mutex that is held for a copy only.
 */
#include "proxies/chain.h"

#include "buffer/clock.h"
#include "proxies/ask.h"
#include "proxies/chain_parts.h"
#include "proxies/dialect.h"
#include "proxies/door.h"
#include "proxies/kinds.h"
#include "proxies/monitor.h"
#include "proxies/retry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

enum {
    TAKEN_PER_TURN = 256, /* messages, and bytes: */
    TAKEN_BYTES_PER_TURN = 1 << 20,
    SENT_PER_TURN = 256,
    CREDIT = 1000, /* of drain_rate, for one message */
    NOTED_BYTES = 8 << 20,
};

/* The time of the next turn. */
static int64_t look_at_clock(struct chain *chain)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    chain->now_us = (uint16_t)(now.tv_nsec / 1000 % 1000);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- answering ---- */

/* Takes the body, and the way back: a caller has one answer. */
static void answer(struct chain *chain, struct queue_item *item, struct message *body, int64_t now_ms)
{
    if (item->envelope.count > 0)
        chain->conf->kind->front->answer(chain->front, item, body, now_ms);
}

static void answer_error(struct chain *chain, struct queue_item *item, enum reason reason, int64_t now_ms)
{
    if (item->envelope.count == 0)
        return;
    struct message body = {0};
    if (chain->conf->dialect->error(&item->body, reason, &body) == 0)
        answer(chain, item, &body, now_ms);
    message_close(&body);
}

static void answer_ack(struct chain *chain, struct queue_item *item, const char *level, const char *ticket,
                       int64_t now_ms)
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

/* It will not be delivered: whoever sends the same again must not get its ticket, unless it was sent. */
static void forget_request(struct chain *chain, const struct queue_item *item)
{
    if (chain->dedupe && !item->was_sent)
        dedupe_forget(chain->dedupe, item->id);
}

/* Nothing came of it in its time; its ticket says so. */
static void give_up(struct chain *chain, struct queue_item *item, enum reason reason, int64_t now_ms)
{
    count_time(chain, item, now_ms);
    answer_error(chain, item, reason, now_ms);
    chain->conf->kind->back->forget(chain->back, item);
    queue_expire(chain->queue, item);
}

static void fail(struct chain *chain, struct queue_item *item, enum reason reason, int64_t now_ms)
{
    chain->ledger.failed[reason]++;
    give_up(chain, item, reason, now_ms);
}

/* max_age has come. What was never sent is certainly not delivered; of the rest nobody knows. */
static void expire(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    if (item->was_sent) {
        fail(chain, item, REASON_TIMEOUT, now_ms);
        return;
    }
    chain->ledger.expired++;
    forget_request(chain, item);
    give_up(chain, item, REASON_UNAVAILABLE, now_ms);
}

/* Why it never will be sent; but of one that waits for its next attempt, the last may have been delivered. */
static enum reason unless_sent(const struct queue_item *item, enum reason reason)
{
    return item->was_sent ? REASON_LOST : reason;
}

static void drop(struct chain *chain, struct queue_item *item, enum drop reason, int64_t now_ms)
{
    chain->ledger.dropped[reason]++;
    forget_request(chain, item);
    answer_error(chain, item, unless_sent(item, REASON_QUEUE_FULL), now_ms);
    chain->conf->kind->back->forget(chain->back, item);
    queue_remove(chain->queue, item);
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
    char ticket[QUEUE_TICKET_BYTES];
    item->note = NULL;
    queue_ticket(chain->queue, item, ticket);
    LIST_EACH_SAFE (link, following, &entry->waiting) {
        struct queue_item *duplicate = LIST_ENTRY(link, struct queue_item, wait);
        if (is_stored)
            answer_ack(chain, duplicate, queue_ack_level(chain->queue), ticket, now_ms);
        else
            answer_error(chain, duplicate, REASON_STORE_FAILED, now_ms);
        queue_item_free(chain->queue, duplicate);
    }
    if (is_stored)
        dedupe_store(chain->dedupe, entry, item->id, ticket);
    else
        dedupe_remove(chain->dedupe, entry);
}

/* What the store has promised, or could not. */
static void settle_stored(struct chain *chain, int64_t now_ms)
{
    bool is_stored;
    struct queue_item *item;
    while ((item = queue_next_stored(chain->queue, &is_stored)) != NULL) {
        chain->stored_id = item->id;
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

/* The medium takes too long, or will not answer any more: whether the message is kept nobody knows. */
static void give_up_storing(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    answer_error(chain, item, REASON_STORE_FAILED, now_ms);
    message_close(&item->envelope);
    settle_duplicates(chain, item, false, now_ms);
    list_remove(&item->wait);
}

static int64_t storing_ends_ms(const struct chain *chain)
{
    struct list *link = chain->conf->queue.max_age_ms > 0 ? list_first(&chain->storing) : NULL;
    return link ? LIST_ENTRY(link, struct queue_item, wait)->taken_ms + chain->conf->queue.max_age_ms
                : INT64_MAX;
}

static void end_storing(struct chain *chain, int64_t now_ms)
{
    while (storing_ends_ms(chain) <= now_ms)
        give_up_storing(chain, LIST_ENTRY(chain->storing.next, struct queue_item, wait), now_ms);
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
    uint8_t digest[QUEUE_DIGEST_BYTES];
    chain->around.runtime->digest(item->sender, &item->body, digest);
    struct dedupe_entry *entry = dedupe_find(chain->dedupe, digest, now_ms);
    if (!entry) {
        entry = dedupe_add(chain->dedupe, digest, now_ms);
        item->note = entry;
        item->digest = entry ? entry->digest : NULL;
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
    item->digest = NULL;
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

/* Drops the oldest until `item` fits. False when dropping cannot help now: all are in flight, or on their way to the
 * medium or back. */
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

/* Whether dropping will help soon: what is queued is on its way to the medium, or back from it. */
static bool will_have_room(const struct chain *chain)
{
    struct queue_stats stats;
    queue_stats(chain->queue, &stats);
    return stats.queued > 0 && !queue_is_broken(chain->queue);
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
        if (!make_room(chain, item, now_ms)) {
            if (will_have_room(chain))
                chain->pending = item;
            else
                refuse_as_dropped(chain, item, DROP_NEWEST, now_ms);
        } else if (queue_put(chain->queue, item) == QUEUE_TAKEN) {
            taken(chain, item);
        } else {
            refuse(chain, item, REASON_STORE_FAILED, now_ms);
        }
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

/* Its callers are told to come back to the new one. */
static bool is_front_leaving(const struct chain *chain)
{
    return chain->now.change.next && chain->now.change.frontend && chain->conf->kind->front->has_callers;
}

static void accept_message(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    int64_t max_bytes = chain->conf->queue.max_bytes;
    if (chain->now.is_draining || chain->now.is_stopping || is_front_leaving(chain)) {
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
    if (chain->sessions && sessions_look(chain->sessions, item, now_ms) == SESSION_INVALID) {
        refuse_as_dropped(chain, item, DROP_UNVERIFIED, now_ms);
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

static int64_t pending_ends_ms(const struct chain *chain)
{
    int64_t max_age_ms = chain->conf->queue.max_age_ms;
    return chain->pending && max_age_ms > 0 ? chain->pending->taken_ms + max_age_ms : INT64_MAX;
}

/* What is in its way may be on a medium that takes longer than it can wait. */
static void end_pending(struct chain *chain, int64_t now_ms)
{
    if (pending_ends_ms(chain) > now_ms)
        return;
    chain->ledger.accepted++;
    chain->ledger.expired++;
    answer_error(chain, chain->pending, REASON_UNAVAILABLE, now_ms);
    queue_item_free(chain->queue, chain->pending);
    chain->pending = NULL;
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
    if (chain->pending || chain->is_closed)
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
    enum front_taken result = chain->conf->kind->front->take(chain->front, item, now_ms);
    if (result == FRONT_NOTHING)
        return false;
    chain->spare = NULL;
    chain->turn_bytes += item->body.bytes;
    chain->taken_bytes += item->body.bytes;
    item->taken_ms = now_ms;
    item->taken_us = chain->now_us;
    switch (result) {
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

static void retry(struct chain *chain, struct queue_item *item, int64_t delay_ms, int64_t now_ms)
{
    item->retries++;
    chain->ledger.retries++;
    queue_nack(chain->queue, item, now_ms + delay_ms);
}

/* Who was patient has waited for nothing: the message is kept, and its ticket says so. */
static void bury(struct chain *chain, struct queue_item *item, const char *reason, int64_t now_ms)
{
    if (item->envelope.count > 0)
        answer_accepted(chain, item, now_ms);
    chain->conf->kind->back->forget(chain->back, item);
    EVENT(&chain->around.runtime->events, EVENT_WARNING, "dead-letter",
          EVENT_TEXT("chain", chain->conf->name), EVENT_NUMBER("attempts", item->attempts),
          EVENT_TEXT("reason", reason));
    queue_bury(chain->queue, item, reason);
}

/* It was taken when the backend was another. */
static void give_up_unfit(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    if (chain->conf->kind->retries_forever)
        bury(chain, item, reason_info(REASON_BAD_REQUEST)->name, now_ms);
    else
        fail(chain, item, unless_sent(item, REASON_BAD_REQUEST), now_ms);
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
        bury(chain, item, reason_info(reason)->name, now_ms);
    else if (may_retry && !is_too_old)
        retry(chain, item, chain->conf->kind->is_ordered && !outcome->was_alone ? 0 : delay_ms, now_ms);
    else
        fail(chain, item, reason, now_ms);
}

/* Where its caller was patient, the queue has a use for the reply, too. */
static void answer_reply(struct chain *chain, struct queue_item *item, struct message *reply, int64_t now_ms)
{
    struct message copy = {0};
    if (item->envelope.count == 0 || !acks_when_stored(chain)) {
        answer(chain, item, reply, now_ms);
        return;
    }
    if (message_append_copy(&copy, reply) == 0)
        answer(chain, item, &copy, now_ms);
    else
        chain->ledger.orphaned++;
    message_close(&copy);
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
    default:
        settle_failure(chain, outcome, now_ms);
        return;
    }
    chain->ledger.delivered++;
    count_time(chain, item, now_ms);
    if (chain->conf->kind->answer == ANSWER_SENT)
        answer_ack(chain, item, NULL, NULL, now_ms);
    else
        answer_reply(chain, item, outcome->reply, now_ms);
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
    const struct front_ops *front = chain->conf->kind->front;
    bool may_clog =
        front->has_callers && !chain->conf->kind->retries_forever; /* replies may be large, acks not */
    chain->has_backlog = false;
    refill_credit(chain, now_ms);
    for (int i = 0; i < SENT_PER_TURN; i++) {
        if (chain->now.is_paused || chain->is_held || !has_credit(chain) ||
            !ops->has_room(chain->back, now_ms))
            return;
        struct queue_item *item = queue_lease(chain->queue, now_ms);
        if (!item)
            return;
        if (chain->may_hold_unfit && !can_be_sent(chain, item)) {
            give_up_unfit(chain, item, now_ms);
            continue;
        }
        if (may_clog && !item->was_sent && front->is_clogged(chain->front, item)) {
            fail(chain, item, REASON_QUEUE_FULL, now_ms);
            continue;
        }
        enum session_result verdict =
            chain->sessions ? sessions_look(chain->sessions, item, now_ms) : SESSION_VALID;
        if (verdict == SESSION_INVALID) {
            drop(chain, item, DROP_UNVERIFIED, now_ms);
            continue;
        }
        if (verdict == SESSION_UNKNOWN || !ops->send(chain->back, item, now_ms)) {
            queue_nack(chain->queue, item, now_ms); /* it keeps its place */
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
    bool is_still =
        stats.inflight == 0 && !chain->pending && !chain->leaving && list_is_empty(&chain->storing);
    return is_still && (stats.queued == 0 || chain->now.is_paused || chain_is_durable(chain));
}

static int64_t next_turn_ms(struct chain *chain, int64_t now_ms)
{
    const struct kind *kind = chain->conf->kind;
    bool has_input = kind->front->has_input(chain->front, is_intake_stopped(chain));
    bool may_enter = chain->pending && queue_has_room(chain->queue, chain->pending->body.bytes);
    if (has_input || may_enter || chain->has_backlog || kind->back->has_input(chain->back) ||
        (chain->tickets && tickets_have_input(chain->tickets)) ||
        (chain->sessions && sessions_has_input(chain->sessions)) || is_finished(chain, now_ms))
        return now_ms;
    int64_t retry_ms = queue_next_retry_ms(chain->queue);
    const int64_t due[] = {
        kind->front->next_ms(chain->front),
        kind->back->next_ms(chain->back),
        verdict_on(chain, queue_oldest(chain->queue)).due_ms,
        retry_ms > now_ms ? retry_ms : INT64_MAX, /* one that is due waits for room */
        patience_ends_ms(chain),
        storing_ends_ms(chain),
        pending_ends_ms(chain),
        queue_oldest(chain->queue) ? credit_due_ms(chain) : INT64_MAX,
        chain->tickets ? tickets_next_ms(chain->tickets) : INT64_MAX,
        chain->sessions ? sessions_next_ms(chain->sessions) : INT64_MAX,
        chain->now.is_stopping ? chain->now.stop_by_ms : INT64_MAX,
        chain->now.change.next && chain->now.change_by_ms > now_ms ? chain->now.change_by_ms : INT64_MAX,
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

/* What both hold while messages move from one to the other. */
static void look_at_queues(const struct chain *chain, struct queue_stats *stats)
{
    struct queue_stats leaving;
    queue_stats(chain->queue, stats);
    if (!chain->leaving)
        return;
    queue_stats(chain->leaving, &leaving);
    stats->queued += leaving.queued;
    stats->inflight += leaving.inflight;
    stats->dead += leaving.dead;
    stats->bytes += leaving.bytes;
    stats->restored += leaving.restored;
    stats->damaged += leaving.damaged;
    stats->dead_dropped += leaving.dead_dropped;
    if (leaving.oldest_ms != -1)
        stats->oldest_ms = leaving.oldest_ms;
}

/* What was queued, and what was refused, goes back to the heap in no order, and stays there unless somebody asks. */
static void note_freed(struct chain *chain, uint64_t queued_bytes)
{
    if (queued_bytes > chain->peak_bytes)
        chain->peak_bytes = queued_bytes;
    bool has_emptied = chain->peak_bytes >= NOTED_BYTES && queued_bytes <= chain->peak_bytes / 4;
    if (!has_emptied && chain->taken_bytes < NOTED_BYTES)
        return;
    chain->peak_bytes = queued_bytes;
    chain->taken_bytes = 0;
    monitor_note_freed(chain->around.runtime->monitor);
}

static void publish(struct chain *chain, bool is_stopped)
{
    struct queue_stats stats;
    look_at_queues(chain, &stats);
    note_freed(chain, stats.bytes);
    chain->ledger.queued = stats.queued;
    chain->ledger.inflight = stats.inflight;
    chain->ledger.dead = stats.dead;
    if (!chain->has_failed) {
        uint32_t count = chain->conf->kind->front->upstreams(chain->front, chain->rows);
        count += chain->conf->kind->back->upstreams(chain->back, chain->rows + count);
        if (chain->sessions)
            sessions_upstream(chain->sessions, chain->rows + count);
    }
    if (!chain->has_failed && chain->workers)
        chain->worker_count = chain->conf->kind->back->workers(chain->back, chain->workers);
    enum chain_state state = state_of(chain);

    pthread_mutex_lock(&chain->mutex);
    bool is_news = state != chain->published.state || is_stopped;
    chain->published.state = state;
    chain->published.dialect = chain->conf->dialect->name;
    chain->published.max_messages = chain->conf->queue.max_messages;
    chain->published.max_bytes = chain->conf->queue.max_bytes;
    chain->published.ledger = chain->ledger;
    chain->published.ledger.accepted += stats.restored;
    chain->published.ledger.restored += stats.restored;
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
    await_turn(chain);
    pthread_mutex_lock(&chain->mutex);
    const struct published *published = &chain->published;
    uint32_t count = published->upstream_count;
    *stats = (struct chain_stats){.upstream_count = count,
                                  .upstreams = calloc(count + 1, sizeof *stats->upstreams),
                                  .workers =
                                      calloc(chain->workers ? BACK_WORKERS_MAX : 1, sizeof *stats->workers)};
    if (!stats->upstreams || !stats->workers) {
        pthread_mutex_unlock(&chain->mutex);
        chain_stats_close(stats);
        return -1;
    }
    stats->state = published->state;
    stats->ledger = published->ledger;
    stats->dialect = published->dialect;
    stats->max_messages = published->max_messages;
    stats->max_bytes = published->max_bytes;
    stats->queue_bytes = published->queue_bytes;
    int64_t taken_ms = published->oldest_taken_ms;
    memcpy(stats->upstreams, published->upstreams, count * sizeof *stats->upstreams);
    stats->worker_count = published->worker_count;
    for (uint32_t i = 0; i < published->worker_count; i++)
        stats->workers[i] = published->workers[i];
    pthread_mutex_unlock(&chain->mutex);
    int64_t now_ms = clock_now_ms();
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
    if (ask->is_ok && ask->was_there) {
        chain->ledger.dropped[DROP_OPERATOR]++;
        if (chain->dedupe && ask->what == ASK_DROP)
            dedupe_forget(chain->dedupe, ask->id);
    }
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
    if (item->place != QUEUE_WAITING && item->place != QUEUE_RETRYING) {
        ask_end(ask, true, false);
        return;
    }
    drop(chain, item, DROP_OPERATOR, now_ms);
    ask_settle(ask, chain->queue);
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

/* ---- the end ---- */

/* An attempt that was cut short is not the message's fault. */
static void put_back(struct chain *chain, struct queue_item *item, int64_t now_ms)
{
    chain->conf->kind->back->forget(chain->back, item);
    queue_nack(chain->queue, item, now_ms);
}

/* What was in flight is given up; a durable queue keeps it, and tries it again with the next start. */
static void end_inflight(struct chain *chain, int64_t now_ms)
{
    chain->conf->kind->back->abandon(chain->back, now_ms);
    struct back_outcome outcome;
    while (chain->conf->kind->back->next_outcome(chain->back, &outcome)) {
        if (outcome.result == BACK_DELIVERED || outcome.result == BACK_UNSENT) {
            settle(chain, &outcome, now_ms);
        } else if (chain_is_durable(chain)) {
            put_back(chain, outcome.item, now_ms);
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
    LIST_EACH_SAFE (link, following, &chain->storing)
        give_up_storing(chain, LIST_ENTRY(link, struct queue_item, wait), now_ms);
    struct queue_item *item;
    while (!chain_is_durable(chain) && (item = queue_oldest(chain->queue)) != NULL)
        fail(chain, item, unless_sent(item, REASON_SHUTTING_DOWN), now_ms);
    queue_commit(chain->queue);
}

/* ---- another configuration ---- */

static bool has_waiting_callers(const struct chain *chain)
{
    struct queue_stats stats;
    queue_stats(chain->queue, &stats);
    return chain->pending || !list_is_empty(&chain->storing) || !list_is_empty(&chain->patient) ||
           (!acks_when_stored(chain) && stats.queued + stats.inflight > 0);
}

/* The backend is about to be another. */
static void cut_inflight(struct chain *chain, int64_t now_ms)
{
    chain->conf->kind->back->abandon(chain->back, now_ms);
    struct back_outcome outcome;
    while (chain->conf->kind->back->next_outcome(chain->back, &outcome)) {
        if (outcome.result == BACK_LOST && chain->conf->kind->retries_forever)
            put_back(chain, outcome.item, now_ms);
        else
            settle(chain, &outcome, now_ms);
    }
}

/* Brings the chain to where its parts can be exchanged; true once it is there. */
static bool get_ready(struct chain *chain, int64_t now_ms)
{
    const struct chain_change *change = &chain->now.change;
    bool is_late = now_ms >= chain->now.change_by_ms;
    chain->is_closed = change->store || change->next->queue.dedupe_ms != chain->conf->queue.dedupe_ms;
    if (is_front_leaving(chain) || change->store)
        LIST_EACH_SAFE (link, following, &chain->patient)
            answer_accepted(chain, LIST_ENTRY(link, struct queue_item, wait), now_ms);
    bool somebody_waits = is_front_leaving(chain)
                              ? has_waiting_callers(chain)
                              : chain->is_closed && (chain->pending || !list_is_empty(&chain->storing));
    if (somebody_waits && !is_late)
        return false;
    if (somebody_waits)
        end_all(chain, now_ms);
    chain->is_held = change->backend || change->store;
    struct queue_stats stats;
    queue_stats(chain->queue, &stats);
    if (!chain->is_held || stats.inflight == 0)
        return true;
    if (is_late)
        cut_inflight(chain, now_ms);
    return is_late;
}

static void tell_ready(struct chain *chain)
{
    pthread_mutex_lock(&chain->mutex);
    bool is_news = !chain->published.is_ready && chain->wanted.change.next;
    chain->published.is_ready = chain->wanted.change.next != NULL;
    pthread_mutex_unlock(&chain->mutex);
    if (is_news && chain->daemon_waker != -1)
        eventfd_write(chain->daemon_waker, 1);
}

static void exchange(struct chain *chain, int64_t now_ms)
{
    char err[256];
    if (chain->now.change.frontend)
        take_messages(chain, now_ms); /* the last ones that the old one has */
    if (parts_exchange(chain, now_ms, err, sizeof err) != 0) {
        EVENT(&chain->around.runtime->events, EVENT_ERROR, "change-failed",
              EVENT_TEXT("chain", chain->conf->name), EVENT_TEXT("reason", err));
        chain->has_failed = true;
    }
    chain->has_backlog = true;
}

/* One step towards another configuration, if there is one. */
static void move_change(struct chain *chain, int64_t now_ms)
{
    bool was_changing = chain->is_held || chain->is_closed || chain->now.change.next;
    bool is_ready = chain->now.change.next && !chain->leaving && get_ready(chain, now_ms);
    if (chain->leaving)
        chain->has_backlog |= parts_move(chain, now_ms);
    else if (is_ready && chain->now.may_change)
        exchange(chain, now_ms);
    else if (is_ready)
        tell_ready(chain);
    if (chain->now.change.next || !was_changing)
        return;
    chain->is_held = chain->is_closed = false;
    chain->has_backlog = true;
    if (chain->daemon_waker != -1)
        eventfd_write(chain->daemon_waker, 1);
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
    if (chain->sessions)
        sessions_tick(chain->sessions, now_ms);
    struct queue_stats stats;
    queue_stats(chain->queue, &stats);
    kind->back->tick(chain->back, stats.queued, now_ms);
    settle_outcomes(chain, now_ms);
    end_overdue(chain, now_ms); /* before: what was stored too late is not sent */
    send_messages(chain, now_ms);
    end_patience(chain, now_ms);
    end_storing(chain, now_ms);
    end_pending(chain, now_ms);
    queue_commit(chain->queue);
    chain->turns++;
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
        move_change(chain, now_ms);
        publish(chain, false);
        atomic_store(&chain->is_turning, false);
        if (chain->has_failed)
            break;
        int64_t next_ms = next_turn_ms(chain, now_ms);
        now_ms = clock_now_ms();
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
            if (chain->leaving)
                queue_settle(chain->leaving);
        }
        now_ms = look_at_clock(chain);
    }
    if (!chain->has_failed)
        end_all(chain, now_ms);
    publish(chain, true);
    struct ask *ask;
    while ((ask = next_ask(chain)) != NULL)
        ask_end(ask, false, false);
    return NULL;
}

/* ---- life ---- */

static void release(struct chain *chain, int linger_ms)
{
    parts_close(chain, linger_ms);
    pthread_mutex_destroy(&chain->mutex);
    free(chain);
}

struct chain *chain_open(struct chain_conf *conf, struct runtime *runtime, char *err, size_t err_size)
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
    if (parts_open(chain, clock_now_ms(), err, err_size) != 0) {
        release(chain, 0);
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

void chain_change(struct chain *chain, const struct chain_change *change)
{
    pthread_mutex_lock(&chain->mutex);
    chain->wanted.change = *change;
    chain->wanted.change_by_ms = clock_now_ms() + change->drain_ms;
    chain->wanted.may_change = false;
    chain->published.is_ready = false;
    pthread_mutex_unlock(&chain->mutex);
    waker_wake(chain->waker);
}

void chain_proceed(struct chain *chain)
{
    pthread_mutex_lock(&chain->mutex);
    chain->wanted.may_change = true;
    pthread_mutex_unlock(&chain->mutex);
    waker_wake(chain->waker);
}

enum chain_progress chain_progress(const struct chain *chain)
{
    struct chain *unlocked = (struct chain *)chain;
    pthread_mutex_lock(&unlocked->mutex);
    enum chain_progress progress = !chain->wanted.change.next  ? CHAIN_SETTLED
                                   : chain->published.is_ready ? CHAIN_READY
                                                               : CHAIN_PREPARING;
    pthread_mutex_unlock(&unlocked->mutex);
    return progress;
}

void chain_withdraw(struct chain *chain)
{
    pthread_mutex_lock(&chain->mutex);
    if (!chain->wanted.may_change)
        chain->wanted.change.next = NULL;
    pthread_mutex_unlock(&chain->mutex);
    waker_wake(chain->waker);
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
    chain->wanted.stop_by_ms = clock_now_ms() + drain_ms;
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
    atomic_compare_exchange_strong(&chain->pinged_ms, &(int64_t){0}, clock_now_ms());
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
    return pinged_ms == 0 ? 0 : clock_now_ms() - pinged_ms;
}

void chain_free(struct chain *chain)
{
    if (chain->is_started)
        pthread_join(chain->thread, NULL);
    release(chain, chain->is_started ? ANSWERS_LINGER_MS : 0);
}
