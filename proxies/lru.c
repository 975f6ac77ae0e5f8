/* SPDX-License-Identifier: MIT
 *
 * A hash table, and a list of its entries by their last use; see lru.h.
 */
#include "proxies/lru.h"

#include "proxies/retry.h"

#include <stdlib.h>

enum { BUCKET_BITS = 12, BUCKETS = 1 << BUCKET_BITS };

struct lru {
    size_t entry_bytes;
    uint32_t max, count;
    uint64_t multiplier; /* odd */
    struct list ages;    /* least recent first */
    struct list buckets[BUCKETS];
};

struct lru *lru_new(size_t entry_bytes, uint32_t max)
{
    struct lru *lru = malloc(sizeof *lru);
    if (!lru)
        return NULL;
    lru->entry_bytes = entry_bytes;
    lru->max = max;
    lru->count = 0;
    lru->multiplier = (uint64_t)retry_random() << 32 | retry_random() | 1;
    list_init(&lru->ages);
    for (int i = 0; i < BUCKETS; i++)
        list_init(&lru->buckets[i]);
    return lru;
}

static struct list *bucket_of(struct lru *lru, uint64_t key)
{
    return &lru->buckets[key * lru->multiplier >> (64 - BUCKET_BITS)];
}

static void forget_oldest(struct lru *lru)
{
    struct lru_entry *oldest = LIST_ENTRY(lru->ages.next, struct lru_entry, age);
    list_remove(&oldest->age);
    list_remove(&oldest->bucket);
    free(oldest);
    lru->count--;
}

void lru_free(struct lru *lru)
{
    while (lru && lru->count > 0)
        forget_oldest(lru);
    free(lru);
}

void *lru_find(struct lru *lru, uint64_t key)
{
    LIST_EACH (link, bucket_of(lru, key)) {
        struct lru_entry *entry = LIST_ENTRY(link, struct lru_entry, bucket);
        if (entry->key != key)
            continue;
        list_remove(&entry->age);
        list_append(&lru->ages, &entry->age);
        return entry;
    }
    return NULL;
}

void *lru_add(struct lru *lru, uint64_t key)
{
    struct lru_entry *entry = calloc(1, lru->entry_bytes);
    if (!entry)
        return NULL;
    if (lru->count == lru->max)
        forget_oldest(lru);
    entry->key = key;
    list_append(bucket_of(lru, key), &entry->bucket);
    list_append(&lru->ages, &entry->age);
    lru->count++;
    return entry;
}
