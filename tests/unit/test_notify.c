/* SPDX-License-Identifier: MIT */
/* links: proxyd/notify.c */
#include "proxyd/notify.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static int start(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return 0;
}

/* A service manager's socket at `name`, where '@' stands for the abstract name space. */
static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    memcpy(address.sun_path, name, length);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(
        bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)),
        0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void expect(int fd, const char *state)
{
    char received[100];
    ssize_t size = recv(fd, received, sizeof(received), MSG_DONTWAIT);
    assert_int_equal(size, strlen(state));
    assert_memory_equal(received, state, strlen(state));
}

static void reaches_a_path(void **state)
{
    (void)state;
    char directory[] = "/tmp/proxyd-notify-XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/socket", directory);
    int fd = listen_at(path);
    assert_int_equal(notify_send("READY=1\nSTATUS=2 chains"), 0);
    expect(fd, "READY=1\nSTATUS=2 chains");
    close(fd);
    unlink(path);
    rmdir(directory);
}

static void reaches_an_abstract_name(void **state)
{
    (void)state;
    char name[64];
    snprintf(name, sizeof(name), "@proxyd-notify-%d", (int)getpid());
    int fd = listen_at(name);
    assert_int_equal(notify_send("STOPPING=1"), 0);
    expect(fd, "STOPPING=1");
    close(fd);
}

static void is_silent_without_a_service_manager(void **state)
{
    (void)state;
    assert_int_equal(notify_send("READY=1"), 0);
    setenv("NOTIFY_SOCKET", "", 1);
    assert_int_equal(notify_send("READY=1"), 0);
}

static void says_when_nobody_listens(void **state)
{
    (void)state;
    char long_path[200];
    memset(long_path, 'x', sizeof(long_path));
    long_path[0] = '/';
    long_path[sizeof(long_path) - 1] = '\0';
    setenv("NOTIFY_SOCKET", long_path, 1);
    assert_int_equal(notify_send("READY=1"), -1);
    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(notify_send("READY=1"), -1);
    setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
    assert_int_equal(notify_send("READY=1"), -1);
    assert_int_equal(errno, ENOENT);
}

static void never_waits_for_a_full_socket(void **state)
{
    (void)state;
    char name[64];
    snprintf(name, sizeof(name), "@proxyd-notify-full-%d", (int)getpid());
    int fd = listen_at(name);
    int sent = 0;
    alarm(10); /* a send that waits would end the test here */
    while (sent < 100000 && notify_send("WATCHDOG=1") == 0)
        sent++;
    alarm(0);
    assert_in_range(sent, 1, 99999);
    assert_int_equal(errno, EAGAIN);
    close(fd);
}

static void watchdog_is_ours_or_off(void **state)
{
    (void)state;
    char pid[20];
    assert_int_equal(notify_watchdog_usec(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    assert_int_equal(notify_watchdog_usec(), 30000000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_usec(), 0);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(notify_watchdog_usec(), 30000000);
    setenv("WATCHDOG_USEC", "-5", 1);
    assert_int_equal(notify_watchdog_usec(), 0);
    setenv("WATCHDOG_USEC", "99999999999999999999", 1);
    assert_int_equal(notify_watchdog_usec(), 0);
    setenv("WATCHDOG_USEC", "5s", 1);
    assert_int_equal(notify_watchdog_usec(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reaches_a_path, start),
        cmocka_unit_test_setup(reaches_an_abstract_name, start),
        cmocka_unit_test_setup(is_silent_without_a_service_manager, start),
        cmocka_unit_test_setup(says_when_nobody_listens, start),
        cmocka_unit_test_setup(never_waits_for_a_full_socket, start),
        cmocka_unit_test_setup(watchdog_is_ours_or_off, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
