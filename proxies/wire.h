/* SPDX-License-Identifier: MIT
 *
 * Whole messages on and off sockets, always without blocking. Requests and replies travel in the envelopes
 * of RFC 28:
 *
 *     ROUTER receives    [routing id] [address]… [""] [body]…
 *     DEALER receives                 [address]… [""] [body]…
 *                        \______ envelope ______/      \_ body _/
 */
#ifndef PROXYD_PROXIES_WIRE_H
#define PROXYD_PROXIES_WIRE_H

#include "buffer/message.h"
#include "proxies/socket.h"

#include <stdint.h>

/* Up to max_bytes and max_frames a message is taken. Up to WIRE_MERCY times as much it is thrown away but its
 * envelope and first frame kept, so that the caller can be told; beyond, its connection is cut. 0 = no limit. */
struct wire_limits {
    int64_t max_bytes;  /* of all frames but the routing id */
    int64_t max_frames; /* of the body, and of the address */
};

#define WIRE_MERCY 4

/* The most frames, all together, that may be told of being too many: address, delimiter and body. */
#define WIRE_FRAMES(max_frames) ((max_frames) > 0 ? 2 * WIRE_MERCY * (max_frames) + 1 : 0)

enum wire_received {
    WIRE_NONE,      /* nothing to read now */
    WIRE_MESSAGE,   /* a whole message */
    WIRE_TOO_LARGE, /* over a limit: `body` is not whole; both are empty when the connection was cut */
    WIRE_MALFORMED, /* an envelope was expected, and there is no delimiter or no body */
    WIRE_SHORT      /* memory is short: the message is lost; `body` is empty, and `envelope` may be */
};

/* Takes one message off a socket into empty messages. With `envelope` a ROUTER's routing id and the frames
 * before the first empty one go there, and the delimiter is dropped; with NULL everything is body. */
enum wire_received wire_receive(struct socket *socket, const struct wire_limits *limits,
                                struct message *envelope, struct message *body);

enum wire_sent {
    WIRE_SENT,
    WIRE_FULL, /* no peer has room now; nothing was sent */
    WIRE_GONE  /* a ROUTER's peer is not there any more; nothing was sent */
};

/* Sends the frames of `envelope` (NULL = none), with `has_delimiter` an empty one, and those of `body`, as
 * one message. What was sent is moved out of both; otherwise they keep what they have. */
enum wire_sent wire_send(struct socket *socket, struct message *envelope, bool has_delimiter,
                         struct message *body);

/* The same, but `body` keeps its frames in any case, and copies are sent. */
enum wire_sent wire_send_copy(struct socket *socket, struct message *envelope, bool has_delimiter,
                              const struct message *body);

#endif
