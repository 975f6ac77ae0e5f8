/* SPDX-License-Identifier: MIT
 *
 * Subscribers by the descriptor of their connection; see subscribers.h. libzmq tells the descriptor and the user
 * with each subscription. Whether it is still the same connection the guard knows: a descriptor that is noted with
 * the serial of a later one costs that one a reconnect at worst.
 */
#include "proxies/subscribers.h"

#include "proxies/guard.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { READ_PER_TURN = 1000 };

struct subscriber {
    uint64_t serial; /* of its connection; 0 = nobody */
    char *user_id;   /* as ZAP gave it */
};

/* NULL when memory is short. */
static struct subscriber *at(struct subscribers *subscribers, size_t fd)
{
    if (fd >= subscribers->size) {
        size_t size = (fd + 1) * 2;
        struct subscriber *items = realloc(subscribers->items, size * sizeof *items);
        if (!items)
            return NULL;
        memset(items + subscribers->size, 0, (size - subscribers->size) * sizeof *items);
        subscribers->items = items;
        subscribers->size = size;
    }
    return &subscribers->items[fd];
}

/* False when memory is short. */
static bool note(struct subscribers *subscribers, int fd, uint64_t serial, const char *user_id)
{
    struct subscriber *subscriber = at(subscribers, (size_t)fd);
    if (subscriber && subscriber->serial == serial)
        return true;
    char *copy = subscriber ? strdup(user_id) : NULL;
    if (!copy)
        return false;
    free(subscriber->user_id);
    *subscriber = (struct subscriber){.serial = serial, .user_id = copy};
    return true;
}

static bool is_denied(const struct doorman *doorman, struct door *door, const char *user_id, int64_t now_ms)
{
    const char *user;
    return doorman->check(door, user_id, NULL, now_ms, &user) == DOOR_DENIED;
}

void subscribers_read(struct subscribers *subscribers, struct socket *socket, const struct doorman *doorman,
                      struct door *door, int64_t now_ms)
{
    zmq_msg_t message;
    zmq_msg_init(&message);
    int taken = 0;
    while (taken < READ_PER_TURN && zmq_msg_recv(&message, socket->zmq, ZMQ_DONTWAIT) != -1) {
        taken++;
        int fd = zmq_msg_get(&message, ZMQ_SRCFD);
        const char *user_id = zmq_msg_gets(&message, "User-Id");
        uint64_t serial = guard_serial(fd);
        if (serial == 0)
            continue;
        if (is_denied(doorman, door, user_id, now_ms) || !note(subscribers, fd, serial, user_id))
            guard_end(fd, serial);
    }
    zmq_msg_close(&message);
    socket->is_ready = taken == READ_PER_TURN;
}

void subscribers_review(struct subscribers *subscribers, const struct doorman *doorman, struct door *door,
                        int64_t now_ms)
{
    for (size_t fd = 0; fd < subscribers->size; fd++) {
        struct subscriber *subscriber = &subscribers->items[fd];
        if (subscriber->serial == 0 || !is_denied(doorman, door, subscriber->user_id, now_ms))
            continue;
        guard_end((int)fd, subscriber->serial);
        free(subscriber->user_id);
        *subscriber = (struct subscriber){0};
    }
}

void subscribers_free(struct subscribers *subscribers)
{
    for (size_t fd = 0; fd < subscribers->size; fd++)
        free(subscribers->items[fd].user_id);
    free(subscribers->items);
    *subscribers = (struct subscribers){0};
}
