/* SPDX-License-Identifier: MIT
 *
 * Backoff with full jitter; see retry.h.
 */
#include "proxies/retry.h"

#include <sys/random.h>

int64_t retry_delay_ms(uint32_t failures, int64_t base_ms, int64_t max_ms, uint32_t random)
{
    int64_t bound = base_ms < max_ms ? base_ms : max_ms;
    for (uint32_t i = 1; i < failures && bound < max_ms; i++)
        bound = bound > max_ms / 2 ? max_ms : bound * 2;
    return bound < 1 ? 1 : 1 + (int64_t)(random % (uint64_t)bound);
}

void backoff_fail(struct backoff *backoff, int64_t now_ms, int64_t base_ms, int64_t max_ms, uint32_t random)
{
    if (now_ms < backoff->until_ms)
        return;
    if (backoff->failures < UINT32_MAX)
        backoff->failures++;
    backoff->until_ms = now_ms + retry_delay_ms(backoff->failures, base_ms, max_ms, random);
}

void backoff_reset(struct backoff *backoff)
{
    *backoff = (struct backoff){0};
}

uint32_t retry_random(void)
{
    /* xorshift32, seeded once per thread */
    static _Thread_local uint32_t state;
    while (state == 0) {
        if (getrandom(&state, sizeof state, GRND_NONBLOCK) != sizeof state)
            state = (uint32_t)(uintptr_t)&state;
    }
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}
