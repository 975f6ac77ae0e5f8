/* links: tests/unit/medium.c tests/unit/store_kit.c tests/unit/scratch.c buffer/message.c buffer/queue.c */
/* links: buffer/queue_disk.c buffer/store.c buffer/store_file.c buffer/store_db.c buffer/store_salvage.c */
/* links: buffer/store_mark.c buffer/crc32c.c buffer/histogram.c */
/* SPDX-License-Identifier: MIT
 *
 * Power cuts: a store works on a medium that remembers each write and sync; then the medium is made as a cut at any
 * moment might have left it, and what was acked by then must be there. With acks that do not wait for the medium,
 * the same procedure must find losses, or it proves nothing. PROXYD_TEST_LONG=1 makes it 10,000 cuts.
 */
#include "tests/unit/medium.h"
#include "tests/unit/scratch.h"
#include "tests/unit/store_kit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MESSAGES = 900, PATIENCE_MS = 20000 };

/* The position of the medium at which each message was acked, and at which its delivery was told to the queue; and
 * the position at which its put was begun. UINT64_MAX: never. */
static struct {
    uint64_t put_at, acked_at, settled_at;
} history[MESSAGES];

static struct kit kit;

static void hear(struct medium *medium, int wait_ms, int *on_their_way)
{
    bool is_stored;
    queue_commit(kit.queue);
    for (struct queue_item *item = kit_turn(&kit, wait_ms, &is_stored); item;
         item = queue_next_stored(kit.queue, &is_stored)) {
        assert_true(is_stored);
        history[kit_number(&item->body)].acked_at = medium_position(medium);
        (*on_their_way)--;
    }
}

/* Groups of all sizes, deliveries between them, a few large messages. */
static void work(struct medium *medium, const char *directory)
{
    unsigned random = 99;
    int on_their_way = 0;
    if (!kit_open(&kit, directory))
        fail_msg("%s", kit.err);
    for (uint64_t next = 0; next < MESSAGES;) {
        random = random * 1103515245u + 12345u;
        for (unsigned i = random >> 16 & 3; i > 0 && next < MESSAGES; i--) {
            history[next].put_at = medium_position(medium);
            assert_true(kit_put(&kit, next, next % 100 == 7 ? 30000 : 50 + (random >> 20 & 511)));
            next++;
            on_their_way++;
        }
        hear(medium, on_their_way > 0 ? 20 : 0, &on_their_way);
        for (unsigned i = random >> 8 & 7; i > 0; i--) {
            struct queue_item *item = queue_lease(kit.queue, KIT_FOREVER);
            if (!item)
                break;
            history[kit_number(&item->body)].settled_at = medium_position(medium);
            queue_ack(kit.queue, item, NULL);
        }
    }
    while (on_their_way > 0)
        hear(medium, PATIENCE_MS, &on_their_way);
    kit_close(&kit);
}

/* After a real power cut the machine has booted anew. */
static void read_clock_after_boot(struct store_clock *clock)
{
    *clock =
        (struct store_clock){.boot_ms = 1000, .wall_ms = INT64_C(1800000000000), .boot_id = "another boot"};
}

/* How many messages acked before `position` are gone. Negative: something is there that was never put, the store
 * does not open, or it misses what was not there. */
static int count_lost(const char *directory, uint64_t position)
{
    bool is_there[MESSAGES] = {false};
    memset(&kit, 0, sizeof kit);
    kit.read_clock = read_clock_after_boot;
    if (!kit_open(&kit, directory))
        return -2;
    int lost = 0;
    for (uint64_t i = kit_stats(&kit).queued; i > 0; i--) {
        struct queue_item *item = kit_lease(&kit, kit_stats(&kit).damaged > 0 ? 0 : PATIENCE_MS);
        uint64_t number = item ? kit_number(&item->body) : UINT64_MAX;
        if (!item && kit_stats(&kit).damaged > 0)
            break;
        if (number >= MESSAGES || is_there[number] || history[number].put_at > position)
            lost = -1;
        else
            is_there[number] = true;
        if (lost < 0)
            break;
    }
    for (int i = 0; i < MESSAGES && lost >= 0; i++)
        lost += history[i].acked_at <= position && history[i].settled_at > position && !is_there[i];
    if (kit_stats(&kit).damaged > 0 && lost == 0)
        lost = -3;
    kit_close(&kit);
    return lost;
}

/* The first moment of an ack from `position` on; `to` when there is none. */
static uint64_t next_ack(uint64_t position, uint64_t to)
{
    for (int i = 0; i < MESSAGES; i++)
        if (history[i].acked_at >= position && history[i].acked_at < to)
            to = history[i].acked_at;
    return to;
}

/* Works with these acks, cuts the power `cuts` times, every other time at the very moment of an ack; how many cuts
 * lost something acked. */
