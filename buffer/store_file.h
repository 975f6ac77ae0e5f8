/* SPDX-License-Identifier: MIT
 *
 * The database file of a store: its schema, transactions, rows and checksums, and what happens when it is
 * damaged. One connection (store_db.h), used by one thread. Knows nothing of threads, groups or queues;
 * buffer/store.c decides when, this file does.
 *
 *   store.db            the database (and store.db-wal while it is open)
 *   store.mark          how far the last commit went and how much each chain then held (store_mark.h)
 *   store.reserve       4 MiB to give up when the disk is full
 *   store.lock          one proxyd at a time
 *   store.db.copy-wal   while a log is copied that a failed sync made doubtful
 *   store.db.corrupt-*  damaged databases, set aside for good
 */
#ifndef PROXYD_BUFFER_STORE_FILE_H
#define PROXYD_BUFFER_STORE_FILE_H

#include "buffer/store_conf.h"
#include "buffer/store_row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Asks for a ticket whoever owns it. */
#define STORE_OWNER_ANY UINT64_MAX

/* What is known of a chain without looking. */
struct store_chain {
    uint32_t number; /* from 1: the high bits of its ids */
    uint64_t next_sequence;
    uint64_t live, live_bytes; /* to be delivered */
    uint64_t dead, dead_bytes;
    uint64_t replies, reply_bytes;
    uint64_t expired;     /* tickets of replies no longer kept */
    int64_t oldest_taken; /* of the first live one when the chain was opened */
    uint64_t lost;        /* found missing when the chain was opened; not in `live` */
};

struct store_file;

/* Opens or makes the database in conf->directory, which stays locked until store_file_close. STORE_OK, or
 * another result with *file NULL and the reason in `err`. */
enum store_result store_file_open(struct store_file **file, const struct store_conf *conf, char *err,
                                  size_t err_bytes);

/* Closes it, in order where possible. May be NULL. */
void store_file_close(struct store_file *file);

/* Drops the connection and opens again, after STORE_BROKEN or STORE_CORRUPT. After anything but STORE_OK
 * only this and store_file_close may follow. */
enum store_result store_file_reopen(struct store_file *file);

/* What the last result other than STORE_OK was about. */
const char *store_file_error(const struct store_file *file);

/* What went to databases and their logs since the program began. Callable from every thread. */
uint64_t store_file_bytes_written(void);

/* The store's clock: milliseconds that never go back, and that go on while proxyd does not run as far as the
 * machine's clocks can be believed. */
int64_t store_file_now(struct store_file *file);

/* ---- space ---- */

/* Whether so much is free that new messages may be taken; makes a missing reserve again when it is. */
bool store_file_has_space(struct store_file *file);
bool store_file_has_reserve(const struct store_file *file);
/* Gives up the reserve. False when there was none. */
bool store_file_give_reserve(struct store_file *file);

/* Moves what the log holds into the database when it has grown long. */
enum store_result store_file_checkpoint(struct store_file *file);
/* One bounded step of giving space back, for when there is nothing else to do: an emptied log, free pages.
 * *is_done: there is no more to give back now. */
enum store_result store_file_tidy(struct store_file *file, bool *is_done);
/* Empties the log at once, to make space. */
enum store_result store_file_truncate_log(struct store_file *file);

/* ---- transactions: what follows happens between begin and commit; after anything but STORE_OK only rollback
 * may follow, and the counters of the chains go back too ---- */

/* `is_synced`: the commit, and all before it, will be on the medium. Otherwise it is in the kernel's hands. */
enum store_result store_file_begin(struct store_file *file, bool is_synced);
enum store_result store_file_commit(struct store_file *file);
/* Brings what was committed without a sync to the medium. */
enum store_result store_file_sync(struct store_file *file);
void store_file_rollback(struct store_file *file);

/* Finds or adds the chain `name` and counts what it holds. The first `window` messages count one attempt
 * more when the last run ended without closing while the chain was sending. */
