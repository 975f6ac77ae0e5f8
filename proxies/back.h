/* SPDX-License-Identifier: MIT
 *
 * A backend moves messages out. Every item given to it comes back exactly once, as an outcome. What all kinds
 * of backend have in common; each kind is one file with one symbol.
 */
#ifndef PROXYD_PROXIES_BACK_H
#define PROXYD_PROXIES_BACK_H

#include "buffer/queue.h"
#include "proxies/conf.h"
#include "proxies/runtime.h"
#include "proxies/stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct back;

enum back_result {
    BACK_DELIVERED, /* `reply` is the upstream's, or NULL where there is none */
    BACK_TIMEOUT,   /* no answer in time; the connection is gone */
    BACK_LOST,      /* the connection broke, or had to be given up, with this request on it */
    BACK_UNSENT     /* it waited for one upstream, which is gone: it may go to another */
};

struct back_outcome {
    struct queue_item *item; /* still leased from the queue */
    enum back_result result;
    bool was_alone;        /* all the time nothing else was in flight: the failure may be the message's own */
    struct message *reply; /* its frames may be taken */
};

struct back_ops {
    /* Opens every endpoint of `conf`. The pointers must outlive it. NULL with a reason in `err`. */
    struct back *(*open)(const struct chain_conf *conf, const struct surroundings *around, char *err,
                         size_t err_size);

    /* Closes them. Items in flight stay the caller's. PUB: what was handed over may leave for `linger_ms`. */
    void (*close)(struct back *back, int linger_ms);

    /* Moves connections on, reads answers, and abandons attempts that took too long. `waiting` messages would
     * like to be sent. */
    void (*tick)(struct back *back, uint64_t waiting, int64_t now_ms);

    /* When tick is due next without anything happening; INT64_MAX when never. */
    int64_t (*next_ms)(const struct back *back);

    /* True while a tick would find something to read. */
    bool (*has_input)(const struct back *back);

    /* True when at least one upstream could take messages, busy or not. */
    bool (*is_connected)(const struct back *back);

    /* True when a message may be sent now. */
    bool (*has_room)(const struct back *back, int64_t now_ms);

    /* Sends a leased item. False when no upstream took it after all: it was not sent. */
    bool (*send)(struct back *back, struct queue_item *item, int64_t now_ms);

    /* The next outcome; false when there is none. Its reply lives until the next call of this, to be made soon. */
    bool (*next_outcome)(struct back *back, struct back_outcome *outcome);

    /* Forgets what it knows of an item that leaves the queue without another attempt. */
    void (*forget)(struct back *back, struct queue_item *item);

    /* Whether a message can be sent at all, whenever there is room. NULL: any can. */
    bool (*carries)(const struct back *back, const struct message *body);

    /* Gives up everything in flight: its connections are closed, and it comes back as lost. */
    void (*abandon)(struct back *back, int64_t now_ms);

    /* Writes one row for each upstream and returns how many. `rows` NULL only counts. */
    uint32_t (*upstreams)(const struct back *back, struct upstream_stats *rows);

    /* Where workers connect to it: writes a row for each worker and returns how many, at most BACK_WORKERS_MAX;
     * heard_ms is when, on the loop's clock. NULL where there are none. */
    uint32_t (*workers)(const struct back *back, struct worker_stats *rows);
};

enum { BACK_WORKERS_MAX = 256 };

extern const struct back_ops back_req;
extern const struct back_ops back_pub;
extern const struct back_ops back_workers;

#endif
