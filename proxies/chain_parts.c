/* SPDX-License-Identifier: MIT
 *
 * The parts of a chain; see chain_parts.h. Opens and closes, on the chain's thread once that runs. What becomes of
 * messages and callers is chain.c's business, except that a queue hands its messages on.
 */
#include "proxies/chain_parts.h"

#include "proxies/dialect.h"
#include "proxies/door.h"
#include "proxies/kinds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEDUPE_MAX = 65536, /* requests remembered */
    MOVED_PER_TURN = 256,
};

bool chain_is_durable(const struct chain *chain)
{
    return chain->conf->queue.store != STORE_MEMORY;
}

static int memory_is_short(char *err, size_t err_size)
{
    snprintf(err, err_size, "out of memory or descriptors");
    return -1;
}

/* ---- queue ---- */

/* What the store remembers of requests. */
static void recall(void *context, const uint8_t digest[QUEUE_DIGEST_BYTES], uint64_t id, const char *ticket,
                   int64_t taken_ms)
{
    struct dedupe *dedupe = ((struct chain *)context)->dedupe;
    bool is_known = dedupe_find(dedupe, digest, taken_ms) != NULL;
    struct dedupe_entry *entry = is_known ? NULL : dedupe_add(dedupe, digest, taken_ms);
    if (entry)
        dedupe_store(dedupe, entry, id, ticket);
}

static struct queue_disk_conf queue_conf_of(struct chain *chain, int64_t now_ms)
{
    const struct chain_conf *conf = chain->conf;
    return (struct queue_disk_conf){
        .name = conf->name,
        .limits = {.max_messages = (uint64_t)conf->queue.max_messages,
                   .max_bytes = (uint64_t)conf->queue.max_bytes,
                   .is_ordered = conf->kind->is_ordered},
        .window = (uint32_t)(conf->backend.window * (int64_t)conf->backend.endpoints.count),
        .sync_ms = conf->queue.sync_ms,
        .keep_replies_ms = conf->frontend.tickets.count > 0 ? conf->queue.keep_replies_ms : 0,
        .remember_ms = conf->queue.dedupe_ms,
        .remember_max = DEDUPE_MAX,
        .recall = recall,
        .context = chain,
        .now_ms = now_ms,
    };
}

static int open_queue(struct chain *chain, int64_t now_ms, char *err, size_t err_size)
{
    const struct queue_disk_conf conf = queue_conf_of(chain, now_ms);
    memory_is_short(err, err_size);
    chain->queue = chain_is_durable(chain)
                       ? queue_disk_open(chain->around.runtime->store, &conf, err, err_size)
                       : queue_memory_new(&conf.limits);
    if (!chain->queue)
        return -1;
    int fd = queue_fd(chain->queue);
    return fd == -1 ? 0 : poller_add(&chain->poller, fd, &chain->has_news);
}

static void close_queue(struct chain *chain, struct queue *queue)
{
    if (!queue)
        return;
    if (queue_fd(queue) != -1)
        poller_remove(&chain->poller, queue_fd(queue));
    queue_free(queue);
}

static int open_dedupe(struct chain *chain, char *err, size_t err_size)
{
    int64_t window_ms = chain->conf->queue.dedupe_ms;
    if (window_ms == 0)
        return 0;
    chain->dedupe = dedupe_new(window_ms, DEDUPE_MAX);
    return chain->dedupe ? 0 : memory_is_short(err, err_size);
}

/* ---- front ---- */

static struct door *open_door(struct chain *chain, enum door_side side, char *err, size_t err_size)
{
    const struct doorman *doorman = chain->around.runtime->doorman;
    return doorman->open(doorman->context, chain->conf, side, err, err_size);
}

static void close_door(struct chain *chain, struct door **door)
{
    if (*door)
        chain->around.runtime->doorman->close(*door);
    *door = NULL;
}

static int open_front(struct chain *chain, char *err, size_t err_size)
{
    const struct chain_conf *conf = chain->conf;
    struct surroundings *around = &chain->around;
    if (around->runtime->doorman && !(around->front_door = open_door(chain, DOOR_FRONTEND, err, err_size)))
        return -1;
    chain->front = conf->kind->front->open(conf, around, err, err_size);
    if (!chain->front)
        return -1;
    if (conf->frontend.verify.endpoint.count > 0 &&
        !(chain->sessions = sessions_open(conf, around, err, err_size)))
        return -1;
    if (conf->frontend.tickets.count > 0)
        chain->tickets = tickets_open(conf, around, chain->queue, err, err_size);
    return conf->frontend.tickets.count > 0 && !chain->tickets ? -1 : 0;
}

static void close_front(struct chain *chain, int linger_ms)
{
    tickets_close(chain->tickets, linger_ms);
    chain->tickets = NULL;
    sessions_close(chain->sessions);
    chain->sessions = NULL;
    if (chain->front)
        chain->conf->kind->front->close(chain->front, linger_ms);
    chain->front = NULL;
    close_door(chain, &chain->around.front_door);
}

