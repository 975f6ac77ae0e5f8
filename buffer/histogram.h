/* SPDX-License-Identifier: MIT
 *
 * Durations counted in fixed buckets, fine enough for a quick disk and wide enough for a stuck one. A plain value:
 * who shares one guards it.
 */
#ifndef PROXYD_BUFFER_HISTOGRAM_H
#define PROXYD_BUFFER_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_BOUNDS = 16 };

struct histogram {
    uint64_t counts[HISTOGRAM_BOUNDS + 1]; /* each bucket's own; the last one: above all bounds */
    uint64_t total, sum_us;
};

/* The upper bound of bucket `bucket` < HISTOGRAM_BOUNDS, itself inside it, in microseconds. */
static inline uint32_t histogram_bound_us(int bucket)
{
    static const uint32_t bounds_us[HISTOGRAM_BOUNDS] = {
        100,   250,    500,    1000,   2500,    5000,    10000,   25000,
        50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
    };
    return bounds_us[bucket];
}

static inline void histogram_add(struct histogram *histogram, uint64_t took_us)
{
    int bucket = 0;
    while (bucket < HISTOGRAM_BOUNDS && took_us > histogram_bound_us(bucket))
        bucket++;
    histogram->counts[bucket]++;
    histogram->total++;
    histogram->sum_us += took_us;
}

#endif
