/* SPDX-License-Identifier: MIT
 *
 * A bounded table that forgets what was not asked for longest. Keys are 64 bits of a digest; a multiplier of its own
 * keeps whoever chooses what is digested from filling one bucket. Pure but for that.
 */
#ifndef PROXYD_PROXIES_LRU_H
#define PROXYD_PROXIES_LRU_H

#include "buffer/list.h"

#include <stddef.h>
#include <stdint.h>

struct lru;

/* The first member of an entry. */
struct lru_entry {
    uint64_t key;
    struct list bucket, age;
};

/* A table of at most `max` entries of `entry_bytes` each. NULL when memory is short. */
struct lru *lru_new(size_t entry_bytes, uint32_t max);

/* NULL is fine. */
void lru_free(struct lru *lru);

/* The entry of `key`, now the most recent one; NULL when there is none. */
void *lru_find(struct lru *lru, uint64_t key);

/* Adds an entry for a key that is not there, with zero bytes behind its struct lru_entry; a full table lets go of its
 * least recent one. Good until the next one is added. NULL when memory is short. */
void *lru_add(struct lru *lru, uint64_t key);

#endif
