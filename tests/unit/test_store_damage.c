/* links: tests/unit/store_kit.c tests/unit/scratch.c buffer/message.c buffer/queue.c buffer/queue_disk.c */
/* links: buffer/store.c buffer/store_file.c buffer/store_db.c buffer/store_salvage.c buffer/store_mark.c */
/* links: buffer/crc32c.c buffer/histogram.c */
/* SPDX-License-Identifier: MIT
 *
 * Bits that flip and files that are cut short, anywhere in the database and its log, after kill -9 and after an
 * orderly end: the store opens, nothing wrong is delivered, what is lost is counted, the rest is delivered in order.
 */
#include "buffer/store_db.h"
#include "tests/unit/scratch.h"
#include "tests/unit/store_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { MESSAGES = 300, BYTES = 200, LARGE_EVERY = 50, LARGE = 20000, PATIENCE_MS = 20000 };

static struct scratch work, killed, closed, trial;
static struct kit kit;

static void join(char path[384], const char *directory, const char *name)
{
    snprintf(path, 384, "%s/%s", directory, name);
}

static void copy_file(const char *from, const char *to)
{
    char block[65536];
    ssize_t size;
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(in >= 0 && out >= 0);
    while ((size = read(in, block, sizeof block)) > 0)
        assert_int_equal(write(out, block, (size_t)size), size);
    close(in);
    close(out);
}

/* What kill -9 would leave: the files as they are. */
static void copy_store(const char *from, const char *to)
{
    static const char *const names[] = {"store.db", "store.db-wal", "store.mark", "store.reserve"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char source[384], target[384];
        join(source, from, names[i]);
        join(target, to, names[i]);
        if (access(source, F_OK) == 0)
            copy_file(source, target);
    }
}

static size_t bytes_of(uint64_t number)
{
    return number % LARGE_EVERY == 0 ? LARGE : BYTES;
}

/* Two states of the same 300 messages: as kill -9 leaves them, mostly in the log, and as an orderly end does. */
static int set_up(void **state)
{
    (void)state;
    scratch_make(&work);
    scratch_make(&killed);
    scratch_make(&closed);
    scratch_make(&trial);
    if (!kit_open(&kit, work.path))
        fail_msg("%s", kit.err);
    for (uint64_t i = 0; i < MESSAGES; i++)
        if (kit_put_all(&kit, i, 1, bytes_of(i)) != 1)
            return -1;
    for (int i = 0; i < 5; i++) {
        struct queue_item *item = kit_lease(&kit, PATIENCE_MS);
        queue_ack(kit.queue, item, NULL);
    }
    if (kit_put_all(&kit, MESSAGES, 1, BYTES) != 1)
        return -1;
    copy_store(work.path, killed.path);
    kit_close(&kit);
    copy_store(work.path, closed.path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&work);
    scratch_remove(&killed);
    scratch_remove(&closed);
    scratch_remove(&trial);
    return 0;
}

enum { FIRST = 5, LAST = MESSAGES, KEPT = LAST - FIRST + 1 };

struct result {
    uint64_t delivered, damaged;
};

/* A failed test must not keep the next one from opening a store. */
#define GIVE_UP(...)                                                                                         \
    do {                                                                                                     \
        kit_close(&kit);                                                                                     \
        fail_msg(__VA_ARGS__);                                                                               \
    } while (0)

