/* links: tests/unit/store_kit.c tests/unit/scratch.c buffer/message.c buffer/queue.c buffer/queue_disk.c */
/* links: buffer/store.c buffer/store_file.c buffer/store_db.c buffer/store_salvage.c buffer/store_mark.c */
/* links: buffer/crc32c.c buffer/histogram.c */
/* SPDX-License-Identifier: MIT
 *
 * What a disk queue keeps from one run to the next: messages, order, attempts, dead letters, replies, ages. Also
 * what it does with files that are not its own.
 */
#include "buffer/store_db.h"
#include "buffer/store_mark.h"
#include "tests/unit/scratch.h"
#include "tests/unit/store_kit.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch scratch;
static struct kit kit;

static int set_up(void **state)
{
    (void)state;
    scratch_make(&scratch);
    memset(&kit, 0, sizeof kit);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (kit.store)
        kit_close(&kit);
    scratch_remove(&scratch);
    return 0;
}

static void open_kit(void)
{
    if (!kit_open(&kit, scratch.path))
        fail_msg("%s", kit.err);
}

static void reopen(void)
{
    kit_close(&kit);
    open_kit();
}

static void path_of(char path[128], const char *name)
{
    snprintf(path, 128, "%s/%s", scratch.path, name);
}

static bool is_there(const char *name)
{
    char path[128];
    path_of(path, name);
    return access(path, F_OK) == 0;
}

static void put_all(uint64_t first, uint64_t count)
{
    assert_int_equal(kit_put_all(&kit, first, count, 100), count);
}

/* Delivers what is queued: it must be exactly these, in this order. */
static void deliver(uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct queue_item *item = kit_lease(&kit, 10000);
        assert_non_null(item);
        assert_int_equal(kit_number(&item->body), first + i);
        queue_ack(kit.queue, item, NULL);
    }
}

static void assert_counts(uint64_t queued, uint64_t dead)
{
    struct queue_stats stats = kit_stats(&kit);
    assert_int_equal(stats.queued + stats.inflight, queued);
    assert_int_equal(stats.bytes, queued * 100);
    assert_int_equal(stats.dead, dead);
    assert_int_equal(stats.damaged, 0);
}

static void store_brings_back_what_was_not_delivered(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 100);
    deliver(0, 30);
    reopen();
    assert_counts(70, 0);
    assert_int_equal(kit_stats(&kit).restored, 70);
    put_all(100, 10);
    deliver(30, 80);
    assert_null(kit_lease(&kit, 0));
    reopen();
    assert_counts(0, 0);
    assert_null(kit_lease(&kit, 50));
}

static void store_makes_its_files_for_the_owner_only(void **state)
{
    (void)state;
    static const char *const names[] = {"store.db", "store.db-wal", "store.mark", "store.reserve",
                                        "store.lock"};
    open_kit();
    put_all(0, 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat about;
        char path[128];
        path_of(path, names[i]);
        assert_int_equal(stat(path, &about), 0);
        assert_int_equal(about.st_mode & 0777, 0600);
    }
    assert_false(is_there("store.db-shm"));
}

static void store_never_uses_an_id_again(void **state)
{
    (void)state;
    uint64_t last_id = 0;
    for (int run = 0; run < 4; run++) {
        open_kit();
        put_all(0, 3);
        for (int i = 0; i < 3; i++) {
            struct queue_item *item = kit_lease(&kit, 10000);
            assert_true(item->id > last_id);
            last_id = item->id;
            queue_ack(kit.queue, item, NULL);
        }
        kit_close(&kit);
    }
}

static void store_keeps_a_backlog_beyond_memory_in_order(void **state)
{
    (void)state;
    enum { BACKLOG = 5000 };
    open_kit();
    put_all(0, BACKLOG);
    assert_counts(BACKLOG, 0);
    deliver(0, 700);
    put_all(BACKLOG, 300);
    deliver(700, 2000);
    reopen();
    assert_counts(BACKLOG + 300 - 2700, 0);
    put_all(BACKLOG + 300, 50);
    deliver(2700, BACKLOG + 350 - 2700);
    assert_counts(0, 0);
    put_all(0, 10);
    deliver(0, 10);
}

/* Puts and deliveries in every proportion, with the head filling, draining and running dry. */
static void store_keeps_order_however_it_fills_and_drains(void **state)
{
    (void)state;
    uint64_t put = 0, delivered = 0;
    unsigned random = 7;
    open_kit();
    for (int step = 0; step < 60; step++) {
        random = random * 1103515245u + 12345u;
        uint64_t puts = (random >> 16) % 900, deliveries = (random >> 8) % 900;
        put_all(put, puts);
        put += puts;
        if (deliveries > put - delivered)
            deliveries = put - delivered;
        deliver(delivered, deliveries);
        delivered += deliveries;
        assert_counts(put - delivered, 0);
        if (step % 10 == 9) {
            reopen();
            assert_counts(put - delivered, 0);
        }
    }
    deliver(delivered, put - delivered);
    assert_counts(0, 0);
}

