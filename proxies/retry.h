/* SPDX-License-Identifier: MIT
 *
 * How long to wait before trying again: exponential backoff with full jitter (uniform between nothing and the
 * exponential bound), so that a fleet that failed together does not come back together. Pure but for the
 * random number, which is the caller's.
 */
#ifndef PROXYD_PROXIES_RETRY_H
#define PROXYD_PROXIES_RETRY_H

#include <stdbool.h>
#include <stdint.h>

/* The wait after `failures` failures in a row (1 or more): in [1, min(max_ms, base_ms * 2^(failures-1))]. */
int64_t retry_delay_ms(uint32_t failures, int64_t base_ms, int64_t max_ms, uint32_t random);

/* Who failed how often, and until when it is left alone. Zero bytes are a fresh one. */
struct backoff {
    uint32_t failures; /* since the last success */
    int64_t until_ms;
};

/* Counts one failure and sets until_ms. Failures during a wait that has not ended are the same failure, so
 * that ten connections breaking at once count once. */
void backoff_fail(struct backoff *backoff, int64_t now_ms, int64_t base_ms, int64_t max_ms, uint32_t random);

/* A success: the next failure starts from the base again. */
void backoff_reset(struct backoff *backoff);

/* A fresh random number, not for secrets. Any thread. */
uint32_t retry_random(void);

#endif
