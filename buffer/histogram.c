/* SPDX-License-Identifier: MIT
 *
 * What is rare about histograms: minutes and readers; see histogram.h.
 */
#include "buffer/histogram.h"

#include <stdbool.h>
#include <string.h>

#define MINUTE_MS 60000

uint64_t histogram_bound_us(int bucket)
{
    if (bucket == 0)
        return 1U << HISTOGRAM_FIRST_BIT;
    unsigned octave = (unsigned)(bucket - 1) / HISTOGRAM_STEPS,
             step = (unsigned)(bucket - 1) % HISTOGRAM_STEPS;
    return (uint64_t)(HISTOGRAM_STEPS + step + 1) << (octave + HISTOGRAM_FIRST_BIT - 2);
}

static void clear(_Atomic uint32_t counts[HISTOGRAM_BUCKETS])
{
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        atomic_store_explicit(&counts[i], 0, memory_order_relaxed);
}

void histogram_turn(struct histogram *histogram, int64_t now_ms)
{
    int next = histogram->minute == histogram->recent[0];
    clear(histogram->recent[next]);
    if (now_ms >= atomic_load(&histogram->minute_ends_ms) + MINUTE_MS)
        clear(histogram->recent[!next]);
    histogram->minute = histogram->recent[next];
    atomic_store(&histogram->minute_ends_ms, now_ms + MINUTE_MS);
}

/* The middle of the bucket that holds the value at so many thousandths of all. */
static uint64_t quantile_us(const uint64_t counts[HISTOGRAM_BUCKETS], uint64_t total, unsigned per_mille)
{
    uint64_t rank = (total * per_mille + 999) / 1000, seen = 0;
    int bucket = 0;
    if (total == 0)
        return 0;
    while ((seen += counts[bucket]) < rank)
        bucket++;
    uint64_t low = bucket > 0 ? histogram_bound_us(bucket - 1) : 0;
    return bucket < HISTOGRAM_BOUNDS ? (low + histogram_bound_us(bucket)) / 2 : low;
}

void histogram_read(const struct histogram *histogram, int64_t now_ms, struct histogram_stats *stats)
{
    uint64_t recent[HISTOGRAM_BUCKETS];
    bool is_recent = now_ms < atomic_load(&histogram->minute_ends_ms) + MINUTE_MS;
    memset(stats, 0, sizeof *stats);
    stats->sum_us = atomic_load_explicit(&histogram->sum_us, memory_order_relaxed);
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        stats->counts[i] = atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        stats->total += stats->counts[i];
        recent[i] = is_recent
                        ? (uint64_t)atomic_load_explicit(&histogram->recent[0][i], memory_order_relaxed) +
                              atomic_load_explicit(&histogram->recent[1][i], memory_order_relaxed)
                        : 0;
        stats->recent_total += recent[i];
    }
    stats->p50_us = quantile_us(recent, stats->recent_total, 500);
    stats->p99_us = quantile_us(recent, stats->recent_total, 990);
}
