/* SPDX-License-Identifier: MIT */
/* links: proxies/epoll.c */
/* What the kernel watches for stands in /proc/self/fdinfo of the set. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    BOTH = EPOLLIN | EPOLLOUT,
    SOON_MS = 50,
    MANY = 5000 /* more than are held back */
};

struct set {
    int epoll, ours, theirs; /* both ends of one connection; ours is watched for input */
};

static int change(int epoll, int operation, int fd, uint32_t events)
{
    return epoll_ctl(epoll, operation, fd, &(struct epoll_event){.events = events, .data.fd = fd});
}

/* The events that are told within `timeout_ms` of one descriptor; of none: 0. */
static uint32_t wait_for(int epoll, int timeout_ms)
{
    struct epoll_event events[4] = {0};
    return epoll_wait(epoll, events, 4, timeout_ms) > 0 ? events[0].events : 0;
}

/* How many descriptors the kernel watches for `events`; with an `fd` other than -1, of that one alone. */
static int count_in_kernel(int epoll, int fd, uint32_t events)
{
    char path[64], line[256];
    int number, count = 0;
    unsigned told;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epoll);
    FILE *info = fopen(path, "r");
    assert_non_null(info);
    while (fgets(line, sizeof line, info))
        if (sscanf(line, "tfd: %d events: %x", &number, &told) == 2 && (fd == -1 || number == fd))
            count += (told & ~(unsigned)(EPOLLERR | EPOLLHUP)) == events;
    fclose(info);
    return count;
}

static bool is_watched(int epoll, int fd, uint32_t events)
{
    return count_in_kernel(epoll, fd, events) == 1;
}

static void fill(int fd)
{
    static const char block[4096];
    while (send(fd, block, sizeof block, MSG_DONTWAIT) > 0)
        ;
}

static void drain(int fd)
{
    char block[4096];
    while (recv(fd, block, sizeof block, MSG_DONTWAIT) > 0)
        ;
}

static int set_up(void **state)
{
    struct set *set = malloc(sizeof *set);
    int ends[2];
    set->epoll = epoll_create1(EPOLL_CLOEXEC);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    set->ours = ends[0];
    set->theirs = ends[1];
    assert_int_equal(change(set->epoll, EPOLL_CTL_ADD, set->ours, EPOLLIN), 0);
    assert_int_equal(wait_for(set->epoll, 0), 0);
    *state = set;
    return 0;
}

static int tear_down(void **state)
{
    struct set *set = *state;
    close(set->epoll);
    close(set->ours);
    close(set->theirs);
    free(set);
    return 0;
}

static void who_wants_to_write_is_offered_room_without_the_kernel(void **state)
{
    struct set *set = *state;
    for (int i = 0; i < 3; i++) {
        change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
        assert_int_equal(wait_for(set->epoll, -1), EPOLLOUT);
        assert_true(is_watched(set->epoll, set->ours, EPOLLIN));
        change(set->epoll, EPOLL_CTL_MOD, set->ours, EPOLLIN);
        if (i == 1) /* again, before the thread has waited */
            continue;
        assert_int_equal(wait_for(set->epoll, 0), 0);
    }
}

static void who_is_added_again_is_offered_room_again(void **state)
{
    struct set *set = *state;
    for (int i = 0; i < 2; i++) {
        change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
        assert_int_equal(wait_for(set->epoll, -1), EPOLLOUT);
        assert_true(is_watched(set->epoll, set->ours, EPOLLIN));
        change(set->epoll, EPOLL_CTL_DEL, set->ours, 0);
        change(set->epoll, EPOLL_CTL_ADD, set->ours, EPOLLIN);
    }
}

static void who_still_wants_to_write_waits_in_the_kernel(void **state)
{
    struct set *set = *state;
    fill(set->ours);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    assert_int_equal(wait_for(set->epoll, -1), EPOLLOUT);
    assert_int_equal(wait_for(set->epoll, SOON_MS), 0);
    assert_true(is_watched(set->epoll, set->ours, BOTH));
    drain(set->theirs);
    assert_int_equal(wait_for(set->epoll, -1), EPOLLOUT);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, EPOLLIN);
    assert_int_equal(wait_for(set->epoll, SOON_MS), 0);
    assert_true(is_watched(set->epoll, set->ours, EPOLLIN));
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    assert_int_equal(wait_for(set->epoll, -1), EPOLLOUT);
    assert_true(is_watched(set->epoll, set->ours, EPOLLIN));
}

static void who_waits_in_the_kernel_is_not_offered_room(void **state)
{
    struct set *set = *state;
    fill(set->ours);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    assert_int_equal(wait_for(set->epoll, -1), EPOLLOUT);
    assert_int_equal(wait_for(set->epoll, 0), 0);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, EPOLLIN);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    assert_int_equal(wait_for(set->epoll, SOON_MS), 0);
}