static void store_brings_retries_back_first(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 3);
    struct queue_item *item = kit_lease(&kit, 1000);
    item->attempts = 2;
    queue_nack(kit.queue, item, 10);
    reopen();
    item = kit_lease(&kit, 1000);
    assert_int_equal(kit_number(&item->body), 0);
    assert_int_equal(item->attempts, 2);
    assert_true(item->was_sent);
    item = kit_lease(&kit, 1000);
    assert_int_equal(item->attempts, 0);
    assert_false(item->was_sent);
}

/* Its message waits on disk only, but whoever sent it still waits for the answer. */
static void store_keeps_an_item_whose_caller_waits(void **state)
{
    (void)state;
    bool is_stored;
    open_kit();
    put_all(0, 2000);
    struct queue_item *item = queue_item_new(kit.queue), *stored;
    message_add_bytes(&item->body, "question", 8);
    message_add_bytes(&item->envelope, "caller", 6);
    assert_int_equal(queue_put(kit.queue, item), QUEUE_TAKEN);
    while (!(stored = kit_turn(&kit, 10000, &is_stored)))
        ;
    assert_ptr_equal(stored, item);
    assert_int_equal(item->place, QUEUE_AWAY);
    put_all(2000, 10);
    deliver(0, 2000);
    assert_ptr_equal(kit_lease(&kit, 10000), item);
    assert_true(message_is(&item->body, "question", 8));
    assert_true(message_is(&item->envelope, "caller", 6));
    queue_ack(kit.queue, item, NULL);
    deliver(2000, 10);
}

static void store_forgets_an_item_whose_caller_was_answered(void **state)
{
    (void)state;
    bool is_stored;
    open_kit();
    put_all(0, 2000);
    struct queue_item *item = queue_item_new(kit.queue), *stored;
    message_add_bytes(&item->body, "question", 8);
    message_add_bytes(&item->envelope, "caller", 6);
    struct list waiting; /* an item leaves the chain's list when it goes */
    list_init(&waiting);
    assert_int_equal(queue_put(kit.queue, item), QUEUE_TAKEN);
    while (!(stored = kit_turn(&kit, 10000, &is_stored)))
        ;
    list_append(&waiting, &item->wait);
    queue_commit(kit.queue);
    assert_false(list_is_empty(&waiting));
    message_close(&item->envelope);
    queue_commit(kit.queue);
    assert_true(list_is_empty(&waiting));
    deliver(0, 2000);
    item = kit_lease(&kit, 10000);
    assert_true(message_is(&item->body, "question", 8));
}

static void note_done(void *context, bool is_ok, bool was_there)
{
    *(int *)context = is_ok ? was_there : 2;
}

static bool was_done(void (*change)(struct queue *, uint64_t, queue_done_fn *, void *), uint64_t id)
{
    int outcome = -1;
    bool is_stored;
    change(kit.queue, id, note_done, &outcome);
    while (outcome == -1)
        assert_null(kit_turn(&kit, 20, &is_stored));
    assert_in_range(outcome, 0, 1);
    return outcome == 1;
}

static void store_keeps_dead_letters(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 3);
    struct queue_item *item = kit_lease(&kit, 1000);
    uint64_t id = item->id;
    queue_bury(kit.queue, item, "timeout");
    queue_bury(kit.queue, kit_lease(&kit, 1000), "timeout");
    reopen();
    assert_counts(1, 2);
    assert_int_equal(kit_stats(&kit).restored, 3);
    assert_true(was_done(queue_retry_dead, id));
    assert_counts(2, 1);
    reopen();
    assert_counts(2, 1);
    deliver(0, 1);
    deliver(2, 1);
    assert_true(was_done(queue_drop_dead, id + 1));
    reopen();
    assert_counts(0, 0);
}

/* A message far behind the head is dropped: the counting, which looks only at both ends, must still be right. */
static void store_drops_from_the_middle_of_a_backlog(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 4000);
    struct queue_item *first = kit_lease(&kit, 1000);
    uint64_t id = first->id;
    queue_nack(kit.queue, first, 0);
    assert_non_null(queue_find(kit.queue, id));
    assert_null(queue_find(kit.queue, id + 3000));
    assert_true(was_done(queue_drop, id + 3000));
    assert_false(was_done(queue_drop, id + 3000));
    assert_false(was_done(queue_drop, id + 100000));
    assert_true(was_done(queue_drop, id + 3999));
    assert_counts(3998, 0);
    reopen();
    assert_counts(3998, 0);
    deliver(0, 3000);
    put_all(4000, 10);
    deliver(3001, 998);
    deliver(4000, 10);
    assert_counts(0, 0);
    reopen();
    assert_counts(0, 0);
}

