/* SPDX-License-Identifier: MIT
 *
 * One SQLite database for all chains: write-ahead log, synced at each commit, locked exclusively, a checksum
 * in every row. Owns the connection, the lock, the mark and the reserve. Deletes no damaged file, ever.
 *
 * Depth without a scan: each message carries its number and the bytes put so far, counted from one message
 * to the next. From `frontier` on nothing of a chain was ever deleted, so that two rows tell how many there
 * are; what lies below it is little and is counted. Deleting moves the frontier on in steps. An operator may
 * drop a message far behind it: such a row stays as a tombstone (attempts = -1) until the frontier passes.
 *
 * To change the schema: append a step to `steps`, never edit one; each database goes through those it lacks
 * in one transaction when it is opened, and user_version counts them. Keep a database of the version before
 * beside tests/unit/test_store.c, which opens all of them.
 */
#include "buffer/store_file.h"

#include "buffer/crc32c.h"
#include "buffer/store_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x70787964, /* "pxyd" */
    PAGE_BYTES = 4096,
    RESERVE_BYTES = 4 << 20,
    RESERVE_MARGIN_BYTES = 16 << 20,
    CHECKPOINT_PAGES = 1000,
    SEQUENCE_BLOCK = 4096, /* ids are reserved so many at a time */
    FRONTIER_STEP = 1024,
    ATTEMPTS_FACTOR = 65537, /* no single flipped bit makes a multiple of it another one */
    CHAIN_MAX = 1 << 14,
    PATH_BYTES = 4096,
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
};
enum { VERSION = sizeof steps / sizeof *steps };

/* The columns that message, dead and reply have in common, in this order. */
#define COLUMNS "id,number,bytes,total,taken,attempts,owner,secret,crc,body"

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    CHAIN_FIND,
    CHAIN_DELETE,
    CHAIN_ADD,
    CHAIN_SAVE,
    COUNT_BELOW,
    COUNT_ALL,
    FIRST_FROM,
    LAST_BEFORE,
    FIRST_ATTEMPTS,
    PUT,
    DELETE,
    STONE,
    STONES_CLEAR,
    ATTEMPTS,
    OWNER,
    BURY,
    UNBURY,
    DEAD_DELETE,
    REPLY,
    REPLY_FIRST,
    REPLY_DELETE,
    EXPIRED_ADD,
    EXPIRED_FIRST,
    EXPIRED_DELETE,
    ASIDE,
    READ_MESSAGES,
    READ_DEAD,
    FIND_MESSAGE,
    FIND_DEAD,
    FIND_REPLY,
    FIND_EXPIRED,
    VACUUM,
    STATEMENT_COUNT
};

static const char *const texts[STATEMENT_COUNT] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [CHAIN_FIND] =
        "SELECT id,reserved,frontier,stones,stone_bytes,dead,dead_bytes,replies,reply_bytes,expired,"
        "crc FROM chain WHERE name=?",
    [CHAIN_DELETE] = "DELETE FROM chain WHERE id=?",
    [CHAIN_ADD] =
        "INSERT INTO chain VALUES(coalesce(?2,(SELECT 1+max(coalesce((SELECT max(id) FROM chain),0),"
        "coalesce((SELECT max(id)>>48 FROM message),0),coalesce((SELECT max(id)>>48 FROM dead),0),"
        "coalesce((SELECT max(id)>>48 FROM reply),0)))),?1,1,0,0,0,0,0,0,0,0,0) RETURNING id",
    [CHAIN_SAVE] = "UPDATE chain SET reserved=?2,frontier=?3,stones=?4,stone_bytes=?5,dead=?6,dead_bytes=?7,"
                   "replies=?8,reply_bytes=?9,expired=?10,crc=?11 WHERE id=?1",
    [COUNT_BELOW] =
        "SELECT count(*),coalesce(sum(bytes),0) FROM message WHERE id>=? AND id<? AND attempts>=0",
    [COUNT_ALL] = "SELECT (SELECT count(*) FROM dead WHERE id>=?1 AND id<?2),"
                  "(SELECT coalesce(sum(bytes),0) FROM dead WHERE id>=?1 AND id<?2),"
                  "(SELECT count(*) FROM reply WHERE id>=?1 AND id<?2),"
                  "(SELECT coalesce(sum(bytes),0) FROM reply WHERE id>=?1 AND id<?2),"
                  "(SELECT count(*) FROM expired WHERE id>=?1 AND id<?2),"
                  "max(coalesce((SELECT max(id) FROM message WHERE id<?2),0),"
                  "coalesce((SELECT max(id) FROM dead WHERE id<?2),0),"
                  "coalesce((SELECT max(id) FROM reply WHERE id<?2),0))",
    [FIRST_FROM] = "SELECT " COLUMNS " FROM message WHERE id>=? AND id<? ORDER BY id LIMIT 1",
    [LAST_BEFORE] = "SELECT " COLUMNS " FROM message WHERE id>=? AND id<? ORDER BY id DESC LIMIT 1",
    [FIRST_ATTEMPTS] = "UPDATE message SET attempts=attempts+?3 WHERE id IN"
                       "(SELECT id FROM message WHERE id>=?1 AND id<?2 AND attempts>=0 ORDER BY id LIMIT ?4)",
    [PUT] = "INSERT INTO message(" COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?)",
    [DELETE] = "DELETE FROM message WHERE id=? AND attempts>=0 RETURNING bytes",
    [STONE] = "UPDATE message SET attempts=-1,body=x'' WHERE id=? AND attempts>=0 RETURNING bytes",
    [STONES_CLEAR] = "DELETE FROM message WHERE id>=? AND id<? AND attempts<0 RETURNING bytes",
    [ATTEMPTS] = "UPDATE message SET attempts=?2 WHERE id=?1 AND attempts>=0",
    [OWNER] = "SELECT owner,secret FROM message WHERE id=? AND attempts>=0",
    [BURY] = "INSERT OR REPLACE INTO dead SELECT " COLUMNS ",?2 FROM message WHERE id=?1 AND attempts>=0",
    [UNBURY] = "INSERT OR REPLACE INTO message SELECT " COLUMNS " FROM dead WHERE id=? RETURNING bytes",
    [DEAD_DELETE] = "DELETE FROM dead WHERE id=? RETURNING bytes",
    [REPLY] = "INSERT OR REPLACE INTO reply(" COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?)",
    [REPLY_FIRST] = "SELECT id,taken,bytes,owner,secret FROM reply WHERE id>=? AND id<? ORDER BY id LIMIT 1",
    [REPLY_DELETE] = "DELETE FROM reply WHERE id=?",
    [EXPIRED_ADD] = "INSERT OR REPLACE INTO expired VALUES(?,?,?,?)",
    [EXPIRED_FIRST] = "SELECT id,taken FROM expired WHERE id>=? AND id<? ORDER BY id LIMIT 1",
    [EXPIRED_DELETE] = "DELETE FROM expired WHERE id=?",
    [ASIDE] = "INSERT OR REPLACE INTO damaged SELECT " COLUMNS " FROM message WHERE id=?",
    [READ_MESSAGES] = "SELECT " COLUMNS " FROM message WHERE id>=? AND id<? ORDER BY id",
    [READ_DEAD] = "SELECT " COLUMNS ",reason FROM dead WHERE id>=? AND id<? ORDER BY id",
    [FIND_MESSAGE] = "SELECT " COLUMNS " FROM message WHERE id=? AND attempts>=0",
    [FIND_DEAD] = "SELECT " COLUMNS ",reason FROM dead WHERE id=?",
    [FIND_REPLY] = "SELECT " COLUMNS " FROM reply WHERE id=?",
    [FIND_EXPIRED] = "SELECT owner,secret FROM expired WHERE id=?",
    [VACUUM] = "PRAGMA incremental_vacuum(256)",
};

struct chain {
    struct store_chain known;
    char name[72];
    uint64_t reserved; /* ids below it may have been used */
    uint64_t frontier;
    uint64_t stones, stone_bytes;
    uint64_t next_number, total; /* for the next message */
    bool is_changed;             /* since it was saved */
    bool is_marked;              /* the mark is as the chain is */
    bool is_sending;
};

struct store_file {
    struct store_conf conf;
    int lock_fd, mark_fd, log_fd;
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    bool is_synced;               /* the pragma in force */
    struct chain *chains, *saved; /* now, and as of the last commit; by number - 1, name "" where unknown */
    size_t chain_count;
    bool has_reserve;
    bool is_log_cut; /* when opened, it ended before where the mark says */
    bool is_damaged; /* found out since it was opened */
    uint32_t log_frames;
    struct mark_head mark;
    struct mark_head mark_found; /* when opened; commit 0: none that can be relied on */
    int64_t clock_offset;        /* store's clock - boot clock */
    int64_t clock_last;
    char error[256];
};