static void input_is_told_beside_an_offer(void **state)
{
    struct set *set = *state;
    struct epoll_event events[4];
    assert_int_equal(write(set->theirs, "x", 1), 1);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    assert_int_equal(epoll_wait(set->epoll, events, 4, -1), 2);
    assert_int_equal(events[0].events, EPOLLOUT);
    assert_int_equal(events[1].events, EPOLLIN);
    assert_true(events[0].data.fd == set->ours && events[1].data.fd == set->ours);
}

static void an_offer_leaves_room_for_what_the_kernel_has_to_say(void **state)
{
    struct set *set = *state;
    struct epoll_event event;
    assert_int_equal(write(set->theirs, "x", 1), 1);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    assert_int_equal(epoll_wait(set->epoll, &event, 1, -1), 1);
    assert_int_equal(event.events, BOTH);
}

/* A connection that is not made yet: room to write would mean that it is. */
static void who_wants_to_write_only_is_not_offered_room(void **state)
{
    struct set *set = *state;
    fill(set->ours);
    for (int i = 0; i < 2; i++) {
        change(set->epoll, EPOLL_CTL_MOD, set->ours, EPOLLOUT);
        assert_int_equal(wait_for(set->epoll, SOON_MS), 0);
        assert_true(is_watched(set->epoll, set->ours, EPOLLOUT));
        change(set->epoll, EPOLL_CTL_MOD, set->ours, 0);
    }
}

static void the_end_of_a_connection_is_not_told_unasked(void **state)
{
    struct set *set = *state;
    change(set->epoll, EPOLL_CTL_MOD, set->ours, 0);
    close(set->theirs);
    assert_int_equal(wait_for(set->epoll, SOON_MS), 0);
    assert_false(count_in_kernel(set->epoll, set->ours, EPOLLIN) + count_in_kernel(set->epoll, set->ours, 0));
    change(set->epoll, EPOLL_CTL_MOD, set->ours, EPOLLIN);
    assert_true(is_watched(set->epoll, set->ours, EPOLLIN)); /* at once: that could have failed */
    assert_int_equal(wait_for(set->epoll, -1), EPOLLIN);
    assert_int_equal(change(set->epoll, EPOLL_CTL_DEL, set->ours, 0), 0);
    set->theirs = dup(set->ours);
}

/* Of a connection that is reset the kernel sometimes says for a moment no more than that; of a pipe always. */
static void an_error_alone_is_told_as_room_to_write(void **state)
{
    const struct set *set = *state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    while (write(ends[1], ends, sizeof ends) > 0)
        ;
    assert_int_equal(change(set->epoll, EPOLL_CTL_ADD, ends[1], EPOLLOUT), 0);
    assert_int_equal(wait_for(set->epoll, 0), 0);
    close(ends[0]);
    assert_int_equal(wait_for(set->epoll, -1), EPOLLOUT);
    close(ends[1]);
}

static void who_is_added_for_nothing_is_not_told_of_the_end_either(void **state)
{
    struct set *set = *state;
    change(set->epoll, EPOLL_CTL_DEL, set->ours, 0);
    assert_int_equal(change(set->epoll, EPOLL_CTL_ADD, set->ours, 0), 0);
    shutdown(set->ours, SHUT_RDWR);
    assert_int_equal(wait_for(set->epoll, SOON_MS), 0);
    assert_int_equal(change(set->epoll, EPOLL_CTL_DEL, set->ours, 0), 0);
}

static void *use_in_another_set(void *context)
{
    int *fd = context, other = epoll_create1(EPOLL_CLOEXEC);
    wait_for(other, 0);
    change(other, EPOLL_CTL_ADD, *fd, EPOLLIN);
    change(other, EPOLL_CTL_MOD, *fd, BOTH);
    close(other);
    return NULL;
}

static void a_number_that_is_used_again_owes_nothing(void **state)
{
    struct set *set = *state;
    pthread_t thread;
    int number = set->ours;
    change(set->epoll, EPOLL_CTL_MOD, number, BOTH);
    change(set->epoll, EPOLL_CTL_DEL, number, 0);
    close(number);
    set->ours = dup(set->theirs);
    assert_int_equal(set->ours, number);
    pthread_create(&thread, NULL, use_in_another_set, &number);
    pthread_join(thread, NULL);
    assert_int_equal(wait_for(set->epoll, 0), 0);
}

static void a_number_that_was_closed_without_a_word_owes_nothing(void **state)
{
    struct set *set = *state;
    int number = set->ours;
    change(set->epoll, EPOLL_CTL_MOD, number, 0);
    wait_for(set->epoll, 0);
    change(set->epoll, EPOLL_CTL_MOD, number, EPOLLIN);
    close(number);
    int again = dup(set->theirs);
    assert_int_equal(again, number);
    assert_int_equal(change(set->epoll, EPOLL_CTL_ADD, again, EPOLLIN | EPOLLET), 0);
    assert_true(is_watched(set->epoll, again, EPOLLIN | EPOLLET));
}