/* Restarted, and only the first page is back in memory: a dead letter from behind it waits for its page. */
static void store_retries_a_dead_letter_from_behind_the_head_once(void **state)
{
    (void)state;
    enum { COUNT = 1200 };
    struct queue_item *items[COUNT];
    open_kit();
    put_all(0, COUNT);
    for (int i = 0; i < COUNT; i++)
        assert_non_null(items[i] = kit_lease(&kit, 10000));
    uint64_t last = items[COUNT - 1]->id;
    queue_bury(kit.queue, items[COUNT - 1], "timeout");
    reopen();
    assert_counts(COUNT - 1, 1);
    assert_true(was_done(queue_retry_dead, last));
    assert_counts(COUNT, 0);
    deliver(0, COUNT);
    assert_counts(0, 0);
    assert_null(kit_lease(&kit, 50));
}

/* The page that has the message in it was asked for before, and is answered before. */
static void store_drops_a_message_that_is_just_being_read(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 2000);
    struct queue_item *first = kit_lease(&kit, 10000);
    uint64_t id = first->id;
    queue_nack(kit.queue, first, 0);
    reopen();
    assert_true(was_done(queue_drop, id + 5));
    assert_counts(1999, 0);
    deliver(0, 5);
    deliver(6, 1994);
    assert_counts(0, 0);
}

static struct asked {
    bool is_answered;
    enum queue_ticket state;
    char text[64];
} asked;

static void note_ticket(void *context, bool is_ok, enum queue_ticket state, const struct message *reply,
                        const char *reason)
{
    assert_null(context);
    assert_true(is_ok);
    asked.is_answered = true;
    asked.state = state;
    asked.text[0] = 0;
    if (reply)
        snprintf(asked.text, sizeof asked.text, "%.*s", (int)zmq_msg_size(message_frame(reply, 0)),
                 (char *)zmq_msg_data(message_frame(reply, 0)));
    if (reason)
        snprintf(asked.text, sizeof asked.text, "%s", reason);
}

static enum queue_ticket ask(const char *ticket, uint64_t owner)
{
    bool is_stored;
    asked.is_answered = false;
    queue_find_ticket(kit.queue, ticket, strlen(ticket), owner, note_ticket, NULL);
    while (!asked.is_answered)
        assert_null(kit_turn(&kit, 20, &is_stored));
    return asked.state;
}

static struct queue_item *put_owned(uint64_t owner, char ticket[QUEUE_TICKET_BYTES])
{
    bool is_stored;
    struct queue_item *item = queue_item_new(kit.queue);
    message_add_bytes(&item->body, "question", 8);
    item->owner = owner;
    assert_int_equal(queue_put(kit.queue, item), QUEUE_TAKEN);
    queue_ticket(kit.queue, item, ticket);
    while (!(item = kit_turn(&kit, 10000, &is_stored)))
        ;
    assert_true(is_stored);
    return item;
}

static void answer(struct queue_item *item, const char *text)
{
    struct message reply;
    message_init(&reply);
    message_add_bytes(&reply, text, strlen(text));
    queue_ack(kit.queue, item, &reply);
    message_close(&reply);
}

static void store_keeps_replies_for_their_tickets(void **state)
{
    (void)state;
    kit.conf.keep_replies_ms = 1000000;
    open_kit();
    char ticket[QUEUE_TICKET_BYTES], dead[QUEUE_TICKET_BYTES];
    uint64_t alice = queue_owner("alice");
    put_owned(alice, ticket);
    put_owned(0, dead);
    assert_int_equal(ask(ticket, alice), QUEUE_TICKET_PENDING);
    answer(kit_lease(&kit, 1000), "forty-two");
    queue_bury(kit.queue, kit_lease(&kit, 1000), "refused");
    for (int run = 0; run < 2; run++) {
        assert_int_equal(ask(ticket, alice), QUEUE_TICKET_DONE);
        assert_string_equal(asked.text, "forty-two");
        assert_int_equal(ask(dead, 0), QUEUE_TICKET_DEAD);
        assert_string_equal(asked.text, "refused");
        assert_int_equal(ask(ticket, queue_owner("bob")), QUEUE_TICKET_UNKNOWN);
        assert_int_equal(ask(ticket, 0), QUEUE_TICKET_UNKNOWN);
        reopen();
    }
    assert_int_equal(kit_stats(&kit).queued, 0);
}

