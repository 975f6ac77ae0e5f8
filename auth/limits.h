/* SPDX-License-Identifier: MIT
 *
 * Token buckets by key (a user's name, an address): `count` tokens a `period_ms`, at most `burst` saved up.
 * A fixed table that allocates nothing after limits_new: where more keys are busy than fit, the one that
 * owes least is forgotten, so that a flood of keys makes it lenient and never larger. Pure: time is an
 * argument (monotonic, never negative). One thread at a time.
 */
#ifndef PROXYD_AUTH_LIMITS_H
#define PROXYD_AUTH_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct limits;

/* Every bucket starts full. `count`, `period_ms` and `burst` are at least 1; 16 bytes for each of the
 * `max_keys` (rounded up to a power of two). NULL when memory is short. */
struct limits *limits_new(int64_t count, int64_t period_ms, int64_t burst, size_t max_keys);
void limits_free(struct limits *limits);

/* Takes one token; false when there is none. */
bool limits_take(struct limits *limits, const void *key, size_t size, int64_t now_ms);

/* True when limits_take would succeed. */
bool limits_has(const struct limits *limits, const void *key, size_t size, int64_t now_ms);

#endif
