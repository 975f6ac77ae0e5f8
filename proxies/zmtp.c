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

#include "buffer/fnv.h"

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
    NAME_BYTES = 9,             /* of a command, as far as it matters */
    HANDSHAKE_BYTES = 16 * 1024 /* of one frame: names, a password, keys and metadata need hardly one */
};

enum part { NAME_SIZE, NAME, VALUE_SIZE, VALUE };

/* HELLO is [user size][user][password size][password]. */
enum body { UNREAD, METADATA, HELLO_SIZE, HELLO_USER };

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

/* What follows the name of a command. METADATA is the last that a peer says before it may send messages. */
static enum body body_of(const uint8_t *name, size_t size, bool is_claim_wanted)
{
    if ((size == 6 && memcmp(name, "\5READY", 6) == 0) || (size == 9 && memcmp(name, "\10INITIATE", 9) == 0))
        return METADATA;
    return is_claim_wanted && size == 6 && memcmp(name, "\5HELLO", 6) == 0 ? HELLO_SIZE : UNREAD;
}

/* One byte of a routing id. A property that comes twice counts as it came last. */
static bool read_id(struct zmtp_claim *claim, uint32_t at, uint8_t byte)
{
    if (at == 0 && byte == 0)
        return false;
    if (!claim)
        return true;
    if (at >= ZMTP_NAME_BYTES)
        return false;
    claim->id[at] = (char)byte;
    claim->id_bytes = (uint8_t)(at + 1);
    return true;
}

/* One byte of metadata; false when it belongs to an id that nobody may claim. */
static bool read_property(struct zmtp_property *property, struct zmtp_claim *claim, uint8_t byte)
{
    static const char identity[] = "Identity";
    switch (property->part) {
    case NAME_SIZE:
        *property = (struct zmtp_property){
            .part = byte > 0 ? NAME : VALUE_SIZE, .is_identity = byte == sizeof identity - 1, .left = byte};
        break;
    case NAME:
        property->is_identity = property->is_identity && byte == (uint8_t)identity[property->at++];
        if (--property->left == 0) {
            property->part = VALUE_SIZE;
            property->at = 0;
        }
        break;
    case VALUE_SIZE:
        property->left = property->left << 8 | byte;
        if (++property->at == 4) {
            property->part = property->left > 0 ? VALUE : NAME_SIZE;
            property->at = 0;
        }
        break;
    case VALUE:
        if (property->is_identity && !read_id(claim, property->at++, byte))
            return false;
        if (--property->left == 0)
            property->part = NAME_SIZE;
        break;
    }
    return true;
}

static bool is_over(const struct zmtp *stream, const struct zmtp_limits *limits)
{
    return (limits->max_bytes > 0 && stream->bytes > limits->max_bytes) ||
           (limits->max_frames > 0 && stream->frames > limits->max_frames);
}