static void store_knows_no_ticket_that_it_did_not_give(void **state)
{
    (void)state;
    open_kit();
    char ticket[QUEUE_TICKET_BYTES];
    put_owned(0, ticket);
    assert_int_equal(ask("", 0), QUEUE_TICKET_UNKNOWN);
    assert_int_equal(ask("hello", 0), QUEUE_TICKET_UNKNOWN);
    for (size_t i = 0; i < strlen(ticket); i++) {
        char other[QUEUE_TICKET_BYTES];
        memcpy(other, ticket, sizeof other);
        other[i] = other[i] == 'f' ? '0' : 'f';
        assert_int_equal(ask(other, 0), QUEUE_TICKET_UNKNOWN);
        other[i] = 'Z';
        assert_int_equal(ask(other, 0), QUEUE_TICKET_UNKNOWN);
    }
    assert_int_equal(ask(ticket, 0), QUEUE_TICKET_PENDING);
}

static void store_without_keep_replies_keeps_none(void **state)
{
    (void)state;
    open_kit();
    char ticket[QUEUE_TICKET_BYTES];
    put_owned(0, ticket);
    answer(kit_lease(&kit, 1000), "forty-two");
    assert_int_equal(ask(ticket, 0), QUEUE_TICKET_UNKNOWN);
}

static void store_lets_replies_give_way_to_messages(void **state)
{
    (void)state;
    kit.conf.keep_replies_ms = 1000000;
    kit.conf.limits.max_messages = 4;
    open_kit();
    char tickets[6][QUEUE_TICKET_BYTES];
    for (int i = 0; i < 6; i++) {
        put_owned(0, tickets[i]);
        answer(kit_lease(&kit, 1000), "x");
    }
    for (int i = 0; i < 6; i++)
        assert_int_equal(ask(tickets[i], 0), i < 2 ? QUEUE_TICKET_EXPIRED : QUEUE_TICKET_DONE);
    put_all(0, 4);
    for (int i = 0; i < 6; i++)
        assert_int_not_equal(ask(tickets[i], 0), QUEUE_TICKET_DONE);
}

static struct store_clock fake;

static void read_fake_clock(struct store_clock *clock)
{
    *clock = fake;
}

static const int64_t day_ms = INT64_C(24) * 3600 * 1000, year_ms = INT64_C(365) * 24 * 3600 * 1000;

static void store_remembers_expired_replies_as_long_again(void **state)
{
    (void)state;
    fake = (struct store_clock){.boot_ms = 1000, .wall_ms = 56 * year_ms, .boot_id = "a"};
    kit.read_clock = read_fake_clock;
    kit.conf.keep_replies_ms = day_ms;
    open_kit();
    char ticket[QUEUE_TICKET_BYTES], later[QUEUE_TICKET_BYTES];
    put_owned(0, ticket);
    answer(kit_lease(&kit, 1000), "x");
    assert_int_equal(ask(ticket, 0), QUEUE_TICKET_DONE);
    fake.boot_ms += day_ms - 1000;
    assert_int_equal(ask(ticket, 0), QUEUE_TICKET_DONE);
    fake.boot_ms += 2000;
    assert_int_equal(ask(ticket, 0), QUEUE_TICKET_EXPIRED);
    put_owned(0, later);
    assert_int_equal(ask(ticket, 0), QUEUE_TICKET_EXPIRED);
    fake.boot_ms += day_ms;
    reopen(); /* upkeep is due at once in a new run */
    put_owned(0, later);
    assert_int_equal(ask(ticket, 0), QUEUE_TICKET_UNKNOWN);
}

/* How old the only message is after a restart during which the clocks did this. */
static int64_t age_after(int64_t boot_step_ms, int64_t wall_step_ms, const char *boot_id)
{
    fake = (struct store_clock){.boot_ms = 5 * day_ms, .wall_ms = 56 * year_ms, .boot_id = "a"};
    kit.read_clock = read_fake_clock;
    kit.conf.now_ms = 1000000;
    open_kit();
    put_all(1, 1);
    fake.boot_ms += 500;
    fake.wall_ms += 500;
    kit_close(&kit);
    fake.boot_ms = boot_id[0] == 'a' ? fake.boot_ms + boot_step_ms : boot_step_ms;
    fake.wall_ms += wall_step_ms;
    snprintf(fake.boot_id, sizeof fake.boot_id, "%s", boot_id);
    kit.conf.now_ms = 77;
    open_kit();
    struct queue_item *item = kit_lease(&kit, 1000);
    assert_non_null(item);
    int64_t age_ms = kit.conf.now_ms - item->taken_ms;
    kit_close(&kit);
    scratch_clear(&scratch);
    return age_ms;
}

