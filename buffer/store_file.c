/* SPDX-License-Identifier: MIT
 *
 * One SQLite database for all chains: write-ahead log, synced at each commit, locked exclusively, a checksum
 * in every row. Owns the connection, the lock, the mark and the reserve. Deletes no damaged file, ever.
 *
 * Depth without a scan: each message carries its number and the bytes put so far, counted from one message
 * to the next. From `frontier` on nothing of a chain was ever deleted, so that two rows tell how many there
 * are; what lies below it is little and is counted. Deleting moves the frontier on in steps. An operator may
 * drop a message far behind it: such a row stays as a tombstone (attempts = -1) until the frontier passes.
 */
#include "buffer/store_file.h"

#include "buffer/crc32c.h"
#include "buffer/store_db.h"
#include "buffer/store_mark.h"
#include "buffer/store_salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    RESERVE_BYTES = 4 << 20,
    RESERVE_MARGIN_BYTES = 16 << 20,
    CHECKPOINT_PAGES = 1000,
    SEQUENCE_BLOCK = 4096, /* ids are reserved so many at a time */
    FRONTIER_STEP = 1024,
};

struct chain {
    struct store_chain known;
    char name[72];
    uint64_t reserved; /* ids below it may have been used */
    uint64_t frontier;
    uint64_t stones, stone_bytes;
    uint64_t next_number, total; /* for the next message */
    uint64_t remembered;         /* digests */
    bool is_changed;             /* since it was saved */
    bool is_marked;              /* the mark is as the chain is */
    bool is_sending;
};

/* Which file it is. */
struct file_id {
    dev_t device;
    ino_t inode;
};

struct store_file {
    struct store_conf conf;
    int lock_fd, mark_fd, log_fd;
    struct file_id database, log; /* which are open */
    struct store_db db;
    struct chain *chains, *saved; /* now, and as of the last commit; by number - 1, name "" where unknown */
    size_t chain_count;
    bool has_reserve;
    bool is_log_cut; /* when opened, it ended before where the mark says */
    struct mark_head mark;
    struct mark_head mark_found; /* when opened; commit 0: none that can be relied on */
    int64_t clock_offset;        /* store's clock - boot clock */
    int64_t clock_last;
};

static void tell(struct store_file *file, enum store_event_kind kind, const char *text, uint64_t count)
{
    if (file->conf.event)
        file->conf.event(file->conf.context, kind, text, count);
}

const char *store_file_error(const struct store_file *file)
{
    return file->db.error;
}

uint64_t store_file_bytes_written(void)
{
    return store_db_bytes_written();
}