static int cut_power(int64_t sync_ms, int cuts)
{
    char err[256], live[128], cut[128];
    struct scratch scratch;
    scratch_make(&scratch);
    struct medium *medium = medium_new(scratch.path, err, sizeof err);
    if (!medium) {
        scratch_remove(&scratch);
        print_message("%s\n", err);
        skip();
    }
    snprintf(live, sizeof live, "%s/live", scratch.path);
    snprintf(cut, sizeof cut, "%s/cut", scratch.path);
    memset(history, 0xff, sizeof history);
    memset(&kit, 0, sizeof kit);
    kit.conf.sync_ms = sync_ms;
    uint64_t from = medium_position(medium);
    work(medium, live);
    uint64_t to = medium_position(medium);
    medium_stop(medium);
    int losing = 0, lost = 0, failed = 0;
    uint64_t position = 0;
    for (int i = 0; i < cuts; i++) {
        enum medium_cut kind = (enum medium_cut)(i / 2 % CUT_KINDS);
        uint64_t even = from + (to - from) * (uint64_t)i / (uint64_t)cuts;
        position = even < position ? position : i % 2 ? next_ack(even, to) : even;
        if (!medium_cut(medium, position, kind)) {
            failed++; /* ext4 itself did not come back */
            continue;
        }
        int result = count_lost(cut, position);
        medium_uncut(medium);
        if (result < 0) {
            medium_free(medium);
            fail_msg("cut %d at %d: %s", i, (int)position,
                     result == -1   ? "a message that should not be there"
                     : result == -2 ? kit.err
                                    : "damage where there is none");
        }
        if (result > 0 && sync_ms == 0)
            print_message("cut %d of kind %d at %d lost %d\n", i, (int)kind, (int)position, result);
        losing += result > 0;
        lost += result;
    }
    print_message(
        "%d writes and syncs, %d cuts, %d of them lost something acked (%d messages), %d did not mount\n",
        (int)(to - from), cuts, losing, lost, failed);
    assert_in_range(failed, 0, (uint64_t)cuts / 1000); /* half a superblock is more than ext4 can bear */
    medium_free(medium);
    scratch_remove(&scratch);
    return losing;
}

static int cuts(void)
{
    return getenv("PROXYD_TEST_LONG") ? 10000 : 300;
}

static void store_loses_nothing_acked_when_the_power_goes(void **state)
{
    (void)state;
    assert_int_equal(cut_power(0, cuts()), 0);
}

/* Acks that promise no more than the interval: what is older than that must be there. */
static void store_syncs_within_the_interval(void **state)
{
    (void)state;
    char err[256], path[128];
    struct scratch scratch;
    scratch_make(&scratch);
    struct medium *medium = medium_new(scratch.path, err, sizeof err);
    if (!medium) {
        scratch_remove(&scratch);
        skip();
    }
    snprintf(path, sizeof path, "%s/live", scratch.path);
    memset(history, 0xff, sizeof history);
    memset(&kit, 0, sizeof kit);
    kit.conf.sync_ms = 100;
    assert_true(kit_open(&kit, path));
    uint64_t before = medium_position(medium), after = before;
    history[0].put_at = 0;
    assert_int_equal(kit_put_all(&kit, 0, 1, 100), 1);
    history[0].acked_at = 0;
    int64_t until_ms = kit_now_ms() + PATIENCE_MS;
    bool is_stored;
    do {
        after = medium_position(medium);
        kit_turn(&kit, 300, &is_stored);
    } while ((after == before || medium_position(medium) != after) && kit_now_ms() < until_ms);
    kit_close(&kit);
    medium_stop(medium);
    snprintf(path, sizeof path, "%s/cut", scratch.path);
    assert_true(medium_cut(medium, after, CUT_NONE));
    assert_int_equal(count_lost(path, after), 0);
    medium_uncut(medium);
    medium_free(medium);
    scratch_remove(&scratch);
}

/* Pages whose write failed are clean for the kernel, and no later sync writes them: what is acked afterwards must not
 * stand on them. The log has been round once, so that none of its blocks is new. */
static void store_stands_on_nothing_that_a_failed_sync_left(void **state)
{
    (void)state;
    enum { FIRST = 400, LAST = 420 };
    char err[256], path[128];
    struct scratch scratch;
    scratch_make(&scratch);
    struct medium *medium = medium_new(scratch.path, err, sizeof err);
    if (!medium) {
        scratch_remove(&scratch);
        skip();
    }
    snprintf(path, sizeof path, "%s/live", scratch.path);
    memset(history, 0xff, sizeof history);
    memset(&kit, 0, sizeof kit);
    assert_true(kit_open(&kit, path));
    assert_int_equal(kit_put_all(&kit, 0, FIRST, 15000), FIRST);
    assert_int_equal(kit_put_all(&kit, FIRST, 1, 100), 1);
    sync();
    medium_refuse(medium, true);
    assert_int_equal(kit_put_all(&kit, FIRST + 1, 1, 100), 0);
    uint64_t refused = medium_refused(medium);
    int64_t until_ms = kit_now_ms() + PATIENCE_MS;
    bool is_stored;
    while (medium_refused(medium) == refused && kit_now_ms() < until_ms) /* the store tries to go on */
        kit_turn(&kit, 10, &is_stored);
    medium_refuse(medium, false);
    while (!queue_can_take(kit.queue) && kit_now_ms() < until_ms)
        kit_turn(&kit, 10, &is_stored);
    assert_int_equal(kit_put_all(&kit, FIRST + 2, LAST - FIRST - 2, 100), LAST - FIRST - 2);
    for (int i = 0; i < LAST; i++)
        if (i != FIRST + 1)
            history[i].put_at = history[i].acked_at = 0;
    uint64_t position = medium_position(medium);
    kit_close(&kit);
    medium_stop(medium);
    snprintf(path, sizeof path, "%s/cut", scratch.path);
    assert_true(medium_cut(medium, position, CUT_NONE));
    assert_int_equal(count_lost(path, position), 0);
    medium_uncut(medium);
    medium_free(medium);
    scratch_remove(&scratch);
}

static void power_cuts_find_what_was_not_synced(void **state)
{
    (void)state;
    assert_in_range(cut_power(3600000, 40), 1, 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_loses_nothing_acked_when_the_power_goes),
        cmocka_unit_test(store_syncs_within_the_interval),
        cmocka_unit_test(store_stands_on_nothing_that_a_failed_sync_left),
        cmocka_unit_test(power_cuts_find_what_was_not_synced),
    };
    return cmocka_run_group_tests_name("store without power", tests, NULL, NULL);
}
