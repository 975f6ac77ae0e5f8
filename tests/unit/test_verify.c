/* links: auth/verify.c auth/users.c auth/digest.c auth/limits.c auth/secret.c auth/address.c */
/* SPDX-License-Identifier: MIT
 *
 * The verifying workers, mostly driven by hand: what is hashed, what is remembered, who is told and who is slowed.
 */
#include "auth/verify.h"

#include "auth/clock.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 4500, MEMORY_BYTES = 64 * 1024 * 1024, USERS = 60 };

/* A verifier and USERS users "u0", "u1"…, each with the password "pw". */
struct fixture {
    struct verify *verify;
    struct users *users;
    char text[USERS * 160];
};

/* One who asks, from 10.0.0.<host>. */
struct asker {
    struct verify_waiter waiter;
};

static void fail_on_problem(void *context, const char *problem)
{
    (void)context;
    fail_msg("%s", problem);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    char hash[SECRET_TEXT_BYTES];
    size_t size = 0;
    for (int i = 0; i < USERS; i++) {
        if (secret_hash_make(hash, "pw", 2, SECRET_MEMORY_KIB_MIN, 1))
            return -1;
        size += (size_t)sprintf(fixture->text + size, "u%d:%s\n", i, hash);
    }
    fixture->users =
        users_parse("users", fixture->text, size, USERS_PASSWORDS, MEMORY_BYTES, fail_on_problem, NULL);
    fixture->verify = verify_new(PATIENCE_MS, MEMORY_BYTES);
    *state = fixture;
    return fixture->verify ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    verify_free(fixture->verify);
    users_free(fixture->users);
    free(fixture);
    return 0;
}

static enum verify_verdict ask(struct fixture *fixture, struct asker *asker, int host, const char *name,
                               const char *password, int64_t now_ms)
{
    char text[32];
    struct address address;
    snprintf(text, sizeof text, "10.0.0.%d", host);
    address_parse(&address, text, strlen(text));
    asker->waiter.address = address_group(&address);
    return verify_ask(fixture->verify, fixture->users, name, strlen(name), password, strlen(password),
                      &asker->waiter, now_ms);
}

static unsigned work_all(struct fixture *fixture, int64_t now_ms)
{
    unsigned count = 0;
    while (verify_work(fixture->verify, now_ms))
        count++;
    return count;
}

/* Takes the one answer there is. */
static enum verify_verdict take(struct fixture *fixture, struct asker *expected)
{
    struct verify_waiter *waiter = verify_take(fixture->verify);
    assert_ptr_equal(waiter, &expected->waiter);
    return waiter->verdict;
}

static unsigned take_all(struct fixture *fixture, enum verify_verdict verdict)
{
    unsigned count = 0;
    for (struct verify_waiter *waiter; (waiter = verify_take(fixture->verify)); count++)
        assert_int_equal(waiter->verdict, verdict);
    return count;
}

/* Fails `count` times, one after the other, with passwords that were never tried. Returns how many were told.
 */
static unsigned fail_logins(struct fixture *fixture, int host, const char *name, unsigned count,
                            int64_t now_ms)
{
    static unsigned number;
    unsigned told = 0;
    for (unsigned i = 0; i < count; i++) {
        char password[32];
        struct asker asker;
        snprintf(password, sizeof password, "bad%u", number++);
        assert_int_equal(ask(fixture, &asker, host, name, password, now_ms), VERIFY_WAIT);
        work_all(fixture, now_ms);
        if (verify_take(fixture->verify)) {
            assert_int_equal(asker.waiter.verdict, VERIFY_BAD);
            told++;
            continue;
        }
        verify_tick(fixture->verify, now_ms + PATIENCE_MS);
        assert_int_equal(take(fixture, &asker), VERIFY_SLOWED);
    }
    return told;
}

static void right_password_is_good_and_then_remembered(void **state)
{
    struct fixture *fixture = *state;
    struct asker asker;
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_null(verify_take(fixture->verify));
    assert_int_equal(work_all(fixture, 0), 1);
    assert_int_equal(take(fixture, &asker), VERIFY_GOOD);
    assert_true(asker.waiter.fingerprint == users_find(fixture->users, "u1", 2)->fingerprint);
    assert_int_equal(ask(fixture, &asker, 2, "u1", "pw", 1), VERIFY_GOOD);
    assert_int_equal(work_all(fixture, 1), 0);
}

