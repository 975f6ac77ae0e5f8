/* SPDX-License-Identifier: MIT
 *
 * SQLite as a store uses it: write-ahead log, synced at each commit, locked exclusively, one connection.
 *
 * To change the schema: append a step to `steps`, never edit one, and raise STORE_DB_VERSION and SCHEMA_CHANGES;
 * each database goes through the steps it lacks in one transaction when it is opened, and user_version counts them.
 * Keep a database of the version before beside tests/unit/test_store.c, and have it opened there.
 */
#include "buffer/store_db.h"

#include "buffer/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x70787964, /* "pxyd" */
    SCHEMA_CHANGES = 7,          /* what SQLite counts after all steps: its "schema cookie" */
    VERSION_MAX = 9999,          /* beyond it is damage */
};

static const char *const steps[] = {
    "CREATE TABLE chain(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, reserved INTEGER NOT NULL,"
    " frontier INTEGER NOT NULL, stones INTEGER NOT NULL, stone_bytes INTEGER NOT NULL,"
    " dead INTEGER NOT NULL, dead_bytes INTEGER NOT NULL, replies INTEGER NOT NULL,"
    " reply_bytes INTEGER NOT NULL, expired INTEGER NOT NULL, crc INTEGER NOT NULL);"
    "CREATE TABLE message(id INTEGER PRIMARY KEY, number INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " total INTEGER NOT NULL, taken INTEGER NOT NULL, attempts INTEGER NOT NULL, owner INTEGER NOT NULL,"
    " secret BLOB NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);"
    "CREATE TABLE dead(id INTEGER PRIMARY KEY, number INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " total INTEGER NOT NULL, taken INTEGER NOT NULL, attempts INTEGER NOT NULL, owner INTEGER NOT NULL,"
    " secret BLOB NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL, reason TEXT NOT NULL);"
    "CREATE TABLE reply(id INTEGER PRIMARY KEY, number INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " total INTEGER NOT NULL, taken INTEGER NOT NULL, attempts INTEGER NOT NULL, owner INTEGER NOT NULL,"
    " secret BLOB NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);"
    "CREATE TABLE expired(id INTEGER PRIMARY KEY, taken INTEGER NOT NULL, owner INTEGER NOT NULL,"
    " secret BLOB NOT NULL);"
    "CREATE TABLE damaged(id INTEGER PRIMARY KEY, number, bytes, total, taken, attempts, owner, secret, crc,"
    " body);",
    /* Digests of messages, by the ids of the messages whether these are still there or not. */
    "CREATE TABLE recent(id INTEGER PRIMARY KEY, taken INTEGER NOT NULL, digest BLOB NOT NULL,"
    " secret BLOB NOT NULL);",
};
_Static_assert(sizeof steps / sizeof *steps == STORE_DB_VERSION, "one step for each version");

/* The columns that message, dead and reply have in common, in this order. */
#define COLUMNS "id,number,bytes,total,taken,attempts,owner,secret,crc,body"

