/* SPDX-License-Identifier: MIT
 *
 * One measured slice of time: the driver writes `go MILLISECONDS [PID]` to a load's stdin, the load works for
 * a little longer than that, and one line of JSON on stdout says what the middle of it was like: how many,
 * how long each took, and what process PID spent meanwhile. All times are of CLOCK_MONOTONIC.
 */
#ifndef PROXYD_BENCH_METER_H
#define PROXYD_BENCH_METER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Latencies in nanoseconds, each power of two in STEPS equal steps: within 1.6 %. */
enum { METER_STEPS = 64, METER_BUCKETS = 60 * METER_STEPS };

/* What a process has used so far, all threads. */
struct usage {
    uint64_t cpu_ns;
    uint64_t switches; /* context switches, wanted or not */
    uint64_t rss_kib;
};

struct meter {
    int64_t length_ns, from_ns, until_ns;
    bool is_running; /* the warm-up is over */
    pid_t pid;       /* whose usage is measured; 0 = nobody's */
    struct usage before, after;
    uint64_t count, errors, lost;
    uint64_t latencies[METER_BUCKETS];
};

int64_t clock_ns(void);

/* Says on stdout that the load is connected and waits for orders. */
void meter_ready(void);

/* Waits for the next order and begins the warm-up. False when there are no more. */
bool meter_next(struct meter *meter);

/* False once the slice is over; to be asked after every message or few. */
bool meter_goes_on(struct meter *meter, int64_t now_ns);

/* Counts one message that took so long; -1 = nobody knows. Nothing is counted outside the slice. */
void meter_count(struct meter *meter, int64_t latency_ns);

/* Writes the line of JSON. */
void meter_print(const struct meter *meter);

#endif