static void wrong_password_and_unknown_user_are_bad_alike(void **state)
{
    struct fixture *fixture = *state;
    struct asker wrong, unknown;
    assert_int_equal(ask(fixture, &wrong, 1, "u1", "px", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &unknown, 1, "nobody", "pw", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 2); /* the stranger costs a hash, too */
    assert_int_equal(take(fixture, &wrong), VERIFY_BAD);
    assert_int_equal(take(fixture, &unknown), VERIFY_BAD);
    assert_int_equal(ask(fixture, &wrong, 1, "u1", "px", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &unknown, 1, "nobody", "pw", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 2);
}

static void replace_users(struct fixture *fixture, const char *text)
{
    users_free(fixture->users);
    fixture->users =
        users_parse("users", text, strlen(text), USERS_PASSWORDS, MEMORY_BYTES, fail_on_problem, NULL);
}

static void fields_do_not_run_into_each_other(void **state)
{
    struct fixture *fixture = *state;
    struct asker right, wrong;
    char hash[SECRET_TEXT_BYTES], text[512];
    assert_int_equal(secret_hash_make(hash, "pw", 2, SECRET_MEMORY_KIB_MIN, 1), 0);
    snprintf(text, sizeof text, "u:%s\nux:%s\n", hash, hash); /* one hash for both */
    replace_users(fixture, text);
    assert_int_equal(ask(fixture, &right, 1, "ux", "pw", 0), VERIFY_WAIT);
    work_all(fixture, 0);
    assert_int_equal(take(fixture, &right), VERIFY_GOOD);
    assert_int_equal(ask(fixture, &wrong, 1, "u", "xpw", 0), VERIFY_WAIT);
    work_all(fixture, 0);
    assert_int_equal(take(fixture, &wrong), VERIFY_BAD);
}

static void changed_password_is_not_remembered(void **state)
{
    struct fixture *fixture = *state;
    struct asker asker;
    char hash[SECRET_TEXT_BYTES], text[256];
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", 0), VERIFY_WAIT);
    work_all(fixture, 0);
    assert_int_equal(take(fixture, &asker), VERIFY_GOOD);
    assert_int_equal(secret_hash_make(hash, "new", 3, SECRET_MEMORY_KIB_MIN, 1), 0);
    snprintf(text, sizeof text, "u1:%s\n", hash);
    replace_users(fixture, text);
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", 1), VERIFY_WAIT);
    work_all(fixture, 1);
    assert_int_equal(take(fixture, &asker), VERIFY_BAD);
}

static void equal_work_is_done_once(void **state)
{
    struct fixture *fixture = *state;
    struct asker askers[10];
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(fixture, &askers[i], i, "u1", "pw", i), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 10), 1);
    assert_int_equal(take_all(fixture, VERIFY_GOOD), 10);
}

static void twenty_failures_of_an_address_are_told(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(fail_logins(fixture, 1, "nobody", 30, 0), VERIFY_FREE_FAILURES);
    assert_int_equal(fail_logins(fixture, 2, "nobody", 30, 0), VERIFY_FREE_FAILURES);
    assert_int_equal(fail_logins(fixture, 1, "nobody", 30, 2999), 0);
    assert_int_equal(fail_logins(fixture, 1, "nobody", 30, 3000), 1);
    assert_int_equal(fail_logins(fixture, 1, "nobody", 30, 63000), VERIFY_FREE_FAILURES);
}

static void same_wrong_password_of_many_is_one_failure(void **state)
{
    struct fixture *fixture = *state;
    struct asker askers[100];
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(fixture, &askers[i], 1, "u1", "stale", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 1);
    assert_int_equal(take_all(fixture, VERIFY_BAD), 100);
    assert_int_equal(fail_logins(fixture, 1, "u1", 30, 0), VERIFY_FREE_FAILURES - 1);
}

static void burst_of_failures_costs_twenty_hashes(void **state)
{
    enum { BURST = 1000 };
    struct fixture *fixture = *state;
    struct asker *askers = calloc(BURST, sizeof *askers);
    for (int i = 0; i < BURST; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        assert_int_equal(ask(fixture, &askers[i], 1, name, "pw", 0), VERIFY_WAIT);
    }
    assert_int_equal(work_all(fixture, 0), VERIFY_FREE_FAILURES);
    assert_int_equal(take_all(fixture, VERIFY_BAD), VERIFY_FREE_FAILURES);
    assert_int_equal(verify_tick(fixture->verify, PATIENCE_MS - 1), 1);
    assert_int_equal(verify_tick(fixture->verify, PATIENCE_MS), -1);
    assert_int_equal(take_all(fixture, VERIFY_SLOWED), BURST - VERIFY_FREE_FAILURES);
    free(askers);
}

