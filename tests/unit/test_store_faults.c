/* links: tests/unit/fault_vfs.c tests/unit/store_kit.c tests/unit/scratch.c buffer/message.c buffer/queue.c */
/* links: buffer/queue_disk.c buffer/store.c buffer/store_file.c buffer/store_db.c buffer/store_salvage.c */
/* links: buffer/store_mark.c buffer/crc32c.c buffer/histogram.c */
/* SPDX-License-Identifier: MIT
 *
 * A disk that fails: the same work is done again and again, and each time another operation of it fails, until
 * there are no more. Nothing that was acked is lost, nothing that was not is there, and nobody waits for ever.
 */
#include "tests/unit/fault_vfs.h"
#include "tests/unit/scratch.h"
#include "tests/unit/store_kit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MESSAGES = 48, LARGE = 250000, PATIENCE_MS = 20000 };

static struct scratch scratch;
static struct kit kit;

enum fate {
    NOT_TAKEN, /* refused, or answered as failed: may not be there */
    STAGED,
    STORED,  /* must be there */
    SETTLED, /* delivered: may be there once more after a fault */
    BURIED,  /* must be there, dead or not */
};
static enum fate fates[MESSAGES];

static int set_up(void **state)
{
    (void)state;
    fault_install();
    scratch_make(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

/* Takes in what the store has answered; true when something was still on its way and is answered now. */
static void hear(int wait_ms)
{
    bool is_stored;
    for (struct queue_item *item = kit_turn(&kit, wait_ms, &is_stored); item;
         item = queue_next_stored(kit.queue, &is_stored)) {
        uint64_t number = kit_number(&item->body);
        assert_in_range(number, 0, MESSAGES - 1);
        assert_int_equal(fates[number], STAGED);
        fates[number] = is_stored ? STORED : NOT_TAKEN;
        if (!is_stored)
            queue_remove(kit.queue, item);
    }
}

static bool any_staged(void)
{
    for (int i = 0; i < MESSAGES; i++)
        if (fates[i] == STAGED)
            return true;
    return false;
}

static void hear_all(void)
{
    int64_t until_ms = kit_now_ms() + PATIENCE_MS;
    while (any_staged() && kit_now_ms() < until_ms)
        hear(100);
    assert_false(any_staged());
}

static void put(uint64_t number, size_t bytes)
{
    if (kit_put(&kit, number, bytes))
        fates[number] = STAGED;
}

/* Small groups and large ones, deliveries, failed ones, a dead letter, enough to move the log once. */
static void work(void)
{
    for (uint64_t i = 0; i < 4; i++) {
        put(i, 100);
        hear_all();
    }
    for (int i = 0; i < 3; i++) {
        struct queue_item *item = queue_lease(kit.queue, KIT_FOREVER);
        if (!item)
            continue;
        uint64_t number = kit_number(&item->body);
        if (i == 0) {
            queue_ack(kit.queue, item, NULL);
            fates[number] = SETTLED;
        } else if (i == 1) {
            item->attempts = 1;
            queue_nack(kit.queue, item, KIT_FOREVER + 1);
        } else {
            queue_bury(kit.queue, item, "refused");
            fates[number] = BURIED;
        }
    }
    for (uint64_t i = 4; i < 20; i++)
        put(i, 3000);
    hear_all();
    for (uint64_t i = 20; i < MESSAGES; i++) {
        put(i, LARGE);
        if (i % 4 == 3)
            hear_all();
    }
    hear_all();
    for (int i = 0; i < 10; i++) {
        struct queue_item *item = queue_lease(kit.queue, KIT_FOREVER);
        if (!item)
            break;
        fates[kit_number(&item->body)] = SETTLED;
        queue_ack(kit.queue, item, NULL);
    }
    hear(0);
}

static bool dead[MESSAGES], remembered[MESSAGES];

static void note_dead(void *context, bool is_ok, const struct queue_entry *entries, size_t count,
                      uint64_t next_id)
{
    *(bool *)context = true;
    assert_true(is_ok);
    assert_int_equal(next_id, 0);
    for (size_t i = 0; i < count; i++) {
        uint64_t number = kit_number(entries[i].body);
        assert_in_range(number, 0, MESSAGES - 1);
        assert_false(dead[number]);
        dead[number] = true;
    }
}

static void note_remembered(void *context, const uint8_t digest[QUEUE_DIGEST_BYTES], uint64_t id,
                            const char *ticket, int64_t taken_ms)
{
    uint64_t number;
    (void)context;
    (void)id;
    (void)ticket;
    (void)taken_ms;
    memcpy(&number, digest, sizeof number);
    assert_in_range(number, 0, MESSAGES - 1);
    remembered[number] = true;
}

/* What a sound disk shows afterwards, against what was promised. */
static void check(enum fault_kind kind, uint64_t at, bool is_for_good)
{
    bool found[MESSAGES] = {false}, is_answered = false, is_stored;
    memset(dead, 0, sizeof dead);
    memset(remembered, 0, sizeof remembered);
    if (!kit_open(&kit, scratch.path))
        fail_msg("fault %d at %d: %s", (int)kind, (int)at, kit.err);
    queue_page(kit.queue, true, 0, MESSAGES, true, note_dead, &is_answered);
    while (!is_answered)
        kit_turn(&kit, 10, &is_stored);
    struct queue_stats stats = kit_stats(&kit);
    assert_int_equal(stats.damaged, 0);
    for (uint64_t i = 0; i < stats.queued; i++) {
        struct queue_item *item = kit_lease(&kit, PATIENCE_MS);
        assert_non_null(item);
        uint64_t number = kit_number(&item->body);
        assert_in_range(number, 0, MESSAGES - 1);
        assert_false(found[number]);
        found[number] = true;
        queue_ack(kit.queue, item, NULL);
    }
    assert_null(kit_lease(&kit, 0));
    for (int i = 0; i < MESSAGES; i++) {
        bool is_there = found[i] || dead[i];
        if (((fates[i] == STORED || fates[i] == BURIED) && !is_there) ||
            (fates[i] == NOT_TAKEN && is_there && !is_for_good) || (found[i] && dead[i]))
            fail_msg("fault %d at %d%s: message %d with fate %d is %s", (int)kind, (int)at,
                     is_for_good ? " for good" : "", i, fates[i],
                     found[i]  ? "there"
                     : dead[i] ? "dead"
                               : "gone");
        /* Whoever sends one of these again hears that it is there. */
        if (remembered[i] != (fates[i] == NOT_TAKEN ? is_there : fates[i] != STAGED))
            fail_msg("fault %d at %d%s: message %d with fate %d is %s", (int)kind, (int)at,
                     is_for_good ? " for good" : "", i, fates[i], remembered[i] ? "remembered" : "forgotten");
    }
    kit_close(&kit);
}

/* One run with a fault; how many operations it had. */
static uint64_t run(enum fault_kind kind, uint64_t at, bool is_for_good)
{
    for (int i = 0; i < MESSAGES; i++)
        fates[i] = NOT_TAKEN;
    scratch_clear(&scratch);
    memset(&kit, 0, sizeof kit);
    kit.conf.remember_ms = 3600000;
    kit.conf.remember_max = MESSAGES;
    kit.conf.recall = note_remembered;
    fault_arm(kind, at, is_for_good);
    if (kit_open(&kit, scratch.path)) {
        work();
        kit_close(&kit);
    }
    uint64_t count = fault_count();
    bool was_hit = fault_hits() > 0;
    fault_disarm();
    check(kind, at, is_for_good);
    return was_hit || kind == FAULT_FULL ? count : 0;
}

/* Lets each operation fail in turn. */
static void fail_each(enum fault_kind kind, bool is_for_good)
{
    uint64_t all = run(FAULT_NONE, 0, false), at = 1, missed = 0;
    all = fault_count();
    const char *long_run = getenv("PROXYD_TEST_LONG");
    uint64_t stride = long_run ? 1 : all / 25 + 1; /* every one of the first, which open, then some */
    for (; missed == 0 && at <= 10 * all; at += at < 20 ? 1 : stride)
        missed = run(kind, at, is_for_good) == 0;
    assert_true(missed > 0);
}

static void store_survives_an_operation_that_fails(void **state)
{
    (void)state;
    fail_each(FAULT_IO, false);
}

static void store_survives_a_disk_that_goes_away(void **state)
{
    (void)state;
    fail_each(FAULT_IO, true);
}

static void store_survives_failures_of_what_was_done(void **state)
{
    (void)state;
    fail_each(FAULT_LATE, false);
}

static void store_survives_a_full_disk(void **state)
{
    (void)state;
    run(FAULT_NONE, 0, false);
    uint64_t all = fault_count(), stride = getenv("PROXYD_TEST_LONG") ? 1 : all / 25 + 1;
    for (uint64_t at = 1; at <= all; at += at < 20 ? 1 : stride)
        run(FAULT_FULL, at, true);
}

static bool becomes_able_to_take(int wait_ms)
{
    int64_t until_ms = kit_now_ms() + wait_ms;
    bool is_stored;
    while (!queue_can_take(kit.queue) && kit_now_ms() < until_ms)
        kit_turn(&kit, 50, &is_stored);
    return queue_can_take(kit.queue);
}

static void store_takes_messages_again_after_a_failure(void **state)
{
    (void)state;
    static const enum fault_kind kinds[] = {FAULT_IO, FAULT_LATE, FAULT_FULL};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        scratch_clear(&scratch);
        memset(&kit, 0, sizeof kit);
        fault_disarm();
        assert_true(kit_open(&kit, scratch.path));
        assert_int_equal(kit_put_all(&kit, 0, 5, 100), 5);
        fault_arm(kinds[i], 1, true);
        assert_int_equal(kit_put_all(&kit, 5, 1, 100), 0);
        assert_false(queue_can_take(kit.queue));
        assert_int_equal(kit.events[kinds[i] == FAULT_FULL ? STORE_EVENT_DISK_FULL : STORE_EVENT_FAILED], 1);
        fault_disarm();
        assert_true(becomes_able_to_take(PATIENCE_MS));
        assert_int_equal(kit_put_all(&kit, 6, 2, 100), 2);
        for (uint64_t number = 0; number < 8; number += number == 4 ? 2 : 1) {
            struct queue_item *item = kit_lease(&kit, PATIENCE_MS);
            assert_non_null(item);
            assert_int_equal(kit_number(&item->body), number);
            queue_ack(kit.queue, item, NULL);
        }
        assert_int_equal(kit.events[STORE_EVENT_RESUMED], 1);
        kit_close(&kit);
    }
}

static void store_delivers_while_the_disk_is_full(void **state)
{
    (void)state;
    scratch_clear(&scratch);
    memset(&kit, 0, sizeof kit);
    assert_true(kit_open(&kit, scratch.path));
    assert_int_equal(kit_put_all(&kit, 0, 100, 100), 100);
    fault_arm(FAULT_FULL, 1, true);
    assert_int_equal(kit_put_all(&kit, 100, 1, 100), 0);
    for (uint64_t number = 0; number < 60; number++) {
        struct queue_item *item = kit_lease(&kit, PATIENCE_MS);
        assert_int_equal(kit_number(&item->body), number);
        queue_ack(kit.queue, item, NULL);
    }
    assert_false(queue_can_take(kit.queue));
    fault_disarm();
    assert_true(becomes_able_to_take(PATIENCE_MS));
    kit_close(&kit);
    assert_true(kit_open(&kit, scratch.path));
    assert_int_equal(kit_stats(&kit).queued, 40);
    kit_close(&kit);
}

/* Whether the disk did nothing for half a second, within reasonable time. */
static bool comes_to_rest(void)
{
    bool is_stored;
    int64_t until_ms = kit_now_ms() + PATIENCE_MS;
    uint64_t count;
    do {
        count = fault_count();
        kit_turn(&kit, 500, &is_stored);
    } while (fault_count() != count && kit_now_ms() < until_ms);
    return fault_count() == count;
}

static void store_with_nothing_to_do_leaves_the_disk_alone(void **state)
{
    (void)state;
    scratch_clear(&scratch);
    memset(&kit, 0, sizeof kit);
    kit.conf.sync_ms = 100;
    kit.conf.keep_replies_ms = 1000000;
    assert_true(kit_open(&kit, scratch.path));
    assert_int_equal(kit_put_all(&kit, 0, 10, 100), 10);
    queue_ack(kit.queue, kit_lease(&kit, PATIENCE_MS), NULL);
    assert_true(comes_to_rest());
    kit_close(&kit);
}

/* The disk takes 300 ms for each sync: everything but the end of a put goes on at once. */
static void store_lets_nobody_wait_for_a_slow_disk(void **state)
{
    (void)state;
    scratch_clear(&scratch);
    memset(&kit, 0, sizeof kit);
    assert_true(kit_open(&kit, scratch.path));
    assert_int_equal(kit_put_all(&kit, 0, 40, 100), 40);
    fault_delay_syncs(300);
    int64_t worst_ms = 0, began_ms = kit_now_ms();
    for (uint64_t i = 40; i < 80; i++) {
        int64_t before_ms = kit_now_ms();
        bool is_stored;
        assert_true(kit_put(&kit, i, 100));
        queue_commit(kit.queue);
        queue_next_stored(kit.queue, &is_stored);
        struct queue_item *item = queue_lease(kit.queue, KIT_FOREVER);
        if (item)
            queue_ack(kit.queue, item, NULL);
        kit_stats(&kit);
        int64_t took_ms = kit_now_ms() - before_ms;
        worst_ms = took_ms > worst_ms ? took_ms : worst_ms;
    }
    assert_in_range(worst_ms, 0, 150);
    assert_in_range(kit_now_ms() - began_ms, 0, 250);
    fault_delay_syncs(0);
    kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_survives_an_operation_that_fails),
        cmocka_unit_test(store_survives_a_disk_that_goes_away),
        cmocka_unit_test(store_survives_failures_of_what_was_done),
        cmocka_unit_test(store_survives_a_full_disk),
        cmocka_unit_test(store_takes_messages_again_after_a_failure),
        cmocka_unit_test(store_delivers_while_the_disk_is_full),
        cmocka_unit_test(store_with_nothing_to_do_leaves_the_disk_alone),
        cmocka_unit_test(store_lets_nobody_wait_for_a_slow_disk),
    };
    return cmocka_run_group_tests_name("store on a failing disk", tests, set_up, tear_down);
}