static enum store_result fail(struct store_file *file, enum store_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum store_result fail(struct store_file *file, enum store_result result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(file->error, sizeof file->error, format, arguments);
    va_end(arguments);
    return result;
}

static enum store_result failed(struct store_file *file, const char *doing)
{
    int code = file->db ? sqlite3_extended_errcode(file->db) : SQLITE_CANTOPEN;
    enum store_result result = STORE_BROKEN;
    if ((code & 0xff) == SQLITE_FULL)
        result = STORE_FULL;
    else if ((code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB)
        result = STORE_CORRUPT;
    file->is_damaged |= result == STORE_CORRUPT;
    return fail(file, result, "%s: %s", doing, file->db ? sqlite3_errmsg(file->db) : "cannot open");
}

static void tell(struct store_file *file, enum store_event_kind kind, const char *text, uint64_t count)
{
    if (file->conf.event)
        file->conf.event(file->conf.context, kind, text, count);
}

const char *store_file_error(const struct store_file *file)
{
    return file->error;
}

static void path_of(const struct store_file *file, const char *name, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", file->conf.directory, name);
}

/* ---- the clock ---- */

static char boot_id[sizeof((struct store_clock *)0)->boot_id];

static void read_boot_id(void)
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, boot_id, sizeof boot_id - 1) < 0)
        boot_id[0] = 0;
    close(fd);
}

static void read_machine_clock(struct store_clock *clock)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    clock->boot_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    clock_gettime(CLOCK_REALTIME, &now);
    clock->wall_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_boot_id);
    memcpy(clock->boot_id, boot_id, sizeof clock->boot_id);
}

int64_t store_file_now(struct store_file *file)
{
    struct store_clock clock;
    file->conf.read_clock(&clock);
    int64_t store_ms = clock.boot_ms + file->clock_offset;
    if (store_ms > file->clock_last)
        file->clock_last = store_ms;
    return file->clock_last;
}

static void let_clock_reach(struct store_file *file, int64_t store_ms)
{
    int64_t behind = store_ms - store_file_now(file);
    if (behind > 0)
        file->clock_offset += behind;
}

/* Goes on from the mark. Across a boot only the wall clock can tell how long that was, and a machine without
 * a clock of its own tells anything: what is not plausible counts as no time at all, so that messages live
 * longer rather than shorter. */
static void start_clock(struct store_file *file, const struct mark_head *mark)
{
    static const int64_t plausible_ms = INT64_C(366) * 24 * 3600 * 1000;
    static const int64_t year_2020_ms = INT64_C(1577836800) * 1000;
    struct store_clock clock;
    file->conf.read_clock(&clock);
    int64_t start = 1;
    if (mark) {
        bool is_same_boot = clock.boot_id[0] && strcmp(mark->boot_id, clock.boot_id) == 0;
        int64_t away = is_same_boot ? clock.boot_ms - mark->boot_ms : clock.wall_ms - mark->wall_ms;
        if (away < 0 || (!is_same_boot && (away > plausible_ms || mark->wall_ms < year_2020_ms)))
            away = 0;
        start = mark->store_ms + away;
    }
    file->clock_offset = start - clock.boot_ms;
    file->clock_last = start;
}

/* ---- statements ---- */