static void an_edge_is_told_again_when_asked_for_again(void **state)
{
    struct set *set = *state;
    assert_int_equal(write(set->theirs, "x", 1), 1);
    for (int i = 0; i < 2; i++) {
        change(set->epoll, EPOLL_CTL_MOD, set->ours, EPOLLIN | EPOLLONESHOT);
        assert_int_equal(wait_for(set->epoll, -1), EPOLLIN);
        assert_int_equal(wait_for(set->epoll, 0), 0);
    }
}

static void *change_elsewhere(void *context)
{
    struct set *set = context;
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    return NULL;
}

static void a_change_by_another_thread_holds_at_once(void **state)
{
    struct set *set = *state;
    pthread_t thread;
    pthread_create(&thread, NULL, change_elsewhere, set);
    pthread_join(thread, NULL);
    assert_true(is_watched(set->epoll, set->ours, BOTH));
}

static void a_change_is_not_forgotten_for_another_set(void **state)
{
    struct set *set = *state;
    int other = epoll_create1(EPOLL_CLOEXEC);
    change(set->epoll, EPOLL_CTL_MOD, set->ours, BOTH);
    assert_int_equal(wait_for(other, 0), 0);
    assert_true(is_watched(set->epoll, set->ours, BOTH));
    close(other);
}

static void watch_many(const struct set *set, int fds[], int count)
{
    for (int i = 0; i < count; i++) {
        fds[i] = dup(set->ours);
        assert_true(fds[i] >= 0);
        assert_int_equal(change(set->epoll, EPOLL_CTL_ADD, fds[i], EPOLLIN), 0);
    }
}

static void end_many(const struct set *set, const int fds[], int count)
{
    for (int i = 0; i < count; i++) {
        change(set->epoll, EPOLL_CTL_DEL, fds[i], 0);
        close(fds[i]);
    }
}

static void more_offers_than_events_are_made_in_turn(void **state)
{
    enum { FEW = 10 };
    struct set *set = *state;
    struct epoll_event events[4];
    int fds[FEW], offered = 0, count;
    watch_many(set, fds, FEW);
    for (int i = 0; i < FEW; i++)
        change(set->epoll, EPOLL_CTL_MOD, fds[i], BOTH);
    while ((count = epoll_wait(set->epoll, events, 4, 0)) > 0) {
        offered += count;
        for (int i = 0; i < count; i++)
            change(set->epoll, EPOLL_CTL_MOD, events[i].data.fd, EPOLLIN);
        assert_int_equal(count_in_kernel(set->epoll, -1, EPOLLIN), FEW + 1);
    }
    assert_int_equal(offered, FEW);
    end_many(set, fds, FEW);
}

static void more_changes_than_are_held_back_all_hold(void **state)
{
    struct set *set = *state;
    struct rlimit limit;
    int *fds = malloc(MANY * sizeof *fds);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < 2 * MANY) {
        free(fds);
        skip();
    }
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    watch_many(set, fds, MANY);
    for (int i = 0; i < MANY; i++)
        change(set->epoll, EPOLL_CTL_MOD, fds[i], EPOLLOUT);
    wait_for(set->epoll, 0);
    assert_int_equal(count_in_kernel(set->epoll, -1, EPOLLOUT), MANY);
    end_many(set, fds, MANY);
    free(fds);
}

static void a_wrong_descriptor_is_an_error(void **state)
{
    struct set *set = *state;
    assert_int_equal(change(set->epoll, EPOLL_CTL_ADD, -1, EPOLLIN), -1);
    assert_int_equal(change(set->epoll, EPOLL_CTL_ADD, set->ours, EPOLLIN), -1); /* it is there */
    assert_true(is_watched(set->epoll, set->ours, EPOLLIN));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_wants_to_write_is_offered_room_without_the_kernel),
        TEST(who_is_added_again_is_offered_room_again),
        TEST(who_still_wants_to_write_waits_in_the_kernel),
        TEST(who_waits_in_the_kernel_is_not_offered_room),
        TEST(input_is_told_beside_an_offer),
        TEST(an_offer_leaves_room_for_what_the_kernel_has_to_say),
        TEST(who_wants_to_write_only_is_not_offered_room),
        TEST(the_end_of_a_connection_is_not_told_unasked),
        TEST(an_error_alone_is_told_as_room_to_write),
        TEST(who_is_added_for_nothing_is_not_told_of_the_end_either),
        TEST(a_number_that_is_used_again_owes_nothing),
        TEST(a_number_that_was_closed_without_a_word_owes_nothing),
        TEST(an_edge_is_told_again_when_asked_for_again),
        TEST(a_change_by_another_thread_holds_at_once),
        TEST(a_change_is_not_forgotten_for_another_set),
        TEST(more_offers_than_events_are_made_in_turn),
        TEST(more_changes_than_are_held_back_all_hold),
        TEST(a_wrong_descriptor_is_an_error),
    };
    return cmocka_run_group_tests_name("epoll", tests, NULL, NULL);
}
