/* SPDX-License-Identifier: MIT
 *
 * The store thread: one database file for all chains, written by one thread in groups. It commits at once
 * when idle; while one commit runs the next group gathers. Queues (buffer/queue_disk.c) hand operations over
 * through lists and hear of their end through an eventfd each; nobody ever waits for the disk under a lock.
 * Never prints: what an operator should know goes to the `event` given at open.
 */
#ifndef PROXYD_BUFFER_STORE_H
#define PROXYD_BUFFER_STORE_H

#include "buffer/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum store_event_kind {
    STORE_EVENT_DAMAGED,   /* `count` messages were found damaged or missing */
    STORE_EVENT_SALVAGED,  /* a damaged database was set aside as `text`, `count` rows were saved from it */
    STORE_EVENT_DISK_FULL, /* intake has stopped */
    STORE_EVENT_FAILED,    /* an I/O error: intake has stopped until the file can be opened again */
    STORE_EVENT_RESUMED,   /* intake goes on */
};

/* The fixed word of an event: "store-damaged" and so on; static. */
const char *store_event_name(enum store_event_kind kind);

/* The machine's clocks, or what a test makes of them. */
struct store_clock {
    int64_t boot_ms; /* since boot, sleep included */
    int64_t wall_ms; /* since 1970, as far as anybody knows */
    char boot_id[37];
};

struct store_conf {
    const char *directory; /* exists */
    /* Called by the store thread, or by the caller of store_open; must not block. May be NULL. */
    void (*event)(void *context, enum store_event_kind kind, const char *text, uint64_t count);
    void *context;
    void (*read_clock)(struct store_clock *clock); /* NULL: the machine's */
};

struct store_stats {
    uint64_t commits_total;
    uint64_t messages_total; /* put and committed */
    uint64_t largest_group;
    uint64_t commit_us_total, commit_us_max;
    bool has_reserve;
    bool is_usable; /* takes messages now */
};

struct store;

/* Opens or makes the store in conf->directory and starts its thread. NULL with the reason in `err` when it
 * is locked, may not be used, is newer than this program or is not ours. Damage stops nothing. */
struct store *store_open(const struct store_conf *conf, char *err, size_t err_bytes);

/* Commits what was handed over, closes the file and ends the thread. All its queues are freed already. */
void store_close(struct store *store);

/* Callable from every thread. */
void store_stats(struct store *store, struct store_stats *stats);

#endif
