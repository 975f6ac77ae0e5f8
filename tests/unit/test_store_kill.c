/* links: tests/unit/store_kit.c tests/unit/scratch.c buffer/message.c buffer/queue.c buffer/queue_disk.c */
/* links: buffer/store.c buffer/store_file.c buffer/store_db.c buffer/store_salvage.c buffer/store_mark.c */
/* links: buffer/crc32c.c buffer/histogram.c */
/* SPDX-License-Identifier: MIT
 *
 * kill -9 under load, round after round on the same store: a child stores and delivers and says so through a pipe
 * (what it said is known, however it ends), the parent kills it at any moment and compares the history with the
 * promises. PROXYD_TEST_LONG=1 makes it 300 rounds.
 */
#include "tests/unit/scratch.h"
#include "tests/unit/store_kit.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { WINDOW = 16, UNSETTLED = 64, NUMBERS = 4 << 20 };

enum saying { OPENED, PUTS, STORED, DELIVERS, SETTLES };

struct line {
    uint32_t saying;
    uint32_t number;
};

/* What is known of each message. */
static struct history {
    bool is_put, is_stored, is_settled;
    unsigned deliveries;
} * history;

static int out;

static void say(enum saying saying, uint64_t number)
{
    struct line line = {(uint32_t)saying, (uint32_t)number};
    if (write(out, &line, sizeof line) != sizeof line)
        _exit(3);
}

static void hear(struct kit *kit, int wait_ms, uint64_t *on_their_way)
{
    bool is_stored;
    queue_commit(kit->queue);
    for (struct queue_item *item = kit_turn(kit, wait_ms, &is_stored); item;
         item = queue_next_stored(kit->queue, &is_stored)) {
        if (!is_stored)
            _exit(4);
        (*on_their_way)--;
        say(STORED, kit_number(&item->body));
    }
}

/* Stores and delivers until it is killed, or (with no more to store) until nothing is left. */
static void live(const char *directory, uint64_t next, bool is_last)
{
    struct kit kit = {.conf.window = WINDOW};
    uint64_t on_their_way = 0, stop = next + 20000;
    unsigned random = (unsigned)next + 1;
    struct queue_item *leased[WINDOW];
    unsigned leased_count = 0;
    if (!kit_open(&kit, directory))
        _exit(2);
    say(OPENED, kit_stats(&kit).restored);
    for (;;) {
        random = random * 1103515245u + 12345u;
        for (unsigned i = random >> 16 & 31; !is_last && i > 0 && on_their_way < 200 && next < stop; i--) {
            say(PUTS, next);
            if (!kit_put(&kit, next++, 50 + (random & 1023)))
                _exit(5);
            on_their_way++;
        }
        hear(&kit, 1, &on_their_way);
        while (leased_count < WINDOW && (random >> 24 & 3)) {
            struct queue_item *item = queue_lease(kit.queue, KIT_FOREVER);
            if (!item)
                break;
            say(DELIVERS, kit_number(&item->body));
            leased[leased_count++] = item;
        }
        for (unsigned i = 0; i < leased_count; i++) {
            say(SETTLES, kit_number(&leased[i]->body));
            queue_ack(kit.queue, leased[i], NULL);
        }
        leased_count = 0;
        struct queue_stats stats = kit_stats(&kit);
        if (is_last && stats.queued == 0)
            break;
    }
    kit_close(&kit);
    _exit(0);
}

struct round {
    uint64_t duplicates, restored;
};

/* Hears a child out. Checks what can be checked at once: nothing comes out that did not go in, first deliveries
 * rise, and what was settled long ago does not come again. */
static struct round listen(int in, uint64_t *next, uint64_t *last_first)
{
    struct round round = {0};
    struct line line;
    while (read(in, &line, sizeof line) == sizeof line) {
        if (line.saying == OPENED) {
            round.restored = line.number;
            continue;
        }
        assert_in_range(line.number, 0, NUMBERS - 1);
        struct history *message = &history[line.number];
        switch (line.saying) {
        case PUTS:
            message->is_put = true;
            *next = line.number + 1;
            break;
        case STORED:
            message->is_stored = true;
            break;
        case DELIVERS:
            assert_true(message->is_put);
            if (message->deliveries++ > 0) {
                round.duplicates++;
            } else {
                assert_true(line.number >= *last_first);
                *last_first = line.number;
            }
            break;
        default:
            message->is_settled = true;
        }
    }
    return round;
}

static int run_child(const char *directory, uint64_t *next, bool is_last, unsigned live_us,
                     uint64_t *last_first, struct round *round)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        out = ends[1];
        live(directory, *next, is_last);
    }
    close(ends[1]);
    pid_t killer = is_last ? 0 : fork(); /* the pipe must be read meanwhile */
    if (killer == 0 && !is_last) {
        nanosleep(&(struct timespec){.tv_sec = 0, .tv_nsec = (long)live_us * 1000}, NULL);
        kill(child, SIGKILL);
        _exit(0);
    }
    *round = listen(ends[0], next, last_first);
    close(ends[0]);
    if (killer > 0)
        waitpid(killer, NULL, 0);
    waitpid(child, &status, 0);
    return status;
}

static void store_keeps_its_promises_through_kill_9(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    history = calloc(NUMBERS, sizeof *history);
    int rounds = getenv("PROXYD_TEST_LONG") ? 300 : 20, killed_early = 0;
    uint64_t next = 0, last_first = 0, duplicates = 0, most = 0;
    struct round round;
    srand(1);
    for (int i = 0; i < rounds && next < NUMBERS - 30000; i++) {
        unsigned live_us = 5000 + (unsigned)rand() % 150000;
        int status = run_child(scratch.path, &next, false, live_us, &last_first, &round);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_in_range(round.duplicates, 0, WINDOW + UNSETTLED);
        duplicates += round.duplicates;
        most = round.duplicates > most ? round.duplicates : most;
        killed_early += round.restored == 0;
    }
    int status = run_child(scratch.path, &next, true, 0, &last_first, &round);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_in_range(round.duplicates, 0, WINDOW + UNSETTLED);
    uint64_t stored = 0;
    for (uint64_t i = 0; i < next; i++) {
        stored += history[i].is_stored;
        if (history[i].is_stored && history[i].deliveries == 0)
            fail_msg("message %d was acked and is lost", (int)i);
    }
    print_message("%d kills, %d put, %d acked, 0 lost, %d delivered twice, at most %d after a kill\n", rounds,
                  (int)next, (int)stored, (int)duplicates, (int)most);
    assert_true(stored > 0);
    assert_true(killed_early < rounds);
    free(history);
    scratch_remove(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(store_keeps_its_promises_through_kill_9)};
    return cmocka_run_group_tests_name("store under kill -9", tests, NULL, NULL);
}
