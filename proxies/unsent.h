/* SPDX-License-Identifier: MIT
 *
 * What libzmq holds of large messages for peers that do not read: its high-water marks count messages, whatever their
 * size. Counts them by peer, and decides nothing.
 */
#ifndef PROXYD_PROXIES_UNSENT_H
#define PROXYD_PROXIES_UNSENT_H

#include "buffer/list.h"
#include "buffer/message.h"

#include <stdint.h>

#define UNSENT_LISTS     64
#define UNSENT_BYTES_MAX (64 << 20) /* above this a peer should be given no more */

/* Used by one thread. */
struct unsent {
    unsigned count; /* of the peers in the lists */
    struct list peers[UNSENT_LISTS];
};

/* Makes an empty one. */
void unsent_init(struct unsent *unsent);

/* Forgets all peers; messages that libzmq still holds may outlive it. */
void unsent_close(struct unsent *unsent);

/* Counts `message`, about to be sent to the peer of that routing id, until libzmq has sent it or thrown it away; once,
 * however often that is tried. Small ones are not counted, nor is one when memory is short. */
void unsent_add(struct unsent *unsent, zmq_msg_t *routing_id, struct message *message);

/* How many bytes of what was counted libzmq still holds for that peer. */
uint64_t unsent_bytes(struct unsent *unsent, zmq_msg_t *routing_id);

#endif
