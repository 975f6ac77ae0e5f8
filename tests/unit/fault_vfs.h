/* SPDX-License-Identifier: MIT
 *
 * A disk that fails when it is told to: an SQLite VFS over the usual one, which counts what changes files and
 * lets the n-th such operation fail, once or from then on.
 */
#ifndef PROXYD_TESTS_UNIT_FAULT_VFS_H
#define PROXYD_TESTS_UNIT_FAULT_VFS_H

#include <stdbool.h>
#include <stdint.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_IO,   /* the operation is not carried out: SQLITE_IOERR */
    FAULT_LATE, /* it is, and then reported as failed: its outcome is unknown */
    FAULT_FULL, /* writes: SQLITE_FULL; other operations succeed */
};

/* Makes it the default VFS. */
void fault_install(void);

/* Arms it: counting starts at 0, operation `at` (from 1) fails, and all after it when `is_for_good`. */
void fault_arm(enum fault_kind kind, uint64_t at, bool is_for_good);
void fault_disarm(void);

/* Operations since it was armed, and how many of them failed. */
uint64_t fault_count(void);
uint64_t fault_hits(void);

/* Each sync takes so long. */
void fault_delay_syncs(unsigned ms);

#endif
