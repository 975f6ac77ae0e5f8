/* SPDX-License-Identifier: MIT
 *
 * The SQLite connection of a store: the schema and its statements, rows with their checksums, results in the
 * store's terms. Included by the store_*.c files that know SQLite, by nobody else.
 */
#ifndef PROXYD_BUFFER_STORE_DB_H
#define PROXYD_BUFFER_STORE_DB_H

#include "buffer/store_row.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STORE_DB_VERSION = 2,
    STORE_DB_PAGE = 4096,
    STORE_DB_CHAIN_MAX = 1 << 14,
    STORE_DB_PATH = 4096,      /* room for a path */
    STORE_DB_ATTEMPTS = 65537, /* attempts are kept as multiples: no flipped bit makes one of another */
};

/* What store_db_use prepares; the text of each is in store_db.c. */
enum store_statement {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_CHAIN_NAMES,
    SQL_CHAIN_FIND,
    SQL_CHAIN_DELETE,
    SQL_CHAIN_ADD,
    SQL_CHAIN_SAVE,
    SQL_COUNT_BELOW,
    SQL_COUNT_ALL,
    SQL_FIRST_FROM,
    SQL_LAST_BEFORE,
    SQL_FIRST_ATTEMPTS,
    SQL_PUT,
    SQL_BYTES,
    SQL_DELETE,
    SQL_STONE,
    SQL_STONES_CLEAR,
    SQL_ATTEMPTS,
    SQL_OWNER,
    SQL_BURY,
    SQL_UNBURY,
    SQL_DEAD_DELETE,
    SQL_REPLY,
    SQL_REPLY_FIRST,
    SQL_REPLY_DELETE,
    SQL_EXPIRE,
    SQL_EXPIRED_ADD,
    SQL_EXPIRED_FIRST,
    SQL_EXPIRED_DELETE,
    SQL_ASIDE,
    SQL_READ_MESSAGES,
    SQL_READ_DEAD,
    SQL_FIND_MESSAGE,
    SQL_FIND_DEAD,
    SQL_FIND_REPLY,
    SQL_FIND_EXPIRED,
    SQL_RECENT_ADD,
    SQL_RECENT_FIRST,
    SQL_RECENT_DELETE,
    SQL_RECENT_COUNT,
    SQL_RECENT,
    SQL_VACUUM,
    SQL_COUNT
};

struct store_db {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[SQL_COUNT];
    bool is_synced;      /* commits wait for the medium */
    bool is_damaged;     /* found out while it was in use */
    bool is_doubtful;    /* an operation failed: what the files hold may not be on the medium */
    uint32_t log_frames; /* in the log after the last commit */
    char error[256];     /* of the last result other than STORE_OK */
};

#define INT(value) ((sqlite3_int64)(value))

/* The path of a file of the store. */
void store_db_path(char path[STORE_DB_PATH], const char *directory, const char *name);

/* Opens the database at `path`, new or ours, brings it to the present schema and checks its settings. After any
 * result it is to be closed. */
enum store_result store_db_connect(struct store_db *db, const char *path, bool is_new);
void store_db_close(struct store_db *db);

/* What all connections have written to databases and logs. Callable from every thread. */
uint64_t store_db_bytes_written(void);

/* Judges by its header what lies at `path`: STORE_OK for ours, or *is_new for nothing; STORE_CORRUPT when it does
 * not look like ours but `was_ours`, STORE_REFUSED when it is not. */
enum store_result store_db_judge(struct store_db *db, const char *path, bool was_ours, bool *is_new);

/* Notes an error: returns `result`, or what SQLite's last error amounts to. */
enum store_result store_db_fail(struct store_db *db, enum store_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
enum store_result store_db_failed(struct store_db *db, const char *doing);

/* The statement, reset and with its first `count` parameters bound to sqlite3_int64s. NULL after an error. */
sqlite3_stmt *store_db_use(struct store_db *db, enum store_statement which, int count, ...);

/* 1 for a row, still to be read and then stepped on or reset; 0 for no more, -1 for an error. NULL is an error. */
int store_db_step(sqlite3_stmt *statement);

/* Steps to the end. */
enum store_result store_db_run(struct store_db *db, sqlite3_stmt *statement, const char *doing);

/* Runs what returns the bytes of the one row it finds or touches, if there is one. */
enum store_result store_db_run_returning(struct store_db *db, sqlite3_stmt *statement, const char *doing,
                                         bool *was_there, uint64_t *bytes);

enum store_result store_db_execute(struct store_db *db, const char *text);

/* The number that a pragma or other query returns; -1 after an error. */
sqlite3_int64 store_db_pragma(struct store_db *db, const char *text);

static inline uint64_t store_db_column(sqlite3_stmt *statement, int index)
{
    return (uint64_t)sqlite3_column_int64(statement, index);
}

static inline uint64_t store_db_base(uint32_t chain)
{
    return (uint64_t)chain << STORE_SEQUENCE_BITS;
}

/* Where a message stands in its chain: its number, and the bytes up to and including it. */
struct store_place {
    uint64_t number, total;
};

/* Binds a row to an INSERT of the columns; it stays good until the statement is run. NULL after an error. */
sqlite3_stmt *store_db_bind_row(struct store_db *db, enum store_statement which, const struct store_row *row,
                                uint64_t number, uint64_t total);

/* Reads the columns, and a reason behind them. False when the row is damaged. */
bool store_db_read_row(sqlite3_stmt *statement, struct store_row *row, struct store_place *place,
                       bool has_reason);

#endif