static void path_of(const struct store_file *file, const char *name, char path[STORE_DB_PATH])
{
    store_db_path(path, file->conf.directory, name);
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

/* ---- chains ---- */

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
    sqlite3_stmt *save = store_db_use(
        &file->db, SQL_CHAIN_SAVE, 11, INT(known->number), INT(chain->reserved), INT(chain->frontier),
        INT(chain->stones), INT(chain->stone_bytes), INT(known->dead), INT(known->dead_bytes),
        INT(known->replies), INT(known->reply_bytes), INT(chain->known.expired), INT(chain_crc(chain)));
    chain->is_changed = false;
    return store_db_run(&file->db, save, "saving a chain");
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
    if (number > STORE_DB_CHAIN_MAX)
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
static int read_end(struct store_file *file, enum store_statement which, uint64_t from, uint64_t to,
                    struct store_row *row, struct store_place *place)
{
    sqlite3_stmt *statement = store_db_use(&file->db, which, 2, INT(from), INT(to));
    int stepped = store_db_step(statement);
    if (stepped <= 0)
        return stepped;
    bool is_stone = sqlite3_column_int64(statement, 5) < 0;
    bool is_sound = store_db_read_row(statement, row, place, false);
    sqlite3_reset(statement);
    return is_sound || is_stone ? 1 : -2;
}

/* Deletes the tombstones of a range: the frontier is about to pass it. */
static enum store_result clear_stones(struct store_file *file, struct chain *chain, uint64_t from,
                                      uint64_t to)
{
    sqlite3_stmt *clear = store_db_use(&file->db, SQL_STONES_CLEAR, 2, INT(from), INT(to));
    int stepped;
    while ((stepped = store_db_step(clear)) > 0) {
        uint64_t bytes = store_db_column(clear, 0);
        chain->stones -= chain->stones > 0;
        chain->stone_bytes -= bytes < chain->stone_bytes ? bytes : chain->stone_bytes;
    }
    chain->is_changed = true;
    return stepped == 0 ? STORE_OK : store_db_failed(&file->db, "clearing tombstones");
}

/* Counts by looking at every row: when the counters themselves are damaged. */
static enum store_result count_slowly(struct store_file *file, struct chain *chain)
{
    uint64_t from = store_db_base(chain->known.number), to = store_db_base(chain->known.number + 1);
    sqlite3_stmt *count = store_db_use(&file->db, SQL_COUNT_ALL, 2, INT(from), INT(to));
    if (store_db_step(count) <= 0)
        return store_db_failed(&file->db, "counting");
    chain->known.dead = store_db_column(count, 0);
    chain->known.dead_bytes = store_db_column(count, 1);
    chain->known.replies = store_db_column(count, 2);
    chain->known.reply_bytes = store_db_column(count, 3);
    chain->known.expired = store_db_column(count, 4);
    uint64_t last = store_db_column(count, 5);
    sqlite3_reset(count);
    if (last >= to) {
        file->db.is_damaged = true;
        return store_db_fail(&file->db, STORE_CORRUPT, "messages out of their order");
    }
    chain->reserved = (last > from ? last : from) + 2 * SEQUENCE_BLOCK;
    chain->frontier = chain->reserved;
    chain->is_changed = true;
    return clear_stones(file, chain, from, to);
}

static enum store_result count_messages(struct store_file *file, struct chain *chain)
{
    struct store_chain *known = &chain->known;
    uint64_t from = store_db_base(known->number), to = store_db_base(known->number + 1);
    struct store_row first, last;
    struct store_place first_place = {0}, last_place = {0};
    int has_first = read_end(file, SQL_FIRST_FROM, chain->frontier, to, &first, &first_place);
    int has_last = has_first == -1 ? -1 : read_end(file, SQL_LAST_BEFORE, from, to, &last, &last_place);
    if (has_last == -1)
        return store_db_failed(&file->db, "counting");
    uint64_t tail = has_first == 1 ? last_place.number - first_place.number + 1 - chain->stones : 0;
    if (has_first == -2 || has_last == -2 || (has_first == 1 && tail > last.id - first.id + 1)) {
        /* The ends do not tell: count every row this time, and again from here on by the ends. */
        enum store_result result = count_slowly(file, chain);
        if (result != STORE_OK)
            return result;
        has_first = 0;
    }
    sqlite3_stmt *below = store_db_use(&file->db, SQL_COUNT_BELOW, 2, INT(from), INT(chain->frontier));
    if (store_db_step(below) <= 0)
        return store_db_failed(&file->db, "counting");
    known->live = store_db_column(below, 0);
    known->live_bytes = store_db_column(below, 1);
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
    if (read_end(file, SQL_FIRST_FROM, from, to, &oldest, &first_place) == -1)
        return store_db_failed(&file->db, "counting");
    known->oldest_taken = oldest.taken;
    return STORE_OK;
}

static enum store_result count_remembered(struct store_file *file, struct chain *chain)
{
    sqlite3_stmt *count =
        store_db_use(&file->db, SQL_RECENT_COUNT, 2, INT(store_db_base(chain->known.number)),
                     INT(store_db_base(chain->known.number + 1)));
    if (store_db_step(count) <= 0)
        return store_db_failed(&file->db, "counting digests");
    chain->remembered = store_db_column(count, 0);
    sqlite3_reset(count);
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
    sqlite3_stmt *find = store_db_use(&file->db, SQL_CHAIN_FIND, 0);
    if (find)
        sqlite3_bind_text(find, 1, chain->name, -1, SQLITE_STATIC);
    int found = store_db_step(find);
    if (found <= 0)
        return found;
    struct store_chain *known = &chain->known;
    known->number = (uint32_t)store_db_column(find, 0);
    chain->reserved = store_db_column(find, 1);
    chain->frontier = store_db_column(find, 2);
    chain->stones = store_db_column(find, 3);
    chain->stone_bytes = store_db_column(find, 4);
    known->dead = store_db_column(find, 5);
    known->dead_bytes = store_db_column(find, 6);
    known->replies = store_db_column(find, 7);
    known->reply_bytes = store_db_column(find, 8);
    known->expired = store_db_column(find, 9);
    *is_sound = store_db_column(find, 10) == chain_crc(chain);
    sqlite3_reset(find);
    return 1;
}

/* The number under which the mark knows a chain; 0 when it does not. */
static uint32_t marked_number(const struct store_file *file, const char *name)
{
    struct mark_chain marked;
    for (uint32_t i = 1; i <= STORE_DB_CHAIN_MAX && mark_read_chain(file->mark_fd, i, &marked); i++)
        if (strcmp(marked.name, name) == 0)
            return i;
    return 0;
}

/* Adds the row of a chain. When the mark knows the chain under a number, its row lost its name to damage. */
static enum store_result add_chain(struct store_file *file, struct chain *chain, bool *is_sound)
{
    uint32_t number = marked_number(file, chain->name);
    if (number > 0 && store_db_run(&file->db, store_db_use(&file->db, SQL_CHAIN_DELETE, 1, INT(number)),
                                   "mending a chain") != STORE_OK)
        return store_db_failed(&file->db, "mending a chain");
    sqlite3_stmt *add = store_db_use(&file->db, SQL_CHAIN_ADD, 0);
    if (!add)
        return store_db_failed(&file->db, "adding a chain");
    sqlite3_bind_text(add, 1, chain->name, -1, SQLITE_STATIC);
    if (number > 0)
        sqlite3_bind_int64(add, 2, number);
    else
        sqlite3_bind_null(add, 2);
    if (store_db_step(add) <= 0)
        return store_db_failed(&file->db, "adding a chain");
    chain->known.number = (uint32_t)store_db_column(add, 0);
    chain->reserved = chain->frontier = store_db_base(chain->known.number) + 1;
    chain->is_changed = true;
    *is_sound = number == 0;
    return store_db_run(&file->db, add, "adding a chain");
}

/* Finds or adds a chain and counts it. */
static enum store_result read_chain(struct store_file *file, struct chain *chain)
{
    bool is_sound = true;
    enum store_result result = STORE_OK;
    int found = find_chain(file, chain, &is_sound);
    if (found < 0)
        return store_db_failed(&file->db, "finding a chain");
    uint32_t marked = found > 0 && !is_sound ? marked_number(file, chain->name) : 0;
    if (marked > 0 && marked != chain->known.number) { /* it is the number that is damaged */
        result =
            store_db_run(&file->db, store_db_use(&file->db, SQL_CHAIN_DELETE, 1, INT(chain->known.number)),
                         "mending a chain");
        found = 0;
    }
    if (found == 0 && result == STORE_OK)
        result = add_chain(file, chain, &is_sound);
    if (result == STORE_OK && !grow_chains(file, chain->known.number))
        result = store_db_fail(&file->db, STORE_BROKEN, "too many chains in the store");
    if (result == STORE_OK && !is_sound)
        result = count_slowly(file, chain);
    if (result == STORE_OK)
        result = count_remembered(file, chain);
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
        uint64_t unseen = marked.next_number > chain.next_number ? marked.next_number - chain.next_number : 0;
        if (file->is_log_cut) /* deletes are gone too: what lives tells nothing */
            chain.known.lost = unseen < marked.live ? unseen : marked.live;
        else if (marked.live > chain.known.live)
            chain.known.lost = marked.live - chain.known.live;
        if (!file->mark_found.is_clean && marked.is_sending)
            result = store_db_run(&file->db,
                                  store_db_use(&file->db, SQL_FIRST_ATTEMPTS, 4, INT(store_db_base(*number)),
                                               INT(store_db_base(*number + 1)), INT(STORE_DB_ATTEMPTS),
                                               INT(window)),
                                  "counting attempts");
    }
    if (chain.known.lost > 0) {
        char text[128];
        snprintf(text, sizeof text, "messages of chain %s are missing", name);
        tell(file, STORE_EVENT_DAMAGED, text, chain.known.lost);
    }
    file->chains[*number - 1] = chain;
    return result;
}

