/* SPDX-License-Identifier: MIT
 *
 * FNV-1a, 64 bits (draft-eastlake-fnv): for tables and marks, where nobody gains by a collision.
 */
#ifndef PROXYD_BUFFER_FNV_H
#define PROXYD_BUFFER_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_OFFSET UINT64_C(0xcbf29ce484222325)

/* The hash of what `hash` stands for (FNV_OFFSET: nothing) and `size` bytes more. */
static inline uint64_t fnv_add(uint64_t hash, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#endif