/* ---- back ---- */

static int open_back(struct chain *chain, char *err, size_t err_size)
{
    const struct kind *kind = chain->conf->kind;
    struct surroundings *around = &chain->around;
    bool has_door =
        around->runtime->doorman && !kind_has_req_back(kind); /* PUB: who may subscribe; or who may work */
    if (has_door && !(around->back_door = open_door(chain, DOOR_BACKEND, err, err_size)))
        return -1;
    chain->back = kind->back->open(chain->conf, around, err, err_size);
    return chain->back ? 0 : -1;
}

/* What the old backend knew of a message means nothing to the new one. */
static void forget_attempts(void *context, struct queue_item *item)
{
    struct chain *chain = context;
    chain->conf->kind->back->forget(chain->back, item);
    item->hint = 0;
}

static void close_back(struct chain *chain, int linger_ms)
{
    if (chain->back) {
        queue_each(chain->queue, forget_attempts, chain);
        chain->conf->kind->back->close(chain->back, linger_ms);
    }
    chain->back = NULL;
    close_door(chain, &chain->around.back_door);
}

/* ---- all ---- */

static int make_rows(struct chain *chain, char *err, size_t err_size)
{
    const struct kind *kind = chain->conf->kind;
    uint32_t count = kind->front->upstreams(chain->front, NULL) + kind->back->upstreams(chain->back, NULL) +
                     (chain->sessions ? 1 : 0);
    struct upstream_stats *rows = calloc(count + 1, sizeof *rows),
                          *published = calloc(count + 1, sizeof *rows);
    if (!rows || !published) {
        free(rows);
        free(published);
        return memory_is_short(err, err_size);
    }
    pthread_mutex_lock(&chain->mutex);
    free(chain->rows);
    free(chain->published.upstreams);
    chain->rows = rows;
    chain->published.upstreams = published;
    chain->upstream_count = chain->published.upstream_count = count;
    pthread_mutex_unlock(&chain->mutex);
    count = kind->front->upstreams(chain->front, published);
    count += kind->back->upstreams(chain->back, published + count);
    if (chain->sessions)
        sessions_upstream(chain->sessions, published + count);
    return 0;
}

/* The kind stays, and so do these. */
static int make_workers(struct chain *chain, char *err, size_t err_size)
{
    if (!chain->conf->kind->back->workers)
        return 0;
    chain->workers = calloc(BACK_WORKERS_MAX, sizeof *chain->workers);
    chain->published.workers = calloc(BACK_WORKERS_MAX, sizeof *chain->workers);
    return chain->workers && chain->published.workers ? 0 : memory_is_short(err, err_size);
}

int parts_open(struct chain *chain, int64_t now_ms, char *err, size_t err_size)
{
    chain->waker = chain->around.waker = waker_new();
    if (poller_open(&chain->poller) != 0 || !chain->waker ||
        poller_add(&chain->poller, waker_fd(chain->waker), &chain->is_woken) != 0)
        return memory_is_short(err, err_size);
    if (open_dedupe(chain, err, err_size) != 0 || open_queue(chain, now_ms, err, err_size) != 0 ||
        open_front(chain, err, err_size) != 0 || open_back(chain, err, err_size) != 0 ||
        make_workers(chain, err, err_size) != 0)
        return -1;
    chain->may_hold_unfit = chain_is_durable(chain);
    return make_rows(chain, err, err_size);
}

void parts_close(struct chain *chain, int linger_ms)
{
    close_front(chain, linger_ms);
    if (chain->queue)
        close_back(chain, linger_ms);
    if (chain->spare)
        queue_item_free(chain->queue, chain->spare);
    close_queue(chain, chain->leaving);
    close_queue(chain, chain->queue);
    dedupe_free(chain->dedupe);
    if (chain->poller.epoll != -1)
        poller_close(&chain->poller);
    if (chain->waker)
        waker_release(chain->waker);
    free(chain->published.upstreams);
    free(chain->published.workers);
    free(chain->rows);
    free(chain->workers);
}

/* ---- exchange ---- */

#define EXCHANGE(a, b)                                                                                       \
    do {                                                                                                     \
        __typeof__(a) kept_ = a;                                                                             \
        a = b;                                                                                               \
        b = kept_;                                                                                           \
    } while (0)

/* Takes the change over, unless it was withdrawn. After this the daemon may look at neither configuration before the
 * chain tells that it has changed. */
static bool take_change(struct chain *chain, struct chain_change *change)
{
    pthread_mutex_lock(&chain->mutex);
    *change = chain->wanted.change;
    if (change->next)
        chain->published.is_ready = false;
    pthread_mutex_unlock(&chain->mutex);
    return change->next != NULL;
}

static void end_change(struct chain *chain)
{
    pthread_mutex_lock(&chain->mutex);
    chain->wanted.change.next = chain->now.change.next = NULL;
    pthread_mutex_unlock(&chain->mutex);
}

