/* links: buffer/message.c buffer/queue.c buffer/queue_memory.c buffer/queue_disk.c buffer/store.c */
/* links: buffer/store_file.c buffer/store_db.c buffer/store_salvage.c buffer/store_mark.c buffer/crc32c.c buffer/histogram.c */
/* links: tests/unit/scratch.c */
/* SPDX-License-Identifier: MIT
 *
 * One suite for every store behind buffer/queue.h: places, order, bounds, ages and counters.
 */
#include "buffer/queue.h"

#include "buffer/store.h"
#include "tests/unit/scratch.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FOREVER = 1 << 30 };

static struct queue *open_memory(const struct queue_limits *limits)
{
    struct queue *queue = queue_memory_new(limits);
    assert_non_null(queue);
    return queue;
}

static struct scratch scratch;
static struct store *disk;

static int open_store(void **state)
{
    (void)state;
    char err[256];
    scratch_make(&scratch);
    disk = store_open(&(struct store_conf){.directory = scratch.path}, err, sizeof err);
    return disk ? 0 : -1;
}

static int close_store(void **state)
{
    (void)state;
    store_close(disk);
    scratch_remove(&scratch);
    return 0;
}

/* Each test has a chain of its own in one store. */
static struct queue *open_disk(const struct queue_limits *limits)
{
    static int chain;
    char name[32], err[256];
    snprintf(name, sizeof name, "chain-%d", chain++);
    struct queue *queue =
        queue_disk_open(disk, &(struct queue_disk_conf){.name = name, .limits = *limits}, err, sizeof err);
    assert_non_null(queue);
    return queue;
}

/* What the suite is run on. */
static struct candidate {
    const char *name;
    struct queue *(*open)(const struct queue_limits *limits);
    int steps; /* of the long tests */
    CMFixtureFunction set_up, tear_down;
} * store;

static struct queue *open_queue(uint64_t max_messages, uint64_t max_bytes, bool is_ordered)
{
    return store->open(&(struct queue_limits){
        .max_messages = max_messages, .max_bytes = max_bytes, .is_ordered = is_ordered});
}

static struct queue_item *item_of(struct queue *queue, const char *text, int64_t taken_ms)
{
    struct queue_item *item = queue_item_new(queue);
    assert_non_null(item);
    assert_int_equal(message_add_bytes(&item->body, text, strlen(text)), 0);
    item->taken_ms = taken_ms;
    return item;
}

/* Waits until the store has something to say; at once where it never has. */
static void wait_store(struct queue *queue)
{
    queue_commit(queue);
    if (queue_fd(queue) >= 0) {
        assert_true(poll(&(struct pollfd){.fd = queue_fd(queue), .events = POLLIN}, 1, 10000) == 1);
        queue_settle(queue);
    }
}

/* The next item whose put has ended, waiting for the store where there is something to wait for. */
static struct queue_item *wait_stored(struct queue *queue)
{
    bool is_stored = false;
    struct queue_item *item = queue_next_stored(queue, &is_stored);
    while (!item) {
        wait_store(queue);
        item = queue_next_stored(queue, &is_stored);
    }
    assert_true(is_stored);
    return item;
}

/* The next item to deliver, when there must be one: a store may have to catch up first. */
static struct queue_item *lease(struct queue *queue, int64_t now_ms)
{
    bool is_stored;
    struct queue_item *item = queue_lease(queue, now_ms);
    while (!item) {
        wait_store(queue);
        assert_null(queue_next_stored(queue, &is_stored));
        item = queue_lease(queue, now_ms);
    }
    return item;
}

static struct queue_item *put(struct queue *queue, const char *text, int64_t taken_ms)
{
    struct queue_item *item = item_of(queue, text, taken_ms);
    assert_int_equal(queue_put(queue, item), QUEUE_TAKEN);
    assert_ptr_equal(wait_stored(queue), item);
    return item;
}

static void put_many(struct queue *queue, int count, int64_t taken_ms)
{
    char text[16];
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%d", i);
        put(queue, text, taken_ms + i);
    }
}

static void assert_body(const struct queue_item *item, const char *text)
{
    assert_non_null(item);
    assert_true(message_is(&item->body, text, strlen(text)));
}

