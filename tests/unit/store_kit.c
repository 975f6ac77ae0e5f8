/* SPDX-License-Identifier: MIT
 *
 * The loop that a chain would be, for tests of the disk store.
 */
#include "tests/unit/store_kit.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t kit_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void note_event(void *context, enum store_event_kind kind, const char *text, uint64_t count)
{
    (void)text;
    struct kit *kit = context;
    __atomic_fetch_add(&kit->events[kind], 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&kit->event_counts[kind], count, __ATOMIC_SEQ_CST);
}

bool kit_open(struct kit *kit, const char *directory)
{
    struct store_conf conf = {
        .directory = directory, .event = note_event, .context = kit, .read_clock = kit->read_clock};
    memset(kit->events, 0, sizeof kit->events);
    memset(kit->event_counts, 0, sizeof kit->event_counts);
    kit->queue = NULL;
    kit->store = store_open(&conf, kit->err, sizeof kit->err);
    if (!kit->store)
        return false;
    if (!kit->conf.name)
        kit->conf.name = "calls";
    if (kit->conf.window == 0)
        kit->conf.window = 16;
    kit->queue = queue_disk_open(kit->store, &kit->conf, kit->err, sizeof kit->err);
    if (!kit->queue) {
        store_close(kit->store);
        kit->store = NULL;
    }
    return kit->queue != NULL;
}

void kit_close(struct kit *kit)
{
    queue_free(kit->queue);
    store_close(kit->store);
    kit->queue = NULL;
    kit->store = NULL;
}

struct queue_item *kit_turn(struct kit *kit, int wait_ms, bool *is_stored)
{
    struct queue_item *item = queue_next_stored(kit->queue, is_stored);
    if (item)
        return item;
    queue_commit(kit->queue);
    poll(&(struct pollfd){.fd = queue_fd(kit->queue), .events = POLLIN}, 1, wait_ms);
    queue_settle(kit->queue);
    return queue_next_stored(kit->queue, is_stored);
}

static unsigned char filler(uint64_t number, size_t at)
{
    return (unsigned char)((number * 31 + at) >> 2);
}

bool kit_put(struct kit *kit, uint64_t number, size_t bytes)
{
    struct queue_item *item = queue_item_new(kit->queue);
    if (!item)
        return false;
    zmq_msg_t frame;
    size_t size = bytes > sizeof number ? bytes : sizeof number;
    zmq_msg_init_size(&frame, size);
    unsigned char *data = zmq_msg_data(&frame);
    memcpy(data, &number, sizeof number);
    for (size_t i = sizeof number; i < size; i++)
        data[i] = filler(number, i);
    message_add(&item->body, &frame);
    zmq_msg_close(&frame);
    item->taken_ms = kit->conf.now_ms;
    uint8_t digest[QUEUE_DIGEST_BYTES] = {0};
    memcpy(digest, &number, sizeof number);
    item->digest = kit->conf.remember_ms > 0 ? digest : NULL;
    if (queue_put(kit->queue, item) == QUEUE_TAKEN)
        return true;
    queue_item_free(kit->queue, item);
    return false;
}

uint64_t kit_put_all(struct kit *kit, uint64_t first, uint64_t count, size_t bytes)
{
    uint64_t staged = 0, stored = 0, put = 0;
    while (put < count || staged > 0) {
        bool is_stored;
        while (put < count && staged < 256) {
            if (kit_put(kit, first + put++, bytes))
                staged++;
        }
        struct queue_item *item = kit_turn(kit, 10000, &is_stored);
        for (; item; item = queue_next_stored(kit->queue, &is_stored)) {
            staged--;
            if (is_stored)
                stored++;
            else
                queue_remove(kit->queue, item);
        }
    }
    return stored;
}

uint64_t kit_number(const struct message *body)
{
    uint64_t number;
    if (body->count != 1 || body->bytes < sizeof number)
        return UINT64_MAX;
    const unsigned char *data = zmq_msg_data(message_frame(body, 0));
    memcpy(&number, data, sizeof number);
    for (size_t i = sizeof number; i < body->bytes; i++)
        if (data[i] != filler(number, i))
            return UINT64_MAX;
    return number;
}

struct queue_item *kit_lease(struct kit *kit, int wait_ms)
{
    int64_t until_ms = kit_now_ms() + wait_ms;
    for (;;) {
        bool is_stored;
        while (queue_next_stored(kit->queue, &is_stored))
            ;
        struct queue_item *item = queue_lease(kit->queue, KIT_FOREVER);
        int64_t left_ms = until_ms - kit_now_ms();
        if (item || left_ms <= 0)
            return item;
        queue_commit(kit->queue);
        poll(&(struct pollfd){.fd = queue_fd(kit->queue), .events = POLLIN}, 1, (int)left_ms);
        queue_settle(kit->queue);
    }
}

struct queue_stats kit_stats(const struct kit *kit)
{
    struct queue_stats stats;
    queue_stats(kit->queue, &stats);
    return stats;
}