/* The old queue's messages are on their way into the new one, which has no bounds until then: they count in it, and
 * nothing is lost on the way. */
static int exchange_queue(struct chain *chain, int64_t now_ms, char *err, size_t err_size)
{
    if (chain->spare)
        queue_item_free(chain->queue, chain->spare);
    chain->spare = NULL;
    chain->leaving = chain->queue;
    chain->queue = NULL;
    chain->moved_id = chain->stored_id = 0;
    if (open_queue(chain, now_ms, err, err_size) != 0) {
        close_queue(chain, chain->queue);
        chain->queue = chain->leaving;
        chain->leaving = NULL;
        return -1;
    }
    queue_change(chain->queue, &(struct queue_disk_conf){.sync_ms = chain->conf->queue.sync_ms});
    return 0;
}

int parts_exchange(struct chain *chain, int64_t now_ms, char *err, size_t err_size)
{
    struct chain_change change;
    if (!take_change(chain, &change))
        return 0;
    struct chain_conf *conf = chain->conf, *next = change.next;
    bool has_other_dedupe = conf->queue.dedupe_ms != next->queue.dedupe_ms;
    bool renews_front = change.frontend || (change.store && chain->tickets); /* which know their queue */
    if (renews_front)
        close_front(chain, ANSWERS_LINGER_MS);
    if (change.backend)
        close_back(chain, ANSWERS_LINGER_MS);
    if (has_other_dedupe)
        dedupe_free(chain->dedupe);
    chain->dedupe = has_other_dedupe ? NULL : chain->dedupe;
    if (change.frontend)
        EXCHANGE(conf->frontend, next->frontend);
    if (change.backend)
        EXCHANGE(conf->backend, next->backend);
    EXCHANGE(conf->queue, next->queue);
    EXCHANGE(conf->dialect, next->dialect);

    if (has_other_dedupe && open_dedupe(chain, err, err_size) != 0)
        return -1;
    const struct queue_disk_conf bounds = queue_conf_of(chain, now_ms);
    if (!change.store)
        queue_change(chain->queue, &bounds);
    else if (exchange_queue(chain, now_ms, err, err_size) != 0)
        return -1;
    if ((renews_front && open_front(chain, err, err_size) != 0) ||
        (change.backend && open_back(chain, err, err_size) != 0) || make_rows(chain, err, err_size) != 0)
        return -1;
    chain->unconnected_ms = -1;
    chain->may_hold_unfit |= change.backend;
    if (!change.store)
        end_change(chain);
    return 0;
}

/* Its counters go on in the ledger. */
static void close_leaving(struct chain *chain, const struct queue_stats *stats, int64_t now_ms)
{
    chain->ledger.accepted += stats->restored;
    chain->ledger.restored += stats->restored;
    chain->ledger.dropped[DROP_OLDEST] += stats->dead_dropped;
    chain->ledger.dropped[DROP_DAMAGED] += stats->damaged;
    chain->ledger.dropped[DROP_OPERATOR] += stats->dead; /* there were none when this was asked for */
    close_queue(chain, chain->leaving);
    chain->leaving = NULL;
    const struct queue_disk_conf bounds = queue_conf_of(chain, now_ms);
    queue_change(chain->queue, &bounds);
    end_change(chain);
}

/* False when the new store takes nothing now: again later. */
static bool move(struct chain *chain, struct queue_item *from, int64_t now_ms)
{
    struct queue_item *to = queue_can_take(chain->queue) ? queue_item_new(chain->queue) : NULL;
    if (to) {
        to->taken_ms = from->taken_ms;
        to->taken_us = from->taken_us;
        to->attempts = from->attempts;
        to->retries = from->retries;
        to->was_sent = from->was_sent;
        to->owner = from->owner;
        message_move(&to->body, &from->body);
        if (queue_put(chain->queue, to) == QUEUE_TAKEN) {
            chain->moved_id = to->id;
            queue_ack(chain->leaving, from, NULL);
            return true;
        }
        message_move(&from->body, &to->body);
        queue_item_free(chain->queue, to);
    }
    queue_nack(chain->leaving, from, now_ms);
    return false;
}

bool parts_move(struct chain *chain, int64_t now_ms)
{
    bool is_stored;
    while (queue_next_stored(chain->leaving, &is_stored))
        ;
    int count = 0;
    struct queue_item *item;
    while (count < MOVED_PER_TURN && (item = queue_lease(chain->leaving, INT64_MAX)) != NULL &&
           move(chain, item, now_ms))
        count++;
    queue_commit(chain->leaving);
    queue_commit(chain->queue);
    struct queue_stats stats;
    queue_stats(chain->leaving, &stats);
    if (stats.queued + stats.inflight == 0 && chain->stored_id >= chain->moved_id)
        close_leaving(chain, &stats, now_ms);
    return count > 0;
}
