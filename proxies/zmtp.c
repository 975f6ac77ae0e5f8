/* SPDX-License-Identifier: MIT
 *
 * Stepping through a ZMTP stream; see zmtp.h. It must agree with libzmq's decoders on every byte: whoever made
 * the two disagree could hide a message from us.
 *
 *     greeting   FF | 8 bytes | bit 0 set | revision …      12 bytes up to revision 1, else 64
 *                anything else is ZMTP 1.0 and begins with a frame
 *     1.0 frame  length, or FF and 8 bytes of it | flags | body       the length counts the flags
 *     2.0 frame  flags | length, or 8 bytes of it | body
 */
#include "proxies/zmtp.h"

#include <string.h>

enum state { GREETING, FRAMES_1, FRAMES_2, FRAMES_3 };

enum {
    SIGNATURE_BYTES = 10,
    OLD_GREETING_BYTES = 12,
    GREETING_BYTES = 64,
    REVISION_1 = 0, /* as the greeting says it */
    REVISION_2 = 1,
    MORE = 1,
    LARGE = 2,
    COMMAND = 4,
    NAME_BYTES = 9 /* of a command, as far as it matters */
};

static uint64_t read_length(const uint8_t *bytes)
{
    uint64_t length = 0;
    for (int i = 0; i < 8; i++)
        length = length << 8 | bytes[i];
    return length;
}

static size_t header_bytes(const struct zmtp *stream)
{
    if (stream->state == FRAMES_1)
        return stream->head[0] == 0xFF ? 10 : 2;
    return stream->head[0] & LARGE ? 9 : 2;
}

/* The last thing that a peer says before it may send messages. */
static bool ends_handshake(const uint8_t *name, size_t size)
{
    return (size >= 6 && memcmp(name, "\5READY", 6) == 0) ||
           (size >= 9 && memcmp(name, "\10INITIATE", 9) == 0);
}

static bool is_over(const struct zmtp *stream, const struct zmtp_limits *limits)
{
    return (limits->max_bytes > 0 && stream->bytes > limits->max_bytes) ||
           (limits->max_frames > 0 && stream->frames > limits->max_frames);
}

/* The header is complete. A command is no part of a message: libzmq drops it, unless it has more to follow. */
static bool begin_frame(struct zmtp *stream, const struct zmtp_limits *limits, uint8_t flags, uint64_t length)
{
    bool is_command = flags & COMMAND && stream->state != FRAMES_1;
    if (is_command && !(flags & MORE))
        return true;
    stream->frames++;
    stream->bytes = stream->bytes + length < length ? UINT64_MAX : stream->bytes + length;
    if (is_over(stream, limits))
        return false;
    if (!(flags & MORE))
        stream->bytes = stream->frames = 0;
    return true;
}

/* Collects until the head holds `wanted` bytes; false when the data ended before. */
static bool collect(struct zmtp *stream, size_t wanted, const uint8_t **data, size_t *size)
{
    while (stream->head_bytes < wanted) {
        if (*size == 0)
            return false;
        stream->head[stream->head_bytes++] = *(*data)++;
        (*size)--;
    }
    return true;
}

static bool read_frame_head(struct zmtp *stream, const struct zmtp_limits *limits, const uint8_t **data,
                            size_t *size)
{
    if (!collect(stream, 1, data, size) || !collect(stream, header_bytes(stream), data, size))
        return true;
    const uint8_t *head = stream->head;
    size_t header = header_bytes(stream);
    bool is_1 = stream->state == FRAMES_1;
    uint64_t length = header > 2 ? read_length(head + 1) : head[is_1 ? 0 : 1];
    length -= is_1; /* none at all is an error to libzmq; here it wraps and is over any limit */
    size_t name = 0;
    if (!stream->has_finished_handshake && stream->state == FRAMES_3) {
        name = length < NAME_BYTES ? length : NAME_BYTES;
        if (!collect(stream, header + name, data, size))
            return true;
        stream->has_finished_handshake = ends_handshake(head + header, name);
    } else {
        stream->has_finished_handshake = true;
    }
    stream->head_bytes = 0;
    stream->left = length - name;
    return begin_frame(stream, limits, head[is_1 ? header - 1 : 0], length);
}

/* It was no greeting after all: its bytes are the first of a frame. */
static bool begin_with_frames(struct zmtp *stream, const struct zmtp_limits *limits)
{
    uint8_t begun[ZMTP_HEAD_BYTES];
    size_t size = stream->head_bytes;
    memcpy(begun, stream->head, size);
    stream->head_bytes = 0;
    stream->state = FRAMES_1;
    return zmtp_read(stream, limits, begun, size);
}

static bool read_greeting(struct zmtp *stream, const struct zmtp_limits *limits, const uint8_t **data,
                          size_t *size)
{
    if (!collect(stream, 1, data, size))
        return true;
    if (stream->head[0] != 0xFF)
        return begin_with_frames(stream, limits);
    if (!collect(stream, SIGNATURE_BYTES, data, size))
        return true;
    if (!(stream->head[SIGNATURE_BYTES - 1] & 1))
        return begin_with_frames(stream, limits);
    if (!collect(stream, OLD_GREETING_BYTES, data, size))
        return true;
    uint8_t revision = stream->head[SIGNATURE_BYTES];
    stream->state = revision == REVISION_1 ? FRAMES_1 : revision == REVISION_2 ? FRAMES_2 : FRAMES_3;
    stream->left = stream->state == FRAMES_3 ? GREETING_BYTES - OLD_GREETING_BYTES : 0;
    stream->head_bytes = 0;
    return true;
}

bool zmtp_read(struct zmtp *stream, const struct zmtp_limits *limits, const void *data, size_t size)
{
    const uint8_t *next = data;
    while (size > 0) {
        size_t step = stream->left < size ? stream->left : size;
        next += step;
        size -= step;
        stream->left -= step;
        if (size > 0 && !(stream->state == GREETING ? read_greeting(stream, limits, &next, &size)
                                                    : read_frame_head(stream, limits, &next, &size)))
            return false;
    }
    return true;
}
