/* SPDX-License-Identifier: MIT
 *
 * A directory of its own for a test that needs files; everything in it is removed at the end.
 */
#ifndef PROXYD_TESTS_UNIT_SCRATCH_H
#define PROXYD_TESTS_UNIT_SCRATCH_H

struct scratch {
    char path[64];
};

/* Makes a new empty directory; ends the program when that is not possible. */
void scratch_make(struct scratch *scratch);

/* Removes all files in it; it stays. */
void scratch_clear(const struct scratch *scratch);
void scratch_remove(const struct scratch *scratch);

#endif