static const char *const texts[SQL_COUNT] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_CHAIN_NAMES] = "SELECT name FROM chain WHERE length(name)<72 ORDER BY id",
    [SQL_CHAIN_FIND] =
        "SELECT id,reserved,frontier,stones,stone_bytes,dead,dead_bytes,replies,reply_bytes,expired,"
        "crc FROM chain WHERE name=?",
    [SQL_CHAIN_DELETE] = "DELETE FROM chain WHERE id=?",
    [SQL_CHAIN_ADD] =
        "INSERT INTO chain VALUES(coalesce(?2,(SELECT 1+max(coalesce((SELECT max(id) FROM chain),0),"
        "coalesce((SELECT max(id)>>48 FROM message),0),coalesce((SELECT max(id)>>48 FROM dead),0),"
        "coalesce((SELECT max(id)>>48 FROM reply),0)))),?1,1,0,0,0,0,0,0,0,0,0) RETURNING id",
    [SQL_CHAIN_SAVE] =
        "UPDATE chain SET reserved=?2,frontier=?3,stones=?4,stone_bytes=?5,dead=?6,dead_bytes=?7,"
        "replies=?8,reply_bytes=?9,expired=?10,crc=?11 WHERE id=?1",
    [SQL_COUNT_BELOW] =
        "SELECT count(*),coalesce(sum(bytes),0) FROM message WHERE id>=? AND id<? AND attempts>=0",
    [SQL_COUNT_ALL] = "SELECT (SELECT count(*) FROM dead WHERE id>=?1 AND id<?2),"
                      "(SELECT coalesce(sum(bytes),0) FROM dead WHERE id>=?1 AND id<?2),"
                      "(SELECT count(*) FROM reply WHERE id>=?1 AND id<?2),"
                      "(SELECT coalesce(sum(bytes),0) FROM reply WHERE id>=?1 AND id<?2),"
                      "(SELECT count(*) FROM expired WHERE id>=?1 AND id<?2),"
                      "max(coalesce((SELECT max(id) FROM message WHERE id<?2),0),"
                      "coalesce((SELECT max(id) FROM dead WHERE id<?2),0),"
                      "coalesce((SELECT max(id) FROM reply WHERE id<?2),0))",
    [SQL_FIRST_FROM] = "SELECT " COLUMNS " FROM message WHERE id>=? AND id<? ORDER BY id LIMIT 1",
    [SQL_LAST_BEFORE] = "SELECT " COLUMNS " FROM message WHERE id>=? AND id<? ORDER BY id DESC LIMIT 1",
    [SQL_FIRST_ATTEMPTS] =
        "UPDATE message SET attempts=attempts+?3 WHERE id IN"
        "(SELECT id FROM message WHERE id>=?1 AND id<?2 AND attempts>=0 ORDER BY id LIMIT ?4)",
    [SQL_PUT] = "INSERT INTO message(" COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?)",
    [SQL_BYTES] = "SELECT bytes FROM message WHERE id=? AND attempts>=0",
    [SQL_DELETE] = "DELETE FROM message WHERE id=?",
    [SQL_STONE] = "UPDATE message SET attempts=-1,body=x'' WHERE id=?",
    [SQL_STONES_CLEAR] = "DELETE FROM message WHERE id>=? AND id<? AND attempts<0 RETURNING bytes",
    [SQL_ATTEMPTS] = "UPDATE message SET attempts=?2 WHERE id=?1 AND attempts>=0",
    [SQL_OWNER] = "SELECT owner,secret FROM message WHERE id=? AND attempts>=0",
    [SQL_BURY] = "INSERT OR REPLACE INTO dead SELECT " COLUMNS ",?2 FROM message WHERE id=?1 AND attempts>=0",
    [SQL_UNBURY] = "INSERT OR REPLACE INTO message SELECT " COLUMNS " FROM dead WHERE id=? RETURNING bytes",
    [SQL_DEAD_DELETE] = "DELETE FROM dead WHERE id=? RETURNING bytes",
    [SQL_REPLY] = "INSERT OR REPLACE INTO reply(" COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?)",
    [SQL_REPLY_FIRST] =
        "SELECT id,taken,bytes,owner,secret FROM reply WHERE id>=? AND id<? ORDER BY id LIMIT 1",
    [SQL_REPLY_DELETE] = "DELETE FROM reply WHERE id=?",
    [SQL_EXPIRE] = "INSERT OR REPLACE INTO expired SELECT id,?2,owner,secret FROM message "
                   "WHERE id=?1 AND attempts>=0 RETURNING taken",
    [SQL_EXPIRED_ADD] = "INSERT OR REPLACE INTO expired VALUES(?,?,?,?)",
    [SQL_EXPIRED_FIRST] = "SELECT id,taken FROM expired WHERE id>=? AND id<? ORDER BY id LIMIT 1",
    [SQL_EXPIRED_DELETE] = "DELETE FROM expired WHERE id=?",
    [SQL_ASIDE] = "INSERT OR REPLACE INTO damaged SELECT " COLUMNS " FROM message WHERE id=?",
    [SQL_READ_MESSAGES] = "SELECT " COLUMNS " FROM message WHERE id>=? AND id<? ORDER BY id",
    [SQL_READ_DEAD] = "SELECT " COLUMNS ",reason FROM dead WHERE id>=? AND id<? ORDER BY id",
    [SQL_FIND_MESSAGE] = "SELECT " COLUMNS " FROM message WHERE id=? AND attempts>=0",
    [SQL_FIND_DEAD] = "SELECT " COLUMNS ",reason FROM dead WHERE id=?",
    [SQL_FIND_REPLY] = "SELECT " COLUMNS " FROM reply WHERE id=?",
    [SQL_FIND_EXPIRED] = "SELECT owner,secret FROM expired WHERE id=?",
    [SQL_RECENT_ADD] = "INSERT OR REPLACE INTO recent VALUES(?,?,?,?)",
    [SQL_RECENT_FIRST] = "SELECT id,taken FROM recent WHERE id>=? AND id<? ORDER BY id LIMIT 1",
    [SQL_RECENT_DELETE] = "DELETE FROM recent WHERE id>=? AND id<?",
    [SQL_RECENT_COUNT] = "SELECT count(*) FROM recent WHERE id>=? AND id<?",
    [SQL_RECENT] = "SELECT id,taken,digest,secret FROM recent WHERE id>=? AND id<? AND taken BETWEEN ? AND ?"
                   " ORDER BY id",
    [SQL_VACUUM] = "PRAGMA incremental_vacuum(256)",
};

