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

/* One stream. Filled with zero bytes it is at its beginning. */
struct zmtp {
    uint64_t left;   /* bytes to step over: the rest of a body, or of the greeting */
    uint64_t bytes;  /* of the message under way, as its headers announce */
    uint64_t frames; /* likewise */
    uint8_t state;   /* private */
    uint8_t head_bytes;
    uint8_t head[ZMTP_HEAD_BYTES]; /* the greeting or frame header now being collected */
    bool has_finished_handshake;   /* as far as that is the peer's part */
};

/* Takes the next bytes of a stream, cut anywhere. False as soon as a message has grown over its limits; the
 * stream is then of no more use. A peer with CURVE hides where its messages end: each frame counts as one. */
bool zmtp_read(struct zmtp *stream, const struct zmtp_limits *limits, const void *data, size_t size);

#endif