static void remembered_credentials_are_never_slowed(void **state)
{
    struct fixture *fixture = *state;
    struct asker asker;
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", 0), VERIFY_WAIT);
    work_all(fixture, 0);
    assert_int_equal(take(fixture, &asker), VERIFY_GOOD);
    fail_logins(fixture, 1, "u1", 100, 0);
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", 0), VERIFY_GOOD);
}

static void users_behind_an_attacked_address_still_get_in(void **state)
{
    struct fixture *fixture = *state;
    struct asker asker;
    fail_logins(fixture, 1, "nobody", 100, 0);
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 1);
    assert_int_equal(take(fixture, &asker), VERIFY_GOOD);
}

static void attacked_user_still_gets_in_from_elsewhere(void **state)
{
    struct fixture *fixture = *state;
    struct asker here, elsewhere;
    fail_logins(fixture, 1, "u1", 100, 0);
    assert_int_equal(ask(fixture, &here, 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 0);
    assert_int_equal(ask(fixture, &elsewhere, 2, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 1);
    assert_int_equal(take(fixture, &elsewhere), VERIFY_GOOD);
}

static void slowed_guesses_at_a_user_are_few_from_anywhere(void **state)
{
    struct fixture *fixture = *state;
    unsigned hashed = 0;
    for (int host = 1; host <= 10; host++)
        fail_logins(fixture, host, "nobody", VERIFY_FREE_FAILURES, 0);
    for (int i = 0; i < 200; i++) {
        struct asker *asker = calloc(1, sizeof *asker);
        char password[32];
        snprintf(password, sizeof password, "guess%d", i);
        assert_int_equal(ask(fixture, asker, 1 + i % 10, "u1", password, 0), VERIFY_WAIT);
        hashed += work_all(fixture, 0);
        verify_tick(fixture->verify, PATIENCE_MS);
        assert_int_equal(take(fixture, asker), VERIFY_SLOWED);
        free(asker);
    }
    assert_int_equal(hashed, VERIFY_FREE_FAILURES);
}

static void slowed_address_does_not_learn_who_exists(void **state)
{
    struct fixture *fixture = *state;
    struct asker known, unknown;
    fail_logins(fixture, 1, "nobody", VERIFY_FREE_FAILURES, 0);
    assert_int_equal(ask(fixture, &known, 1, "u1", "px", 10), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &unknown, 1, "nobody", "px", 10), VERIFY_WAIT);
    work_all(fixture, 10);
    verify_tick(fixture->verify, 10 + PATIENCE_MS - 1);
    assert_null(verify_take(fixture->verify));
    verify_tick(fixture->verify, 10 + PATIENCE_MS);
    assert_int_equal(take(fixture, &known), VERIFY_SLOWED);
    assert_int_equal(take(fixture, &unknown), VERIFY_SLOWED);
}

static void told_work_goes_before_quiet_work(void **state)
{
    struct fixture *fixture = *state;
    struct asker quiet, told;
    fail_logins(fixture, 1, "nobody", VERIFY_FREE_FAILURES, 0);
    assert_int_equal(ask(fixture, &quiet, 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &told, 2, "u2", "pw", 0), VERIFY_WAIT);
    assert_true(verify_work(fixture->verify, 0));
    assert_int_equal(take(fixture, &told), VERIFY_GOOD);
    assert_true(verify_work(fixture->verify, 0));
    assert_int_equal(take(fixture, &quiet), VERIFY_GOOD);
}

static void quiet_work_is_told_once_somebody_in_credit_asks_too(void **state)
{
    struct fixture *fixture = *state;
    struct asker first, second, elsewhere;
    fail_logins(fixture, 1, "nobody", VERIFY_FREE_FAILURES, 0);
    assert_int_equal(ask(fixture, &first, 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &second, 1, "u2", "px", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &elsewhere, 2, "u2", "px", 0), VERIFY_WAIT);
    assert_true(verify_work(fixture->verify, 0));
    assert_int_equal(take(fixture, &elsewhere), VERIFY_BAD);
    assert_null(verify_take(fixture->verify)); /* the second, out of credit, is not told */
}

static void hopeless_attempts_take_no_room(void **state)
{
    struct fixture *fixture = *state;
    struct asker *askers = calloc(2 * VERIFY_JOBS_MAX, sizeof *askers), good;
    fail_logins(fixture, 1, "nobody", VERIFY_FREE_FAILURES, 0);
    fail_logins(fixture, 1, "u1", VERIFY_FREE_FAILURES, 0);
    for (int i = 0; i < VERIFY_JOBS_MAX; i++) {
        char word[16];
        snprintf(word, sizeof word, "x%d", i);
        assert_int_equal(ask(fixture, &askers[2 * i], 1, word, "pw", 0), VERIFY_WAIT);
        assert_int_equal(ask(fixture, &askers[2 * i + 1], 1, "u1", word, 0), VERIFY_WAIT);
    }
    assert_int_equal(ask(fixture, &good, 1, "u2", "pw", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 1);
    assert_int_equal(take(fixture, &good), VERIFY_GOOD);
    free(askers);
}

static void late_work_serves_the_next_attempt(void **state)
{
    struct fixture *fixture = *state;
    struct asker askers[2];
    assert_int_equal(ask(fixture, &askers[0], 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &askers[1], 1, "u2", "pw", 0), VERIFY_WAIT);
    verify_tick(fixture->verify, PATIENCE_MS);
    assert_int_equal(take_all(fixture, VERIFY_OVERLOADED), 2);
    assert_true(verify_work(fixture->verify, PATIENCE_MS));
    assert_int_equal(ask(fixture, &askers[0], 1, "u1", "pw", PATIENCE_MS + 500), VERIFY_GOOD);
    assert_int_equal(ask(fixture, &askers[1], 1, "u2", "pw", PATIENCE_MS + 500), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, PATIENCE_MS + 500), 1);
    assert_int_equal(take(fixture, &askers[1]), VERIFY_GOOD);
}

static void work_that_nobody_came_back_for_is_dropped(void **state)
{
    struct fixture *fixture = *state;
    struct asker known, unknown;
    assert_int_equal(ask(fixture, &known, 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &unknown, 1, "nobody", "pw", 0), VERIFY_WAIT);
    verify_tick(fixture->verify, PATIENCE_MS);
    assert_int_equal(take_all(fixture, VERIFY_OVERLOADED), 2);
    verify_tick(fixture->verify, 2 * PATIENCE_MS);
    assert_int_equal(work_all(fixture, 2 * PATIENCE_MS), 0);
}

static void full_table_is_overload_not_denial(void **state)
{
    struct fixture *fixture = *state;
    struct asker *askers = calloc(VERIFY_JOBS_MAX, sizeof *askers), late;
    for (int i = 0; i < VERIFY_JOBS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        assert_int_equal(ask(fixture, &askers[i], 1, name, "pw", 0), VERIFY_WAIT);
    }
    assert_int_equal(ask(fixture, &late, 2, "u1", "pw", 0), VERIFY_OVERLOADED);
    verify_tick(fixture->verify, PATIENCE_MS);
    assert_int_equal(take_all(fixture, VERIFY_OVERLOADED), VERIFY_JOBS_MAX);
    assert_int_equal(ask(fixture, &late, 2, "u1", "pw", PATIENCE_MS), VERIFY_WAIT);
    free(askers);
}

static void too_many_waiters_are_overload_and_the_remembered_pass(void **state)
{
    struct fixture *fixture = *state;
    struct asker *askers = calloc(VERIFY_WAITERS_MAX, sizeof *askers), late;
    assert_int_equal(ask(fixture, &late, 2, "u1", "pw", 0), VERIFY_WAIT);
    work_all(fixture, 0);
    assert_int_equal(take(fixture, &late), VERIFY_GOOD);
    for (int i = 0; i < VERIFY_WAITERS_MAX; i++)
        assert_int_equal(ask(fixture, &askers[i], 1, "u2", "px", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &late, 2, "u2", "pw", 0), VERIFY_OVERLOADED);
    assert_int_equal(ask(fixture, &late, 2, "u1", "pw", 0), VERIFY_GOOD);
    work_all(fixture, 0);
    assert_int_equal(take_all(fixture, VERIFY_BAD), VERIFY_WAITERS_MAX);
    assert_int_equal(ask(fixture, &late, 2, "u2", "pw", 0), VERIFY_WAIT);
    free(askers);
}

static void quiet_work_gives_way_when_the_table_is_full(void **state)
{
    struct fixture *fixture = *state;
    struct asker *askers = calloc(VERIFY_JOBS_MAX, sizeof *askers), quiet, told, late;
    fail_logins(fixture, 1, "nobody", VERIFY_FREE_FAILURES, 0);
    assert_int_equal(ask(fixture, &quiet, 1, "u1", "pw", 0), VERIFY_WAIT);
    for (int i = 0; i < VERIFY_JOBS_MAX - 1; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        assert_int_equal(ask(fixture, &askers[i], 2, name, "pw", 0), VERIFY_WAIT);
    }
    assert_int_equal(ask(fixture, &told, 3, "u2", "pw", 0), VERIFY_WAIT);
    assert_int_equal(ask(fixture, &late, 3, "u3", "pw", 0), VERIFY_OVERLOADED);
    free(askers);
}

static void empty_users_file_costs_a_hash_too(void **state)
{
    struct fixture *fixture = *state;
    struct asker asker;
    replace_users(fixture, "");
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", 0), VERIFY_WAIT);
    assert_int_equal(work_all(fixture, 0), 1);
    assert_int_equal(take(fixture, &asker), VERIFY_BAD);
}

static void thread_works_and_wakes_its_asker(void **state)
{
    struct fixture *fixture = *state;
    struct asker asker;
    struct pollfd poller = {.fd = eventfd(0, EFD_CLOEXEC), .events = POLLIN};
    assert_int_equal(verify_start(fixture->verify, poller.fd), 0);
    assert_int_equal(ask(fixture, &asker, 1, "u1", "pw", clock_now_ms()), VERIFY_WAIT);
    assert_int_equal(poll(&poller, 1, 10000), 1);
    assert_int_equal(take(fixture, &asker), VERIFY_GOOD);
    verify_stop(fixture->verify);
    close(poller.fd);
}

/* Both kinds at once, on all workers: the memory that is free while another hashes is never enough for the large
 * one, which must neither be forgotten nor keep the others waiting for good. */
static void hash_that_needs_all_memory_takes_its_turn(void **state)
{
    struct fixture *fixture = *state;
    struct asker askers[40];
    char hash[SECRET_TEXT_BYTES], text[sizeof fixture->text];
    struct pollfd poller = {.fd = eventfd(0, EFD_CLOEXEC), .events = POLLIN};
    assert_int_equal(secret_hash_make(hash, "pw", 2, MEMORY_BYTES / 1024, 1), 0);
    size_t size = (size_t)sprintf(text, "large0:%s\nlarge1:%s\nlarge2:%s\n", hash, hash, hash);
    snprintf(text + size, sizeof text - size, "%.*s", 40 * 130, fixture->text);
    *strrchr(text, '\n') = '\0';
    replace_users(fixture, text);
    assert_int_equal(verify_start(fixture->verify, poller.fd), 0);
    int waiting = 0;
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, i % 16 == 0 ? "large%d" : "u%d", i % 16 == 0 ? i / 16 : i % 30);
        waiting += ask(fixture, &askers[i], 1, name, "pw", clock_now_ms()) == VERIFY_WAIT;
    }
    while (waiting > 0) {
        assert_int_equal(poll(&poller, 1, 10000), 1);
        eventfd_read(poller.fd, &(eventfd_t){0});
        for (struct verify_waiter *waiter; (waiter = verify_take(fixture->verify)); waiting--)
            assert_int_equal(waiter->verdict, VERIFY_GOOD);
    }
    verify_stop(fixture->verify);
    close(poller.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(right_password_is_good_and_then_remembered),
        TEST(wrong_password_and_unknown_user_are_bad_alike),
        TEST(fields_do_not_run_into_each_other),
        TEST(changed_password_is_not_remembered),
        TEST(equal_work_is_done_once),
        TEST(twenty_failures_of_an_address_are_told),
        TEST(same_wrong_password_of_many_is_one_failure),
        TEST(burst_of_failures_costs_twenty_hashes),
        TEST(remembered_credentials_are_never_slowed),
        TEST(users_behind_an_attacked_address_still_get_in),
        TEST(attacked_user_still_gets_in_from_elsewhere),
        TEST(slowed_guesses_at_a_user_are_few_from_anywhere),
        TEST(slowed_address_does_not_learn_who_exists),
        TEST(told_work_goes_before_quiet_work),
        TEST(quiet_work_is_told_once_somebody_in_credit_asks_too),
        TEST(hopeless_attempts_take_no_room),
        TEST(late_work_serves_the_next_attempt),
        TEST(work_that_nobody_came_back_for_is_dropped),
        TEST(full_table_is_overload_not_denial),
        TEST(too_many_waiters_are_overload_and_the_remembered_pass),
        TEST(quiet_work_gives_way_when_the_table_is_full),
        TEST(empty_users_file_costs_a_hash_too),
        TEST(thread_works_and_wakes_its_asker),
        TEST(hash_that_needs_all_memory_takes_its_turn),
    };
    return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