static void store_ages_messages_over_restarts(void **state)
{
    (void)state;
    assert_int_equal(age_after(3000, 3000, "a"), 3500);
    assert_int_equal(age_after(20000, day_ms, "b"), day_ms + 500);
}

static void store_ages_nothing_by_a_clock_that_jumps(void **state)
{
    (void)state;
    assert_int_equal(age_after(3000, 10 * year_ms, "a"), 3500);
    assert_int_equal(age_after(3000, -10 * year_ms, "a"), 3500);
    assert_int_equal(age_after(20000, 10 * year_ms, "b"), 500);
    assert_int_equal(age_after(20000, -10 * year_ms, "b"), 500);
    assert_int_equal(age_after(20000, -56 * year_ms, "b"), 500);
}

static void store_holds_chains_apart(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 5);
    struct queue_disk_conf conf = {.name = "other", .window = 1};
    struct queue *other = queue_disk_open(kit.store, &conf, kit.err, sizeof kit.err);
    assert_non_null(other);
    assert_null(queue_lease(other, 0));
    struct queue *mine = kit.queue;
    kit.queue = other;
    put_all(100, 3);
    deliver(100, 1);
    queue_free(other);
    kit.queue = mine;
    deliver(0, 2);
    kit_close(&kit);
    kit.conf.name = "other";
    open_kit();
    deliver(101, 2);
    kit_close(&kit);
    kit.conf.name = "calls";
    open_kit();
    deliver(2, 3);
}

static void store_takes_a_chain_up_again_while_it_runs(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 2000);
    deliver(0, 500);
    queue_free(kit.queue);
    kit.queue = queue_disk_open(kit.store, &kit.conf, kit.err, sizeof kit.err);
    assert_non_null(kit.queue);
    assert_counts(1500, 0);
    deliver(500, 1500);
}

static void store_with_an_interval_says_written(void **state)
{
    (void)state;
    kit.conf.sync_ms = 50;
    open_kit();
    assert_string_equal(queue_ack_level(kit.queue), "written");
    put_all(0, 10);
    reopen();
    deliver(0, 10);
    kit_close(&kit);
    kit.conf.sync_ms = 0;
    open_kit();
    assert_string_equal(queue_ack_level(kit.queue), "synced");
}

static bool is_all_synced(void)
{
    char path[128];
    struct mark_head mark = {0};
    path_of(path, "store.mark");
    int fd = open(path, O_RDONLY);
    assert_true(mark_read_head(fd, &mark));
    close(fd);
    return mark.synced == mark.frames;
}

/* What was only written before is synced first, and not when its old interval ends. */
static void store_says_synced_only_when_all_is(void **state)
{
    (void)state;
    bool is_stored;
    kit.conf.sync_ms = KIT_FOREVER;
    open_kit();
    put_all(0, 10);
    assert_false(is_all_synced());
    kit.conf.sync_ms = 0;
    queue_change(kit.queue, &kit.conf);
    assert_string_equal(queue_ack_level(kit.queue), "written");
    while (strcmp(queue_ack_level(kit.queue), "synced") != 0)
        assert_null(kit_turn(&kit, 10000, &is_stored));
    assert_true(is_all_synced());
    kit.conf.sync_ms = KIT_FOREVER;
    queue_change(kit.queue, &kit.conf);
    assert_string_equal(queue_ack_level(kit.queue), "written");
}

static void store_is_locked_while_it_is_open(void **state)
{
    (void)state;
    open_kit();
    char err[256];
    assert_null(store_open(&(struct store_conf){.directory = scratch.path}, err, sizeof err));
    assert_non_null(strstr(err, "in use by another proxyd"));
    put_all(0, 1);
}

static void write_file(const char *name, const void *data, size_t size)
{
    char path[128];
    path_of(path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fwrite(data, 1, size, file);
    fclose(file);
}

static void store_refuses_what_is_not_its_own(void **state)
{
    (void)state;
    write_file("store.db", "my diary, do not read", 21);
    assert_false(kit_open(&kit, scratch.path));
    assert_non_null(strstr(kit.err, "is not a store of proxyd"));
    char path[128], text[32] = "";
    path_of(path, "store.db");
    FILE *file = fopen(path, "r");
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, "my diary, do not read");
}

static void store_waits_for_no_fifo(void **state)
{
    (void)state;
    char path[128];
    path_of(path, "store.db");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_false(kit_open(&kit, scratch.path));
    assert_non_null(strstr(kit.err, "is not a file"));
}

static bool has_reserve(void)
{
    struct store_stats stats;
    store_stats(kit.store, &stats);
    return stats.has_reserve;
}

