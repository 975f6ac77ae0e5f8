/* SPDX-License-Identifier: MIT
 *
 * New databases, and what can be saved of damaged ones. Deletes no damaged file, ever: it stays beside the new one
 * as store.db.corrupt-TIME.
 */
#ifndef PROXYD_BUFFER_STORE_SALVAGE_H
#define PROXYD_BUFFER_STORE_SALVAGE_H

#include "buffer/store_db.h"

/* Makes an empty store.db. `db` is closed before and afterwards, as for all of these. */
enum store_result store_salvage_make(struct store_db *db, const char *directory);

/* Copies what is sound of a damaged store.db into a new one, what is not into its table of damaged rows, and puts it
 * in its place. The mark tells of chains that the database has lost. */
enum store_result store_salvage(struct store_db *db, const char *directory, int mark_fd, uint64_t *saved,
                                uint64_t *damaged);

/* Puts a copy of the log, synced, in its place, when there is one. */
enum store_result store_salvage_renew_log(struct store_db *db, const char *directory);

/* Ends a salvage that a crash interrupted when nothing but names was left to change. */
enum store_result store_salvage_finish(struct store_db *db, const char *directory, bool *was_begun);

#endif