/* The header is complete. A command is no part of a message: libzmq drops it, unless it has more to follow. */
static enum zmtp_verdict begin_frame(struct zmtp *stream, const struct zmtp_limits *limits, uint8_t flags,
                                     uint64_t length)
{
    bool is_command = flags & COMMAND && stream->state != FRAMES_1;
    if (is_command && !(flags & MORE))
        return ZMTP_FINE;
    stream->frames++;
    stream->bytes = stream->bytes + length < length ? UINT64_MAX : stream->bytes + length;
    if (is_over(stream, limits))
        return ZMTP_TOO_LARGE;
    if (!(flags & MORE)) {
        stream->bytes = stream->frames = 0;
        stream->messages++;
    }
    return ZMTP_FINE;
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

/* In a handshake the header counts as complete when the name of the command is, too; false as collect. */
static bool collect_name(struct zmtp *stream, size_t header, uint64_t length, size_t *name,
                         const uint8_t **data, size_t *size)
{
    *name = 0;
    if (length == 0)
        return true;
    if (!collect(stream, header + 1, data, size))
        return false;
    uint64_t wanted = 1 + (uint64_t)stream->head[header];
    wanted = wanted < length ? wanted : length;
    *name = wanted < NAME_BYTES ? wanted : NAME_BYTES;
    return collect(stream, header + *name, data, size);
}

static enum zmtp_verdict read_frame_head(struct zmtp *stream, const struct zmtp_limits *limits,
                                         const uint8_t **data, size_t *size)
{
    if (!collect(stream, 1, data, size) || !collect(stream, header_bytes(stream), data, size))
        return ZMTP_FINE;
    const uint8_t *head = stream->head;
    size_t header = header_bytes(stream), name = 0;
    bool is_1 = stream->state == FRAMES_1;
    uint64_t length = header > 2 ? read_length(head + 1) : head[is_1 ? 0 : 1];
    length -= is_1; /* none at all is an error to libzmq; here it wraps and is over any limit */
    stream->body = UNREAD;
    if (!stream->has_finished_handshake && length > HANDSHAKE_BYTES) {
        stream->frames = 1;
        stream->bytes = length;
        return ZMTP_TOO_LARGE;
    }
    if (!stream->has_finished_handshake && stream->state == FRAMES_3) {
        if (!collect_name(stream, header, length, &name, data, size))
            return ZMTP_FINE;
        stream->body = body_of(head + header, name, stream->claim != NULL);
        stream->has_finished_handshake = stream->body == METADATA;
        stream->property = (struct zmtp_property){.part = NAME_SIZE};
    } else if (!stream->has_finished_handshake) { /* an older peer's first frame is its routing id */
        stream->body = METADATA;
        stream->has_finished_handshake = true;
        stream->property = (struct zmtp_property){.part = VALUE, .is_identity = true, .left = UINT32_MAX};
    }
    stream->head_bytes = 0;
    stream->left = length - name;
    return begin_frame(stream, limits, head[is_1 ? header - 1 : 0], length);
}

/* It was no greeting after all: its bytes are the first of a frame. */
static enum zmtp_verdict begin_with_frames(struct zmtp *stream, const struct zmtp_limits *limits)
{
    uint8_t begun[ZMTP_HEAD_BYTES];
    size_t size = stream->head_bytes;
    memcpy(begun, stream->head, size);
    stream->head_bytes = 0;
    stream->state = FRAMES_1;
    return zmtp_read(stream, limits, begun, size);
}

static enum zmtp_verdict read_greeting(struct zmtp *stream, const struct zmtp_limits *limits,
                                       const uint8_t **data, size_t *size)
{
    if (!collect(stream, 1, data, size))
        return ZMTP_FINE;
    if (stream->head[0] != 0xFF)
        return begin_with_frames(stream, limits);
    if (!collect(stream, SIGNATURE_BYTES, data, size))
        return ZMTP_FINE;
    if (!(stream->head[SIGNATURE_BYTES - 1] & 1))
        return begin_with_frames(stream, limits);
    if (!collect(stream, OLD_GREETING_BYTES, data, size))
        return ZMTP_FINE;
    uint8_t revision = stream->head[SIGNATURE_BYTES];
    stream->state = revision == REVISION_1 ? FRAMES_1 : revision == REVISION_2 ? FRAMES_2 : FRAMES_3;
    stream->left = stream->state == FRAMES_3 ? GREETING_BYTES - OLD_GREETING_BYTES : 0;
    stream->head_bytes = 0;
    return ZMTP_FINE;
}

/* One byte of HELLO; the password is stepped over. */
static void read_hello(struct zmtp *stream, uint8_t byte)
{
    struct zmtp_claim *claim = stream->claim;
    if (stream->body == HELLO_SIZE) {
        stream->property.left = byte;
        claim->user_bytes = 0;
    } else {
        claim->user[claim->user_bytes++] = (char)byte;
        stream->property.left--;
    }
    stream->body = stream->property.left > 0 ? HELLO_USER : UNREAD;
}

/* 0 is the mark of nothing. */
static uint64_t extend_mark(uint64_t mark, uint8_t byte)
{
    mark = fnv_add(mark ? mark : FNV_OFFSET, &byte, 1);
    return mark ? mark : 1;
}

uint64_t zmtp_mark(const void *routing_id, size_t size)
{
    uint64_t mark = 0;
    for (size_t i = 0; i < size; i++)
        mark = extend_mark(mark, ((const uint8_t *)routing_id)[i]);
    return mark;
}

/* One byte of metadata; false as read_property. */
static bool read_metadata(struct zmtp *stream, uint8_t byte)
{
    const struct zmtp_property *property = &stream->property;
    if (property->part == VALUE && property->is_identity)
        stream->routing_id = extend_mark(property->at == 0 ? 0 : stream->routing_id, byte);
    return read_property(&stream->property, stream->claim, byte);
}

/* `size` bytes of the body, at most `left`. */
static enum zmtp_verdict read_body(struct zmtp *stream, const uint8_t *data, size_t size)
{
    stream->left -= size;
    for (size_t i = 0; stream->body != UNREAD && i < size; i++) {
        if (stream->body != METADATA)
            read_hello(stream, data[i]);
        else if (!read_metadata(stream, data[i]))
            return ZMTP_RESERVED_ID;
    }
    if (stream->claim && stream->body == METADATA && stream->left == 0)
        stream->claim->is_complete = true;
    return ZMTP_FINE;
}

enum zmtp_verdict zmtp_read(struct zmtp *stream, const struct zmtp_limits *limits, const void *data,
                            size_t size)
{
    const uint8_t *next = data;
    enum zmtp_verdict verdict = ZMTP_FINE;
    while (size > 0 && verdict == ZMTP_FINE) {
        if (stream->left > 0) {
            size_t step = stream->left < size ? stream->left : size;
            verdict = read_body(stream, next, step);
            next += step;
            size -= step;
        } else if (stream->state == GREETING) {
            verdict = read_greeting(stream, limits, &next, &size);
        } else {
            verdict = read_frame_head(stream, limits, &next, &size);
        }
    }
    return verdict;
}
