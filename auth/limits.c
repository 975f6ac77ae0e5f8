/* SPDX-License-Identifier: MIT
 *
 * Token buckets as one number each: the time at which the bucket will be full again (GCRA). A time in the
 * past is a full bucket, which needs no row. Keys are known by a keyed 64-bit hash that no stranger can
 * aim at; a hash selects a set of WAYS neighbouring rows, and the table is no more than those sets.
 */
#include "auth/limits.h"
#include "auth/secret.h"

#include <sodium.h>
#include <stdlib.h>

enum { WAYS = 8 };

struct row {
    uint64_t id;
    int64_t full_at_ns; /* 0: never used */
};

struct limits {
    int64_t token_ns; /* the time in which one token grows */
    int64_t burst_ns; /* the time in which an empty bucket fills */
    uint64_t set_mask;
    unsigned char key[crypto_shorthash_KEYBYTES];
    struct row rows[];
};

struct limits *limits_new(int64_t count, int64_t period_ms, int64_t burst, size_t max_keys)
{
    const int64_t longest_ns = INT64_MAX / 8;
    size_t sets = 1;
    while (sets * WAYS < max_keys)
        sets *= 2;
    struct limits *limits = calloc(1, sizeof *limits + sets * WAYS * sizeof(struct row));
    if (!limits || secret_open()) {
        free(limits);
        return NULL;
    }
    int64_t period_ns = period_ms < longest_ns / 1000000 ? period_ms * 1000000 : longest_ns;
    limits->token_ns = period_ns / count > 0 ? period_ns / count : 1;
    limits->burst_ns = burst < longest_ns / limits->token_ns ? burst * limits->token_ns : longest_ns;
    limits->set_mask = sets - 1;
    crypto_shorthash_keygen(limits->key);
    return limits;
}

void limits_free(struct limits *limits)
{
    free(limits);
}

/* The index of a key's row, or of the one to give up for it. */
static size_t find(const struct limits *limits, const void *key, size_t size, uint64_t *id)
{
    _Static_assert(sizeof *id == crypto_shorthash_BYTES, "a hash is a row's id");
    crypto_shorthash((unsigned char *)id, key, size, limits->key);
    size_t first = (*id & limits->set_mask) * WAYS, least = first;
    for (size_t i = first; i < first + WAYS; i++) {
        if (limits->rows[i].id == *id)
            return i;
        if (limits->rows[i].full_at_ns < limits->rows[least].full_at_ns)
            least = i;
    }
    return least;
}

static int64_t full_at_after_take(const struct limits *limits, const struct row *row, uint64_t id,
                                  int64_t now_ns)
{
    int64_t full_at_ns = row->id == id && row->full_at_ns > now_ns ? row->full_at_ns : now_ns;
    return full_at_ns + limits->token_ns;
}

bool limits_take(struct limits *limits, const void *key, size_t size, int64_t now_ms)
{
    uint64_t id;
    int64_t now_ns = now_ms * 1000000;
    struct row *row = &limits->rows[find(limits, key, size, &id)];
    int64_t full_at_ns = full_at_after_take(limits, row, id, now_ns);
    if (full_at_ns - now_ns > limits->burst_ns)
        return false;
    *row = (struct row){.id = id, .full_at_ns = full_at_ns};
    return true;
}

bool limits_has(const struct limits *limits, const void *key, size_t size, int64_t now_ms)
{
    uint64_t id;
    int64_t now_ns = now_ms * 1000000;
    const struct row *row = &limits->rows[find(limits, key, size, &id)];
    return full_at_after_take(limits, row, id, now_ns) - now_ns <= limits->burst_ns;
}
