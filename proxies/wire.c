/* SPDX-License-Identifier: MIT
 *
 * Frames <-> messages; see wire.h.
 */
#include "proxies/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <zmq.h>

/* The message now being read. */
struct reading {
    const struct wire_limits *limits;
    struct message *envelope; /* NULL once the delimiter was seen, or none is expected */
    struct message *body;
    uint64_t bytes, frames; /* frames of the envelope, then of the body */
    bool is_over, is_short;
    bool is_unanswerable; /* the way back is not kept: the connection was cut, or memory is short */
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

/* Judges the frame of so many bytes that was just read, for the envelope or the body: whether it is to be kept. */
static bool judge_frame(struct reading *reading, zmq_msg_t *frame, uint64_t bytes)
{
    const struct wire_limits *limits = reading->limits;
    if (reading->envelope && bytes == 0) {
        reading->envelope = NULL;
        reading->frames = 0;
        return false;
    }
    reading->bytes += bytes;
    reading->frames++;
    if (!is_above(reading->bytes, limits->max_bytes, 1) &&
        !is_above(reading->frames, limits->max_frames, 1) && !reading->is_over)
        return true;
    reading->is_over = true;
    if (!reading->is_unanswerable && (is_above(reading->bytes, limits->max_bytes, WIRE_MERCY) ||
                                      is_above(reading->frames, limits->max_frames, WIRE_MERCY))) {
        reading->is_unanswerable = true;
        cut_connection(frame);
    }
    /* Read on, keeping what an answer needs: the way back, and the frame that says what was asked. */
    return !reading->is_unanswerable && (reading->envelope || reading->body->count == 0);
}

/* Takes the next frame; false when there is none. */
static bool read_frame(struct reading *reading, struct socket *socket, bool is_routing_id, bool *has_more)
{
    struct message *message = reading->envelope ? reading->envelope : reading->body;
    zmq_msg_t *frame = message_room(message);
    if (!frame) { /* what there is makes room for the rest */
        reading->is_short = true;
        reading->is_unanswerable |= message == reading->envelope;
        message_close(message);
        frame = message_room(message);
    }
    int received;
    while ((received = zmq_msg_recv(frame, socket->zmq, ZMQ_DONTWAIT)) == -1 && errno == EINTR)
        ;
    if (received == -1) {
        zmq_msg_close(frame);
        return false;
    }
    uint64_t bytes = received < INT_MAX ? (uint64_t)received : zmq_msg_size(frame);
    *has_more = zmq_msg_more(frame);
    if (is_routing_id || judge_frame(reading, frame, bytes))
        message_keep(message, bytes);
    else
        zmq_msg_close(frame);
    return true;
}

enum wire_received wire_receive(struct socket *socket, const struct wire_limits *limits,
                                struct message *envelope, struct message *body)
{
    struct reading reading = {.limits = limits, .envelope = envelope, .body = body};
    bool has_more, is_routing_id = socket->type == ZMQ_ROUTER;
    do {
        if (!read_frame(&reading, socket, is_routing_id, &has_more)) {
            socket->is_ready = false;
            return WIRE_NONE;
        }
        is_routing_id = false;
    } while (has_more);
    socket->taken++;
    if (reading.is_unanswerable && envelope)
        message_close(envelope);
    if (reading.is_short || reading.is_unanswerable)
        message_close(body);
    if (reading.is_short || reading.is_over)
        return reading.is_over ? WIRE_TOO_LARGE : WIRE_SHORT;
    if (envelope && (reading.envelope || body->count == 0))
        return WIRE_MALFORMED;
    return WIRE_MESSAGE;
}

/* libzmq decides with the first frame; those after it always go. Takes the frame when it goes. */
static enum wire_sent send_frame(struct socket *socket, zmq_msg_t *frame, bool has_more)
{
    while (zmq_msg_send(frame, socket->zmq, ZMQ_DONTWAIT | (has_more ? ZMQ_SNDMORE : 0)) == -1) {
        if (errno != EINTR)
            return errno == EAGAIN ? WIRE_FULL : WIRE_GONE;
    }
    return WIRE_SENT;
}

static enum wire_sent send_frames(struct socket *socket, struct message *message, bool has_more)
{
    enum wire_sent result = WIRE_SENT;
    for (uint32_t i = 0; i < message->count && result == WIRE_SENT; i++)
        result = send_frame(socket, message_frame(message, i), has_more || i + 1 < message->count);
    return result;
}

static enum wire_sent send_copies(struct socket *socket, const struct message *message)
{
    enum wire_sent result = WIRE_SENT;
    for (uint32_t i = 0; i < message->count && result == WIRE_SENT; i++) {
        zmq_msg_t copy;
        zmq_msg_init(&copy);
        zmq_msg_copy(&copy, message_frame(message, i));
        result = send_frame(socket, &copy, i + 1 < message->count);
        if (result != WIRE_SENT)
            zmq_msg_close(&copy);
    }
    return result;
}

/* Everything before the body. */
static enum wire_sent send_envelope(struct socket *socket, struct message *envelope, bool has_delimiter)
{
    enum wire_sent result = WIRE_SENT;
    socket->is_ready = true; /* sending may swallow the signal that input has come */
    if (envelope)
        result = send_frames(socket, envelope, true);
    if (has_delimiter && result == WIRE_SENT) {
        zmq_msg_t delimiter;
        zmq_msg_init(&delimiter);
        result = send_frame(socket, &delimiter, true);
    }
    return result;
}

enum wire_sent wire_send(struct socket *socket, struct message *envelope, bool has_delimiter,
                         struct message *body)
{
    enum wire_sent result = send_envelope(socket, envelope, has_delimiter);
    if (result == WIRE_SENT)
        result = send_frames(socket, body, false);
    if (result != WIRE_SENT)
        return result;
    if (envelope)
        message_gone(envelope);
    message_gone(body);
    return WIRE_SENT;
}

enum wire_sent wire_send_copy(struct socket *socket, struct message *envelope, bool has_delimiter,
                              const struct message *body)
{
    enum wire_sent result = send_envelope(socket, envelope, has_delimiter);
    if (result == WIRE_SENT)
        result = send_copies(socket, body);
    if (result == WIRE_SENT && envelope)
        message_gone(envelope);
    return result;
}