enum store_result store_db_fail(struct store_db *db, enum store_result result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(db->error, sizeof db->error, format, arguments);
    va_end(arguments);
    db->is_doubtful |= result == STORE_BROKEN;
    return result;
}

enum store_result store_db_failed(struct store_db *db, const char *doing)
{
    int code = db->sqlite ? sqlite3_extended_errcode(db->sqlite) : SQLITE_CANTOPEN;
    enum store_result result = STORE_BROKEN;
    if ((code & 0xff) == SQLITE_FULL)
        result = STORE_FULL;
    else if ((code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB)
        result = STORE_CORRUPT;
    db->is_damaged |= result == STORE_CORRUPT;
    int system = db->sqlite && result == STORE_BROKEN ? sqlite3_system_errno(db->sqlite) : 0;
    return store_db_fail(db, result, "%s: %s%s%s", doing,
                         db->sqlite ? sqlite3_errmsg(db->sqlite) : "cannot open", system ? ": " : "",
                         system ? strerror(system) : "");
}

/* ---- statements ---- */

/* The statement, reset and with its first parameters bound to integers. NULL after an error. */
sqlite3_stmt *store_db_use(struct store_db *db, enum store_statement which, int count, ...)
{
    sqlite3_stmt **statement = &db->statements[which];
    if (!*statement && sqlite3_prepare_v3(db->sqlite, texts[which], -1, SQLITE_PREPARE_PERSISTENT, statement,
                                          NULL) != SQLITE_OK)
        return NULL;
    sqlite3_reset(*statement);
    va_list values;
    va_start(values, count);
    for (int i = 1; i <= count; i++)
        sqlite3_bind_int64(*statement, i, va_arg(values, sqlite3_int64));
    va_end(values);
    return *statement;
}

/* Steps a statement that returns at most one row: 1 for a row (still to be read, then reset), 0 for none,
 * -1 for an error. */
int store_db_step(sqlite3_stmt *statement)
{
    int code = statement ? sqlite3_step(statement) : SQLITE_ERROR;
    if (code == SQLITE_ROW)
        return 1;
    if (statement)
        sqlite3_reset(statement);
    return code == SQLITE_DONE ? 0 : -1;
}

enum store_result store_db_run(struct store_db *db, sqlite3_stmt *statement, const char *doing)
{
    int stepped = store_db_step(statement);
    while (stepped > 0)
        stepped = store_db_step(statement);
    return stepped == 0 ? STORE_OK : store_db_failed(db, doing);
}

/* Runs a statement that returns the number of bytes of the row it finds or touches, if there is one. */
enum store_result store_db_run_returning(struct store_db *db, sqlite3_stmt *statement, const char *doing,
                                         bool *was_there, uint64_t *bytes)
{
    int stepped = store_db_step(statement);
    *was_there = stepped > 0;
    if (stepped > 0) {
        *bytes = (uint64_t)sqlite3_column_int64(statement, 0);
        stepped = store_db_step(statement);
    }
    return stepped == 0 ? STORE_OK : store_db_failed(db, doing);
}

enum store_result store_db_execute(struct store_db *db, const char *text)
{
    return sqlite3_exec(db->sqlite, text, NULL, NULL, NULL) == SQLITE_OK
               ? STORE_OK
               : store_db_failed(db, "preparing the database");
}

sqlite3_int64 store_db_pragma(struct store_db *db, const char *text)
{
    sqlite3_stmt *statement;
    sqlite3_int64 value = -1;
    if (sqlite3_prepare_v2(db->sqlite, text, -1, &statement, NULL) == SQLITE_OK &&
        store_db_step(statement) > 0)
        value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

/* ---- rows ---- */

static uint32_t row_crc(const struct store_row *row, uint64_t number, uint64_t total)
{
    uint64_t fixed[] = {row->id, number, row->bytes, total, (uint64_t)row->taken, row->owner};
    uint32_t crc = crc32c(0, fixed, sizeof fixed);
    crc = crc32c(crc, row->secret, sizeof row->secret);
    return crc32c(crc, row->flat, row->flat_bytes);
}

/* Binds a row to an INSERT of COLUMNS; `row` stays good until the statement is run. */
sqlite3_stmt *store_db_bind_row(struct store_db *db, enum store_statement which, const struct store_row *row,
                                uint64_t number, uint64_t total)
{
    sqlite3_stmt *statement =
        store_db_use(db, which, 7, INT(row->id), INT(number), INT(row->bytes), INT(total), INT(row->taken),
                     INT(row->attempts) * STORE_DB_ATTEMPTS, INT(row->owner));
    if (!statement)
        return NULL;
    sqlite3_bind_blob(statement, 8, row->secret, sizeof row->secret, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 9, row_crc(row, number, total));
    sqlite3_bind_blob(statement, 10, row->flat_bytes ? row->flat : "", (int)row->flat_bytes, SQLITE_STATIC);
    return statement;
}

/* Reads COLUMNS (and a reason). False when the row is damaged. */
bool store_db_read_row(sqlite3_stmt *statement, struct store_row *row, struct store_place *place,
                       bool has_reason)
{
    sqlite3_int64 attempts = sqlite3_column_int64(statement, 5);
    *row = (struct store_row){
        .id = store_db_column(statement, 0),
        .bytes = (size_t)store_db_column(statement, 2),
        .taken = sqlite3_column_int64(statement, 4),
        .attempts = (uint32_t)(attempts / STORE_DB_ATTEMPTS),
        .owner = store_db_column(statement, 6),
    };
    place->number = store_db_column(statement, 1);
    place->total = store_db_column(statement, 3);
    const void *secret = sqlite3_column_blob(statement, 7);
    if (sqlite3_column_bytes(statement, 7) != STORE_SECRET_BYTES || !secret || attempts < 0 ||
        attempts % STORE_DB_ATTEMPTS != 0 || attempts / STORE_DB_ATTEMPTS > UINT32_MAX)
        return false;
    memcpy(row->secret, secret, STORE_SECRET_BYTES);
    row->flat = sqlite3_column_blob(statement, 9);
    row->flat_bytes = (size_t)sqlite3_column_bytes(statement, 9);
    if (has_reason && sqlite3_column_text(statement, 10))
        snprintf(row->reason, sizeof row->reason, "%s", (const char *)sqlite3_column_text(statement, 10));
    return store_db_column(statement, 8) == row_crc(row, place->number, place->total);
}

/* ---- counting what is written: the VFS that SQLite has, but for one method ---- */

static const char meter_name[] = "proxyd";
static sqlite3_vfs *meter_below, meter;
static atomic_uint_fast64_t bytes_written;

/* Lies behind the file of the VFS below. */
struct metered {
    sqlite3_io_methods methods;
    int (*write)(sqlite3_file *, const void *, int, sqlite3_int64);
};

static struct metered *metered(sqlite3_file *file)
{
    return (struct metered *)(void *)((char *)file + meter_below->szOsFile);
}

static int meter_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    int code = metered(file)->write(file, data, size, offset);
    if (code == SQLITE_OK)
        atomic_fetch_add_explicit(&bytes_written, (uint64_t)size, memory_order_relaxed);
    return code;
}

static int meter_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    int code = meter_below->xOpen(meter_below, name, file, flags, out_flags);
    if (file->pMethods) {
        struct metered *mine = metered(file);
        mine->methods = *file->pMethods;
        mine->write = mine->methods.xWrite;
        mine->methods.xWrite = meter_write;
        file->pMethods = &mine->methods;
    }
    return code;
}

