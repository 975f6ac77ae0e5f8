/* SPDX-License-Identifier: MIT
 *
 * Making databases, new or out of what can be read of a damaged one, so that a crash leaves either the old or the
 * new one whole: rows are copied into store.db.tmp, which becomes store.db.salvaged when it is complete; then the
 * damaged database and its log are set aside and it takes their place.
 */
#include "buffer/store_salvage.h"

#include "buffer/store_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where it happens. */
struct site {
    struct store_db *db;
    const char *directory;
    int mark_fd;
};

static void path_of(const struct site *site, const char *name, char path[STORE_DB_PATH])
{
    store_db_path(path, site->directory, name);
}

static bool move_file(const struct site *site, const char *from, const char *to)
{
    char from_path[STORE_DB_PATH], to_path[STORE_DB_PATH];
    path_of(site, from, from_path);
    path_of(site, to, to_path);
    return rename(from_path, to_path) == 0 || errno == ENOENT;
}

/* A file's content, or (".") the names in the directory, reach the medium. */
static bool sync_path(const struct site *site, const char *name)
{
    char path[STORE_DB_PATH];
    path_of(site, name, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return is_synced;
}

static enum store_result finish(const struct site *site, bool *was_begun)
{
    char path[STORE_DB_PATH], aside[64], aside_log[80];
    struct stat about;
    path_of(site, "store.db.salvaged", path);
    *was_begun = stat(path, &about) == 0;
    if (!*was_begun)
        return STORE_OK;
    snprintf(aside, sizeof aside, "store.db.corrupt-%" PRId64 ".%ld", (int64_t)about.st_mtim.tv_sec,
             about.st_mtim.tv_nsec / 1000);
    snprintf(aside_log, sizeof aside_log, "%s-wal", aside);
    if (!move_file(site, "store.db-wal", aside_log) || !move_file(site, "store.db", aside) ||
        !sync_path(site, ".") || !move_file(site, "store.db.salvaged", "store.db") || !sync_path(site, "."))
        return store_db_fail(site->db, STORE_BROKEN, "setting %s aside: %s", aside, strerror(errno));
    return STORE_OK;
}

static void remove_leftovers(const struct site *site)
{
    static const char *const names[] = {"store.db.tmp", "store.db.tmp-wal", "store.db.tmp-journal",
                                        "store.db.copy", "store.db.copy-wal"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[STORE_DB_PATH];
        path_of(site, names[i], path);
        unlink(path);
    }
}

/* The closed database store.db.tmp is complete: it gets this name. */
static enum store_result name_complete(const struct site *site, const char *name)
{
    char log_path[STORE_DB_PATH];
    path_of(site, "store.db.tmp-wal", log_path);
    if (access(log_path, F_OK) == 0) /* not all of it has reached the database */
        return store_db_fail(site->db, STORE_BROKEN, "closing store.db.tmp");
    if (!sync_path(site, "store.db.tmp") || !move_file(site, "store.db.tmp", name) || !sync_path(site, "."))
        return store_db_fail(site->db, STORE_BROKEN, "%s: %s", name, strerror(errno));
    return STORE_OK;
}

/* A new database comes into being whole, or not at all. */
static enum store_result make(const struct site *site)
{
    char tmp[STORE_DB_PATH];
    path_of(site, "store.db.tmp", tmp);
    remove_leftovers(site);
    enum store_result result = store_db_connect(site->db, tmp, true);
    store_db_close(site->db);
    return result == STORE_OK ? name_complete(site, "store.db") : result;
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
    unsigned char page[STORE_DB_PAGE];
    struct stat about;
    int from = open(tmp, O_RDONLY | O_CLOEXEC), to = open(path, O_WRONLY | O_CLOEXEC);
    if (from >= 0 && to >= 0 && fstat(to, &about) == 0 && pread(from, page, sizeof page, 0) == sizeof page) {
        uint32_t pages = (uint32_t)(about.st_size / STORE_DB_PAGE);
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

/* Once a write failed, the kernel may take pages for written that are not, and blocks for in use that are not: only
 * a file of its own is sure to reach the medium with a sync. */
static enum store_result renew_log(const struct site *site)
{
    char path[STORE_DB_PATH], copy[STORE_DB_PATH];
    path_of(site, "store.db-wal", path);
    path_of(site, "store.db.copy-wal", copy);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return STORE_OK;
    if (copy_file(path, copy) && sync_path(site, "store.db.copy-wal") &&
        move_file(site, "store.db.copy-wal", "store.db-wal") && sync_path(site, "."))
        return STORE_OK;
    int code = errno;
    unlink(copy);
    return store_db_fail(site->db, code == ENOSPC ? STORE_FULL : STORE_BROKEN, "copying %s: %s", path,
                         strerror(code));
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
    const struct site *site;
    sqlite3 *from;
    sqlite3_stmt *up, *down, *insert, *insert_damaged;
    bool is_checked; /* rows carry a checksum */
    uint64_t saved, damaged;
    enum store_result result;
};

static void salvage_row(struct salvage *salvage, sqlite3_stmt *row)
{
    struct store_row content;
    struct store_place place;
    bool is_stone = salvage->is_checked && sqlite3_column_int64(row, 5) == -1;
    bool is_sound = !salvage->is_checked || is_stone || store_db_read_row(row, &content, &place, false);
    sqlite3_stmt *insert = is_sound ? salvage->insert : salvage->insert_damaged;
    int columns = is_sound ? sqlite3_column_count(row) : 10;
    sqlite3_reset(insert);
    for (int i = 0; i < columns; i++)
        sqlite3_bind_value(insert, i + 1, sqlite3_column_value(row, i));
    salvage->result = store_db_run(salvage->site->db, insert, "salvaging");
    if (!is_stone && sqlite3_changes(salvage->site->db->sqlite) > 0)
        (*(is_sound ? &salvage->saved : &salvage->damaged))++;
}

static int walk(struct salvage *salvage, sqlite3_stmt *rows, uint64_t from, uint64_t to, uint64_t *reached)
{
    int code = SQLITE_DONE;
    sqlite3_reset(rows);
    sqlite3_bind_int64(rows, 1, INT(from));
    sqlite3_bind_int64(rows, 2, INT(to));
    while (salvage->result == STORE_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        *reached = store_db_column(rows, 0);
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
    salvage->insert = prepare(salvage->site->db->sqlite, "INSERT OR IGNORE INTO %s VALUES(%s)", table, marks);
    salvage->insert_damaged =
        prepare(salvage->site->db->sqlite, "INSERT OR IGNORE INTO damaged VALUES(?,?,?,?,?,?,?,?,?,?)");
    salvage->is_checked = is_checked;
    if (salvage->up && salvage->down && salvage->insert && salvage->insert_damaged) {
        if (strcmp(table, "chain") == 0)
            salvage_range(salvage, 1, STORE_DB_CHAIN_MAX);
        for (uint32_t chain = 1; chain <= last_chain; chain++)
            salvage_range(salvage, store_db_base(chain), store_db_base(chain + 1));
    }
    sqlite3_finalize(salvage->up);
    sqlite3_finalize(salvage->down);
    sqlite3_finalize(salvage->insert);
    sqlite3_finalize(salvage->insert_damaged);
}

static uint32_t last_known_chain(const struct site *site)
{
    sqlite3_int64 last = store_db_pragma(site->db, "SELECT coalesce(max(id),0) FROM chain");
    uint32_t number = last > 0 && last < STORE_DB_CHAIN_MAX ? (uint32_t)last : 0;
    struct mark_chain marked;
    while (number < STORE_DB_CHAIN_MAX && mark_read_chain(site->mark_fd, number + 1, &marked))
        number++;
    return number;
}

static enum store_result copy_rows(const struct site *site, sqlite3 *from, uint64_t *saved, uint64_t *damaged)
{
    static const char ten[] = "?,?,?,?,?,?,?,?,?,?";
    struct salvage salvage = {
        .site = site, .from = from, .result = store_db_execute(site->db, "BEGIN IMMEDIATE")};
    if (salvage.result == STORE_OK)
        salvage_table(&salvage, "chain", "?,?,?,?,?,?,?,?,?,?,?,?", false, 0);
    uint32_t last = last_known_chain(site);
    salvage.saved = 0;
    salvage_table(&salvage, "message", ten, true, last);
    salvage_table(&salvage, "dead", "?,?,?,?,?,?,?,?,?,?,?", true, last);
    salvage_table(&salvage, "reply", ten, true, last);
    salvage_table(&salvage, "expired", "?,?,?,?", false, last);
    salvage_table(&salvage, "damaged", ten, false, last);
    /* Digests are not copied: what is lost may have been acked, and must be taken when it comes again. */
    /* Whatever the chains' counters said, it belongs to what was lost: a wrong checksum has them counted. */
    if (salvage.result == STORE_OK)
        salvage.result = store_db_execute(site->db, "UPDATE chain SET crc=~crc; COMMIT");
    *saved = salvage.saved;
    *damaged = salvage.damaged;
    return salvage.result;
}

static enum store_result salvage_all(const struct site *site, uint64_t *saved, uint64_t *damaged)
{
    char path[STORE_DB_PATH], tmp[STORE_DB_PATH], copy[STORE_DB_PATH], from_path[STORE_DB_PATH],
        to_path[STORE_DB_PATH];
    path_of(site, "store.db", path);
    path_of(site, "store.db.tmp", tmp);
    path_of(site, "store.db.copy", copy);
    remove_leftovers(site);
    enum store_result result = store_db_connect(site->db, tmp, true);
    if (result != STORE_OK)
        return result;
    sqlite3 *from = open_damaged(path);
    if (!from && copy_file(path, copy)) {
        path_of(site, "store.db-wal", from_path);
        path_of(site, "store.db.copy-wal", to_path);
        if (!copy_file(from_path, to_path))
            unlink(to_path);
        graft_first_page(copy, tmp);
        from = open_damaged(copy);
    }
    if (from)
        result = copy_rows(site, from, saved, damaged);
    sqlite3_close(from);
    store_db_close(site->db);
    if (result == STORE_OK)
        result = name_complete(site, "store.db.salvaged");
    remove_leftovers(site);
    if (result != STORE_OK)
        return result;
    bool was_begun;
    return finish(site, &was_begun);
}

enum store_result store_salvage_make(struct store_db *db, const char *directory)
{
    return make(&(struct site){.db = db, .directory = directory, .mark_fd = -1});
}

enum store_result store_salvage_renew_log(struct store_db *db, const char *directory)
{
    return renew_log(&(struct site){.db = db, .directory = directory, .mark_fd = -1});
}

enum store_result store_salvage_finish(struct store_db *db, const char *directory, bool *was_begun)
{
    return finish(&(struct site){.db = db, .directory = directory, .mark_fd = -1}, was_begun);
}

enum store_result store_salvage(struct store_db *db, const char *directory, int mark_fd, uint64_t *saved,
                                uint64_t *damaged)
{
    *saved = *damaged = 0;
    return salvage_all(&(struct site){.db = db, .directory = directory, .mark_fd = mark_fd}, saved, damaged);
}