static struct queue_stats stats_of(const struct queue *queue)
{
    struct queue_stats stats;
    queue_stats(queue, &stats);
    return stats;
}

static void assert_counts(const struct queue *queue, uint64_t queued, uint64_t inflight, uint64_t dead)
{
    struct queue_stats stats = stats_of(queue);
    assert_int_equal(stats.queued, queued);
    assert_int_equal(stats.inflight, inflight);
    assert_int_equal(stats.dead, dead);
}

/* Lets the store do what it does by itself until as many dead letters are left. */
static void wait_dead(struct queue *queue, uint64_t count)
{
    bool is_stored;
    while (stats_of(queue).dead != count) {
        wait_store(queue);
        assert_null(queue_next_stored(queue, &is_stored));
    }
}

struct outcome {
    bool is_answered, is_ok, was_there;
};

static void note_outcome(void *context, bool is_ok, bool was_there)
{
    *(struct outcome *)context = (struct outcome){true, is_ok, was_there};
}

/* Whether an operator's change of one message was made. */
static bool was_done(struct queue *queue, void (*change)(struct queue *, uint64_t, queue_done_fn *, void *),
                     uint64_t id)
{
    struct outcome outcome = {0};
    bool is_stored;
    change(queue, id, note_outcome, &outcome);
    while (!outcome.is_answered) {
        wait_store(queue);
        assert_null(queue_next_stored(queue, &is_stored));
    }
    assert_true(outcome.is_ok);
    return outcome.was_there;
}

static void queue_starts_empty(void **state)
{
    (void)state;
    struct queue *queue = open_queue(10, 1000, false);
    bool is_stored;
    assert_null(queue_lease(queue, FOREVER));
    assert_null(queue_oldest(queue));
    assert_null(queue_next_stored(queue, &is_stored));
    assert_true(queue_next_retry_ms(queue) == INT64_MAX);
    assert_counts(queue, 0, 0, 0);
    assert_int_equal(stats_of(queue).oldest_ms, -1);
    queue_free(queue);
}

static void queue_delivers_in_the_order_of_put(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    put_many(queue, 300, 0);
    uint64_t last_id = 0;
    for (int i = 0; i < 300; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        struct queue_item *item = lease(queue, FOREVER);
        assert_body(item, text);
        assert_true(item->id > last_id);
        last_id = item->id;
        queue_ack(queue, item, NULL);
    }
    assert_null(queue_lease(queue, FOREVER));
    assert_counts(queue, 0, 0, 0);
    queue_free(queue);
}

static void queue_never_reuses_an_id(void **state)
{
    (void)state;
    struct queue *queue = open_queue(1, 0, false);
    uint64_t last_id = 0;
    for (int i = 0; i < 5; i++) {
        struct queue_item *item = put(queue, "x", i);
        assert_true(item->id > last_id);
        last_id = item->id;
        struct queue_item *refused = item_of(queue, "y", i);
        assert_int_equal(queue_put(queue, refused), QUEUE_FULL);
        queue_item_free(queue, refused);
        queue_remove(queue, item);
    }
    queue_free(queue);
}

static void queue_leases_nothing_before_it_is_stored(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    struct queue_item *item = item_of(queue, "x", 7);
    assert_int_equal(queue_put(queue, item), QUEUE_TAKEN);
    assert_int_equal(item->place, QUEUE_STAGED);
    assert_null(queue_lease(queue, FOREVER));
    assert_null(queue_oldest(queue));
    assert_counts(queue, 1, 0, 0);
    assert_int_equal(stats_of(queue).oldest_ms, 7);
    assert_ptr_equal(wait_stored(queue), item);
    assert_int_equal(item->place, QUEUE_WAITING);
    assert_ptr_equal(queue_oldest(queue), item);
    assert_ptr_equal(queue_lease(queue, FOREVER), item);
    queue_free(queue);
}

static void queue_hands_out_each_stored_item_once(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    struct queue_item *items[5];
    for (int i = 0; i < 5; i++) {
        items[i] = item_of(queue, "x", i);
        assert_int_equal(queue_put(queue, items[i]), QUEUE_TAKEN);
    }
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(wait_stored(queue), items[i]);
    bool is_stored;
    assert_null(queue_next_stored(queue, &is_stored));
    queue_free(queue);
}

