/* SPDX-License-Identifier: MIT
 *
 * What passes between a queue on disk and the store thread: operations one way, the same ones answered the
 * other way, in order. Included by store.c and queue_disk.c, by nobody else.
 */
#ifndef PROXYD_BUFFER_STORE_OPS_H
#define PROXYD_BUFFER_STORE_OPS_H

#include "buffer/list.h"
#include "buffer/store.h"
#include "buffer/store_file.h"

#include <stdatomic.h>

enum store_op_kind {
    /* Cause a commit, and are answered after it. */
    STORE_OP_PUT,
    /* Ride on the next commit, or cause one after a short while. Tried until they succeed, not answered. */
    STORE_OP_DELETE,
    STORE_OP_EXPIRE,
    STORE_OP_REPLY,
    STORE_OP_ATTEMPTS,
    STORE_OP_BURY,
    /* Questions: answered when all before them is committed. */
    STORE_OP_OPEN,      /* its rows: what is remembered */
    STORE_OP_CHANGE,    /* data: a struct store_port_conf; what it says of syncs holds for all before, too */
    STORE_OP_SENDING,   /* the chain has begun to deliver */
    STORE_OP_TRIM_DEAD, /* dead letters beyond the bounds go, `count` of them with `bytes` */
    STORE_OP_LOAD,
    STORE_OP_PAGE,
    STORE_OP_PAGE_DEAD,
    STORE_OP_FIND,
    STORE_OP_DROP,
    STORE_OP_DROP_DEAD,
    STORE_OP_RETRY_DEAD,
    STORE_OP_CLOSE,
};

struct store_port;

/* A row in an answer. */
struct store_found {
    struct list link;
    struct store_row row; /* its flat form lies behind */
    bool is_damaged;      /* nothing but the id is known; already set aside */
    unsigned char data[];
};

struct store_op {
    struct list link;
    struct store_port *port; /* set when submitted */
    enum store_op_kind kind;
    bool is_far;              /* DELETE, EXPIRE, DROP: not one that is being delivered */
    bool is_done;             /* answer: it happened */
    bool has_failed;          /* answer: the store could not tell or do it */
    uint32_t count;           /* rows to read, attempts, window */
    size_t max_bytes;         /* LOAD, PAGE: of rows after the first */
    size_t bytes;             /* REPLY: payload of all frames */
    uint64_t next;            /* answer to LOAD and PAGE: where to go on; 0 = that was all */
    enum store_ticket ticket; /* answer to FIND */
    struct store_chain chain; /* answer to OPEN */
    struct store_row row;     /* PUT and FIND: all of it; others: id, reason, flat */
    struct list rows;         /* answer: struct store_found */
    void *context;            /* the owner's */
    unsigned char data[];     /* where row.flat may lie */
};

struct store_port_conf {
    uint64_t max_messages, max_bytes; /* kept replies make room for messages within these; 0 = no bound */
    int64_t sync_ms;                  /* 0: each commit is synced */
    int64_t keep_replies_ms;
    int64_t remember_ms;   /* digests; 0: none */
    uint32_t remember_max; /* at most so many of them */
};

/* The owner of a queue calls what follows; nothing of it waits for a disk. */
struct store_port *store_port_new(struct store *store, const char *name, const struct store_port_conf *conf);
/* Gives the port up: what was submitted is still carried out, nothing is answered any more. */
void store_port_close(struct store_port *port);
/* Hands all of `ops` over. */
void store_submit(struct store_port *port, struct list *ops);
/* Takes what has been answered. */
void store_receive(struct store_port *port, struct list *ops);

/* Resets the descriptor, which store_receive leaves as it is. */
void store_settle(const struct store_port *port);
int store_port_fd(const struct store_port *port);
bool store_is_usable(const struct store_port *port);
/* How many lazy operations were submitted and are not yet committed. */
unsigned store_unsettled(const struct store_port *port);
/* Has the eventfd signalled once as soon as they are fewer than `limit`. */
void store_wake_below(struct store_port *port, unsigned limit);

struct store_op *store_op_new(enum store_op_kind kind, uint64_t id, size_t data_bytes);
void store_op_free(struct store_op *op);
/* All of a list, which is empty afterwards. */
void store_ops_free(struct list *ops);

#endif