/* The statement, reset and with its first parameters bound to integers. NULL after an error. */
static sqlite3_stmt *use(struct store_file *file, enum statement which, int count, ...)
{
    sqlite3_stmt **statement = &file->statements[which];
    if (!*statement && sqlite3_prepare_v3(file->db, texts[which], -1, SQLITE_PREPARE_PERSISTENT, statement,
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

#define INT(value) ((sqlite3_int64)(value))

/* Steps a statement that returns at most one row: 1 for a row (still to be read, then reset), 0 for none,
 * -1 for an error. */
static int step(sqlite3_stmt *statement)
{
    int code = statement ? sqlite3_step(statement) : SQLITE_ERROR;
    if (code == SQLITE_ROW)
        return 1;
    if (statement)
        sqlite3_reset(statement);
    return code == SQLITE_DONE ? 0 : -1;
}

static enum store_result run(struct store_file *file, sqlite3_stmt *statement, const char *doing)
{
    int stepped = step(statement);
    while (stepped > 0)
        stepped = step(statement);
    return stepped == 0 ? STORE_OK : failed(file, doing);
}

/* Runs a statement that returns the number of bytes of the row it touched, if there is one. */
static enum store_result run_returning(struct store_file *file, sqlite3_stmt *statement, const char *doing,
                                       bool *was_there, uint64_t *bytes)
{
    int stepped = step(statement);
    *was_there = stepped > 0;
    if (stepped > 0) {
        *bytes = (uint64_t)sqlite3_column_int64(statement, 0);
        stepped = step(statement);
    }
    return stepped == 0 ? STORE_OK : failed(file, doing);
}

static uint64_t column(sqlite3_stmt *statement, int index)
{
    return (uint64_t)sqlite3_column_int64(statement, index);
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
static sqlite3_stmt *bind_row(struct store_file *file, enum statement which, const struct store_row *row,
                              uint64_t number, uint64_t total)
{
    sqlite3_stmt *statement = use(file, which, 7, INT(row->id), INT(number), INT(row->bytes), INT(total),
                                  INT(row->taken), INT(row->attempts) * ATTEMPTS_FACTOR, INT(row->owner));
    if (!statement)
        return NULL;
    sqlite3_bind_blob(statement, 8, row->secret, sizeof row->secret, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 9, row_crc(row, number, total));
    sqlite3_bind_blob(statement, 10, row->flat_bytes ? row->flat : "", (int)row->flat_bytes, SQLITE_STATIC);
    return statement;
}

struct place {
    uint64_t number, total;
};

/* Reads COLUMNS (and a reason). False when the row is damaged. */
static bool read_row(sqlite3_stmt *statement, struct store_row *row, struct place *place, bool has_reason)
{
    sqlite3_int64 attempts = sqlite3_column_int64(statement, 5);
    *row = (struct store_row){
        .id = column(statement, 0),
        .bytes = (size_t)column(statement, 2),
        .taken = sqlite3_column_int64(statement, 4),
        .attempts = (uint32_t)(attempts / ATTEMPTS_FACTOR),
        .owner = column(statement, 6),
    };
    place->number = column(statement, 1);
    place->total = column(statement, 3);
    const void *secret = sqlite3_column_blob(statement, 7);
    if (sqlite3_column_bytes(statement, 7) != STORE_SECRET_BYTES || !secret || attempts < 0 ||
        attempts % ATTEMPTS_FACTOR != 0 || attempts / ATTEMPTS_FACTOR > UINT32_MAX)
        return false;
    memcpy(row->secret, secret, STORE_SECRET_BYTES);
    row->flat = sqlite3_column_blob(statement, 9);
    row->flat_bytes = (size_t)sqlite3_column_bytes(statement, 9);
    if (has_reason && sqlite3_column_text(statement, 10))
        snprintf(row->reason, sizeof row->reason, "%s", (const char *)sqlite3_column_text(statement, 10));
    return column(statement, 8) == row_crc(row, place->number, place->total);
}

/* ---- chains ---- */

static uint64_t base_of(uint32_t number)
{
    return (uint64_t)number << STORE_SEQUENCE_BITS;
}

static struct chain *chain_of(struct store_file *file, uint64_t id)
{
    uint64_t number = id >> STORE_SEQUENCE_BITS;
    return number > 0 && number <= file->chain_count ? &file->chains[number - 1] : NULL;
}

static uint32_t chain_crc(const struct chain *chain)
{
    const struct store_chain *known = &chain->known;
    uint64_t fixed[] = {known->number,      chain->reserved,     chain->frontier,   chain->stones,
                        chain->stone_bytes, known->dead,         known->dead_bytes, known->replies,
                        known->reply_bytes, chain->known.expired};
    return crc32c(crc32c(0, fixed, sizeof fixed), chain->name, strlen(chain->name));
}

static enum store_result save_chain(struct store_file *file, struct chain *chain)
{
    const struct store_chain *known = &chain->known;
    sqlite3_stmt *save =
        use(file, CHAIN_SAVE, 11, INT(known->number), INT(chain->reserved), INT(chain->frontier),
            INT(chain->stones), INT(chain->stone_bytes), INT(known->dead), INT(known->dead_bytes),
            INT(known->replies), INT(known->reply_bytes), INT(chain->known.expired), INT(chain_crc(chain)));
    chain->is_changed = false;
    return run(file, save, "saving a chain");
}

const struct store_chain *store_file_chain(const struct store_file *file, uint32_t number)
{
    return &file->chains[number - 1].known;
}

void store_file_set_sending(struct store_file *file, uint32_t number)
{
    struct chain *chain = &file->chains[number - 1];
    chain->is_sending = file->saved[number - 1].is_sending = true;
    chain->is_marked = file->saved[number - 1].is_marked = false;
}

static bool grow_chains(struct store_file *file, uint32_t number)
{
    if (number <= file->chain_count)
        return true;
    if (number > CHAIN_MAX)
        return false;
    struct chain *chains = realloc(file->chains, number * sizeof *chains);
    if (chains)
        file->chains = chains;
    struct chain *saved = realloc(file->saved, number * sizeof *saved);
    if (saved)
        file->saved = saved;
    if (!chains || !saved)
        return false;
    memset(chains + file->chain_count, 0, (number - file->chain_count) * sizeof *chains);
    memset(saved + file->chain_count, 0, (number - file->chain_count) * sizeof *saved);
    file->chain_count = number;
    return true;
}

/* One row of messages at either end of a range: 1 there and sound, 0 none, -1 error, -2 damaged. */
static int read_end(struct store_file *file, enum statement which, uint64_t from, uint64_t to,
                    struct store_row *row, struct place *place)
{
    sqlite3_stmt *statement = use(file, which, 2, INT(from), INT(to));
    int stepped = step(statement);
    if (stepped <= 0)
        return stepped;
    bool is_stone = sqlite3_column_int64(statement, 5) < 0;
    bool is_sound = read_row(statement, row, place, false);
    sqlite3_reset(statement);
    return is_sound || is_stone ? 1 : -2;
}

/* Deletes the tombstones of a range: the frontier is about to pass it. */
static enum store_result clear_stones(struct store_file *file, struct chain *chain, uint64_t from,
                                      uint64_t to)
{
    sqlite3_stmt *clear = use(file, STONES_CLEAR, 2, INT(from), INT(to));
    int stepped;
    while ((stepped = step(clear)) > 0) {
        uint64_t bytes = column(clear, 0);
        chain->stones -= chain->stones > 0;
        chain->stone_bytes -= bytes < chain->stone_bytes ? bytes : chain->stone_bytes;
    }
    chain->is_changed = true;
    return stepped == 0 ? STORE_OK : failed(file, "clearing tombstones");
}

/* Counts by looking at every row: when the counters themselves are damaged. */
static enum store_result count_slowly(struct store_file *file, struct chain *chain)
{
    uint64_t from = base_of(chain->known.number), to = base_of(chain->known.number + 1);
    sqlite3_stmt *count = use(file, COUNT_ALL, 2, INT(from), INT(to));
    if (step(count) <= 0)
        return failed(file, "counting");
    chain->known.dead = column(count, 0);
    chain->known.dead_bytes = column(count, 1);
    chain->known.replies = column(count, 2);
    chain->known.reply_bytes = column(count, 3);
    chain->known.expired = column(count, 4);
    uint64_t last = column(count, 5);
    sqlite3_reset(count);
    chain->reserved = (last > from ? last : from) + 2 * SEQUENCE_BLOCK;
    chain->frontier = chain->reserved;
    chain->is_changed = true;
    return clear_stones(file, chain, from, to);
}

static enum store_result count_messages(struct store_file *file, struct chain *chain)
{
    struct store_chain *known = &chain->known;
    uint64_t from = base_of(known->number), to = base_of(known->number + 1);
    struct store_row first, last;
    struct place first_place = {0}, last_place = {0};
    int has_first = read_end(file, FIRST_FROM, chain->frontier, to, &first, &first_place);
    int has_last = read_end(file, LAST_BEFORE, from, to, &last, &last_place);
    if (has_first == -1 || has_last == -1)
        return failed(file, "counting");
    uint64_t tail = has_first == 1 ? last_place.number - first_place.number + 1 - chain->stones : 0;
    if (has_first == -2 || has_last == -2 || (has_first == 1 && tail > last.id - first.id + 1)) {
        /* The ends do not tell: count every row this time, and again from here on by the ends. */
        enum store_result result = count_slowly(file, chain);
        if (result != STORE_OK)
            return result;
        has_first = 0;
    }
    sqlite3_stmt *below = use(file, COUNT_BELOW, 2, INT(from), INT(chain->frontier));
    if (step(below) <= 0)
        return failed(file, "counting");
    known->live = column(below, 0);
    known->live_bytes = column(below, 1);
    sqlite3_reset(below);
    if (has_first == 1) {
        known->live += tail;
        known->live_bytes += last_place.total - first_place.total + first.bytes - chain->stone_bytes;
    }
    if (has_last == 1) {
        chain->next_number = last_place.number + 1;
        chain->total = last_place.total;
    }
    uint64_t next = has_last ? last.id + 1 : from + 1;
    if (chain->reserved < from + 1)
        chain->reserved = from + 1;
    known->next_sequence = (next > chain->reserved ? next : chain->reserved) - from;
    if (has_last == 1)
        let_clock_reach(file, last.taken);
    struct store_row oldest = {0};
    if (read_end(file, FIRST_FROM, from, to, &oldest, &first_place) == -1)
        return failed(file, "counting");
    known->oldest_taken = oldest.taken;
    return STORE_OK;
}

/* What the chain held at the last commit of the run before, when the mark can say so exactly. */
static bool marked_chain(struct store_file *file, uint32_t number, struct mark_chain *marked)
{
    return file->mark_found.commit > 0 && mark_read_chain(file->mark_fd, number, marked) &&
           marked->commit <= file->mark_found.commit;
}

/* The row of a chain: 1 found, 0 not there, -1 error. *is_sound: its checksum is right. */
static int find_chain(struct store_file *file, struct chain *chain, bool *is_sound)
{
    sqlite3_stmt *find = use(file, CHAIN_FIND, 0);
    if (find)
        sqlite3_bind_text(find, 1, chain->name, -1, SQLITE_STATIC);
    int found = step(find);
    if (found <= 0)
        return found;
    struct store_chain *known = &chain->known;
    known->number = (uint32_t)column(find, 0);
    chain->reserved = column(find, 1);
    chain->frontier = column(find, 2);
    chain->stones = column(find, 3);
    chain->stone_bytes = column(find, 4);
    known->dead = column(find, 5);
    known->dead_bytes = column(find, 6);
    known->replies = column(find, 7);
    known->reply_bytes = column(find, 8);
    known->expired = column(find, 9);
    *is_sound = column(find, 10) == chain_crc(chain);
    sqlite3_reset(find);
    return 1;
}

/* Adds the row of a chain. When the mark knows the chain under a number, its row lost its name to damage. */
static enum store_result add_chain(struct store_file *file, struct chain *chain, bool *is_sound)
{
    struct mark_chain marked;
    uint32_t number = 0;
    for (uint32_t i = 1; i <= CHAIN_MAX && mark_read_chain(file->mark_fd, i, &marked) && number == 0; i++)
        if (strcmp(marked.name, chain->name) == 0)
            number = i;
    if (number > 0 && run(file, use(file, CHAIN_DELETE, 1, INT(number)), "mending a chain") != STORE_OK)
        return failed(file, "mending a chain");
    sqlite3_stmt *add = use(file, CHAIN_ADD, 0);
    if (!add)
        return failed(file, "adding a chain");
    sqlite3_bind_text(add, 1, chain->name, -1, SQLITE_STATIC);
    if (number > 0)
        sqlite3_bind_int64(add, 2, number);
    else
        sqlite3_bind_null(add, 2);
    if (step(add) <= 0)
        return failed(file, "adding a chain");
    chain->known.number = (uint32_t)column(add, 0);
    chain->reserved = chain->frontier = base_of(chain->known.number) + 1;
    chain->is_changed = true;
    *is_sound = number == 0;
    return run(file, add, "adding a chain");
}

/* Finds or adds a chain and counts it. */
static enum store_result read_chain(struct store_file *file, struct chain *chain)
{
    bool is_sound = true;
    enum store_result result = STORE_OK;
    int found = find_chain(file, chain, &is_sound);
    if (found < 0)
        return failed(file, "finding a chain");
    if (found == 0)
        result = add_chain(file, chain, &is_sound);
    if (result == STORE_OK && !grow_chains(file, chain->known.number))
        result = fail(file, STORE_BROKEN, "too many chains in the store");
    if (result == STORE_OK && !is_sound)
        result = count_slowly(file, chain);
    return result == STORE_OK ? count_messages(file, chain) : result;
}

enum store_result store_file_open_chain(struct store_file *file, const char *name, uint32_t window,
                                        uint32_t *number)
{
    for (size_t i = 0; i < file->chain_count; i++)
        if (strcmp(file->chains[i].name, name) == 0) {
            *number = (uint32_t)i + 1;
            return STORE_OK;
        }
    struct chain chain = {0};
    snprintf(chain.name, sizeof chain.name, "%s", name);
    enum store_result result = read_chain(file, &chain);
    if (result != STORE_OK)
        return result;
    *number = chain.known.number;
    struct mark_chain marked;
    if (marked_chain(file, *number, &marked)) {
        uint64_t unseen = marked.next_number - chain.next_number;
        if (file->is_log_cut) /* deletes are gone too: what lives tells nothing */
            chain.known.lost = unseen < marked.live ? unseen : marked.live;
        else if (marked.live > chain.known.live)
            chain.known.lost = marked.live - chain.known.live;
        if (!file->mark_found.is_clean && marked.is_sending)
            result = run(file,
                         use(file, FIRST_ATTEMPTS, 4, INT(base_of(*number)), INT(base_of(*number + 1)),
                             INT(ATTEMPTS_FACTOR), INT(window)),
                         "counting attempts");
    }
    if (chain.known.lost > 0)
        tell(file, STORE_EVENT_DAMAGED, name, chain.known.lost);
    file->chains[*number - 1] = chain;
    return result;
}

/* ---- transactions ---- */

static enum store_result execute(struct store_file *file, const char *text)
{
    return sqlite3_exec(file->db, text, NULL, NULL, NULL) == SQLITE_OK ? STORE_OK : failed(file, text);
}

enum store_result store_file_begin(struct store_file *file, bool is_synced)
{
    if (is_synced != file->is_synced) { /* SQLite carries this pragma out when it is compiled */
        enum store_result result =
            execute(file, is_synced ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
        if (result != STORE_OK)
            return result;
        file->is_synced = is_synced;
    }
    return run(file, use(file, BEGIN, 0), "beginning");
}

static void write_mark(struct store_file *file)
{
    file->mark.commit++;
    for (size_t i = 0; i < file->chain_count; i++) {
        struct chain *chain = &file->chains[i];
        if (chain->is_marked || !chain->name[0])
            continue;
        struct mark_chain record = {
            .number = chain->known.number,
            .commit = file->mark.commit,
            .live = chain->known.live,
            .dead = chain->known.dead,
            .next_number = chain->next_number,
            .is_sending = chain->is_sending,
        };
        memcpy(record.name, chain->name, sizeof record.name);
        mark_write_chain(file->mark_fd, &record);
        chain->is_marked = file->saved[i].is_marked = true;
    }
    struct store_clock clock;
    file->conf.read_clock(&clock);
    file->mark.store_ms = store_file_now(file);
    file->mark.boot_ms = clock.boot_ms;
    file->mark.wall_ms = clock.wall_ms;
    memcpy(file->mark.boot_id, clock.boot_id, sizeof clock.boot_id);
    file->mark.is_clean = false;
    file->mark.version = VERSION;
    mark_write_head(file->mark_fd, &file->mark);
}

/* Where the log stands after a commit: SQLite tells how long it is, its header which one it is. */
static int after_commit(void *context, sqlite3 *db, const char *schema, int frames)
{
    (void)db;
    (void)schema;
    struct store_file *file = context;
    file->log_frames = (uint32_t)frames;
    return SQLITE_OK;
}

static void note_log(struct store_file *file)
{
    unsigned char salts[8];
    if (pread(file->log_fd, salts, sizeof salts, 16) != sizeof salts)
        return;
    for (int i = 0; i < 2; i++)
        file->mark.salt[i] = (uint32_t)salts[4 * i] << 24 | (uint32_t)salts[4 * i + 1] << 16 |
                             (uint32_t)salts[4 * i + 2] << 8 | salts[4 * i + 3];
    file->mark.frames = file->log_frames;
    if (file->is_synced)
        file->mark.synced = file->log_frames;
}

enum store_result store_file_commit(struct store_file *file)
{
    enum store_result result = STORE_OK;
    for (size_t i = 0; i < file->chain_count && result == STORE_OK; i++)
        if (file->chains[i].is_changed)
            result = save_chain(file, &file->chains[i]);
    if (result == STORE_OK)
        result = run(file, use(file, COMMIT, 0), "committing");
    if (result != STORE_OK)
        return result;
    memcpy(file->saved, file->chains, file->chain_count * sizeof *file->chains);
    note_log(file);
    write_mark(file);
    return STORE_OK;
}

enum store_result store_file_sync(struct store_file *file)
{
    if (fdatasync(file->log_fd) != 0)
        return fail(file, STORE_BROKEN, "syncing the log: %s", strerror(errno));
    file->mark.synced = file->mark.frames;
    return STORE_OK;
}

void store_file_rollback(struct store_file *file)
{
    if (file->db && !sqlite3_get_autocommit(file->db))
        run(file, use(file, ROLLBACK, 0), "rolling back");
    memcpy(file->chains, file->saved, file->chain_count * sizeof *file->chains);
}

/* ---- messages ---- */

static void changed(struct chain *chain)
{
    chain->is_marked = false;
}

enum store_result store_file_put(struct store_file *file, const struct store_row *row)
{
    struct chain *chain = chain_of(file, row->id);
    uint64_t number = chain->next_number, total = chain->total + row->bytes;
    enum store_result result = run(file, bind_row(file, PUT, row, number, total), "storing a message");
    if (result != STORE_OK)
        return result;
    if (row->id >= chain->reserved) {
        chain->reserved = row->id + SEQUENCE_BLOCK;
        chain->is_changed = true;
    }
    chain->known.next_sequence = row->id - base_of(chain->known.number) + 1;
    chain->next_number++;
    chain->total = total;
    chain->known.live++;
    chain->known.live_bytes += row->bytes;
    changed(chain);
    return STORE_OK;
}

static void count_out(struct chain *chain, uint64_t bytes)
{
    chain->known.live -= chain->known.live > 0;
    chain->known.live_bytes -= bytes < chain->known.live_bytes ? bytes : chain->known.live_bytes;
    changed(chain);
}

enum store_result store_file_delete(struct store_file *file, uint64_t id, bool is_far, bool *was_there)
{
    struct chain *chain = chain_of(file, id);
    enum store_result result = STORE_OK;
    uint64_t bytes = 0;
    bool is_stone = is_far && id >= chain->frontier;
    if (!is_stone && id >= chain->frontier) {
        uint64_t frontier = id + 1 + FRONTIER_STEP;
        if (chain->stones > 0)
            result = clear_stones(file, chain, chain->frontier, frontier);
        chain->frontier = frontier;
        chain->is_changed = true;
    }
    if (result == STORE_OK)
        result = run_returning(file, use(file, is_stone ? STONE : DELETE, 1, INT(id)), "deleting a message",
                               was_there, &bytes);
    if (result != STORE_OK || !*was_there)
        return result;
    count_out(chain, bytes);
    if (is_stone) {
        chain->stones++;
        chain->stone_bytes += bytes;
        chain->is_changed = true;
    }
    return STORE_OK;
}

enum store_result store_file_set_attempts(struct store_file *file, uint64_t id, uint32_t attempts)
{
    return run(file, use(file, ATTEMPTS, 2, INT(id), INT(attempts) * ATTEMPTS_FACTOR), "storing attempts");
}

enum store_result store_file_set_aside(struct store_file *file, uint64_t id)
{
    bool was_there;
    enum store_result result = run(file, use(file, ASIDE, 1, INT(id)), "setting a damaged message aside");
    return result == STORE_OK ? store_file_delete(file, id, true, &was_there) : result;
}

/* ---- dead letters ---- */

enum store_result store_file_bury(struct store_file *file, uint64_t id, uint32_t attempts, const char *reason)
{
    struct chain *chain = chain_of(file, id);
    bool was_there;
    uint64_t bytes = chain->known.live_bytes;
    enum store_result result = store_file_set_attempts(file, id, attempts);
    sqlite3_stmt *bury = result == STORE_OK ? use(file, BURY, 1, INT(id)) : NULL;
    if (!bury)
        return failed(file, "burying a message");
    sqlite3_bind_text(bury, 2, reason, -1, SQLITE_STATIC);
    result = run(file, bury, "burying a message");
    if (result == STORE_OK)
        result = store_file_delete(file, id, false, &was_there);
    if (result != STORE_OK || !was_there)
        return result;
    chain->known.dead++;
    chain->known.dead_bytes += bytes - chain->known.live_bytes;
    chain->is_changed = true;
    return STORE_OK;
}

enum store_result store_file_delete_dead(struct store_file *file, uint64_t id, bool *was_there)
{
    struct chain *chain = chain_of(file, id);
    uint64_t bytes = 0;
    enum store_result result =
        run_returning(file, use(file, DEAD_DELETE, 1, INT(id)), "deleting a dead letter", was_there, &bytes);
    if (result != STORE_OK || !*was_there)
        return result;
    chain->known.dead -= chain->known.dead > 0;
    chain->known.dead_bytes -= bytes < chain->known.dead_bytes ? bytes : chain->known.dead_bytes;
    chain->is_changed = true;
    changed(chain);
    return STORE_OK;
}

enum store_result store_file_unbury(struct store_file *file, uint64_t id, bool *was_there)
{
    struct chain *chain = chain_of(file, id);
    uint64_t bytes = 0;
    enum store_result result =
        run_returning(file, use(file, UNBURY, 1, INT(id)), "bringing a dead letter back", was_there, &bytes);
    if (result != STORE_OK || !*was_there)
        return result;
    chain->known.live++;
    chain->known.live_bytes += bytes;
    result = store_file_set_attempts(file, id, 0);
    return result == STORE_OK ? store_file_delete_dead(file, id, was_there) : result;
}

/* ---- replies ---- */

enum store_result store_file_reply(struct store_file *file, uint64_t id, const void *flat, size_t flat_bytes,
                                   size_t bytes)
{
    struct chain *chain = chain_of(file, id);
    sqlite3_stmt *owner = use(file, OWNER, 1, INT(id));
    int stepped = step(owner);
    if (stepped < 0)
        return failed(file, "finding a message");
    bool was_there = false;
    if (stepped > 0) {
        struct store_row row = {.id = id, .bytes = bytes, .taken = store_file_now(file)};
        row.owner = column(owner, 0);
        if (sqlite3_column_bytes(owner, 1) == STORE_SECRET_BYTES)
            memcpy(row.secret, sqlite3_column_blob(owner, 1), STORE_SECRET_BYTES);
        sqlite3_reset(owner);
        row.flat = flat;
        row.flat_bytes = flat_bytes;
        enum store_result result = run(file, bind_row(file, REPLY, &row, 0, 0), "storing a reply");
        if (result != STORE_OK)
            return result;
        chain->known.replies++;
        chain->known.reply_bytes += bytes;
        chain->is_changed = true;
    }
    return store_file_delete(file, id, false, &was_there);
}

enum store_result store_file_expire_replies(struct store_file *file, uint32_t number, int64_t before,
                                            uint32_t max)
{
    struct chain *chain = &file->chains[number - 1];
    enum store_result result = STORE_OK;
    for (uint32_t i = 0; i < max && chain->known.replies > 0 && result == STORE_OK; i++) {
        sqlite3_stmt *first = use(file, REPLY_FIRST, 2, INT(base_of(number)), INT(base_of(number + 1)));
        int stepped = step(first);
        if (stepped < 0)
            return failed(file, "finding old replies");
        if (stepped == 0) { /* the counters were wrong: they belong to a damaged database */
            chain->known.replies = chain->known.reply_bytes = 0;
            chain->is_changed = true;
            break;
        }
        uint64_t id = column(first, 0), bytes = column(first, 2);
        int64_t taken = sqlite3_column_int64(first, 1);
        if (taken >= before) {
            sqlite3_reset(first);
            break;
        }
        sqlite3_stmt *expire = use(file, EXPIRED_ADD, 3, INT(id), INT(taken), INT(column(first, 3)));
        if (expire)
            sqlite3_bind_value(expire, 4, sqlite3_column_value(first, 4));
        sqlite3_reset(first);
        result = run(file, expire, "expiring a reply");
        if (result == STORE_OK)
            result = run(file, use(file, REPLY_DELETE, 1, INT(id)), "expiring a reply");
        chain->known.replies--;
        chain->known.reply_bytes -= bytes < chain->known.reply_bytes ? bytes : chain->known.reply_bytes;
        chain->known.expired++;
        chain->is_changed = true;
    }
    return result;
}

enum store_result store_file_forget_replies(struct store_file *file, uint32_t number, int64_t before,
                                            uint64_t keep, uint32_t max)
{
    struct chain *chain = &file->chains[number - 1];
    enum store_result result = STORE_OK;
    for (uint32_t i = 0; i < max && chain->known.expired > 0 && result == STORE_OK; i++) {
        sqlite3_stmt *first = use(file, EXPIRED_FIRST, 2, INT(base_of(number)), INT(base_of(number + 1)));
        int stepped = step(first);
        if (stepped < 0)
            return failed(file, "finding old tickets");
        uint64_t id = stepped > 0 ? column(first, 0) : 0;
        bool is_due = stepped > 0 && (sqlite3_column_int64(first, 1) < before || chain->known.expired > keep);
        sqlite3_reset(first);
        if (!is_due) {
            if (stepped == 0)
                chain->known.expired = 0;
            break;
        }
        result = run(file, use(file, EXPIRED_DELETE, 1, INT(id)), "forgetting a ticket");
        chain->known.expired--;
        chain->is_changed = true;
    }
    return result;
}

/* ---- reading ---- */

enum store_result store_file_read(struct store_file *file, enum store_table table, uint64_t id, uint32_t max,
                                  size_t max_bytes, store_row_fn *each, void *context, uint64_t *next)
{
    uint64_t end = ((id >> STORE_SEQUENCE_BITS) + 1) << STORE_SEQUENCE_BITS;
    sqlite3_stmt *read = use(file, table == STORE_DEAD ? READ_DEAD : READ_MESSAGES, 2, INT(id), INT(end));
    size_t bytes = 0;
    *next = 0;
    int stepped;
    for (uint32_t count = 0; (stepped = step(read)) > 0; count++) {
        uint64_t at = column(read, 0);
        if (count >= max || (count > 0 && bytes >= max_bytes)) {
            *next = at;
            break;
        }
        if (sqlite3_column_int64(read, 5) == -1)
            continue;
        struct store_row row;
        struct place place;
        bool is_sound = read_row(read, &row, &place, table == STORE_DEAD);
        bytes += row.flat_bytes;
        each(context, at, is_sound ? &row : NULL);
    }
    if (stepped < 0)
        return failed(file, "reading messages");
    sqlite3_reset(read);
    return STORE_OK;
}

static bool is_same_secret(const void *a, const void *b)
{
    const unsigned char *x = a, *y = b;
    unsigned char difference = 0;
    for (int i = 0; i < STORE_SECRET_BYTES; i++)
        difference |= x[i] ^ y[i];
    return difference == 0;
}

static bool is_owner(uint64_t owner, uint64_t asked)
{
    return owner == asked || asked == STORE_OWNER_ANY;
}

/* Looks one row up: 1 there and the ticket fits, 0 not, -1 error. The statement is left on its row for 1. */
static int find_row(sqlite3_stmt *find, const unsigned char *secret, uint64_t owner, bool has_reason,
                    struct store_row *row)
{
    struct place place;
    int stepped = step(find);
    if (stepped <= 0)
        return stepped;
    if (read_row(find, row, &place, has_reason) && is_same_secret(row->secret, secret) &&
        is_owner(row->owner, owner))
        return 1;
    sqlite3_reset(find);
    return 0;
}

enum store_result store_file_find(struct store_file *file, uint64_t id, const unsigned char *secret,
                                  uint64_t owner, int64_t not_before, enum store_ticket *state,
                                  struct store_row *row)
{
    static const struct {
        enum statement statement;
        enum store_ticket state;
    } places[] = {{FIND_MESSAGE, STORE_TICKET_PENDING},
                  {FIND_DEAD, STORE_TICKET_DEAD},
                  {FIND_REPLY, STORE_TICKET_DONE}};
    *state = STORE_TICKET_UNKNOWN;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        sqlite3_stmt *find = use(file, places[i].statement, 1, INT(id));
        int found = find_row(find, secret, owner, places[i].state == STORE_TICKET_DEAD, row);
        if (found < 0)
            return failed(file, "finding a ticket");
        if (found == 0)
            continue;
        *state = places[i].state;
        if (*state == STORE_TICKET_DONE && row->taken < not_before)
            *state = STORE_TICKET_EXPIRED;
        void *copy = NULL;
        if (*state == STORE_TICKET_DONE) {
            copy = malloc(row->flat_bytes + 1);
            if (copy && row->flat_bytes > 0)
                memcpy(copy, row->flat, row->flat_bytes);
        }
        bool is_short = *state == STORE_TICKET_DONE && !copy;
        row->flat = copy;
        sqlite3_reset(find);
        return is_short ? fail(file, STORE_BROKEN, "out of memory") : STORE_OK;
    }
    sqlite3_stmt *find = use(file, FIND_EXPIRED, 1, INT(id));
    int found = step(find);
    if (found < 0)
        return failed(file, "finding a ticket");
    if (found == 0)
        return STORE_OK;
    if (is_owner(column(find, 0), owner) && sqlite3_column_bytes(find, 1) == STORE_SECRET_BYTES &&
        is_same_secret(sqlite3_column_blob(find, 1), secret))
        *state = STORE_TICKET_EXPIRED;
    sqlite3_reset(find);
    return STORE_OK;
}

/* ---- space ---- */

bool store_file_has_reserve(const struct store_file *file)
{
    return file->has_reserve;
}

bool store_file_give_reserve(struct store_file *file)
{
    char path[PATH_BYTES];
    path_of(file, "store.reserve", path);
    bool had_one = file->has_reserve;
    file->has_reserve = false;
    return unlink(path) == 0 && had_one;
}

/* Written, not only allocated: some file systems promise blocks that they do not have. */
static bool make_reserve(struct store_file *file)
{
    char path[PATH_BYTES];
    path_of(file, "store.reserve", path);
    struct stat about;
    if (stat(path, &about) == 0 && about.st_size == RESERVE_BYTES)
        return true;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    static const char block[64 << 10] = "proxyd gives this file up when the disk is full\n";
    bool is_written = true;
    for (size_t at = 0; at < RESERVE_BYTES && is_written; at += sizeof block)
        is_written = write(fd, block, sizeof block) == (ssize_t)sizeof block;
    is_written = is_written && fdatasync(fd) == 0;
    close(fd);
    if (!is_written)
        unlink(path);
    return is_written;
}

bool store_file_has_space(struct store_file *file)
{
    struct statvfs about;
    if (statvfs(file->conf.directory, &about) != 0)
        return false;
    uint64_t free_bytes = (uint64_t)about.f_bavail * about.f_frsize;
    uint64_t margin = (uint64_t)about.f_blocks * about.f_frsize / 20;
    if (margin > RESERVE_MARGIN_BYTES)
        margin = RESERVE_MARGIN_BYTES;
    if (!file->has_reserve && free_bytes >= margin + RESERVE_BYTES)
        file->has_reserve = make_reserve(file);
    return file->has_reserve && free_bytes >= margin;
}

enum store_result store_file_checkpoint(struct store_file *file)
{
    if (file->log_frames < CHECKPOINT_PAGES)
        return STORE_OK;
    int in_log = 0, moved = 0;
    if (sqlite3_wal_checkpoint_v2(file->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved) != SQLITE_OK)
        return failed(file, "checkpointing");
    if (in_log == moved) {
        file->log_frames = 0; /* the next commit begins at the front of the log */
        file->mark.frames = file->mark.synced = 0;
        write_mark(file);
    }
    return STORE_OK;
}

enum store_result store_file_truncate_log(struct store_file *file)
{
    int in_log = 0, moved = 0;
    if (sqlite3_wal_checkpoint_v2(file->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved) != SQLITE_OK)
        return failed(file, "checkpointing");
    if (in_log != moved)
        return STORE_OK;
    file->mark.frames = file->mark.synced = 0; /* said before the log is gone, so that it is not missed */
    write_mark(file);
    if (sqlite3_wal_checkpoint_v2(file->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, &in_log, &moved) != SQLITE_OK)
        return failed(file, "emptying the log");
    file->log_frames = 0;
    return STORE_OK;
}

static sqlite3_int64 pragma(struct store_file *file, const char *text)
{
    sqlite3_stmt *statement;
    sqlite3_int64 value = -1;
    if (sqlite3_prepare_v2(file->db, text, -1, &statement, NULL) == SQLITE_OK && step(statement) > 0)
        value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

/* Below these sizes there is nothing worth a write. */
enum { TIDY_FREE_PAGES = 256, TIDY_LOG_BYTES = 1 << 20 };

enum store_result store_file_tidy(struct store_file *file, bool *is_done)
{
    *is_done = false;
    sqlite3_int64 free_pages = pragma(file, "PRAGMA freelist_count");
    if (free_pages >= TIDY_FREE_PAGES && free_pages * 5 > pragma(file, "PRAGMA page_count"))
        return run(file, use(file, VACUUM, 0), "giving pages back");
    *is_done = true;
    bool is_empty = true;
    for (size_t i = 0; i < file->chain_count; i++)
        is_empty = is_empty && file->chains[i].known.live == 0;
    struct stat log;
    if (!is_empty || fstat(file->log_fd, &log) != 0 || log.st_size < TIDY_LOG_BYTES)
        return STORE_OK;
    return store_file_truncate_log(file);
}

/* ---- opening ---- */

static void close_database(struct store_file *file)
{
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(file->statements[i]);
        file->statements[i] = NULL;
    }
    if (file->log_fd >= 0)
        close(file->log_fd);
    file->log_fd = -1;
    if (file->db && file->is_damaged) /* it is evidence now: closing must not write into it */
        sqlite3_db_config(file->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(file->db);
    file->db = NULL;
}

static enum store_result migrate(struct store_file *file)
{
    sqlite3_int64 version = pragma(file, "PRAGMA user_version");
    if (version == VERSION)
        return STORE_OK;
    if (version < 0 || version > VERSION)
        return failed(file, "reading the version");
    enum store_result result = execute(file, "BEGIN IMMEDIATE");
    for (size_t i = (size_t)version; i < VERSION && result == STORE_OK; i++)
        result = execute(file, steps[i]);
    char text[128];
    snprintf(text, sizeof text, "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT", APPLICATION_ID,
             VERSION);
    return result == STORE_OK ? execute(file, text) : result;
}

/* Opens the database at `path`, new or ours, and brings it to the present schema. */
static enum store_result connect(struct store_file *file, const char *path, bool is_new)
{
    if (is_new) { /* made here for its mode; SQLite gives the log the same */
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return fail(file, errno == ENOSPC ? STORE_FULL : STORE_BROKEN, "%s: %s", path, strerror(errno));
        close(fd);
    }
    if (sqlite3_open_v2(path, &file->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return failed(file, "opening the database");
    sqlite3_extended_result_codes(file->db, 1);
    sqlite3_wal_hook(file->db, after_commit, file);
    enum store_result result =
        execute(file, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA trusted_schema=OFF;"
                      "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;"
                      "PRAGMA cache_size=-2000; PRAGMA secure_delete=OFF;");
    if (result == STORE_OK && is_new)
        result = execute(file, "PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL");
    if (result == STORE_OK && is_new)
        result = migrate(file);
    if (result == STORE_OK)
        result = execute(file, "PRAGMA journal_mode=WAL");
    if (result == STORE_OK)
        result = execute(file, "PRAGMA synchronous=FULL; PRAGMA journal_size_limit=16777216");
    if (result == STORE_OK)
        result = migrate(file);
    if (result != STORE_OK)
        return result;
    file->is_synced = true;
    sqlite3_stmt *mode;
    bool is_wal = sqlite3_prepare_v2(file->db, "PRAGMA journal_mode", -1, &mode, NULL) == SQLITE_OK &&
                  step(mode) > 0 && strcmp((const char *)sqlite3_column_text(mode, 0), "wal") == 0;
    sqlite3_finalize(mode);
    if (!is_wal || pragma(file, "PRAGMA synchronous") != 2 ||
        pragma(file, "PRAGMA page_size") != PAGE_BYTES || pragma(file, "PRAGMA auto_vacuum") != 2)
        return fail(file, STORE_CORRUPT, "the database does not keep its settings");
    for (int i = 0; i < STATEMENT_COUNT; i++)
        if (!use(file, (enum statement)i, 0))
            return fail(file,
                        failed(file, "preparing") == STORE_BROKEN ? STORE_CORRUPT : failed(file, "preparing"),
                        "the schema is damaged: %s", sqlite3_errmsg(file->db));
    return STORE_OK;
}

static uint32_t header_field(const unsigned char *header, int at)
{
    return (uint32_t)header[at] << 24 | (uint32_t)header[at + 1] << 16 | (uint32_t)header[at + 2] << 8 |
           header[at + 3];
}

/* What kind of file lies there, before SQLite touches it. */
static enum store_result judge_header(struct store_file *file, const char *path, bool has_mark, bool *is_new)
{
    unsigned char header[100];
    *is_new = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        *is_new = true;
        return STORE_OK;
    }
    if (fd < 0)
        return fail(file, STORE_REFUSED, "%s: %s", path, strerror(errno));
    ssize_t size = read(fd, header, sizeof header);
    close(fd);
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
    if (is_sound && application == APPLICATION_ID && version >= 1 && version <= VERSION)
        return STORE_OK;
    if (has_mark && file->mark.version <= VERSION) /* it was ours */
        return fail(file, STORE_CORRUPT, "the header of the database is damaged");
    if (is_whole && application == APPLICATION_ID && version > VERSION)
        return fail(file, STORE_REFUSED, "%s is of version %" PRIu32 ", this proxyd knows up to %d", path,
                    version, VERSION);
    return fail(file, STORE_REFUSED, "%s is not a store of proxyd", path);
}

/* Compares the log with the mark; mends it where bits were flipped. Afterwards mark_found says whether the
 * mark tells exactly what the database must hold. */
static void judge_log(struct store_file *file, const char *log_path)
{
    struct mark_head *mark = &file->mark_found;
    struct mark_log log;
    struct store_clock clock;
    mark_inspect_log(log_path, &log);
    if (log.has_header && log.frames > 0 && (log.salt[0] != mark->salt[0] || log.salt[1] != mark->salt[1])) {
        mark->commit = 0; /* the log began anew after the mark was written */
        return;
    }
    if (mark->frames == 0)
        return;
    if (log.frames > mark->frames) {
        mark->commit = 0;
        return;
    }
    file->conf.read_clock(&clock);
    bool is_same_boot = clock.boot_id[0] && strcmp(mark->boot_id, clock.boot_id) == 0;
    uint32_t certain = is_same_boot ? mark->frames : mark->synced;
    if (log.frames < certain && log.frames_there >= certain && mark_mend_log(log_path, mark->salt, certain)) {
        char text[96];
        snprintf(text, sizeof text, "the log was mended from frame %" PRIu32 " to %" PRIu32, log.frames,
                 certain);
        tell(file, STORE_EVENT_DAMAGED, text, 0);
    } else {
        file->is_log_cut = log.frames < mark->frames;
    }
}

/* ---- salvage ----
 *
 * Rows are copied into store.db.tmp, which becomes store.db.salvaged when it is complete; then the damaged
 * database and its log are set aside and it takes their place. A crash on the way leaves either the damaged
 * database in place, to begin again, or a complete one, to go on with. */

static bool move_file(const struct store_file *file, const char *from, const char *to)
{
    char from_path[PATH_BYTES], to_path[PATH_BYTES];
    path_of(file, from, from_path);
    path_of(file, to, to_path);
    return rename(from_path, to_path) == 0 || errno == ENOENT;
}

/* A file's content, or (".") the names in the directory, reach the medium. */
static bool sync_path(const struct store_file *file, const char *name)
{
    char path[PATH_BYTES];
    path_of(file, name, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return is_synced;
}

static enum store_result finish_salvage(struct store_file *file, bool *was_begun)
{
    char path[PATH_BYTES], aside[64], aside_log[80];
    struct stat about;
    path_of(file, "store.db.salvaged", path);
    *was_begun = stat(path, &about) == 0;
    if (!*was_begun)
        return STORE_OK;
    snprintf(aside, sizeof aside, "store.db.corrupt-%" PRId64 ".%ld", (int64_t)about.st_mtim.tv_sec,
             about.st_mtim.tv_nsec / 1000);
    snprintf(aside_log, sizeof aside_log, "%s-wal", aside);
    if (!move_file(file, "store.db-wal", aside_log) || !move_file(file, "store.db", aside) ||
        !sync_path(file, ".") || !move_file(file, "store.db.salvaged", "store.db") || !sync_path(file, "."))
        return fail(file, STORE_BROKEN, "setting %s aside: %s", aside, strerror(errno));
    return STORE_OK;
}

static void remove_leftovers(const struct store_file *file)
{
    static const char *const names[] = {"store.db.tmp", "store.db.tmp-wal", "store.db.tmp-journal",
                                        "store.db.copy", "store.db.copy-wal"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_BYTES];
        path_of(file, names[i], path);
        unlink(path);
    }
}

/* The closed database store.db.tmp is complete: it gets this name. */
static enum store_result name_complete(struct store_file *file, const char *name)
{
    char log_path[PATH_BYTES];
    path_of(file, "store.db.tmp-wal", log_path);
    if (access(log_path, F_OK) == 0) /* not all of it has reached the database */
        return fail(file, STORE_BROKEN, "closing store.db.tmp");
    if (!sync_path(file, "store.db.tmp") || !move_file(file, "store.db.tmp", name) || !sync_path(file, "."))
        return fail(file, STORE_BROKEN, "%s: %s", name, strerror(errno));
    return STORE_OK;
}

/* A new database comes into being whole, or not at all. */
static enum store_result make_database(struct store_file *file)
{
    char tmp[PATH_BYTES];
    path_of(file, "store.db.tmp", tmp);
    remove_leftovers(file);
    enum store_result result = connect(file, tmp, true);
    close_database(file);
    return result == STORE_OK ? name_complete(file, "store.db") : result;
}

static bool copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char block[64 << 10];
    ssize_t size = -1;
    while (in >= 0 && out >= 0 && (size = read(in, block, sizeof block)) > 0)
        if (write(out, block, (size_t)size) != size) {
            size = -1;
            break;
        }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return size == 0;
}

/* A copy of the damaged database with the first page of the fresh one at `tmp`: ours all begin alike. */
static void graft_first_page(const char *path, const char *tmp)
{
    unsigned char page[PAGE_BYTES];
    struct stat about;
    int from = open(tmp, O_RDONLY | O_CLOEXEC), to = open(path, O_WRONLY | O_CLOEXEC);
    if (from >= 0 && to >= 0 && fstat(to, &about) == 0 && pread(from, page, sizeof page, 0) == sizeof page) {
        uint32_t pages = (uint32_t)(about.st_size / PAGE_BYTES);
        for (int i = 0; i < 4; i++) {
            page[28 + i] = (unsigned char)(pages >> (24 - 8 * i));
            page[32 + i] = page[36 + i] = 0; /* no free list */
        }
        ssize_t ignored = pwrite(to, page, sizeof page, 0); /* what then cannot be read is not salvaged */
        (void)ignored;
    }
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
}

static sqlite3 *open_damaged(const char *path)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK &&
        sqlite3_exec(db, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL, NULL) == SQLITE_OK &&
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL) == SQLITE_OK &&
        sqlite3_exec(db, "SELECT id FROM chain LIMIT 0; SELECT id FROM message LIMIT 0;", NULL, NULL, NULL) ==
            SQLITE_OK)
        return db;
    sqlite3_close(db);
    return NULL;
}

struct salvage {
    struct store_file *file;
    sqlite3 *from;
    sqlite3_stmt *up, *down, *insert, *insert_damaged;
    bool is_checked; /* rows carry a checksum */
    uint64_t saved, damaged;
    enum store_result result;
};

static void salvage_row(struct salvage *salvage, sqlite3_stmt *row)
{
    struct store_row content;
    struct place place;
    bool is_stone = salvage->is_checked && sqlite3_column_int64(row, 5) == -1;
    bool is_sound = !salvage->is_checked || is_stone || read_row(row, &content, &place, false);
    sqlite3_stmt *insert = is_sound ? salvage->insert : salvage->insert_damaged;
    int columns = is_sound ? sqlite3_column_count(row) : 10;
    sqlite3_reset(insert);
    for (int i = 0; i < columns; i++)
        sqlite3_bind_value(insert, i + 1, sqlite3_column_value(row, i));
    salvage->result = run(salvage->file, insert, "salvaging");
    if (!is_stone && sqlite3_changes(salvage->file->db) > 0)
        (*(is_sound ? &salvage->saved : &salvage->damaged))++;
}

static int walk(struct salvage *salvage, sqlite3_stmt *rows, uint64_t from, uint64_t to, uint64_t *reached)
{
    int code = SQLITE_DONE;
    sqlite3_reset(rows);
    sqlite3_bind_int64(rows, 1, INT(from));
    sqlite3_bind_int64(rows, 2, INT(to));
    while (salvage->result == STORE_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        *reached = column(rows, 0);
        salvage_row(salvage, rows);
    }
    sqlite3_reset(rows);
    return code;
}

/* Upwards, stepping over what cannot be read: by single ids within a few pages, then by leaps; and downwards for
 * what lies beyond. */
static void salvage_range(struct salvage *salvage, uint64_t from, uint64_t to)
{
    enum { SINGLE_STEPS = 2048 };
    uint64_t at = from, reached = 0, leap = 1;
    for (int failures = 0; at < to && salvage->result == STORE_OK; failures++) {
        reached = 0;
        if (walk(salvage, salvage->up, at, to, &reached) == SQLITE_DONE)
            return;
        if (reached >= at) {
            at = reached;
            failures = 0;
            leap = 1;
        }
        if (failures > SINGLE_STEPS)
            leap = leap < to - at ? leap * 2 : to - at;
        at += leap;
    }
    walk(salvage, salvage->down, from, to, &reached);
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sqlite3_stmt *statement = NULL;
    sqlite3_prepare_v2(db, text, -1, &statement, NULL);
    return statement;
}

static void salvage_table(struct salvage *salvage, const char *table, const char *marks, bool is_checked,
                          uint32_t last_chain)
{
    salvage->up = prepare(salvage->from, "SELECT * FROM %s WHERE id>=? AND id<? ORDER BY id", table);
    salvage->down = prepare(salvage->from, "SELECT * FROM %s WHERE id>=? AND id<? ORDER BY id DESC", table);
    salvage->insert = prepare(salvage->file->db, "INSERT OR IGNORE INTO %s VALUES(%s)", table, marks);
    salvage->insert_damaged =
        prepare(salvage->file->db, "INSERT OR IGNORE INTO damaged VALUES(?,?,?,?,?,?,?,?,?,?)");
    salvage->is_checked = is_checked;
    if (salvage->up && salvage->down && salvage->insert && salvage->insert_damaged) {
        if (strcmp(table, "chain") == 0)
            salvage_range(salvage, 1, CHAIN_MAX);
        for (uint32_t chain = 1; chain <= last_chain; chain++)
            salvage_range(salvage, base_of(chain), base_of(chain + 1));
    }
    sqlite3_finalize(salvage->up);
    sqlite3_finalize(salvage->down);
    sqlite3_finalize(salvage->insert);
    sqlite3_finalize(salvage->insert_damaged);
}

static uint32_t last_known_chain(struct store_file *file)
{
    sqlite3_int64 last = pragma(file, "SELECT coalesce(max(id),0) FROM chain");
    uint32_t number = last > 0 && last < CHAIN_MAX ? (uint32_t)last : 0;
    struct mark_chain marked;
    while (number < CHAIN_MAX && mark_read_chain(file->mark_fd, number + 1, &marked))
        number++;
    return number;
}

static enum store_result copy_rows(struct store_file *file, sqlite3 *from, uint64_t *saved, uint64_t *damaged)
{
    static const char ten[] = "?,?,?,?,?,?,?,?,?,?";
    struct salvage salvage = {.file = file, .from = from, .result = execute(file, "BEGIN IMMEDIATE")};
    if (salvage.result == STORE_OK)
        salvage_table(&salvage, "chain", "?,?,?,?,?,?,?,?,?,?,?,?", false, 0);
    uint32_t last = last_known_chain(file);
    salvage.saved = 0;
    salvage_table(&salvage, "message", ten, true, last);
    salvage_table(&salvage, "dead", "?,?,?,?,?,?,?,?,?,?,?", true, last);
    salvage_table(&salvage, "reply", ten, true, last);
    salvage_table(&salvage, "expired", "?,?,?,?", false, last);
    salvage_table(&salvage, "damaged", ten, false, last);
    /* Whatever the chains' counters said, it belongs to what was lost: a wrong checksum has them counted. */
    if (salvage.result == STORE_OK)
        salvage.result = execute(file, "UPDATE chain SET crc=~crc; COMMIT");
    *saved = salvage.saved;
    *damaged = salvage.damaged;
    return salvage.result;
}

static enum store_result salvage(struct store_file *file)
{
    char path[PATH_BYTES], tmp[PATH_BYTES], copy[PATH_BYTES], from_path[PATH_BYTES], to_path[PATH_BYTES];
    path_of(file, "store.db", path);
    path_of(file, "store.db.tmp", tmp);
    path_of(file, "store.db.copy", copy);
    remove_leftovers(file);
    enum store_result result = connect(file, tmp, true);
    if (result != STORE_OK)
        return result;
    sqlite3 *from = open_damaged(path);
    if (!from && copy_file(path, copy)) {
        path_of(file, "store.db-wal", from_path);
        path_of(file, "store.db.copy-wal", to_path);
        if (!copy_file(from_path, to_path))
            unlink(to_path);
        graft_first_page(copy, tmp);
        from = open_damaged(copy);
    }
    uint64_t saved = 0, damaged = 0;
    if (from)
        result = copy_rows(file, from, &saved, &damaged);
    sqlite3_close(from);
    char reason[sizeof file->error];
    memcpy(reason, file->error, sizeof reason);
    close_database(file);
    if (result == STORE_OK)
        result = name_complete(file, "store.db.salvaged");
    remove_leftovers(file);
    if (result != STORE_OK)
        return result;
    bool was_begun;
    result = finish_salvage(file, &was_begun);
    tell(file, STORE_EVENT_SALVAGED, reason, saved);
    if (damaged > 0)
        tell(file, STORE_EVENT_DAMAGED, "rows with a wrong checksum were kept aside", damaged);
    return result;
}

/* Makes the database when there is none, and connects to it. */
static enum store_result connect_or_make(struct store_file *file, const char *path, bool is_new)
{
    enum store_result result = is_new ? make_database(file) : STORE_OK;
    return result == STORE_OK ? connect(file, path, false) : result;
}

/* Compares what lies there with the mark of the run before. */
static enum store_result judge(struct store_file *file, const char *path, bool is_salvaged, bool *is_new)
{
    char log_path[PATH_BYTES];
    path_of(file, "store.db-wal", log_path);
    bool has_mark = mark_read_head(file->mark_fd, &file->mark);
    if (!has_mark)
        file->mark = (struct mark_head){0};
    file->mark_found = file->mark;
    enum store_result result = judge_header(file, path, has_mark, is_new);
    if (result == STORE_OK && *is_new) {
        file->mark = file->mark_found = (struct mark_head){0};
        if (ftruncate(file->mark_fd, 0) != 0)
            return fail(file, STORE_BROKEN, "store.mark: %s", strerror(errno));
    } else if (has_mark && !is_salvaged) {
        judge_log(file, log_path);
    }
    return result;
}

static enum store_result open_database(struct store_file *file, bool is_first)
{
    char path[PATH_BYTES], log_path[PATH_BYTES];
    path_of(file, "store.db", path);
    path_of(file, "store.db-wal", log_path);
    bool is_new = false, is_salvaged = false;
    enum store_result result = finish_salvage(file, &is_salvaged);
    if (result == STORE_OK)
        result = file->is_damaged ? STORE_CORRUPT
                 : is_first       ? judge(file, path, is_salvaged, &is_new)
                                  : judge_header(file, path, true, &is_new);
    if (result == STORE_OK)
        result = connect_or_make(file, path, is_new);
    if (result == STORE_FULL && store_file_give_reserve(file)) {
        close_database(file);
        result = connect_or_make(file, path, is_new);
    }
    if (result == STORE_CORRUPT) {
        file->is_damaged = true;
        close_database(file);
        file->is_damaged = false; /* what is open from here on is new */
        result = salvage(file);
        file->is_damaged = result != STORE_OK;
        if (result == STORE_OK)
            result = connect(file, path, false);
    }
    if (result == STORE_OK)
        file->log_fd = open(log_path, O_RDONLY | O_CLOEXEC);
    return result;
}

static bool lock(struct store_file *file, char *err, size_t err_bytes)
{
    char path[PATH_BYTES];
    path_of(file, "store.lock", path);
    file->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->lock_fd < 0)
        snprintf(err, err_bytes, "%s: %s", path, strerror(errno));
    else if (flock(file->lock_fd, LOCK_EX | LOCK_NB) != 0)
        snprintf(err, err_bytes, "%s is in use by another proxyd", file->conf.directory);
    else
        return true;
    return false;
}

enum store_result store_file_open(struct store_file **result, const struct store_conf *conf, char *err,
                                  size_t err_bytes)
{
    *result = NULL;
    struct store_file *file = calloc(1, sizeof *file);
    if (!file) {
        snprintf(err, err_bytes, "out of memory");
        return STORE_BROKEN;
    }
    file->conf = *conf;
    file->lock_fd = file->mark_fd = file->log_fd = -1;
    if (!file->conf.read_clock)
        file->conf.read_clock = read_machine_clock;
    if (strlen(conf->directory) > PATH_BYTES - 64 || !lock(file, err, err_bytes)) {
        store_file_close(file);
        return STORE_REFUSED;
    }
    char path[PATH_BYTES];
    path_of(file, "store.mark", path);
    file->mark_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->mark_fd < 0) {
        snprintf(err, err_bytes, "%s: %s", path, strerror(errno));
        store_file_close(file);
        return STORE_REFUSED;
    }
    struct mark_head mark;
    start_clock(file, mark_read_head(file->mark_fd, &mark) ? &mark : NULL);
    path_of(file, "store.reserve", path);
    struct stat about;
    file->has_reserve = stat(path, &about) == 0 && about.st_size == RESERVE_BYTES;
    enum store_result opened = open_database(file, true);
    if (opened != STORE_OK) {
        snprintf(err, err_bytes, "%s", file->error);
        close_database(file);
        store_file_close(file);
        return opened;
    }
    *result = file;
    return STORE_OK;
}