static void install_meter(void)
{
    meter_below = sqlite3_vfs_find(NULL);
    meter = *meter_below;
    meter.zName = meter_name;
    meter.xOpen = meter_open;
    meter.szOsFile = meter_below->szOsFile + (int)sizeof(struct metered);
    sqlite3_vfs_register(&meter, 0);
}

uint64_t store_db_bytes_written(void)
{
    return atomic_load_explicit(&bytes_written, memory_order_relaxed);
}

/* ---- opening ---- */

void store_db_path(char path[STORE_DB_PATH], const char *directory, const char *name)
{
    snprintf(path, STORE_DB_PATH, "%s/%s", directory, name);
}

/* Where the log stands after a commit: SQLite tells how long it is, its header which one it is. */
static int after_commit(void *context, sqlite3 *db, const char *schema, int frames)
{
    (void)db;
    (void)schema;
    struct store_db *database = context;
    database->log_frames = (uint32_t)frames;
    return SQLITE_OK;
}

void store_db_close(struct store_db *db)
{
    for (int i = 0; i < SQL_COUNT; i++) {
        sqlite3_finalize(db->statements[i]);
        db->statements[i] = NULL;
    }
    if (db->sqlite && (db->is_damaged || db->is_doubtful)) /* evidence, or no ground to write on */
        sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(db->sqlite);
    db->sqlite = NULL;
}

