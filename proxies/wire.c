/* SPDX-License-Identifier: MIT
 *
 * Frames <-> messages; see wire.h.
 */
#include "proxies/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <zmq.h>

/* The message now being read. */
struct reading {
    const struct wire_limits *limits;
    struct message *envelope; /* NULL once the delimiter was seen, or none is expected */
    struct message *body;
    uint64_t bytes, frames; /* frames of the envelope, then of the body */
    bool is_over, is_short, is_cut;
};

/* A program in between may have taken the descriptor's number since: the address must still be the peer's. */
static bool is_same_peer(int fd, const char *expected)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    char text[INET6_ADDRSTRLEN] = "";
    if (!expected || getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
        return false;
    if (peer.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)&peer)->sin_addr, text, sizeof text);
    else if (peer.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)(void *)&peer)->sin6_addr, text, sizeof text);
    else
        return true; /* ipc: the address names a process, not a socket */
    return strcmp(text, expected) == 0;
}

/* libzmq has no call that ends one peer's connection. */
static void cut_connection(zmq_msg_t *frame)
{
    int fd = zmq_msg_get(frame, ZMQ_SRCFD);
    if (fd > 2 && is_same_peer(fd, zmq_msg_gets(frame, "Peer-Address")))
        shutdown(fd, SHUT_RDWR);
}

static bool is_above(uint64_t value, int64_t limit, unsigned times)
{
    return limit > 0 && value > (uint64_t)limit * times;
}

static void keep_frame(struct reading *reading, zmq_msg_t *frame)
{
    reading->bytes += zmq_msg_size(frame);
    reading->frames++;
    if (is_above(reading->bytes, reading->limits->max_bytes, 1) ||
        is_above(reading->frames, reading->limits->max_frames, 1))
        reading->is_over = true;
    if (!reading->is_cut && (is_above(reading->bytes, reading->limits->max_bytes, WIRE_MERCY) ||
                             is_above(reading->frames, reading->limits->max_frames, WIRE_MERCY))) {
        reading->is_cut = true;
        cut_connection(frame);
    }
    if (reading->is_over) {
        message_close(reading->body);
        if (!reading->envelope || reading->is_cut)
            return; /* read on to the message's end, keeping nothing but the way back */
    }
    if (message_add(reading->envelope ? reading->envelope : reading->body, frame) != 0)
        reading->is_short = true;
}

static void read_frame(struct reading *reading, zmq_msg_t *frame, bool is_routing_id)
{
    if (is_routing_id) {
        if (message_add(reading->envelope, frame) != 0)
            reading->is_short = true;
    } else if (reading->envelope && zmq_msg_size(frame) == 0) {
        reading->envelope = NULL;
        reading->frames = 0;
    } else {
        keep_frame(reading, frame);
    }
}

enum wire_received wire_receive(struct socket *socket, const struct wire_limits *limits,
                                struct message *envelope, struct message *body)
{
    struct reading reading = {.limits = limits, .envelope = envelope, .body = body};
    bool has_more = true, is_first = true;
    while (has_more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, socket->zmq, ZMQ_DONTWAIT) == -1) {
            if (errno == EINTR)
                continue;
            zmq_msg_close(&frame);
            socket->is_ready = false;
            return WIRE_NONE;
        }
        has_more = zmq_msg_more(&frame);
        read_frame(&reading, &frame, is_first && socket->type == ZMQ_ROUTER);
        zmq_msg_close(&frame);
        is_first = false;
    }
    if (reading.is_cut && envelope)
        message_close(envelope);
    if (reading.is_short || reading.is_over) {
        message_close(body);
        return reading.is_over ? WIRE_TOO_LARGE : WIRE_SHORT;
    }
    if (envelope && (reading.envelope || body->count == 0))
        return WIRE_MALFORMED;
    return WIRE_MESSAGE;
}

/* libzmq decides with the first frame; those after it always go. */
static enum wire_sent send_copy(struct socket *socket, zmq_msg_t *frame, bool has_more)
{
    zmq_msg_t copy;
    zmq_msg_init(&copy);
    if (frame)
        zmq_msg_copy(&copy, frame);
    while (zmq_msg_send(&copy, socket->zmq, ZMQ_DONTWAIT | (has_more ? ZMQ_SNDMORE : 0)) == -1) {
        if (errno == EINTR)
            continue;
        enum wire_sent result = errno == EAGAIN ? WIRE_FULL : WIRE_GONE;
        zmq_msg_close(&copy);
        return result;
    }
    return WIRE_SENT;
}

enum wire_sent wire_send(struct socket *socket, const struct message *envelope, bool has_delimiter,
                         const struct message *body)
{
    uint32_t before = envelope ? envelope->count : 0;
    uint32_t left = before + (has_delimiter ? 1 : 0) + body->count;
    enum wire_sent result = WIRE_SENT;
    socket->is_ready = true; /* sending may swallow the signal that input has come */
    for (uint32_t i = 0; i < before && result == WIRE_SENT; i++)
        result = send_copy(socket, message_frame(envelope, i), --left > 0);
    if (has_delimiter && result == WIRE_SENT)
        result = send_copy(socket, NULL, --left > 0);
    for (uint32_t i = 0; i < body->count && result == WIRE_SENT; i++)
        result = send_copy(socket, message_frame(body, i), --left > 0);
    return result;
}