/* There is no place for the reserve, whatever the reason. */
static void store_says_from_the_start_that_it_takes_nothing(void **state)
{
    (void)state;
    char path[128];
    path_of(path, "store.reserve");
    assert_int_equal(mkdir(path, 0700), 0);
    open_kit();
    assert_int_equal(kit.events[STORE_EVENT_DISK_FULL], 1);
    assert_false(has_reserve());
    assert_int_equal(kit_put_all(&kit, 0, 1, 100), 0);
    rmdir(path);
    bool is_stored;
    while (!queue_can_take(kit.queue))
        assert_null(kit_turn(&kit, 1000, &is_stored));
    put_all(1, 1);
}

static void store_has_its_reserve_before_it_takes_anything(void **state)
{
    (void)state;
    open_kit();
    assert_true(has_reserve());
}

/* What tests/unit/store_v*.sql holds, made by proxyd as it was with that version of the schema. */
static void make_of_version(int version)
{
    char name[64], text[8192];
    snprintf(name, sizeof name, "tests/unit/store_v%d.sql", version);
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    sqlite3 *db;
    char path[128];
    path_of(path, "store.db");
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void store_opens_every_older_version(void **state)
{
    (void)state;
    for (int version = 1; version < STORE_DB_VERSION; version++) {
        make_of_version(version);
        kit.conf.keep_replies_ms = INT64_C(3650) * 24 * 3600 * 1000;
        open_kit();
        assert_int_equal(kit_stats(&kit).queued, 3);
        assert_int_equal(kit_stats(&kit).dead, 1);
        assert_int_equal(ask("00010000000000013aaa0a256a1f0e03d50bd5aa6b7eaf23", 0), QUEUE_TICKET_DONE);
        assert_string_equal(asked.text, "answer");
        assert_int_equal(ask("000100000000000282e3299a161e93024dafd2a2412f8622", 0), QUEUE_TICKET_DEAD);
        struct queue_item *failed_once = kit_lease(&kit, 10000);
        assert_int_equal(failed_once->attempts, 1);
        queue_nack(kit.queue, failed_once, 0);
        put_all(5, 5);
        reopen();
        deliver(2, 8);
        kit_close(&kit);
        scratch_clear(&scratch);
    }
}

static struct recalled {
    int count;
    uint8_t first, last;             /* of the digests: 16 times the same byte */
    char ticket[QUEUE_TICKET_BYTES]; /* the last one's */
} recalled;

static void note_recalled(void *context, const uint8_t digest[QUEUE_DIGEST_BYTES], uint64_t id,
                          const char *ticket, int64_t taken_ms)
{
    struct recalled *to = context;
    (void)id;
    (void)taken_ms;
    if (to->count++ == 0)
        to->first = digest[0];
    to->last = digest[QUEUE_DIGEST_BYTES - 1];
    snprintf(to->ticket, sizeof to->ticket, "%s", ticket);
}

static void put_remembered(uint8_t number, char ticket[QUEUE_TICKET_BYTES])
{
    bool is_stored;
    uint8_t digest[QUEUE_DIGEST_BYTES];
    memset(digest, number, sizeof digest);
    struct queue_item *item = queue_item_new(kit.queue);
    message_add_bytes(&item->body, "again", 5);
    item->digest = digest;
    assert_int_equal(queue_put(kit.queue, item), QUEUE_TAKEN);
    queue_ticket(kit.queue, item, ticket);
    while (!kit_turn(&kit, 10000, &is_stored))
        ;
    assert_true(is_stored);
}

static void open_and_recall(int64_t remember_ms, uint32_t max)
{
    kit.conf.remember_ms = remember_ms;
    kit.conf.remember_max = max;
    kit.conf.recall = note_recalled;
    kit.conf.context = &recalled;
    memset(&recalled, 0, sizeof recalled);
    open_kit();
}

static void store_remembers_the_newest_digests(void **state)
{
    (void)state;
    char ticket[QUEUE_TICKET_BYTES];
    open_and_recall(60000, 10);
    assert_int_equal(recalled.count, 0);
    for (uint8_t i = 1; i <= 30; i++)
        put_remembered(i, ticket);
    for (int i = 0; i < 30; i++) /* whether they are still queued or not */
        queue_ack(kit.queue, kit_lease(&kit, 10000), NULL);
    char other[QUEUE_TICKET_BYTES];
    put_owned(0, other); /* without one */
    kit_close(&kit);
    open_and_recall(60000, 10);
    assert_int_equal(recalled.count, 10);
    assert_int_equal(recalled.first, 21);
    assert_int_equal(recalled.last, 30);
    assert_string_equal(recalled.ticket, ticket);
    kit_close(&kit);
    open_and_recall(0, 0);
    assert_int_equal(recalled.count, 0);
    kit_close(&kit);
    open_and_recall(60000, 10);
    assert_int_equal(recalled.count, 0);
}

static void store_remembers_digests_for_their_time(void **state)
{
    (void)state;
    char ticket[QUEUE_TICKET_BYTES];
    kit.read_clock = read_fake_clock;
    fake = (struct store_clock){.boot_ms = 1000, .wall_ms = 56 * year_ms, .boot_id = "a"};
    open_and_recall(5000, 10);
    put_remembered(1, ticket);
    put_remembered(2, ticket);
    kit_close(&kit);
    fake.boot_ms += 4000;
    open_and_recall(5000, 10);
    assert_int_equal(recalled.count, 2);
    kit_close(&kit);
    fake.boot_ms += 2000;
    open_and_recall(5000, 10);
    assert_int_equal(recalled.count, 0);
    put_remembered(3, ticket); /* the old ones go */
    kit_close(&kit);
    open_and_recall(60000, 10);
    assert_int_equal(recalled.count, 1);
    assert_int_equal(recalled.first, 3);
}

/* As a later proxyd would: with SQL, into the database or (when that is interrupted) into its log only. */
static void make_newer(const char *change, bool is_interrupted)
{
    sqlite3 *db;
    char path[128];
    path_of(path, "store.db");
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_interrupted, NULL);
    assert_int_equal(sqlite3_exec(db, change, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void store_refuses_a_newer_version(void **state)
{
    (void)state;
    for (int is_interrupted = 0; is_interrupted < 2; is_interrupted++)
        for (int is_marked = 0; is_marked < 2; is_marked++) {
            open_kit();
            put_all(0, 10);
            kit_close(&kit);
            char path[128];
            path_of(path, "store.mark");
            if (!is_marked)
                unlink(path);
            make_newer("CREATE TABLE later(id); PRAGMA user_version=99", is_interrupted);
            assert_false(kit_open(&kit, scratch.path));
            assert_non_null(strstr(kit.err, "store.db is of version 99"));
            assert_true(is_there("store.db"));
            scratch_remove(&scratch);
            scratch_make(&scratch);
        }
}

static void store_refuses_a_newer_version_of_the_same_tables(void **state)
{
    (void)state;
    static const char *const changes[] = {"PRAGMA user_version=3", "PRAGMA user_version=99",
                                          "PRAGMA user_version=1000"};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        open_kit();
        kit_close(&kit);
        make_newer(changes[i], false);
        assert_false(kit_open(&kit, scratch.path));
        assert_non_null(strstr(kit.err, "store.db is of version "));
        scratch_remove(&scratch);
        scratch_make(&scratch);
    }
}

static void store_refuses_what_a_newer_proxyd_used(void **state)
{
    (void)state;
    struct mark_head mark;
    char path[128];
    open_kit();
    kit_close(&kit);
    path_of(path, "store.mark");
    int fd = open(path, O_RDWR);
    assert_true(mark_read_head(fd, &mark));
    mark.version = 99;
    mark_write_head(fd, &mark);
    close(fd);
    assert_false(kit_open(&kit, scratch.path));
    assert_non_null(strstr(kit.err, "version 99"));
}

static void store_with_a_flipped_bit_in_its_version_is_salvaged(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 10);
    kit_close(&kit);
    char path[128];
    path_of(path, "store.db");
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "\x40", 1, 60), 1);
    close(fd);
    open_kit();
    assert_int_equal(kit.events[STORE_EVENT_SALVAGED], 1);
    deliver(0, 10);
}