/* Newer than this program, and not only by a flipped bit: its schema has changed as well, or it is a number
 * that versions have, and the next one or more than a bit away. */
static bool is_newer(int64_t version, int64_t schema_changes)
{
    bool is_number =
        version <= VERSION_MAX &&
        (version == STORE_DB_VERSION + 1 || __builtin_popcountll((uint64_t)version ^ STORE_DB_VERSION) > 1);
    return version > STORE_DB_VERSION && (schema_changes > SCHEMA_CHANGES || is_number);
}

static enum store_result refuse_newer(struct store_db *db, const char *path, int64_t version)
{
    return store_db_fail(db, STORE_REFUSED, "%s is of version %" PRId64 ", this proxyd knows up to %d", path,
                         version, STORE_DB_VERSION);
}

static enum store_result migrate(struct store_db *db, const char *path)
{
    sqlite3_int64 version = store_db_pragma(db, "PRAGMA user_version");
    if (version == STORE_DB_VERSION)
        return STORE_OK;
    if (is_newer(version, store_db_pragma(db, "PRAGMA schema_version")))
        return refuse_newer(db, path, version);
    if (version < 0)
        return store_db_failed(db, "reading the version");
    if (version > STORE_DB_VERSION)
        return store_db_fail(db, STORE_CORRUPT, "the version of the database is damaged");
    enum store_result result = store_db_execute(db, "BEGIN IMMEDIATE");
    for (size_t i = (size_t)version; i < STORE_DB_VERSION && result == STORE_OK; i++)
        result = store_db_execute(db, steps[i]);
    char text[128];
    snprintf(text, sizeof text, "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT", APPLICATION_ID,
             STORE_DB_VERSION);
    return result == STORE_OK ? store_db_execute(db, text) : result;
}

