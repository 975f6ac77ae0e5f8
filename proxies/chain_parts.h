/* SPDX-License-Identifier: MIT
 *
 * What a chain consists of, and how its parts are opened, closed and, for a new configuration, exchanged. Shared
 * by chain.c, which lets them work together, and chain_parts.c; nobody else looks inside.
 *
 * A change, from the daemon's reload to the chain's thread and back. The daemon owns both
 * configurations; the sections that differ change places, and what a chain gave up is freed with the other one when
 * all chains have settled.
 *
 *     progress    reload (main thread)      chain's thread, each turn               may look at the sections
 *     SETTLED     chain_change           >                                          both
 *     PREPARING                             get_ready: what the change would cut    the chain
 *                                           off ends, intake or sending stops
 *     READY       chain_proceed, when    <  tell_ready; goes on getting ready       the chain
 *                 its neighbours may
 *     PREPARING                             exchange: closes, exchanges, opens;     the chain
 *                                           parts_move, if from another store
 *     SETTLED                            <  end_change                              both
 *
 * Until it is let proceed chain_withdraw ends the change, and nothing was exchanged. Name and kind never change.
 */
#ifndef PROXYD_PROXIES_CHAIN_PARTS_H
#define PROXYD_PROXIES_CHAIN_PARTS_H

#include "buffer/histogram.h"
#include "buffer/queue.h"
#include "proxies/back.h"
#include "proxies/conf.h"
#include "proxies/dedupe.h"
#include "proxies/front.h"
#include "proxies/poller.h"
#include "proxies/runtime.h"
#include "proxies/sessions.h"
#include "proxies/stats.h"
#include "proxies/tickets.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* At a close: for answers and publications on their way. */
enum { ANSWERS_LINGER_MS = 1000 };

struct wishes {
    bool is_paused, is_draining, is_stopping;
    int64_t stop_by_ms;
    struct chain_change change; /* next NULL = none */
    int64_t change_by_ms;
    bool may_change; /* not only get ready for it */
};

struct published {
    enum chain_state state;
    const char *dialect;
    int64_t max_messages, max_bytes;
    struct ledger ledger;
    uint64_t queue_bytes;
    int64_t oldest_taken_ms; /* -1 = none */
    uint64_t turns;
    bool is_stopped;
    bool is_ready; /* to change */
    uint32_t upstream_count;
    struct upstream_stats *upstreams; /* upstream_count rows */
    uint32_t worker_count;
    struct worker_stats *workers;
};

struct chain {
    struct chain_conf *conf; /* a change exchanges its sections, the kind and the name stay */
    struct surroundings around;
    struct poller poller;
    struct waker *waker;
    bool is_woken; /* set by the poller */
    struct front *front;
    struct back *back;
    struct queue *queue;
    struct queue *leaving;        /* the queue before, while its messages move into this one; NULL = none */
    uint64_t moved_id, stored_id; /* the last one moved into the queue, and the last one it has stored */
    struct tickets *tickets;      /* NULL = none */
    struct sessions *sessions;    /* NULL = every session is good */
    struct dedupe *dedupe;        /* NULL = off */
    bool has_news;                /* of a queue; set by the poller */
    struct list storing;          /* of queue_item.wait: callers to be told when it is stored */
    struct list patient; /* of queue_item.wait: stored, their callers wait for the reply; oldest first */
    int64_t credit, credit_ms; /* drain_rate: what may be sent now, and as of when */
    struct ledger ledger;
    struct queue_item *spare;   /* to take the next message into */
    struct queue_item *pending; /* taken, and the queue has no room yet (when_full) */
    uint64_t turn_bytes;        /* taken in this turn */
    uint64_t peak_bytes;        /* of the queue, since memory was last said to be free */
    uint64_t taken_bytes;       /* since then */
    bool has_backlog;           /* the last turn stopped at its budget */
    bool is_held;               /* nothing is sent: the backend or the store is about to be exchanged */
    bool is_closed;             /* nothing is taken: the store is */
    bool may_hold_unfit;        /* messages taken for a backend before this one, in this run or a store's */
    bool has_failed;            /* an exchange has, and the chain ends */
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

/* Whether what is queued survives the process. */
bool chain_is_durable(const struct chain *chain);

/* Opens all parts as chain->conf says. -1 with a reason in `err`; parts_close is called in any case. */
int parts_open(struct chain *chain, int64_t now_ms, char *err, size_t err_size);

/* Closes whatever is open; answers on their way may still leave for `linger_ms`. */
void parts_close(struct chain *chain, int linger_ms);

/* Carries out chain->now.change: nothing is in flight where the backend or the store changes, and no caller waits
 * where the frontend does. What has changed is closed, the sections of the two configurations are exchanged, and it
 * is opened again. The queue keeps its messages; from another store they move by parts_move. A change that was
 * withdrawn meanwhile is left alone. -1 with a reason: the chain must end. */
int parts_exchange(struct chain *chain, int64_t now_ms, char *err, size_t err_size);

/* Moves some messages of chain->leaving into chain->queue, in their order, and closes it after the last. Once in
 * each turn while there is one. True when any has moved; otherwise a store has to get on first. */
bool parts_move(struct chain *chain, int64_t now_ms);

#endif