enum store_result store_file_open_chain(struct store_file *file, const char *name, uint32_t window,
                                        uint32_t *number);
/* The counters of an opened chain; changed by every call below. */
const struct store_chain *store_file_chain(const struct store_file *file, uint32_t number);
/* The chain has begun to send; known after a kill -9. */
void store_file_set_sending(struct store_file *file, uint32_t number);

enum store_result store_file_put(struct store_file *file, const struct store_row *row);
/* `is_far`: not among those that are being delivered, so that deleting it must not disturb the counting. */
enum store_result store_file_delete(struct store_file *file, uint64_t id, bool is_far, bool *was_there);
enum store_result store_file_delete_dead(struct store_file *file, uint64_t id, bool *was_there);
enum store_result store_file_set_attempts(struct store_file *file, uint64_t id, uint32_t attempts);
/* A message becomes a dead letter, and the other way round. */
enum store_result store_file_bury(struct store_file *file, uint64_t id, uint32_t attempts,
                                  const char *reason);
enum store_result store_file_unbury(struct store_file *file, uint64_t id, bool *was_there);
/* A message becomes its reply. */
enum store_result store_file_reply(struct store_file *file, uint64_t id, const void *flat, size_t flat_bytes,
                                   size_t bytes);
/* A message becomes a ticket that is known as expired; `is_far` as above. */
enum store_result store_file_expire(struct store_file *file, uint64_t id, bool is_far);
/* At most `max` replies, oldest first, that are older than `before`, are forgotten but for their tickets. */
enum store_result store_file_expire_replies(struct store_file *file, uint32_t number, int64_t before,
                                            uint32_t max);
/* Tickets of what has expired, older than `before`, and the oldest beyond `keep`. */
enum store_result store_file_forget_replies(struct store_file *file, uint32_t number, int64_t before,
                                            uint64_t keep, uint32_t max);
/* The digest of a message that was just put. Those older than `before`, and the oldest beyond `max`, make room. */
enum store_result store_file_remember(struct store_file *file, const struct store_row *row, int64_t before,
                                      uint32_t max);
enum store_result store_file_forget(struct store_file *file, uint64_t id);
enum store_result store_file_forget_all(struct store_file *file, uint32_t number);
/* A damaged row is kept out of the way, raw. */
enum store_result store_file_set_aside(struct store_file *file, uint64_t id);

/* ---- reading, between transactions ---- */

enum store_table { STORE_MESSAGES, STORE_DEAD };

/* Receives rows in the order of their ids, each for the time of the call; NULL for a damaged one. */
typedef void store_row_fn(void *context, uint64_t id, const struct store_row *row);

/* Reads rows of a chain from `id` on: at most `max` and, after the first, no more than `max_bytes`. `*next`
 * is where to go on, 0 when that was all. */
enum store_result store_file_read(struct store_file *file, enum store_table table, uint64_t id, uint32_t max,
                                  size_t max_bytes, store_row_fn *each, void *context, uint64_t *next);

/* Reads what is remembered of a chain, taken between `from` and `to`: id, secret, taken and digest. */
enum store_result store_file_recall(struct store_file *file, uint32_t number, int64_t from, int64_t to,
                                    store_row_fn *each, void *context);

enum store_ticket {
    STORE_TICKET_UNKNOWN,
    STORE_TICKET_PENDING,
    STORE_TICKET_DONE,
    STORE_TICKET_DEAD,
    STORE_TICKET_EXPIRED,
};

/* What became of the message `id`. A wrong secret or owner is unknown. `row` is filled for DONE (flat: the
 * reply, in memory that the caller frees) and DEAD (reason). */
enum store_result store_file_find(struct store_file *file, uint64_t id, const unsigned char *secret,
                                  uint64_t owner, int64_t not_before, enum store_ticket *state,
                                  struct store_row *row);

#endif
