/* SPDX-License-Identifier: MIT
 *
 * A hash table of digests, which are uniform already, and a list of them by age; see dedupe.h.
 */
#include "proxies/dedupe.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct dedupe {
    int64_t window_ms;
    uint32_t max, count;
    struct list ages; /* oldest first */
    struct list buckets[BUCKETS];
};

struct dedupe *dedupe_new(int64_t window_ms, uint32_t max)
{
    struct dedupe *dedupe = malloc(sizeof *dedupe);
    if (!dedupe)
        return NULL;
    dedupe->window_ms = window_ms;
    dedupe->max = max;
    dedupe->count = 0;
    list_init(&dedupe->ages);
    for (int i = 0; i < BUCKETS; i++)
        list_init(&dedupe->buckets[i]);
    return dedupe;
}

void dedupe_remove(struct dedupe *dedupe, struct dedupe_entry *entry)
{
    list_remove(&entry->age);
    list_remove(&entry->bucket);
    dedupe->count--;
    free(entry);
}

void dedupe_free(struct dedupe *dedupe)
{
    if (!dedupe)
        return;
    LIST_EACH_SAFE (link, following, &dedupe->ages)
        dedupe_remove(dedupe, LIST_ENTRY(link, struct dedupe_entry, age));
    free(dedupe);
}

/* Forgets what is over, oldest first; never an entry whose request is still being stored. */
static void forget(struct dedupe *dedupe, uint32_t room, int64_t now_ms)
{
    struct list *link;
    while ((link = list_first(&dedupe->ages)) != NULL) {
        struct dedupe_entry *entry = LIST_ENTRY(link, struct dedupe_entry, age);
        bool is_over = now_ms >= entry->until_ms || dedupe->count + room > dedupe->max;
        if (!is_over || !entry->is_stored)
            return;
        dedupe_remove(dedupe, entry);
    }
}

static struct list *bucket_of(struct dedupe *dedupe, const uint8_t *digest)
{
    uint32_t start;
    memcpy(&start, digest, sizeof start);
    return &dedupe->buckets[start % BUCKETS];
}

struct dedupe_entry *dedupe_find(struct dedupe *dedupe, const uint8_t digest[QUEUE_DIGEST_BYTES],
                                 int64_t now_ms)
{
    forget(dedupe, 0, now_ms);
    LIST_EACH (link, bucket_of(dedupe, digest)) {
        struct dedupe_entry *entry = LIST_ENTRY(link, struct dedupe_entry, bucket);
        if (memcmp(entry->digest, digest, QUEUE_DIGEST_BYTES) == 0)
            return entry;
    }
    return NULL;
}

struct dedupe_entry *dedupe_add(struct dedupe *dedupe, const uint8_t digest[QUEUE_DIGEST_BYTES],
                                int64_t now_ms)
{
    forget(dedupe, 1, now_ms);
    struct dedupe_entry *entry = dedupe->count < dedupe->max ? calloc(1, sizeof *entry) : NULL;
    if (!entry)
        return NULL;
    memcpy(entry->digest, digest, QUEUE_DIGEST_BYTES);
    entry->until_ms = now_ms + dedupe->window_ms;
    list_init(&entry->waiting);
    list_append(bucket_of(dedupe, digest), &entry->bucket);
    list_append(&dedupe->ages, &entry->age);
    dedupe->count++;
    return entry;
}
