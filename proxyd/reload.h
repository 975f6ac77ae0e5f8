/* SPDX-License-Identifier: MIT
 *
 * Another configuration for a running daemon, all or nothing.
 *
 *    prepare   load, compare, listen at every new address, read users and keys, open the store and the chains
 *              that are new. Whatever fails, all of it is undone, and told.
 *    commit    cannot fail: policies, listeners and new chains are in force; chains that changed get ready,
 *              removed ones drain.
 *    settle    as chains are ready they exchange what has changed, a chain that sends to another by inproc after it;
 *              the last one to end ends the reload.
 */
#ifndef PROXYD_PROXYD_RELOAD_H
#define PROXYD_PROXYD_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

struct daemon;

/* Prepares and commits, or tells why not. None is under way; `cause` is static. */
void reload_begin(struct daemon *daemon, const char *cause);

/* Moves one that is under way on; once in each turn. */
void reload_move(struct daemon *daemon);

/* When one that is under way has been patient enough and must be moved on, whatever has happened; INT64_MAX when
 * that is over. */
int64_t reload_next_ms(const struct daemon *daemon, int64_t now_ms);

/* The daemon stops: chains that have not begun to exchange stay as they are. True when none is in the middle of it
 * any more. */
bool reload_withdraw(struct daemon *daemon);

/* Releases one that is under way. All chains are freed. */
void reload_free(struct daemon *daemon);

#endif
