/* SPDX-License-Identifier: MIT
 *
 * The shape of what a peer sends: where the frames and messages of its byte stream begin and end, ZMTP 1.0 to
 * 3.x. Looks at greeting and headers, steps over bodies, keeps nothing. Pure.
 */
#ifndef PROXYD_PROXIES_ZMTP_H
#define PROXYD_PROXIES_ZMTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of one message, all frames together; 0 = no limit. */
struct zmtp_limits {
    uint64_t max_bytes;
    uint64_t max_frames;
};

#define ZMTP_HEAD_BYTES 18

/* Where a handshake's metadata stands: [name size][name][value size, 4 bytes][value] … */
struct zmtp_property {
    uint8_t part;
    bool is_identity;
    uint32_t at;   /* bytes of this part so far, as far as that matters */
    uint32_t left; /* of the name or value; of a value's size: as read so far */
};

#define ZMTP_NAME_BYTES 255

/* Who a peer with PLAIN says it is. Proven is none of it: that is for the ZAP handler to tell. */
struct zmtp_claim {
    uint8_t user_bytes;
    uint8_t id_bytes; /* of its routing id; 0 = it has chosen none */
    bool is_complete; /* all was said */
    char user[ZMTP_NAME_BYTES];
    char id[ZMTP_NAME_BYTES];
};

/* One stream. Filled with zero bytes it is at its beginning. */
struct zmtp {
    uint64_t left;     /* bytes of a body, or of the greeting, still to come */
    uint64_t bytes;    /* of the message under way, as its headers announce */
    uint64_t frames;   /* likewise */
    uint64_t messages; /* whose last header has come */
    uint8_t state;
    uint8_t head_bytes;
    uint8_t head[ZMTP_HEAD_BYTES]; /* the greeting or frame header now being collected */
    bool has_finished_handshake;   /* as far as that is the peer's part */
    uint8_t body;                  /* what it is of: some are read */
    struct zmtp_property property;
    struct zmtp_claim *claim; /* filled in; the caller's. NULL = not wanted */
    uint64_t routing_id;      /* the zmtp_mark of the one that the peer claims; 0 = none */
};

enum zmtp_verdict {
    ZMTP_FINE,
    ZMTP_TOO_LARGE, /* a message has grown over its limits, or a frame of the handshake over what any can need */
    ZMTP_RESERVED_ID /* the peer claims a routing id that no libzmq peer can have chosen: it begins with zero, as
                      * those that libzmq hands out, or is longer than 255 bytes where claims are wanted */
};

/* Takes the next bytes of a stream, cut anywhere. After anything but ZMTP_FINE the stream is of no more use. A
 * peer with CURVE hides its routing id and where its messages end: each frame counts as one. */
enum zmtp_verdict zmtp_read(struct zmtp *stream, const struct zmtp_limits *limits, const void *data,
                            size_t size);

/* What a stream keeps of a routing id: equal for equal ones, hardly ever for others, never 0. */
uint64_t zmtp_mark(const void *routing_id, size_t size);

#endif
