/* SPDX-License-Identifier: MIT
 *
 * The clock, for loops: everything else takes the time as an argument. (auth, which knows no other room, has its own.)
 */
#ifndef PROXYD_BUFFER_CLOCK_H
#define PROXYD_BUFFER_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds that no clock change touches. */
static inline int64_t clock_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