/* Opens what is in `trial`, delivers everything, and checks that it is right as far as it goes. */
static struct result drain(const char *what)
{
    struct result result = {0};
    memset(&kit, 0, sizeof kit);
    if (!kit_open(&kit, trial.path))
        fail_msg("%s: %s", what, kit.err);
    uint64_t restored = kit_stats(&kit).restored, next = 0, kept = 0;
    while (kit_stats(&kit).queued > 0) {
        struct queue_item *item = kit_lease(&kit, kit_stats(&kit).queued > 0 ? 2000 : 0);
        if (!item)
            break;
        uint64_t number = kit_number(&item->body);
        if (number == UINT64_MAX || number < next || number > LAST)
            GIVE_UP("%s: message %d delivered after %d", what, (int)number, (int)next);
        next = number + 1;
        result.delivered++;
        kept += number >= FIRST;
        queue_ack(kit.queue, item, NULL);
    }
    struct queue_stats stats = kit_stats(&kit);
    if (stats.queued > 0 || stats.inflight > 0)
        GIVE_UP("%s: %d messages are stuck", what, (int)stats.queued);
    result.damaged = stats.damaged;
    if (result.delivered + result.damaged != restored || kept + result.damaged < KEPT)
        GIVE_UP("%s: %d of %d restored, %d delivered, %d of them expected, %d damaged", what, (int)restored,
                KEPT, (int)result.delivered, (int)kept, (int)result.damaged);
    assert_int_equal(kit_put_all(&kit, 1000, 3, 100), 3);
    kit_close(&kit);
    return result;
}

static off_t size_of(const char *name)
{
    struct stat about;
    char path[384];
    join(path, trial.path, name);
    return stat(path, &about) == 0 ? about.st_size : 0;
}

static void flip(const char *name, off_t at, int bit)
{
    char path[384];
    unsigned char byte;
    join(path, trial.path, name);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= (unsigned char)(1 << bit);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static unsigned random_state = 1;

static uint64_t random_below(uint64_t limit)
{
    uint64_t value = 0;
    for (int i = 0; i < 4; i++) {
        random_state = random_state * 1103515245u + 12345u;
        value = value << 16 | (random_state >> 16 & 0xffff);
    }
    return value % limit;
}

static int trials(int usual)
{
    return getenv("PROXYD_TEST_LONG") ? 1000 : usual;
}

/* Flips one bit in `name` as `from` has it, again and again; how many messages came through, of KEPT each. */
static void flip_everywhere(const struct scratch *from, const char *name, int count, uint64_t *lost,
                            uint64_t *worst)
{
    *lost = *worst = 0;
    for (int i = 0; i < count; i++) {
        char what[96];
        scratch_clear(&trial);
        copy_store(from->path, trial.path);
        off_t at = (off_t)random_below((uint64_t)size_of(name));
        if (i < 20) /* the headers are small, and matter most */
            at = at % 120;
        int bit = (int)random_below(8);
        if (at == 63) /* where a flip of the last bit makes the next version, which is refused */
            bit |= 1;
        snprintf(what, sizeof what, "%s with bit %d of byte %ld flipped", name, bit, (long)at);
        flip(name, at, bit);
        struct result result = drain(what);
        *lost += result.damaged;
        if (result.damaged > *worst)
            *worst = result.damaged;
    }
}

static void store_survives_flipped_bits_in_the_log(void **state)
{
    (void)state;
    uint64_t lost, worst;
    int count = trials(60);
    flip_everywhere(&killed, "store.db-wal", count, &lost, &worst);
    print_message("log: %d flips, %d messages lost, at most %d\n", count, (int)lost, (int)worst);
    assert_in_range(lost, 0, (uint64_t)count * 20);
}

static void store_survives_flipped_bits_in_the_database(void **state)
{
    (void)state;
    uint64_t lost, worst;
    int count = trials(60);
    flip_everywhere(&closed, "store.db", count, &lost, &worst);
    print_message("database: %d flips, %d messages lost, at most %d\n", count, (int)lost, (int)worst);
    assert_in_range(lost, 0, (uint64_t)count * 20);
}

static void cut_everywhere(const struct scratch *from, const char *name, int count)
{
    for (int i = 0; i < count; i++) {
        char what[96], path[384];
        scratch_clear(&trial);
        copy_store(from->path, trial.path);
        off_t at = 1 + (off_t)random_below((uint64_t)size_of(name));
        snprintf(what, sizeof what, "%s cut at %ld", name, (long)at);
        join(path, trial.path, name);
        assert_int_equal(truncate(path, at), 0);
        drain(what);
    }
}

static void store_survives_a_log_cut_short(void **state)
{
    (void)state;
    cut_everywhere(&killed, "store.db-wal", trials(25));
}

static void store_survives_a_database_cut_short(void **state)
{
    (void)state;
    cut_everywhere(&closed, "store.db", trials(25));
}

static void store_counts_a_log_that_is_gone(void **state)
{
    (void)state;
    char path[384];
    scratch_clear(&trial);
    copy_store(killed.path, trial.path);
    join(path, trial.path, "store.db-wal");
    unlink(path);
    struct result result = drain("no log");
    assert_true(result.damaged > 0);
}

static void store_believes_no_damaged_mark(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        char what[96];
        scratch_clear(&trial);
        copy_store(killed.path, trial.path);
        off_t at = (off_t)random_below((uint64_t)size_of("store.mark"));
        snprintf(what, sizeof what, "mark with byte %ld flipped", (long)at);
        flip("store.mark", at, (int)random_below(8));
        struct result result = drain(what);
        assert_int_equal(result.delivered, KEPT);
        assert_int_equal(result.damaged, 0);
    }
}

