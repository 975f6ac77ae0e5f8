/* SPDX-License-Identifier: MIT
 *
 * CRC-32C (Castagnoli): the checksum of every row that a store writes.
 */
#ifndef PROXYD_BUFFER_CRC32C_H
#define PROXYD_BUFFER_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `size` bytes at `data`, continuing from `crc` (0 to begin). */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

#endif
