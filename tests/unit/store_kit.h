/* SPDX-License-Identifier: MIT
 *
 * What tests of the disk store have in common: a store with one queue in a scratch directory, numbered messages
 * whose bodies can be checked, and the turns of a loop that nobody else makes.
 */
#ifndef PROXYD_TESTS_UNIT_STORE_KIT_H
#define PROXYD_TESTS_UNIT_STORE_KIT_H

#include "buffer/queue.h"
#include "buffer/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KIT_FOREVER = 1 << 30 };

struct kit {
    struct store *store;
    struct queue *queue;
    char err[256];
    /* for the next kit_open */
    struct queue_disk_conf conf;
    void (*read_clock)(struct store_clock *clock);
    /* what the store told, by kind */
    uint64_t events[8], event_counts[8];
};

/* Opens store and queue in `directory`; false with the reason in kit->err. */
bool kit_open(struct kit *kit, const char *directory);
void kit_close(struct kit *kit);

/* One turn: commits, waits at most `wait_ms` for the store, returns an item that ended its put, or NULL. */
struct queue_item *kit_turn(struct kit *kit, int wait_ms, bool *is_stored);

/* Puts message `number` with a body of at least `bytes`, and where digests are remembered with one that begins with the
 * number; false when the queue did not take it. */
bool kit_put(struct kit *kit, uint64_t number, size_t bytes);

/* Puts messages and waits until each is stored; how many were. */
uint64_t kit_put_all(struct kit *kit, uint64_t first, uint64_t count, size_t bytes);

/* The number of a message; UINT64_MAX when its body is not what kit_put made. */
uint64_t kit_number(const struct message *body);

/* The next item to deliver, waiting at most `wait_ms`; NULL when none comes. */
struct queue_item *kit_lease(struct kit *kit, int wait_ms);

struct queue_stats kit_stats(const struct kit *kit);

/* Monotonic milliseconds. */
int64_t kit_now_ms(void);

#endif
