/* SPDX-License-Identifier: MIT
 *
 * Who subscribes at the publishers of a side whose door asks for names. A subscriber sends nothing that could be
 * refused when its user is no longer welcome, so its connection is ended instead.
 */
#ifndef PROXYD_PROXIES_SUBSCRIBERS_H
#define PROXYD_PROXIES_SUBSCRIBERS_H

#include "proxies/door.h"
#include "proxies/socket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct subscriber;

/* Filled with zero bytes it knows of nobody. */
struct subscribers {
    struct subscriber *items; /* by descriptor */
    size_t size;
};

/* Reads the subscriptions that wait at an XPUB and remembers whose they are, or ends their connections where the
 * door says so. The socket is not ready afterwards, unless more wait than one turn should take. */
void subscribers_read(struct subscribers *subscribers, struct socket *socket, const struct doorman *doorman,
                      struct door *door, int64_t now_ms);

/* Ends the connections of those whom the door would not let in now: after its refresh has said so. */
void subscribers_review(struct subscribers *subscribers, const struct doorman *doorman, struct door *door,
                        int64_t now_ms);

void subscribers_free(struct subscribers *subscribers);

#endif