static void queue_item_removed_while_staged_is_not_handed_out(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    struct queue_item *gone = item_of(queue, "gone", 1), *kept = item_of(queue, "kept", 2);
    queue_put(queue, gone);
    queue_put(queue, kept);
    queue_remove(queue, gone);
    assert_ptr_equal(wait_stored(queue), kept);
    assert_counts(queue, 1, 0, 0);
    queue_free(queue);
}

static void queue_refuses_when_full_of_messages(void **state)
{
    (void)state;
    struct queue *queue = open_queue(2, 0, false);
    put(queue, "a", 0);
    put(queue, "b", 0);
    assert_false(queue_has_room(queue, 0));
    struct queue_item *item = item_of(queue, "c", 3);
    assert_int_equal(queue_put(queue, item), QUEUE_FULL);
    assert_body(item, "c");
    assert_int_equal(item->taken_ms, 3);
    assert_counts(queue, 2, 0, 0);
    queue_ack(queue, lease(queue, FOREVER), NULL);
    assert_int_equal(queue_put(queue, item), QUEUE_TAKEN);
    queue_free(queue);
}

static void queue_refuses_when_full_of_bytes(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 10, false);
    put(queue, "123456", 0);
    assert_true(queue_has_room(queue, 4));
    assert_false(queue_has_room(queue, 5));
    assert_false(queue_has_room(queue, SIZE_MAX));
    put(queue, "1234", 0);
    assert_int_equal(stats_of(queue).bytes, 10);
    assert_true(queue_has_room(queue, 0));
    assert_false(queue_has_room(queue, 1));
    queue_free(queue);
}

static void queue_counts_leased_items_against_its_bounds(void **state)
{
    (void)state;
    struct queue *queue = open_queue(2, 0, false);
    put_many(queue, 2, 0);
    struct queue_item *item = queue_lease(queue, FOREVER);
    assert_counts(queue, 1, 1, 0);
    assert_false(queue_has_room(queue, 1));
    queue_ack(queue, item, NULL);
    assert_true(queue_has_room(queue, 1));
    queue_free(queue);
}

static void queue_counts_what_was_put_even_when_the_body_is_taken_out(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 100, false);
    struct queue_item *item = put(queue, "12345", 0);
    message_close(&item->body);
    assert_int_equal(stats_of(queue).bytes, 5);
    queue_remove(queue, item);
    assert_int_equal(stats_of(queue).bytes, 0);
    queue_free(queue);
}

static void queue_retries_before_anything_not_yet_sent(void **state)
{
    (void)state;
    for (int is_ordered = 0; is_ordered < 2; is_ordered++) {
        struct queue *queue = open_queue(0, 0, is_ordered);
        put_many(queue, 4, 0);
        struct queue_item *first = queue_lease(queue, 0), *second = queue_lease(queue, 0);
        queue_nack(queue, second, 100);
        queue_nack(queue, first, 100);
        assert_ptr_equal(queue_lease(queue, 100), first);
        assert_ptr_equal(queue_lease(queue, 100), second);
        assert_body(queue_lease(queue, 100), "2");
        queue_free(queue);
    }
}

static void queue_in_order_waits_for_the_retry(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, true);
    put_many(queue, 3, 0);
    struct queue_item *first = queue_lease(queue, 0), *second = queue_lease(queue, 0);
    queue_nack(queue, second, 50);
    queue_nack(queue, first, 100);
    assert_int_equal(queue_next_retry_ms(queue), 100);
    assert_null(queue_lease(queue, 99));
    assert_ptr_equal(queue_lease(queue, 100), first);
    assert_int_equal(queue_next_retry_ms(queue), 50);
    queue_free(queue);
}

static void queue_out_of_order_passes_by_what_is_not_due(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    put_many(queue, 3, 0);
    struct queue_item *first = queue_lease(queue, 0), *second = queue_lease(queue, 0);
    queue_nack(queue, first, 100);
    queue_nack(queue, second, 50);
    assert_int_equal(queue_next_retry_ms(queue), 50);
    assert_body(queue_lease(queue, 49), "2");
    assert_null(queue_lease(queue, 49));
    assert_ptr_equal(queue_lease(queue, 50), second);
    assert_int_equal(queue_next_retry_ms(queue), 100);
    assert_ptr_equal(queue_lease(queue, 100), first);
    assert_true(queue_next_retry_ms(queue) == INT64_MAX);
    queue_free(queue);
}