static void remove_file(const char *name)
{
    char path[128];
    path_of(path, name);
    assert_int_equal(unlink(path), 0);
}

/* What is written to a file without a name is not there after a restart: nothing of it may be acked. */
static void store_notices_that_a_file_of_it_is_removed(void **state)
{
    (void)state;
    static const char *const names[] = {"store.db-wal", "store.db"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool is_stored;
        open_kit();
        put_all(0, 10);
        remove_file(names[i]);
        assert_int_equal(kit_put_all(&kit, 10, 1, 100), 0);
        while (!queue_can_take(kit.queue))
            assert_null(kit_turn(&kit, 1000, &is_stored));
        assert_int_equal(kit.events[STORE_EVENT_FAILED], 1);
        put_all(11, 5);
        reopen();
        deliver(0, 10); /* they were in the log */
        deliver(11, 5);
        assert_counts(0, 0);
        kit_close(&kit);
    }
}

static void store_counts_what_was_in_a_database_that_is_gone(void **state)
{
    (void)state;
    open_kit();
    put_all(0, 10);
    deliver(0, 3);
    kit_close(&kit);
    remove_file("store.db");
    open_kit();
    assert_int_equal(kit_stats(&kit).restored, 7);
    assert_int_equal(kit_stats(&kit).damaged, 7);
    assert_int_equal(kit.event_counts[STORE_EVENT_DAMAGED], 7);
    put_all(10, 5);
    reopen();
    assert_counts(5, 0);
}

