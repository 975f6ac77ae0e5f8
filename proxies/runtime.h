/* SPDX-License-Identifier: MIT
 *
 * What all chains of a daemon share, and what a part of a chain knows of its surroundings.
 */
#ifndef PROXYD_PROXIES_RUNTIME_H
#define PROXYD_PROXIES_RUNTIME_H

#include "buffer/queue.h"
#include "proxies/event.h"

#include <stddef.h>
#include <stdint.h>

struct door;
struct doorman;
struct monitor;
struct message;
struct poller;
struct store;
struct waker;
struct websockets;

/* Outlives the chains. */
struct runtime {
    void *zmq; /* the context */
    struct monitor *monitor;
    struct websockets *websockets; /* starts with the first chain that needs it */
    struct event_sink events;
    struct store *store; /* of durable queues; NULL = none; set before the first chain that needs it */
    /* A digest of a message from a sender, for dedupe: equal for equal ones in every run, no other's to be forged. Set
     * before the first chain. */
    void (*digest)(uint64_t sender, const struct message *body, uint8_t digest[QUEUE_DIGEST_BYTES]);
    const struct doorman *doorman; /* NULL = every door is open; set before the first chain */
};

/* Starts the libzmq context, sized for `socket_count` sockets, and the monitor thread. -1 with a reason. */
int runtime_open(struct runtime *runtime, int socket_count, struct event_sink events, char *err,
                 size_t err_size);

/* Ends them. All chains must be freed. Waits until libzmq has sent what is left, at most for each socket's
 * own linger. */
void runtime_close(struct runtime *runtime);

/* What stands for `size` bytes of a sender in a table: the beginning of their digest; 0 when memory is short. */
uint64_t runtime_mark(const struct runtime *runtime, uint64_t sender, const void *data, size_t size);

/* What a part of a chain (frontend, backend, link) works in; the chain's own, on the chain's thread. */
struct surroundings {
    const struct runtime *runtime;
    struct poller *poller;
    struct waker *waker;                 /* ends the loop's sleep */
    const char *chain;                   /* its name, for events */
    struct door *front_door, *back_door; /* NULL = open */
    struct ledger *ledger;
};

#endif