static void queue_tells_the_oldest_in_every_place(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    put_many(queue, 3, 10);
    struct queue_item *first = queue_lease(queue, 0);
    assert_body(queue_oldest(queue), "1");
    assert_int_equal(stats_of(queue).oldest_ms, 10);
    struct queue_item *second = queue_lease(queue, 0);
    assert_body(queue_oldest(queue), "2");
    queue_nack(queue, second, 1000);
    assert_ptr_equal(queue_oldest(queue), second);
    queue_nack(queue, first, 2000);
    assert_ptr_equal(queue_oldest(queue), first);
    queue_remove(queue, first);
    assert_ptr_equal(queue_oldest(queue), second);
    assert_int_equal(stats_of(queue).oldest_ms, 11);
    queue_remove(queue, second);
    assert_body(queue_lease(queue, 0), "2");
    assert_null(queue_oldest(queue));
    assert_int_equal(stats_of(queue).oldest_ms, 12);
    queue_free(queue);
}

static void queue_oldest_is_by_age_and_not_by_arrival(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    put(queue, "young", 20);
    put(queue, "old", 10);
    put(queue, "middle", 15);
    assert_body(queue_oldest(queue), "old");
    queue_remove(queue, queue_oldest(queue));
    assert_body(queue_oldest(queue), "middle");
    assert_body(queue_lease(queue, 0), "young");
    queue_free(queue);
}

static void queue_remove_works_in_every_place(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    put_many(queue, 4, 0);
    struct queue_item *leased = queue_lease(queue, 0), *retrying = queue_lease(queue, 0),
                      *dead = queue_lease(queue, 0), *waiting = queue_oldest(queue);
    queue_nack(queue, retrying, 5);
    uint64_t dead_id = dead->id;
    queue_bury(queue, dead, "refused");
    assert_counts(queue, 2, 1, 1);
    queue_remove(queue, leased);
    queue_remove(queue, retrying);
    queue_remove(queue, waiting);
    assert_counts(queue, 0, 0, 1);
    assert_true(was_done(queue, queue_drop_dead, dead_id));
    assert_false(was_done(queue, queue_drop_dead, dead_id));
    assert_counts(queue, 0, 0, 0);
    assert_int_equal(stats_of(queue).bytes, 0);
    assert_null(queue_lease(queue, FOREVER));
    queue_free(queue);
}

static void queue_keeps_dead_letters_beside_its_bounds(void **state)
{
    (void)state;
    struct queue *queue = open_queue(2, 0, false);
    put_many(queue, 2, 0);
    queue_bury(queue, queue_lease(queue, 0), "refused");
    queue_bury(queue, queue_lease(queue, 0), "refused");
    assert_counts(queue, 0, 0, 2);
    assert_int_equal(stats_of(queue).bytes, 0);
    assert_int_equal(stats_of(queue).oldest_ms, -1);
    put_many(queue, 2, 0);
    assert_null(queue_oldest(queue)->call);
    assert_counts(queue, 2, 0, 2);
    queue_free(queue);
}

static void queue_lets_the_oldest_dead_letters_go_and_counts_them(void **state)
{
    (void)state;
    struct queue *queue = open_queue(3, 0, false);
    for (int i = 0; i < 10; i++) {
        put(queue, "x", i);
        queue_bury(queue, queue_lease(queue, 0), "refused");
        wait_dead(queue, i < 3 ? i + 1 : 3);
        struct queue_stats stats = stats_of(queue);
        assert_int_equal(stats.dead + stats.dead_dropped, i + 1);
    }
    assert_int_equal(stats_of(queue).dead_dropped, 7);
    queue_free(queue);
}

static void queue_bounds_dead_letters_by_bytes_too(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 10, false);
    for (int i = 0; i < 4; i++) {
        put(queue, "1234", i);
        queue_bury(queue, queue_lease(queue, 0), "refused");
    }
    wait_dead(queue, 2);
    assert_int_equal(stats_of(queue).dead_dropped, 2);
    queue_free(queue);
}