static void store_refuses_a_directory_that_is_not_there(void **state)
{
    (void)state;
    assert_false(kit_open(&kit, "/nonexistent/proxyd"));
    assert_non_null(strstr(kit.err, "/nonexistent/proxyd"));
}

static void store_counts_what_it_writes_and_how_long_commits_take(void **state)
{
    (void)state;
    open_kit();
    char log_path[128];
    struct stat log_before, log;
    struct store_stats before, after;
    path_of(log_path, "store.db-wal");
    assert_int_equal(stat(log_path, &log_before), 0);
    store_stats(kit.store, &before);
    put_all(0, 500);
    assert_int_equal(stat(log_path, &log), 0);
    store_stats(kit.store, &after);
    assert_int_equal(after.bytes_written_total - before.bytes_written_total,
                     log.st_size - log_before.st_size);
    assert_int_equal(after.messages_total, 500);
    assert_in_range(after.largest_group, 1, 500);
    assert_in_range(after.commits.total, 500 / after.largest_group, 500);
    uint64_t counted = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        counted += after.commits.counts[i];
    assert_int_equal(counted, after.commits.total);
    assert_in_range(after.commits.sum_us, after.commit_us_max, after.commit_us_max * counted);
}

static void store_gives_space_back_when_it_is_empty(void **state)
{
    (void)state;
    open_kit();
    assert_int_equal(kit_put_all(&kit, 0, 4000, 4000), 4000);
    deliver(0, 4000);
    char path[128], log_path[128];
    path_of(path, "store.db");
    path_of(log_path, "store.db-wal");
    struct stat database = {0}, log = {0};
    reopen(); /* which leaves it no time, and then there is nothing to do but that */
    int64_t until_ms = kit_now_ms() + 20000;
    bool is_stored;
    do {
        kit_turn(&kit, 20, &is_stored);
        stat(path, &database);
        stat(log_path, &log);
    } while (database.st_size + log.st_size > 4 << 20 && kit_now_ms() < until_ms);
    assert_in_range(database.st_size + log.st_size, 0, 4 << 20);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(store_brings_back_what_was_not_delivered),
        TEST(store_makes_its_files_for_the_owner_only),
        TEST(store_never_uses_an_id_again),
        TEST(store_keeps_a_backlog_beyond_memory_in_order),
        TEST(store_keeps_order_however_it_fills_and_drains),
        TEST(store_brings_retries_back_first),
        TEST(store_keeps_an_item_whose_caller_waits),
        TEST(store_forgets_an_item_whose_caller_was_answered),
        TEST(store_keeps_dead_letters),
        TEST(store_drops_from_the_middle_of_a_backlog),
        TEST(store_retries_a_dead_letter_from_behind_the_head_once),
        TEST(store_drops_a_message_that_is_just_being_read),
        TEST(store_keeps_replies_for_their_tickets),
        TEST(store_knows_no_ticket_that_it_did_not_give),
        TEST(store_without_keep_replies_keeps_none),
        TEST(store_lets_replies_give_way_to_messages),
        TEST(store_remembers_expired_replies_as_long_again),
        TEST(store_ages_messages_over_restarts),
        TEST(store_ages_nothing_by_a_clock_that_jumps),
        TEST(store_holds_chains_apart),
        TEST(store_takes_a_chain_up_again_while_it_runs),
        TEST(store_with_an_interval_says_written),
        TEST(store_says_synced_only_when_all_is),
        TEST(store_is_locked_while_it_is_open),
        TEST(store_refuses_what_is_not_its_own),
        TEST(store_waits_for_no_fifo),
        TEST(store_says_from_the_start_that_it_takes_nothing),
        TEST(store_has_its_reserve_before_it_takes_anything),
        TEST(store_opens_every_older_version),
        TEST(store_remembers_the_newest_digests),
        TEST(store_remembers_digests_for_their_time),
        TEST(store_refuses_a_newer_version),
        TEST(store_refuses_a_newer_version_of_the_same_tables),
        TEST(store_refuses_what_a_newer_proxyd_used),
        TEST(store_with_a_flipped_bit_in_its_version_is_salvaged),
        TEST(store_notices_that_a_file_of_it_is_removed),
        TEST(store_counts_what_was_in_a_database_that_is_gone),
        TEST(store_refuses_a_directory_that_is_not_there),
        TEST(store_counts_what_it_writes_and_how_long_commits_take),
        TEST(store_gives_space_back_when_it_is_empty),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
