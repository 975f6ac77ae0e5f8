/* SPDX-License-Identifier: MIT
 *
 * Multipart messages. Up to MESSAGE_INLINE_FRAMES frames live inside the struct, more on the heap, never
 * both; only frames below `count` are initialised. Payloads are moved or shared by reference count.
 */
#include "buffer/message.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 4 };

/* An initialised frame takes the content of another; `from` is left empty. Cannot fail for initialised
 * frames. */
static void move_frame(zmq_msg_t *to, zmq_msg_t *from)
{
    zmq_msg_init(to);
    zmq_msg_move(to, from);
}

void message_close(struct message *message)
{
    zmq_msg_t *frame = message_frame(message, 0);
    for (uint32_t i = 0; i < message->count; i++)
        zmq_msg_close(&frame[i]);
    free(message->heap);
    message_init(message);
}

void message_move(struct message *to, struct message *from)
{
    if (to == from)
        return;
    message_close(to);
    to->heap = from->heap;
    to->count = from->count;
    to->capacity = from->capacity;
    to->bytes = from->bytes;
    if (!from->heap)
        for (uint32_t i = 0; i < from->count; i++)
            move_frame(&to->inside[i], &from->inside[i]);
    message_init(from);
}

/* Moves the frames to more room, on the heap, and returns that of the next one; NULL when memory is short. */
static zmq_msg_t *grow(struct message *message)
{
    if (message->count > UINT32_MAX / 2)
        return NULL;
    uint32_t capacity = message->count < 4 ? 8 : message->count * 2;
    zmq_msg_t *larger = malloc(capacity * sizeof *larger);
    if (!larger)
        return NULL;
    zmq_msg_t *old = message_frame(message, 0);
    for (uint32_t i = 0; i < message->count; i++)
        move_frame(&larger[i], &old[i]);
    free(message->heap);
    message->heap = larger;
    message->capacity = capacity;
    return &larger[message->count];
}

zmq_msg_t *message_heap_room(struct message *message)
{
    return message->count < message->capacity ? &message->heap[message->count] : grow(message);
}

int message_add(struct message *message, zmq_msg_t *frame)
{
    zmq_msg_t *place = message_room(message);
    if (!place)
        return -1;
    size_t size = zmq_msg_size(frame);
    zmq_msg_move(place, frame);
    message_keep(message, size);
    return 0;
}

int message_add_bytes(struct message *message, const void *data, size_t size)
{
    zmq_msg_t *place = message_room(message);
    if (!place || zmq_msg_init_size(place, size) != 0)
        return -1;
    if (size > 0)
        memcpy(zmq_msg_data(place), data, size);
    message_keep(message, size);
    return 0;
}

int message_append_copy(struct message *to, const struct message *from)
{
    uint32_t count = from->count; /* `to` may be `from` */
    for (uint32_t i = 0; i < count; i++) {
        zmq_msg_t *place = message_room(to);
        if (!place)
            return -1;
        zmq_msg_t *frame = message_frame(from, i);
        zmq_msg_copy(place, frame);
        message_keep(to, zmq_msg_size(frame));
    }
    return 0;
}

bool message_is(const struct message *message, const void *data, size_t size)
{
    return message->count == 1 && message->bytes == size &&
           (size == 0 || memcmp(zmq_msg_data(message_frame(message, 0)), data, size) == 0);
}

size_t message_flat_bytes(const struct message *message)
{
    return message->bytes + (size_t)message->count * LENGTH_BYTES;
}

void message_flatten(const struct message *message, void *out)
{
    unsigned char *at = out;
    for (uint32_t i = 0; i < message->count; i++) {
        zmq_msg_t *frame = message_frame(message, i);
        size_t size = zmq_msg_size(frame);
        for (int byte = 0; byte < LENGTH_BYTES; byte++)
            at[byte] = (unsigned char)(size >> (8 * byte));
        at += LENGTH_BYTES;
        if (size > 0)
            memcpy(at, zmq_msg_data(frame), size);
        at += size;
    }
}

int message_unflatten(struct message *message, const void *data, size_t size)
{
    const unsigned char *at = data;
    while (size > 0) {
        if (size < LENGTH_BYTES)
            goto malformed;
        size_t length = (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
        at += LENGTH_BYTES;
        size -= LENGTH_BYTES;
        if (length > size || message_add_bytes(message, at, length) != 0)
            goto malformed;
        at += length;
        size -= length;
    }
    return 0;
malformed:
    message_close(message);
    return -1;
}