static void store_sets_a_damaged_database_aside(void **state)
{
    (void)state;
    scratch_clear(&trial);
    copy_store(closed.path, trial.path);
    flip("store.db", 3, 0);
    struct result result = drain("damaged magic");
    assert_int_equal(result.delivered, KEPT);
    assert_int_equal(kit.events[STORE_EVENT_SALVAGED], 1);
    int aside = 0;
    DIR *directory = opendir(trial.path);
    for (struct dirent *entry; (entry = readdir(directory));)
        aside += strncmp(entry->d_name, "store.db.corrupt-", 17) == 0;
    closedir(directory);
    assert_int_equal(aside, 1);
}

/* Finds a name in a file; where it stands. */
static off_t offset_of(const char *name, const char *text)
{
    char path[384], *bytes;
    join(path, trial.path, name);
    off_t size = size_of(name), at = 0;
    bytes = malloc((size_t)size);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, bytes, (size_t)size), size);
    close(fd);
    void *found = memmem(bytes, (size_t)size, text, strlen(text));
    assert_non_null(found);
    at = (char *)found - bytes;
    free(bytes);
    return at;
}

static void store_knows_a_chain_that_lost_its_name_or_number(void **state)
{
    (void)state;
    static const int before_name[] = {0, -3, -1}; /* the name, and the head of its row */
    for (size_t i = 0; i < sizeof before_name / sizeof *before_name; i++) {
        scratch_clear(&trial);
        copy_store(closed.path, trial.path);
        flip("store.db", offset_of("store.db", "calls") + before_name[i], 1);
        struct result result = drain("damaged chain");
        assert_int_equal(result.delivered, KEPT);
    }
}

/* Nothing was ever delivered, so that the counting begins with the page that cannot be read. */
static void store_opens_when_the_first_message_cannot_be_read(void **state)
{
    (void)state;
    static const char first_body[] = {2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 0};
    scratch_clear(&trial);
    memset(&kit, 0, sizeof kit);
    assert_true(kit_open(&kit, trial.path));
    assert_int_equal(kit_put_all(&kit, 0, LAST + 1, BYTES), LAST + 1);
    kit_close(&kit);
    flip("store.db", offset_of("store.db", first_body) / STORE_DB_PAGE * STORE_DB_PAGE, 0);
    struct result result = drain("damaged first page");
    assert_in_range(result.delivered, LAST + 1 - STORE_DB_PAGE / BYTES, LAST);
    assert_int_equal(kit.events[STORE_EVENT_SALVAGED], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_survives_flipped_bits_in_the_log),
        cmocka_unit_test(store_survives_flipped_bits_in_the_database),
        cmocka_unit_test(store_survives_a_log_cut_short),
        cmocka_unit_test(store_survives_a_database_cut_short),
        cmocka_unit_test(store_counts_a_log_that_is_gone),
        cmocka_unit_test(store_believes_no_damaged_mark),
        cmocka_unit_test(store_sets_a_damaged_database_aside),
        cmocka_unit_test(store_knows_a_chain_that_lost_its_name_or_number),
        cmocka_unit_test(store_opens_when_the_first_message_cannot_be_read),
    };
    return cmocka_run_group_tests_name("damaged store", tests, set_up, tear_down);
}
