/* SPDX-License-Identifier: MIT
 *
 * A measured slice; see meter.h.
 */
#include "tests/bench/meter.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WARM_UP_SHARE = 5, WARM_UP_MIN_MS = 50 };

int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t read_field(const char *path, const char *name)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return 0; /* a thread that has ended */
    char line[256];
    uint64_t value = 0;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, name, strlen(name)) != 0)
            continue;
        value = strtoull(line + strlen(name), NULL, 10);
        break;
    }
    fclose(file);
    return value;
}

static void add_thread(struct usage *usage, pid_t pid, const char *thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/schedstat", pid, thread);
    usage->cpu_ns += read_field(path, "");
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/status", pid, thread);
    usage->switches += read_field(path, "voluntary_ctxt_switches:");
    usage->switches += read_field(path, "nonvoluntary_ctxt_switches:");
}

static struct usage read_usage(pid_t pid)
{
    struct usage usage = {0};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = pid > 0 ? opendir(path) : NULL;
    if (!threads)
        return usage;
    const struct dirent *thread;
    while ((thread = readdir(threads)) != NULL) {
        if (thread->d_name[0] != '.')
            add_thread(&usage, pid, thread->d_name);
    }
    closedir(threads);
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    usage.rss_kib = read_field(path, "VmRSS:");
    return usage;
}

void meter_ready(void)
{
    puts("ready");
    fflush(stdout);
}

bool meter_next(struct meter *meter)
{
    char line[64];
    long length_ms, pid = 0;
    if (!fgets(line, sizeof line, stdin) || sscanf(line, "go %ld %ld", &length_ms, &pid) < 1)
        return false;
    long warm_up_ms = length_ms / WARM_UP_SHARE;
    if (warm_up_ms < WARM_UP_MIN_MS)
        warm_up_ms = WARM_UP_MIN_MS;
    *meter = (struct meter){
        .length_ns = length_ms * 1000000,
        .from_ns = clock_ns() + warm_up_ms * 1000000,
        .pid = (pid_t)pid,
    };
    return true;
}

bool meter_goes_on(struct meter *meter, int64_t now_ns)
{
    if (!meter->is_running && now_ns >= meter->from_ns) {
        meter->before = read_usage(meter->pid);
        meter->is_running = true;
        meter->from_ns = clock_ns();
        meter->until_ns = meter->from_ns + meter->length_ns;
        return true;
    }
    if (!meter->is_running || now_ns < meter->until_ns)
        return true;
    meter->is_running = false;
    meter->until_ns = now_ns;
    meter->after = read_usage(meter->pid);
    return false;
}

static unsigned bucket_of(uint64_t value)
{
    if (value < METER_STEPS)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - 6;
    unsigned bucket = (shift + 1) * METER_STEPS + (unsigned)(value >> shift) - METER_STEPS;
    return bucket < METER_BUCKETS ? bucket : METER_BUCKETS - 1;
}

static double bucket_us(unsigned bucket)
{
    if (bucket < METER_STEPS)
        return bucket / 1e3;
    unsigned shift = bucket / METER_STEPS - 1;
    uint64_t low = (uint64_t)(bucket % METER_STEPS + METER_STEPS) << shift;
    return ((double)low + (double)(UINT64_C(1) << shift) / 2) / 1e3;
}

void meter_count(struct meter *meter, int64_t latency_ns)
{
    if (!meter->is_running)
        return;
    meter->count++;
    if (latency_ns >= 0)
        meter->latencies[bucket_of((uint64_t)latency_ns)]++;
}

static double percentile_us(const struct meter *meter, double share)
{
    uint64_t total = 0, below = 0;
    for (unsigned i = 0; i < METER_BUCKETS; i++)
        total += meter->latencies[i];
    for (unsigned i = 0; i < METER_BUCKETS; i++) {
        below += meter->latencies[i];
        if (below > 0 && (double)below >= share * (double)total)
            return bucket_us(i);
    }
    return 0;
}

void meter_print(const struct meter *meter)
{
    double seconds = (double)(meter->until_ns - meter->from_ns) / 1e9;
    double each = meter->count > 0 ? (double)meter->count : 1;
    printf("{\"count\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"rate\": %.1f, "
           "\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"cpu_us\": %.3f, \"switches\": %.3f, "
           "\"rss_kib\": %" PRIu64 "}\n",
           meter->count, meter->errors, meter->lost, (double)meter->count / seconds,
           percentile_us(meter, 0.5), percentile_us(meter, 0.99), percentile_us(meter, 0.999),
           (double)(meter->after.cpu_ns - meter->before.cpu_ns) / 1e3 / each,
           (double)(meter->after.switches - meter->before.switches) / each, meter->after.rss_kib);
    fflush(stdout);
}
