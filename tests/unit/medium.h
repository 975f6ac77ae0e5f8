/* SPDX-License-Identifier: MIT
 *
 * A medium that remembers everything it was told: a FUSE file system of one file, served by a child process, that
 * logs each write and each sync in order; with a loop device and ext4 on it, the log is what a disk saw, journal of
 * the file system included. From the log, the medium can be made as a power cut at any moment might have left it.
 * Needs root, /dev/fuse, loop devices and mkfs.ext4.
 */
#ifndef PROXYD_TESTS_UNIT_MEDIUM_H
#define PROXYD_TESTS_UNIT_MEDIUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct medium;

/* What of the writes after the last sync a power cut leaves. */
enum medium_cut { CUT_NONE, CUT_ALL, CUT_HALF, CUT_SECTORS, CUT_KINDS };

/* Makes a medium with an empty ext4, mounted at `directory`/live. NULL with the reason in `err` when this machine
 * does not allow that. Call it before there are threads. */
struct medium *medium_new(const char *directory, char *err, size_t err_bytes);

/* How many writes and syncs it has seen. */
uint64_t medium_position(const struct medium *medium);

/* From now on it refuses every write, or none; and how many it has refused. */
void medium_refuse(struct medium *medium, bool refuses);
uint64_t medium_refused(const struct medium *medium);

/* Unmounts it; the log stays. */
void medium_stop(struct medium *medium);

/* Mounts, at `directory`/cut, the medium as a power cut after `position` operations leaves it. Positions must not
 * fall from call to call. */
bool medium_cut(struct medium *medium, uint64_t position, enum medium_cut kind);
void medium_uncut(struct medium *medium);

void medium_free(struct medium *medium);

#endif
