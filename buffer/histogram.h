/* SPDX-License-Identifier: MIT
 *
 * Durations in log-linear buckets: four to each doubling between 32 us and 67 s, so that a quantile is right within a
 * fifth. Of the whole lifetime, and of the last minute or two. One thread adds, without a lock and in a few
 * instructions; any thread reads.
 */
#ifndef PROXYD_BUFFER_HISTOGRAM_H
#define PROXYD_BUFFER_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

enum {
    HISTOGRAM_STEPS = 4,
    HISTOGRAM_FIRST_BIT = 5,
    HISTOGRAM_OCTAVES = 21,
    HISTOGRAM_BOUNDS = 1 + HISTOGRAM_OCTAVES * HISTOGRAM_STEPS,
    HISTOGRAM_BUCKETS = HISTOGRAM_BOUNDS + 1, /* the last one: above all bounds */
};

/* All zeros is empty. */
struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS]; /* each bucket's own */
    _Atomic uint64_t sum_us;
    _Atomic uint32_t recent[2][HISTOGRAM_BUCKETS]; /* this minute's and the last one's */
    _Atomic uint32_t *minute;                      /* this minute's of them; the writer's */
    _Atomic int64_t minute_ends_ms;
};

/* A copy. */
struct histogram_stats {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total, sum_us;
    uint64_t recent_total;   /* of the last minute or two, as the next two */
    uint64_t p50_us, p99_us; /* 0 when there was nothing */
};

/* The upper bound of bucket `bucket` < HISTOGRAM_BOUNDS, itself outside it. */
uint64_t histogram_bound_us(int bucket);

/* For histogram_add: a new minute. */
__attribute__((cold)) void histogram_turn(struct histogram *histogram, int64_t now_ms);

/* Copies what was added so far; what is recent is so as of `now_ms`. Any thread. */
void histogram_read(const struct histogram *histogram, int64_t now_ms, struct histogram_stats *stats);

static inline unsigned histogram_bucket(uint64_t took_us)
{
    uint64_t us = took_us > 31 ? took_us : 31; /* the last below the first bit: bucket 0 */
    unsigned bit = 63 - (unsigned)__builtin_clzll(us);
    unsigned bucket = bit * HISTOGRAM_STEPS + (unsigned)(us >> (bit - 2)) - 23;
    return bucket < HISTOGRAM_BOUNDS ? bucket : HISTOGRAM_BOUNDS;
}

/* There is one writer: no need to lock the bus. */
#define HISTOGRAM_RAISE(field, by)                                                                           \
    atomic_store_explicit(&(field), atomic_load_explicit(&(field), memory_order_relaxed) + (by),             \
                          memory_order_relaxed)

static inline void histogram_add(struct histogram *histogram, uint64_t took_us, int64_t now_ms)
{
    unsigned bucket = histogram_bucket(took_us);
    if (now_ms >= atomic_load_explicit(&histogram->minute_ends_ms, memory_order_relaxed))
        histogram_turn(histogram, now_ms);
    HISTOGRAM_RAISE(histogram->counts[bucket], 1);
    HISTOGRAM_RAISE(histogram->minute[bucket], 1);
    HISTOGRAM_RAISE(histogram->sum_us, took_us);
}

#endif