enum store_result store_file_reopen(struct store_file *file)
{
    close_database(file);
    enum store_result result = open_database(file, false);
    if (result == STORE_OK)
        result = store_file_begin(file, true);
    for (size_t i = 0; i < file->chain_count && result == STORE_OK; i++) {
        struct chain *chain = &file->chains[i], again = {0};
        if (!chain->name[0])
            continue;
        memcpy(again.name, chain->name, sizeof again.name);
        result = read_chain(file, &again);
        chain = &file->chains[i];
        if (again.known.next_sequence < chain->known.next_sequence)
            again.known.next_sequence = chain->known.next_sequence;
        again.is_sending = chain->is_sending;
        *chain = again;
    }
    if (result == STORE_OK)
        result = store_file_commit(file);
    if (result != STORE_OK) {
        store_file_rollback(file);
        close_database(file);
    }
    return result;
}

void store_file_close(struct store_file *file)
{
    if (!file)
        return;
    if (file->db) {
        close_database(file);
        file->mark.is_clean = true;
        file->mark.frames = file->mark.synced = 0;
        char log_path[PATH_BYTES];
        path_of(file, "store.db-wal", log_path);
        if (access(log_path, F_OK) != 0) { /* SQLite has moved everything into the database */
            for (size_t i = 0; i < file->chain_count; i++)
                file->chains[i].is_sending = file->chains[i].is_marked = false;
            write_mark(file);
            file->mark.is_clean = true;
            mark_write_head(file->mark_fd, &file->mark);
            fsync(file->mark_fd);
        }
    }
    if (file->mark_fd >= 0)
        close(file->mark_fd);
    if (file->lock_fd >= 0)
        close(file->lock_fd);
    free(file->chains);
    free(file->saved);
    free(file);
}