static void queue_retries_a_dead_letter_before_anything_not_yet_sent(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, true);
    put_many(queue, 3, 0);
    struct queue_item *item = queue_lease(queue, 0);
    uint64_t id = item->id;
    item->attempts = 3;
    queue_nack(queue, item, 0);
    queue_bury(queue, queue_lease(queue, 0), "refused");
    assert_body(queue_lease(queue, 0), "1");
    assert_true(was_done(queue, queue_retry_dead, id));
    assert_false(was_done(queue, queue_retry_dead, id));
    assert_counts(queue, 2, 1, 0);
    item = lease(queue, 0);
    assert_body(item, "0");
    assert_int_equal(item->id, id);
    assert_int_equal(item->attempts, 0);
    assert_body(queue_lease(queue, 0), "2");
    queue_free(queue);
}

static void queue_retries_no_dead_letter_beyond_its_bounds(void **state)
{
    (void)state;
    struct queue *queue = open_queue(1, 0, false);
    struct queue_item *item = put(queue, "a", 0);
    uint64_t id = item->id;
    queue_bury(queue, queue_lease(queue, 0), "refused");
    item = put(queue, "b", 0);
    assert_false(was_done(queue, queue_retry_dead, id));
    queue_remove(queue, item);
    assert_true(was_done(queue, queue_retry_dead, id));
    queue_free(queue);
}

struct pages {
    uint64_t ids[64], next_id;
    size_t count;
    char bodies[64][8];
    char reason[32];
    bool is_answered;
};

static void note_page(void *context, bool is_ok, const struct queue_entry *entries, size_t count,
                      uint64_t next_id)
{
    struct pages *pages = context;
    assert_true(is_ok);
    for (size_t i = 0; i < count; i++) {
        pages->ids[pages->count] = entries[i].id;
        if (entries[i].body) {
            zmq_msg_t *frame = message_frame(entries[i].body, 0);
            memcpy(pages->bodies[pages->count], zmq_msg_data(frame), zmq_msg_size(frame));
        }
        if (entries[i].reason)
            snprintf(pages->reason, sizeof pages->reason, "%s", entries[i].reason);
        pages->count++;
    }
    pages->next_id = next_id;
    pages->is_answered = true;
}

static void turn_pages(struct queue *queue, bool is_dead, uint32_t max, struct pages *pages)
{
    bool is_stored;
    memset(pages, 0, sizeof *pages);
    do {
        pages->is_answered = false;
        queue_page(queue, is_dead, pages->next_id, max, true, note_page, pages);
        while (!pages->is_answered) {
            wait_store(queue);
            assert_null(queue_next_stored(queue, &is_stored));
        }
    } while (pages->next_id != 0);
}

static void queue_lists_what_it_holds_page_by_page(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    struct pages pages;
    turn_pages(queue, false, 4, &pages);
    assert_int_equal(pages.count, 0);
    put_many(queue, 10, 0);
    queue_nack(queue, queue_lease(queue, 0), 100);
    queue_lease(queue, 0);
    for (uint32_t max = 1; max <= 11; max++) {
        turn_pages(queue, false, max, &pages);
        assert_int_equal(pages.count, 10);
        for (int i = 0; i < 10; i++) {
            char text[16];
            snprintf(text, sizeof text, "%d", i);
            assert_string_equal(pages.bodies[i], text);
        }
    }
    queue_free(queue);
}

static void queue_lists_dead_letters_with_their_reason(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    put_many(queue, 3, 0);
    queue_bury(queue, queue_lease(queue, 0), "timeout");
    struct pages pages;
    turn_pages(queue, true, 5, &pages);
    assert_int_equal(pages.count, 1);
    assert_string_equal(pages.bodies[0], "0");
    assert_string_equal(pages.reason, "timeout");
    turn_pages(queue, false, 5, &pages);
    assert_int_equal(pages.count, 2);
    queue_free(queue);
}

static void queue_finds_items_by_id(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    struct queue_item *item = put(queue, "x", 0);
    assert_ptr_equal(queue_find(queue, item->id), item);
    assert_null(queue_find(queue, item->id + 1));
    uint64_t id = item->id;
    queue_remove(queue, item);
    assert_null(queue_find(queue, id));
    assert_false(was_done(queue, queue_drop, id));
    queue_free(queue);
}

