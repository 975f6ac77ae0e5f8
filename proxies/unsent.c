/* SPDX-License-Identifier: MIT
 *
 * Counting what libzmq holds; see unsent.h. The last frame of a message is lent to libzmq, which says when it needs it
 * no more; messages leave in order, so all of the message is gone then. A peer is in its list while something of it is
 * counted, and is taken out by the next look there; who is last to let go of it frees it.
 */
#include "proxies/unsent.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_BYTES = 16 * 1024 };

struct peer {
    struct list link;
    atomic_uint references; /* its list, and each message */
    atomic_uint_fast64_t bytes;
    size_t id_bytes;
    uint8_t id[];
};

struct loan {
    zmq_msg_t frame; /* the real one */
    struct peer *peer;
    size_t bytes;
};

static void release(struct peer *peer)
{
    if (atomic_fetch_sub(&peer->references, 1) == 1)
        free(peer);
}

static void forget(struct unsent *unsent, struct peer *peer)
{
    list_remove(&peer->link);
    unsent->count--;
    release(peer);
}

/* On any of libzmq's threads. */
static void take_back(void *data, void *context)
{
    struct loan *loan = context;
    (void)data;
    atomic_fetch_sub(&loan->peer->bytes, loan->bytes);
    release(loan->peer);
    zmq_msg_close(&loan->frame);
    free(loan);
}

static struct list *list_of(struct unsent *unsent, const uint8_t *id, size_t size)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ id[i]) * 16777619U;
    return &unsent->peers[hash % UNSENT_LISTS];
}

/* NULL when it is not there. */
static struct peer *find(struct unsent *unsent, struct list *list, const uint8_t *id, size_t size)
{
    struct peer *found = NULL;
    LIST_EACH_SAFE (link, following, list) {
        struct peer *peer = LIST_ENTRY(link, struct peer, link);
        if (atomic_load(&peer->bytes) == 0)
            forget(unsent, peer);
        else if (peer->id_bytes == size && memcmp(peer->id, id, size) == 0)
            found = peer;
    }
    return found;
}

static struct peer *find_or_make(struct unsent *unsent, const uint8_t *id, size_t size)
{
    struct list *list = list_of(unsent, id, size);
    struct peer *peer = find(unsent, list, id, size);
    if (peer || !(peer = malloc(sizeof *peer + size)))
        return peer;
    atomic_init(&peer->references, 1);
    atomic_init(&peer->bytes, 0);
    peer->id_bytes = size;
    memcpy(peer->id, id, size);
    list_prepend(list, &peer->link);
    unsent->count++;
    return peer;
}

void unsent_init(struct unsent *unsent)
{
    unsent->count = 0;
    for (int i = 0; i < UNSENT_LISTS; i++)
        list_init(&unsent->peers[i]);
}

void unsent_close(struct unsent *unsent)
{
    for (int i = 0; i < UNSENT_LISTS; i++)
        LIST_EACH_SAFE (link, following, &unsent->peers[i])
            forget(unsent, LIST_ENTRY(link, struct peer, link));
}

void unsent_add(struct unsent *unsent, zmq_msg_t *routing_id, struct message *message)
{
    if (message->bytes < SMALL_BYTES)
        return;
    struct loan *loan = malloc(sizeof *loan);
    struct peer *peer =
        loan ? find_or_make(unsent, zmq_msg_data(routing_id), zmq_msg_size(routing_id)) : NULL;
    if (!peer) {
        free(loan);
        return;
    }
    zmq_msg_t *last = message_frame(message, message->count - 1);
    loan->peer = peer;
    loan->bytes = message->bytes;
    zmq_msg_init(&loan->frame);
    zmq_msg_move(&loan->frame, last);
    atomic_fetch_add(&peer->references, 1);
    atomic_fetch_add(&peer->bytes, loan->bytes);
    if (zmq_msg_init_data(last, zmq_msg_data(&loan->frame), zmq_msg_size(&loan->frame), take_back, loan) == 0)
        return;
    zmq_msg_init(last); /* memory is short: it goes uncounted */
    zmq_msg_move(last, &loan->frame);
    take_back(NULL, loan);
}

uint64_t unsent_bytes(struct unsent *unsent, zmq_msg_t *routing_id)
{
    if (unsent->count == 0)
        return 0;
    const uint8_t *id = zmq_msg_data(routing_id);
    size_t size = zmq_msg_size(routing_id);
    const struct peer *peer = find(unsent, list_of(unsent, id, size), id, size);
    return peer ? atomic_load(&peer->bytes) : 0;
}