/* Opens the database at `path`, new or ours, and brings it to the present schema. */
enum store_result store_db_connect(struct store_db *db, const char *path, bool is_new)
{
    if (is_new) { /* made here for its mode; SQLite gives the log the same */
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return store_db_fail(db, errno == ENOSPC ? STORE_FULL : STORE_BROKEN, "%s: %s", path,
                                 strerror(errno));
        close(fd);
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_meter);
    if (sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, meter_name) !=
        SQLITE_OK)
        return store_db_failed(db, "opening the database");
    sqlite3_extended_result_codes(db->sqlite, 1);
    sqlite3_wal_hook(db->sqlite, after_commit, db);
    enum store_result result =
        store_db_execute(db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA trusted_schema=OFF;"
                             "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;"
                             "PRAGMA cache_size=-2000; PRAGMA secure_delete=OFF;");
    if (result == STORE_OK && is_new) /* it is synced once, before it gets its name */
        result = store_db_execute(
            db, "PRAGMA synchronous=OFF; PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL");
    if (result == STORE_OK && is_new)
        result = migrate(db, path);
    if (result == STORE_OK)
        result = store_db_execute(db, "PRAGMA journal_mode=WAL");
    if (result == STORE_OK)
        result = store_db_execute(db, "PRAGMA synchronous=FULL; PRAGMA journal_size_limit=16777216");
    if (result == STORE_OK)
        result = migrate(db, path);
    if (result != STORE_OK)
        return result;
    db->is_synced = true;
    sqlite3_stmt *mode;
    bool is_wal = sqlite3_prepare_v2(db->sqlite, "PRAGMA journal_mode", -1, &mode, NULL) == SQLITE_OK &&
                  store_db_step(mode) > 0 && strcmp((const char *)sqlite3_column_text(mode, 0), "wal") == 0;
    sqlite3_finalize(mode);
    if (!is_wal || store_db_pragma(db, "PRAGMA synchronous") != 2 ||
        store_db_pragma(db, "PRAGMA page_size") != STORE_DB_PAGE ||
        store_db_pragma(db, "PRAGMA auto_vacuum") != 2)
        return store_db_fail(db, STORE_CORRUPT, "the database does not keep its settings");
    for (int i = 0; i < SQL_COUNT; i++)
        if (!store_db_use(db, (enum store_statement)i, 0))
            return sqlite3_errcode(db->sqlite) == SQLITE_ERROR
                       ? store_db_fail(db, STORE_CORRUPT, "the schema is damaged: %s",
                                       sqlite3_errmsg(db->sqlite))
                       : store_db_failed(db, "preparing");
    return STORE_OK;
}

static uint32_t header_field(const unsigned char *header, int at)
{
    return (uint32_t)header[at] << 24 | (uint32_t)header[at + 1] << 16 | (uint32_t)header[at + 2] << 8 |
           header[at + 3];
}

/* What kind of file lies there, before SQLite touches it. */
enum store_result store_db_judge(struct store_db *db, const char *path, bool was_ours, bool *is_new)
{
    unsigned char header[100];
    *is_new = false;
    struct stat about;
    int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* whoever put a FIFO there: nobody waits for it */
    if (fd < 0 && errno == ENOENT) {
        *is_new = true;
        return STORE_OK;
    }
    if (fd < 0)
        return store_db_fail(db, STORE_REFUSED, "%s: %s", path, strerror(errno));
    bool is_file = fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
    ssize_t size = is_file ? read(fd, header, sizeof header) : -1;
    close(fd);
    if (!is_file)
        return store_db_fail(db, STORE_REFUSED, "%s is not a file", path);
    if (size == 0) {
        *is_new = true;
        return STORE_OK;
    }
    /* 4096 bytes a page, write-ahead log, and the constants of the format. */
    static const unsigned char settings[8] = {16, 0, 2, 2, 0, 64, 32, 32}, zeros[20];
    bool is_whole = size == sizeof header && memcmp(header, "SQLite format 3", 16) == 0;
    uint32_t version = is_whole ? header_field(header, 60) : 0;
    uint32_t application = is_whole ? header_field(header, 68) : 0;
    bool is_sound = is_whole && memcmp(header + 16, settings, sizeof settings) == 0 &&
                    header_field(header, 44) == 4 && header_field(header, 56) == 1 &&
                    header_field(header, 64) == 1 && memcmp(header + 72, zeros, sizeof zeros) == 0;
    if (is_sound && application == APPLICATION_ID && version >= 1 && version <= STORE_DB_VERSION)
        return STORE_OK;
    if (is_sound && application == APPLICATION_ID && is_newer(version, header_field(header, 40)))
        return refuse_newer(db, path, version);
    if (was_ours)
        return store_db_fail(db, STORE_CORRUPT, "the header of the database is damaged");
    if (is_whole && application == APPLICATION_ID && version > STORE_DB_VERSION)
        return refuse_newer(db, path, version);
    return store_db_fail(db, STORE_REFUSED, "%s is not a store of proxyd", path);
}