static void queue_tickets_are_printable_and_differ(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    char first[QUEUE_TICKET_BYTES], again[QUEUE_TICKET_BYTES], second[QUEUE_TICKET_BYTES];
    struct queue_item *item = put(queue, "x", 0);
    queue_ticket(queue, item, first);
    queue_ticket(queue, item, again);
    queue_ticket(queue, put(queue, "x", 0), second);
    assert_string_equal(first, again);
    assert_string_not_equal(first + 16, second + 16);
    assert_int_equal(strlen(first), QUEUE_TICKET_BYTES - 1);
    assert_int_equal(strspn(first, "0123456789abcdef"), QUEUE_TICKET_BYTES - 1);
    queue_free(queue);
}

static void queue_freed_with_items_everywhere_leaks_nothing(void **state)
{
    (void)state;
    struct queue *queue = open_queue(0, 0, false);
    char large[1000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    for (int i = 0; i < 5; i++) {
        struct queue_item *item = put(queue, large, i);
        message_add_bytes(&item->envelope, large, sizeof large);
    }
    queue_bury(queue, queue_lease(queue, 0), "refused");
    queue_nack(queue, queue_lease(queue, 0), 100);
    queue_lease(queue, 0);
    queue_put(queue, item_of(queue, large, 9));
    queue_free(queue);
}

static void note_ticket(void *context, bool is_ok, enum queue_ticket state, const struct message *reply,
                        const char *reason)
{
    (void)state;
    (void)reply;
    (void)reason;
    *(struct outcome *)context = (struct outcome){true, is_ok, false};
}

static void note_any_page(void *context, bool is_ok, const struct queue_entry *entries, size_t count,
                          uint64_t next_id)
{
    (void)entries;
    (void)count;
    (void)next_id;
    *(struct outcome *)context = (struct outcome){true, is_ok, false};
}

static void queue_leaves_no_question_without_an_answer(void **state)
{
    (void)state;
    struct outcome outcomes[3] = {0};
    struct queue *queue = open_queue(0, 0, false);
    char ticket[QUEUE_TICKET_BYTES];
    struct queue_item *item = put(queue, "x", 0);
    queue_ticket(queue, item, ticket);
    queue_page(queue, false, 0, 10, true, note_any_page, &outcomes[0]);
    queue_drop_dead(queue, item->id, note_outcome, &outcomes[1]);
    queue_find_ticket(queue, ticket, strlen(ticket), 0, note_ticket, &outcomes[2]);
    queue_commit(queue);
    queue_free(queue);
    for (int i = 0; i < 3; i++)
        assert_true(outcomes[i].is_answered);
}

/* Against a plain array that is searched from end to end: what may be leased, what is oldest, what counts. */
static void queue_agrees_with_a_simple_model(void **state)
{
    (void)state;
    enum { MAX = 64 };
    const int steps = store->steps;
    for (int is_ordered = 0; is_ordered < 2; is_ordered++) {
        struct queue *queue = open_queue(MAX, 0, is_ordered);
        struct queue_item *live[MAX];
        int count = 0;
        unsigned random = 12345;
        int64_t now_ms = 0;
        for (int step = 0; step < steps; step++) {
            random = random * 1103515245u + 12345u;
            unsigned choice = random >> 16 & 7, pick = random >> 20;
            struct queue_item *due = NULL, *first = NULL, *retry = NULL, *oldest = NULL;
            int64_t oldest_ms = -1;
            for (int i = 0; i < count; i++) {
                struct queue_item *item = live[i];
                if (oldest_ms < 0 || item->taken_ms < oldest_ms)
                    oldest_ms = item->taken_ms;
                if (item->place == QUEUE_WAITING && (!first || item->id < first->id))
                    first = item;
                if (item->place == QUEUE_RETRYING) {
                    if (!retry || item->id < retry->id)
                        retry = item;
                    if (item->retry_ms <= now_ms && (!due || item->retry_ms < due->retry_ms ||
                                                     (item->retry_ms == due->retry_ms && item->id < due->id)))
                        due = item;
                }
                if ((item->place == QUEUE_WAITING || item->place == QUEUE_RETRYING) &&
                    (!oldest || item->taken_ms < oldest->taken_ms ||
                     (item->taken_ms == oldest->taken_ms && item->id < oldest->id)))
                    oldest = item;
            }
            assert_ptr_equal(queue_oldest(queue), oldest);
            assert_int_equal(stats_of(queue).oldest_ms, oldest_ms);
            assert_int_equal(stats_of(queue).queued + stats_of(queue).inflight, count);
            if (choice <= 2 && count < MAX) {
                live[count++] = put(queue, "x", now_ms - (pick & 3) < 0 ? 0 : now_ms - (pick & 3));
            } else if (choice <= 4) {
                struct queue_item *expected = is_ordered && retry ? (retry->retry_ms <= now_ms ? retry : NULL)
                                              : due               ? due
                                                                  : first;
                assert_ptr_equal(expected ? lease(queue, now_ms) : queue_lease(queue, now_ms), expected);
            } else if (count > 0) {
                int at = (int)(pick % (unsigned)count);
                struct queue_item *item = live[at];
                if (item->place == QUEUE_LEASED && choice == 5) {
                    queue_nack(queue, item, now_ms + (pick & 31));
                    continue;
                }
                if (item->place == QUEUE_LEASED && choice == 6)
                    queue_ack(queue, item, NULL);
                else
                    queue_remove(queue, item);
                live[at] = live[--count];
            }
            now_ms += pick & 1;
        }
        queue_free(queue);
    }
}

static int run_on(struct candidate *candidate)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_starts_empty),
        cmocka_unit_test(queue_delivers_in_the_order_of_put),
        cmocka_unit_test(queue_never_reuses_an_id),
        cmocka_unit_test(queue_leases_nothing_before_it_is_stored),
        cmocka_unit_test(queue_hands_out_each_stored_item_once),
        cmocka_unit_test(queue_item_removed_while_staged_is_not_handed_out),
        cmocka_unit_test(queue_refuses_when_full_of_messages),
        cmocka_unit_test(queue_refuses_when_full_of_bytes),
        cmocka_unit_test(queue_counts_leased_items_against_its_bounds),
        cmocka_unit_test(queue_counts_what_was_put_even_when_the_body_is_taken_out),
        cmocka_unit_test(queue_retries_before_anything_not_yet_sent),
        cmocka_unit_test(queue_in_order_waits_for_the_retry),
        cmocka_unit_test(queue_out_of_order_passes_by_what_is_not_due),
        cmocka_unit_test(queue_tells_the_oldest_in_every_place),
        cmocka_unit_test(queue_oldest_is_by_age_and_not_by_arrival),
        cmocka_unit_test(queue_remove_works_in_every_place),
        cmocka_unit_test(queue_keeps_dead_letters_beside_its_bounds),
        cmocka_unit_test(queue_lets_the_oldest_dead_letters_go_and_counts_them),
        cmocka_unit_test(queue_bounds_dead_letters_by_bytes_too),
        cmocka_unit_test(queue_retries_a_dead_letter_before_anything_not_yet_sent),
        cmocka_unit_test(queue_retries_no_dead_letter_beyond_its_bounds),
        cmocka_unit_test(queue_lists_what_it_holds_page_by_page),
        cmocka_unit_test(queue_lists_dead_letters_with_their_reason),
        cmocka_unit_test(queue_finds_items_by_id),
        cmocka_unit_test(queue_tickets_are_printable_and_differ),
        cmocka_unit_test(queue_freed_with_items_everywhere_leaks_nothing),
        cmocka_unit_test(queue_leaves_no_question_without_an_answer),
        cmocka_unit_test(queue_agrees_with_a_simple_model),
    };
    store = candidate;
    return cmocka_run_group_tests_name(candidate->name, tests, candidate->set_up, candidate->tear_down);
}

int main(void)
{
    static struct candidate in_memory = {"queue in memory", open_memory, 20000, NULL, NULL};
    static struct candidate on_disk = {"queue on disk", open_disk, 2000, open_store, close_store};
    return run_on(&in_memory) + run_on(&on_disk);
}
