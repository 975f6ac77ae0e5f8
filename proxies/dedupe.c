/* SPDX-License-Identifier: MIT
 *
 * Hash tables of digests and of message ids, and a list of them by age; see dedupe.h. The digests have no key, because
 * they last; a multiplier of the table's own keeps callers from filling one bucket.
 */
#include "proxies/dedupe.h"

#include "proxies/retry.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKET_BITS = 12, BUCKETS = 1 << BUCKET_BITS };

struct dedupe {
    int64_t window_ms;
    uint32_t max, count;
    uint64_t multiplier; /* odd */
    struct list ages;    /* oldest first */
    struct list buckets[BUCKETS];
    struct list id_buckets[BUCKETS];
};

struct dedupe *dedupe_new(int64_t window_ms, uint32_t max)
{
    struct dedupe *dedupe = malloc(sizeof *dedupe);
    if (!dedupe)
        return NULL;
    dedupe->window_ms = window_ms;
    dedupe->max = max;
    dedupe->count = 0;
    dedupe->multiplier = (uint64_t)retry_random() << 32 | retry_random() | 1;
    list_init(&dedupe->ages);
    for (int i = 0; i < BUCKETS; i++) {
        list_init(&dedupe->buckets[i]);
        list_init(&dedupe->id_buckets[i]);
    }
    return dedupe;
}

void dedupe_remove(struct dedupe *dedupe, struct dedupe_entry *entry)
{
    list_remove(&entry->age);
    list_remove(&entry->bucket);
    list_remove(&entry->id_bucket);
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

static struct list *bucket_of(const struct dedupe *dedupe, struct list *buckets, const void *key)
{
    uint64_t start;
    memcpy(&start, key, sizeof start);
    return &buckets[start * dedupe->multiplier >> (64 - BUCKET_BITS)];
}

struct dedupe_entry *dedupe_find(struct dedupe *dedupe, const uint8_t digest[QUEUE_DIGEST_BYTES],
                                 int64_t now_ms)
{
    forget(dedupe, 0, now_ms);
    LIST_EACH (link, bucket_of(dedupe, dedupe->buckets, digest)) {
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
    list_init(&entry->id_bucket);
    list_append(bucket_of(dedupe, dedupe->buckets, digest), &entry->bucket);
    list_append(&dedupe->ages, &entry->age);
    dedupe->count++;
    return entry;
}

void dedupe_store(struct dedupe *dedupe, struct dedupe_entry *entry, uint64_t id, const char *ticket)
{
    entry->id = id;
    memcpy(entry->ticket, ticket, sizeof entry->ticket);
    entry->is_stored = true;
    list_prepend(bucket_of(dedupe, dedupe->id_buckets, &id), &entry->id_bucket);
}

void dedupe_forget(struct dedupe *dedupe, uint64_t id)
{
    LIST_EACH (link, bucket_of(dedupe, dedupe->id_buckets, &id)) {
        struct dedupe_entry *entry = LIST_ENTRY(link, struct dedupe_entry, id_bucket);
        if (entry->id == id) {
            dedupe_remove(dedupe, entry);
            return;
        }
    }
}
