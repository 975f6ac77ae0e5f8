/* SPDX-License-Identifier: MIT
 *
 * The store thread: one database file for all chains, written by one thread in groups. It commits at once
 * when idle; while one commit runs the next group gathers. Queues (buffer/queue_disk.c) hand operations over
 * through lists and hear of their end through an eventfd each; nobody ever waits for the disk under a lock.
 * Never prints: what an operator should know goes to the `event` given at open.
 */
#ifndef PROXYD_BUFFER_STORE_H
#define PROXYD_BUFFER_STORE_H

#include "buffer/histogram.h"
#include "buffer/store_conf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The fixed word of an event: "store-damaged" and so on; static. */
const char *store_event_name(enum store_event_kind kind);

struct store_stats {
    struct histogram_stats commits; /* how long each took, its sync included */
    uint64_t commit_us_max;
    uint64_t messages_total; /* put and committed */
    uint64_t largest_group;
    uint64_t bytes_written_total; /* to the database and its log, by all stores of this process */
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
