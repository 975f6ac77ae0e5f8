/* SPDX-License-Identifier: MIT
 *
 * A multipart message as one owned value: an ordered list of frames, any bytes, moved and never copied
 * without being asked. Also its flat form, which is what a store writes to disk.
 */
#ifndef PROXYD_BUFFER_MESSAGE_H
#define PROXYD_BUFFER_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

/* Frames kept inside the struct; a message with more moves them to the heap. */
#define MESSAGE_INLINE_FRAMES 3

struct message {
    zmq_msg_t *heap; /* NULL while the frames fit inside */
    uint32_t count;
    uint32_t capacity; /* of heap */
    size_t bytes;      /* payload of all frames together */
    zmq_msg_t inside[MESSAGE_INLINE_FRAMES];
};

/* Makes an empty message. A struct filled with zero bytes is one too. */
static inline void message_init(struct message *message)
{
    message->heap = NULL;
    message->count = 0;
    message->capacity = 0;
    message->bytes = 0;
}

/* Releases every frame and leaves an empty message. */
void message_close(struct message *message);

/* Moves all of `from` into `to` (whatever `to` held is closed); `from` is empty afterwards. */
void message_move(struct message *to, struct message *from);

/* Appends `frame`, which is taken and left as an empty initialised zmq_msg_t.
 * -1 when memory is short; `frame` then still belongs to the caller. */
int message_add(struct message *message, zmq_msg_t *frame);

/* Appends a frame with a copy of `size` bytes at `data`. -1 when memory is short. */
int message_add_bytes(struct message *message, const void *data, size_t size);

/* Appends copies of all frames of `from` (payload shared by reference count). -1 when memory is short;
 * `to` may then have grown by some of them. */
int message_append_copy(struct message *to, const struct message *from);

/* Frame `index` < count, owned by the message. */
static inline zmq_msg_t *message_frame(const struct message *message, uint32_t index)
{
    return message->heap ? &message->heap[index] : (zmq_msg_t *)&message->inside[index];
}

/* message_room where there is none inside the struct; uninitialised. */
zmq_msg_t *message_heap_room(struct message *message);

/* Room for one more frame, to be received into: initialised, and no part of the message yet. What message_keep does
 * not make one must be closed before anything else is done to the message. NULL when memory is short. */
static inline zmq_msg_t *message_room(struct message *message)
{
    bool is_inside = !message->heap && message->count < MESSAGE_INLINE_FRAMES;
    zmq_msg_t *room = is_inside ? &message->inside[message->count] : message_heap_room(message);
    if (room)
        zmq_msg_init(room);
    return room;
}

/* Makes what message_room gave, now holding `bytes`, the last frame. */
static inline void message_keep(struct message *message, size_t bytes)
{
    message->bytes += bytes;
    message->count++;
}

/* All frames were moved away: leaves an empty message. */
static inline void message_gone(struct message *message)
{
    if (message->heap)
        message_close(message);
    else
        message_init(message);
}

/* True when the message is exactly one frame holding these bytes. */
bool message_is(const struct message *message, const void *data, size_t size);

/* The flat form: per frame a 32-bit little-endian length and the bytes.
 *
 *   +--------+-----------+--------+-----------+
 *   | len 0  | bytes 0 … | len 1  | bytes 1 … |   no header, no count: the end of the buffer ends it
 *   +--------+-----------+--------+-----------+
 */
size_t message_flat_bytes(const struct message *message);

/* Writes the flat form to `out`, which has room for message_flat_bytes(). */
void message_flatten(const struct message *message, void *out);

/* Reads a flat form into the empty `message`. -1 when the bytes are not one (a length that runs past the
 * end) or memory is short; `message` is then left empty. */
int message_unflatten(struct message *message, const void *data, size_t size);

#endif