/* What cannot be read is passed over: whoever opens that chain finds out, and has it mended. */
static void tell_chains(struct store_file *file)
{
    sqlite3_stmt *names = store_db_use(&file->db, SQL_CHAIN_NAMES, 0);
    while (store_db_step(names) > 0) {
        struct chain chain = {0};
        bool is_sound = false;
        snprintf(chain.name, sizeof chain.name, "%s", (const char *)sqlite3_column_text(names, 0));
        if (find_chain(file, &chain, &is_sound) > 0 && is_sound && count_messages(file, &chain) == STORE_OK &&
            chain.known.live + chain.known.dead > 0)
            file->conf.found(file->conf.found_context, chain.name, chain.known.live, chain.known.dead);
    }
}

/* ---- transactions ---- */

enum store_result store_file_begin(struct store_file *file, bool is_synced)
{
    if (is_synced != file->db.is_synced) { /* SQLite carries this pragma out when it is compiled */
        enum store_result result =
            store_db_execute(&file->db, is_synced ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
        if (result != STORE_OK)
            return result;
        file->db.is_synced = is_synced;
    }
    return store_db_run(&file->db, store_db_use(&file->db, SQL_BEGIN, 0), "beginning");
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
    file->mark.version = STORE_DB_VERSION;
    mark_write_head(file->mark_fd, &file->mark);
}

static void note_log(struct store_file *file)
{
    unsigned char salts[8];
    if (pread(file->log_fd, salts, sizeof salts, 16) != sizeof salts)
        return;
    for (int i = 0; i < 2; i++)
        file->mark.salt[i] = (uint32_t)salts[4 * i] << 24 | (uint32_t)salts[4 * i + 1] << 16 |
                             (uint32_t)salts[4 * i + 2] << 8 | salts[4 * i + 3];
    file->mark.frames = file->db.log_frames;
    if (file->db.is_synced)
        file->mark.synced = file->db.log_frames;
}

static void copy_chains(const struct store_file *file, struct chain *to, const struct chain *from)
{
    if (file->chain_count > 0)
        memcpy(to, from, file->chain_count * sizeof *to);
}

static bool identify(const struct store_file *file, const char *name, struct file_id *id)
{
    char path[STORE_DB_PATH];
    struct stat about;
    path_of(file, name, path);
    if (stat(path, &about) != 0)
        return false;
    *id = (struct file_id){about.st_dev, about.st_ino};
    return true;
}

static bool is_in_place(const struct store_file *file, const char *name, struct file_id open)
{
    struct file_id there;
    return identify(file, name, &there) && there.device == open.device && there.inode == open.inode;
}

/* What is written to files that somebody has removed will not be there again. */
static enum store_result check_place(struct store_file *file)
{
    bool has_database = is_in_place(file, "store.db", file->database);
    if (has_database && is_in_place(file, "store.db-wal", file->log))
        return STORE_OK;
    store_db_fail(&file->db, STORE_BROKEN, "%s was removed or replaced",
                  has_database ? "store.db-wal" : "store.db");
    file->db.is_doubtful = false; /* closing saves what the log has */
    return STORE_BROKEN;
}

enum store_result store_file_commit(struct store_file *file)
{
    enum store_result result = STORE_OK;
    for (size_t i = 0; i < file->chain_count && result == STORE_OK; i++)
        if (file->chains[i].is_changed)
            result = save_chain(file, &file->chains[i]);
    if (result == STORE_OK)
        result = store_db_run(&file->db, store_db_use(&file->db, SQL_COMMIT, 0), "committing");
    if (result == STORE_OK)
        result = check_place(file);
    if (result != STORE_OK)
        return result;
    copy_chains(file, file->saved, file->chains);
    note_log(file);
    write_mark(file);
    return STORE_OK;
}

enum store_result store_file_sync(struct store_file *file)
{
    if (fdatasync(file->log_fd) != 0)
        return store_db_fail(&file->db, STORE_BROKEN, "syncing the log: %s", strerror(errno));
    file->mark.synced = file->mark.frames;
    mark_write_head(file->mark_fd, &file->mark);
    return STORE_OK;
}

void store_file_rollback(struct store_file *file)
{
    if (file->db.sqlite && !sqlite3_get_autocommit(file->db.sqlite))
        store_db_run(&file->db, store_db_use(&file->db, SQL_ROLLBACK, 0), "rolling back");
    copy_chains(file, file->chains, file->saved);
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
    enum store_result result = store_db_run(
        &file->db, store_db_bind_row(&file->db, SQL_PUT, row, number, total), "storing a message");
    if (result != STORE_OK)
        return result;
    if (row->id >= chain->reserved) {
        chain->reserved = row->id + SEQUENCE_BLOCK;
        chain->is_changed = true;
    }
    chain->known.next_sequence = row->id - store_db_base(chain->known.number) + 1;
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
    if (result == STORE_OK) /* asked first: RETURNING would build a table in memory for each message */
        result = store_db_run_returning(&file->db, store_db_use(&file->db, SQL_BYTES, 1, INT(id)),
                                        "finding a message", was_there, &bytes);
    if (result == STORE_OK && *was_there)
        result =
            store_db_run(&file->db, store_db_use(&file->db, is_stone ? SQL_STONE : SQL_DELETE, 1, INT(id)),
                         "deleting a message");
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
    return store_db_run(&file->db,
                        store_db_use(&file->db, SQL_ATTEMPTS, 2, INT(id), INT(attempts) * STORE_DB_ATTEMPTS),
                        "storing attempts");
}

enum store_result store_file_set_aside(struct store_file *file, uint64_t id)
{
    bool was_there;
    enum store_result result = store_db_run(&file->db, store_db_use(&file->db, SQL_ASIDE, 1, INT(id)),
                                            "setting a damaged message aside");
    return result == STORE_OK ? store_file_delete(file, id, true, &was_there) : result;
}

/* ---- dead letters ---- */

enum store_result store_file_bury(struct store_file *file, uint64_t id, uint32_t attempts, const char *reason)
{
    struct chain *chain = chain_of(file, id);
    bool was_there;
    uint64_t bytes = chain->known.live_bytes;
    enum store_result result = store_file_set_attempts(file, id, attempts);
    sqlite3_stmt *bury = result == STORE_OK ? store_db_use(&file->db, SQL_BURY, 1, INT(id)) : NULL;
    if (!bury)
        return store_db_failed(&file->db, "burying a message");
    sqlite3_bind_text(bury, 2, reason, -1, SQLITE_STATIC);
    result = store_db_run(&file->db, bury, "burying a message");
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
        store_db_run_returning(&file->db, store_db_use(&file->db, SQL_DEAD_DELETE, 1, INT(id)),
                               "deleting a dead letter", was_there, &bytes);
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
        store_db_run_returning(&file->db, store_db_use(&file->db, SQL_UNBURY, 1, INT(id)),
                               "bringing a dead letter back", was_there, &bytes);
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
    sqlite3_stmt *owner = store_db_use(&file->db, SQL_OWNER, 1, INT(id));
    int stepped = store_db_step(owner);
    if (stepped < 0)
        return store_db_failed(&file->db, "finding a message");
    bool was_there = false;
    if (stepped > 0) {
        struct store_row row = {.id = id, .bytes = bytes, .taken = store_file_now(file)};
        row.owner = store_db_column(owner, 0);
        if (sqlite3_column_bytes(owner, 1) == STORE_SECRET_BYTES)
            memcpy(row.secret, sqlite3_column_blob(owner, 1), STORE_SECRET_BYTES);
        sqlite3_reset(owner);
        row.flat = flat;
        row.flat_bytes = flat_bytes;
        enum store_result result =
            store_db_run(&file->db, store_db_bind_row(&file->db, SQL_REPLY, &row, 0, 0), "storing a reply");
        if (result != STORE_OK)
            return result;
        chain->known.replies++;
        chain->known.reply_bytes += bytes;
        chain->is_changed = true;
    }
    return store_file_delete(file, id, false, &was_there);
}

enum store_result store_file_expire(struct store_file *file, uint64_t id, bool is_far)
{
    struct chain *chain = chain_of(file, id);
    bool was_there;
    uint64_t taken;
    enum store_result result = store_db_run_returning(
        &file->db, store_db_use(&file->db, SQL_EXPIRE, 2, INT(id), INT(store_file_now(file))),
        "expiring a message", &was_there, &taken);
    if (result != STORE_OK)
        return result;
    if (was_there) {
        chain->known.expired++;
        chain->is_changed = true;
    }
    return store_file_delete(file, id, is_far, &was_there);
}

enum store_result store_file_expire_replies(struct store_file *file, uint32_t number, int64_t before,
                                            uint32_t max)
{
    struct chain *chain = &file->chains[number - 1];
    enum store_result result = STORE_OK;
    for (uint32_t i = 0; i < max && chain->known.replies > 0 && result == STORE_OK; i++) {
        sqlite3_stmt *first = store_db_use(&file->db, SQL_REPLY_FIRST, 2, INT(store_db_base(number)),
                                           INT(store_db_base(number + 1)));
        int stepped = store_db_step(first);
        if (stepped < 0)
            return store_db_failed(&file->db, "finding old replies");
        if (stepped == 0) { /* the counters were wrong: they belong to a damaged database */
            chain->known.replies = chain->known.reply_bytes = 0;
            chain->is_changed = true;
            break;
        }
        uint64_t id = store_db_column(first, 0), bytes = store_db_column(first, 2);
        int64_t taken = sqlite3_column_int64(first, 1);
        if (taken >= before) {
            sqlite3_reset(first);
            break;
        }
        sqlite3_stmt *expire =
            store_db_use(&file->db, SQL_EXPIRED_ADD, 3, INT(id), INT(taken), INT(store_db_column(first, 3)));
        if (expire)
            sqlite3_bind_value(expire, 4, sqlite3_column_value(first, 4));
        sqlite3_reset(first);
        result = store_db_run(&file->db, expire, "expiring a reply");
        if (result == STORE_OK)
            result = store_db_run(&file->db, store_db_use(&file->db, SQL_REPLY_DELETE, 1, INT(id)),
                                  "expiring a reply");
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
        sqlite3_stmt *first = store_db_use(&file->db, SQL_EXPIRED_FIRST, 2, INT(store_db_base(number)),
                                           INT(store_db_base(number + 1)));
        int stepped = store_db_step(first);
        if (stepped < 0)
            return store_db_failed(&file->db, "finding old tickets");
        uint64_t id = stepped > 0 ? store_db_column(first, 0) : 0;
        bool is_due = stepped > 0 && (sqlite3_column_int64(first, 1) < before || chain->known.expired > keep);
        sqlite3_reset(first);
        if (!is_due) {
            if (stepped == 0)
                chain->known.expired = 0;
            break;
        }
        result = store_db_run(&file->db, store_db_use(&file->db, SQL_EXPIRED_DELETE, 1, INT(id)),
                              "forgetting a ticket");
        chain->known.expired--;
        chain->is_changed = true;
    }
    return result;
}

/* ---- digests, by the ids of their messages ---- */

enum store_result store_file_remember(struct store_file *file, const struct store_row *row, int64_t before,
                                      uint32_t max)
{
    struct chain *chain = chain_of(file, row->id);
    sqlite3_stmt *add = store_db_use(&file->db, SQL_RECENT_ADD, 2, INT(row->id), INT(row->taken));
    if (!add)
        return store_db_failed(&file->db, "remembering a digest");
    sqlite3_bind_blob(add, 3, row->digest, sizeof row->digest, SQLITE_STATIC);
    sqlite3_bind_blob(add, 4, row->secret, sizeof row->secret, SQLITE_STATIC);
    enum store_result result = store_db_run(&file->db, add, "remembering a digest");
    chain->remembered++;
    for (int i = 0; i < 2 && result == STORE_OK; i++) { /* two go for one that comes: old ones become fewer */
        sqlite3_stmt *first = store_db_use(&file->db, SQL_RECENT_FIRST, 2,
                                           INT(store_db_base(chain->known.number)), INT(row->id));
        int stepped = store_db_step(first);
        if (stepped < 0)
            return store_db_failed(&file->db, "finding old digests");
        if (stepped == 0)
            break;
        uint64_t id = store_db_column(first, 0);
        bool is_old = sqlite3_column_int64(first, 1) < before;
        sqlite3_reset(first);
        if (!is_old && chain->remembered <= max)
            break;
        result = store_file_forget(file, id);
    }
    return result;
}

enum store_result store_file_forget(struct store_file *file, uint64_t id)
{
    struct chain *chain = chain_of(file, id);
    enum store_result result =
        store_db_run(&file->db, store_db_use(&file->db, SQL_RECENT_DELETE, 2, INT(id), INT(id + 1)),
                     "forgetting a digest");
    if (result == STORE_OK && sqlite3_changes(file->db.sqlite) > 0)
        chain->remembered -= chain->remembered > 0;
    return result;
}

enum store_result store_file_forget_all(struct store_file *file, uint32_t number)
{
    file->chains[number - 1].remembered = 0;
    return store_db_run(&file->db,
                        store_db_use(&file->db, SQL_RECENT_DELETE, 2, INT(store_db_base(number)),
                                     INT(store_db_base(number + 1))),
                        "forgetting digests");
}

enum store_result store_file_recall(struct store_file *file, uint32_t number, int64_t from, int64_t to,
                                    store_row_fn *each, void *context)
{
    sqlite3_stmt *all = store_db_use(&file->db, SQL_RECENT, 4, INT(store_db_base(number)),
                                     INT(store_db_base(number + 1)), INT(from), INT(to));
    int stepped;
    while ((stepped = store_db_step(all)) > 0) {
        struct store_row row = {
            .id = store_db_column(all, 0), .taken = sqlite3_column_int64(all, 1), .has_digest = true};
        if (sqlite3_column_bytes(all, 2) != sizeof row.digest ||
            sqlite3_column_bytes(all, 3) != sizeof row.secret)
            continue; /* damaged: its message counts as new when it comes again */
        memcpy(row.digest, sqlite3_column_blob(all, 2), sizeof row.digest);
        memcpy(row.secret, sqlite3_column_blob(all, 3), sizeof row.secret);
        each(context, row.id, &row);
    }
    return stepped == 0 ? STORE_OK : store_db_failed(&file->db, "reading digests");
}

/* ---- reading ---- */

enum store_result store_file_read(struct store_file *file, enum store_table table, uint64_t id, uint32_t max,
                                  size_t max_bytes, store_row_fn *each, void *context, uint64_t *next)
{
    uint64_t end = ((id >> STORE_SEQUENCE_BITS) + 1) << STORE_SEQUENCE_BITS;
    sqlite3_stmt *read = store_db_use(&file->db, table == STORE_DEAD ? SQL_READ_DEAD : SQL_READ_MESSAGES, 2,
                                      INT(id), INT(end));
    uint64_t least = id;
    size_t bytes = 0;
    *next = 0;
    int stepped;
    for (uint32_t count = 0; (stepped = store_db_step(read)) > 0; count++) {
        uint64_t at = store_db_column(read, 0);
        if (at < least || at >= end) { /* the tree itself is damaged */
            sqlite3_reset(read);
            file->db.is_damaged = true;
            return store_db_fail(&file->db, STORE_CORRUPT, "messages out of their order");
        }
        least = at + 1;
        if (count >= max || (count > 0 && bytes >= max_bytes)) {
            *next = at;
            break;
        }
        if (sqlite3_column_int64(read, 5) == -1)
            continue;
        struct store_row row;
        struct store_place place;
        bool is_sound = store_db_read_row(read, &row, &place, table == STORE_DEAD);
        bytes += row.flat_bytes;
        each(context, at, is_sound ? &row : NULL);
    }
    if (stepped < 0)
        return store_db_failed(&file->db, "reading messages");
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
    struct store_place place;
    int stepped = store_db_step(find);
    if (stepped <= 0)
        return stepped;
    if (store_db_read_row(find, row, &place, has_reason) && is_same_secret(row->secret, secret) &&
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
        enum store_statement statement;
        enum store_ticket state;
    } places[] = {{SQL_FIND_MESSAGE, STORE_TICKET_PENDING},
                  {SQL_FIND_DEAD, STORE_TICKET_DEAD},
                  {SQL_FIND_REPLY, STORE_TICKET_DONE}};
    *state = STORE_TICKET_UNKNOWN;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        sqlite3_stmt *find = store_db_use(&file->db, places[i].statement, 1, INT(id));
        int found = find_row(find, secret, owner, places[i].state == STORE_TICKET_DEAD, row);
        if (found < 0)
            return store_db_failed(&file->db, "finding a ticket");
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
        return is_short ? store_db_fail(&file->db, STORE_BROKEN, "out of memory") : STORE_OK;
    }
    sqlite3_stmt *find = store_db_use(&file->db, SQL_FIND_EXPIRED, 1, INT(id));
    int found = store_db_step(find);
    if (found < 0)
        return store_db_failed(&file->db, "finding a ticket");
    if (found == 0)
        return STORE_OK;
    if (is_owner(store_db_column(find, 0), owner) && sqlite3_column_bytes(find, 1) == STORE_SECRET_BYTES &&
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
    char path[STORE_DB_PATH];
    path_of(file, "store.reserve", path);
    bool had_one = file->has_reserve;
    file->has_reserve = false;
    return unlink(path) == 0 && had_one;
}

/* Written, not only allocated: some file systems promise blocks that they do not have. */
static bool make_reserve(struct store_file *file)
{
    char path[STORE_DB_PATH];
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
    if (file->db.log_frames < CHECKPOINT_PAGES)
        return STORE_OK;
    int in_log = 0, moved = 0;
    if (sqlite3_wal_checkpoint_v2(file->db.sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved) !=
        SQLITE_OK)
        return store_db_failed(&file->db, "checkpointing");
    if (in_log == moved) {
        file->db.log_frames = 0; /* the next commit begins at the front of the log */
        file->mark.frames = file->mark.synced = 0;
        write_mark(file);
    }
    return STORE_OK;
}

enum store_result store_file_truncate_log(struct store_file *file)
{
    int in_log = 0, moved = 0;
    if (sqlite3_wal_checkpoint_v2(file->db.sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved) !=
        SQLITE_OK)
        return store_db_failed(&file->db, "checkpointing");
    if (in_log != moved)
        return STORE_OK;
    file->mark.frames = file->mark.synced = 0; /* said before the log is gone, so that it is not missed */
    write_mark(file);
    if (sqlite3_wal_checkpoint_v2(file->db.sqlite, NULL, SQLITE_CHECKPOINT_TRUNCATE, &in_log, &moved) !=
        SQLITE_OK)
        return store_db_failed(&file->db, "emptying the log");
    file->db.log_frames = 0;
    return STORE_OK;
}

/* Below these sizes there is nothing worth a write. */
enum { TIDY_FREE_PAGES = 256, TIDY_LOG_BYTES = 1 << 20 };

/* Pages that were given back leave the file with the next checkpoint only, and on a full disk none may come. */
static bool is_longer_than_its_pages(struct store_file *file)
{
    char path[STORE_DB_PATH];
    struct stat database;
    path_of(file, "store.db", path);
    return stat(path, &database) == 0 &&
           database.st_size >
               store_db_pragma(&file->db, "PRAGMA page_count") * STORE_DB_PAGE + TIDY_LOG_BYTES;
}

enum store_result store_file_tidy(struct store_file *file, bool *is_done)
{
    *is_done = false;
    sqlite3_int64 free_pages = store_db_pragma(&file->db, "PRAGMA freelist_count");
    if (free_pages >= TIDY_FREE_PAGES && free_pages * 5 > store_db_pragma(&file->db, "PRAGMA page_count"))
        return store_db_run(&file->db, store_db_use(&file->db, SQL_VACUUM, 0), "giving pages back");
    *is_done = true;
    bool is_empty = true;
    for (size_t i = 0; i < file->chain_count; i++)
        is_empty = is_empty && file->chains[i].known.live == 0;
    struct stat log;
    bool is_log_large = is_empty && fstat(file->log_fd, &log) == 0 && log.st_size >= TIDY_LOG_BYTES;
    if (!is_log_large && !is_longer_than_its_pages(file))
        return STORE_OK;
    return store_file_truncate_log(file);
}

/* ---- opening ---- */

/* So that whoever opens it next knows, be it another process. */
static void note_doubt(struct store_file *file)
{
    if (!file->db.is_doubtful)
        return;
    file->mark.is_doubtful = true;
    mark_write_head(file->mark_fd, &file->mark);
}

static void disconnect(struct store_file *file)
{
    if (file->log_fd >= 0)
        close(file->log_fd);
    file->log_fd = -1;
    store_db_close(&file->db);
}

/* Compares the log with the mark; mends it where bits were flipped. Afterwards mark_found says exactly what the
 * database must hold, or nothing.
 *
 * After kill -9 the mark tells what the last commit left. After a power cut an old one may be what reached the
 * medium: then only the very log that it speaks of proves it, and only as far as that was synced. */
static void judge_log(struct store_file *file, const char *log_path)
{
    struct mark_head *mark = &file->mark_found;
    struct mark_log log;
    struct store_clock clock;
    bool has_log = mark_inspect_log(log_path, &log);
    file->conf.read_clock(&clock);
    bool is_same_boot = clock.boot_id[0] && strcmp(mark->boot_id, clock.boot_id) == 0;
    uint32_t certain = is_same_boot ? mark->frames : mark->synced;
    bool is_same_log = log.has_header ? log.salt[0] == mark->salt[0] && log.salt[1] == mark->salt[1]
                                      : mark->frames > 0 && mark_is_log(log_path, mark->salt, certain);
    if ((log.has_header && !is_same_log) || (mark->frames > 0 && log.frames > mark->frames) ||
        (!is_same_boot && !(mark->is_clean ? !has_log : is_same_log))) {
        mark->commit = 0;
        return;
    }
    if (log.frames >= certain)
        return;
    file->is_log_cut =
        !is_same_log || log.frames_there < certain || !mark_mend_log(log_path, mark->salt, certain);
    char text[96];
    snprintf(text, sizeof text, "the log was %s at frame %" PRIu32 " of %" PRIu32,
             file->is_log_cut ? "cut" : "mended", log.frames, certain);
    tell(file, STORE_EVENT_DAMAGED, text, 0);
}

/* Makes the database when there is none, and connects to it. */
static enum store_result connect_or_make(struct store_file *file, const char *path, bool is_new)
{
    enum store_result result = STORE_OK;
    if (is_new)
        result = store_salvage_make(&file->db, file->conf.directory);
    else if (file->mark.is_doubtful)
        result = store_salvage_renew_log(&file->db, file->conf.directory);
    return result == STORE_OK ? store_db_connect(&file->db, path, false) : result;
}

static enum store_result salvage(struct store_file *file)
{
    uint64_t saved, damaged;
    char reason[sizeof file->db.error];
    memcpy(reason, file->db.error, sizeof reason);
    enum store_result result =
        store_salvage(&file->db, file->conf.directory, file->mark_fd, &saved, &damaged);
    if (result != STORE_OK)
        return result;
    tell(file, STORE_EVENT_SALVAGED, reason, saved);
    if (damaged > 0)
        tell(file, STORE_EVENT_DAMAGED, "rows with a wrong checksum were kept aside", damaged);
    return STORE_OK;
}

/* Compares what lies there with the mark of the run before. */
static enum store_result judge(struct store_file *file, const char *path, bool is_salvaged, bool *is_new)
{
    char log_path[STORE_DB_PATH];
    path_of(file, "store.db-wal", log_path);
    bool has_mark = mark_read_head(file->mark_fd, &file->mark);
    if (!has_mark)
        file->mark = (struct mark_head){0};
    file->mark_found = file->mark;
    enum store_result result =
        store_db_judge(&file->db, path, has_mark && file->mark.version <= STORE_DB_VERSION, is_new);
    if (result == STORE_OK && !*is_new && has_mark && file->mark.version > STORE_DB_VERSION)
        return store_db_fail(&file->db, STORE_REFUSED,
                             "%s was last used by a newer proxyd: of version %" PRIu32
                             ", this one knows up to %d",
                             path, file->mark.version, STORE_DB_VERSION);
    if (result == STORE_OK && *is_new) { /* what the mark says of a database before is gone with it */
        file->mark.frames = file->mark.synced = 0;
        file->mark.is_doubtful = false;
    } else if (has_mark && !is_salvaged) {
        judge_log(file, log_path);
    }
    return result;
}

static enum store_result open_database(struct store_file *file, bool is_first)
{
    char path[STORE_DB_PATH], log_path[STORE_DB_PATH];
    path_of(file, "store.db", path);
    path_of(file, "store.db-wal", log_path);
    bool is_new = false, is_salvaged = false;
    enum store_result result = store_salvage_finish(&file->db, file->conf.directory, &is_salvaged);
    if (result == STORE_OK)
        result = file->db.is_damaged ? STORE_CORRUPT
                 : is_first          ? judge(file, path, is_salvaged, &is_new)
                                     : store_db_judge(&file->db, path, true, &is_new);
    if (result == STORE_OK)
        result = connect_or_make(file, path, is_new);
    if (result == STORE_FULL && store_file_give_reserve(file)) {
        disconnect(file);
        result = connect_or_make(file, path, is_new);
    }
    if (result == STORE_CORRUPT) {
        file->db.is_damaged = true;
        disconnect(file);
        file->db.is_damaged = false; /* what is open from here on is new */
        result = salvage(file);
        file->db.is_damaged = result != STORE_OK;
        if (result == STORE_OK)
            result = store_db_connect(&file->db, path, false);
    }
    if (result != STORE_OK)
        return result;
    file->mark.is_doubtful = file->db.is_doubtful = false;
    file->log_fd = open(log_path, O_RDONLY | O_CLOEXEC);
    if (!identify(file, "store.db", &file->database) || !identify(file, "store.db-wal", &file->log))
        return store_db_fail(&file->db, STORE_BROKEN, "%s: %s", log_path, strerror(errno));
    return STORE_OK;
}

static bool lock(struct store_file *file, char *err, size_t err_bytes)
{
    char path[STORE_DB_PATH];
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
    if (strlen(conf->directory) > STORE_DB_PATH - 64 || !lock(file, err, err_bytes)) {
        store_file_close(file);
        return STORE_REFUSED;
    }
    char path[STORE_DB_PATH];
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
        if (opened == STORE_REFUSED)
            snprintf(err, err_bytes, "%s", file->db.error);
        else
            snprintf(err, err_bytes, "%s: %s", conf->directory, file->db.error);
        disconnect(file);
        store_file_close(file);
        return opened;
    }
    if (conf->found)
        tell_chains(file);
    *result = file;
    return STORE_OK;
}

enum store_result store_file_reopen(struct store_file *file)
{
    note_doubt(file);
    disconnect(file);
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
        disconnect(file);
    }
    return result;
}

void store_file_close(struct store_file *file)
{
    if (!file)
        return;
    if (file->db.sqlite) {
        note_doubt(file);
        disconnect(file);
        file->mark.is_clean = true;
        file->mark.frames = file->mark.synced = 0;
        char log_path[STORE_DB_PATH];
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
