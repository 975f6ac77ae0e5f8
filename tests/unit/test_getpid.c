/* SPDX-License-Identifier: MIT */
/* links: proxies/getpid.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static pid_t kernels(void)
{
    return (pid_t)syscall(SYS_getpid);
}

static void is_the_kernels(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(getpid(), kernels());
}

static void is_the_childs_after_a_fork(void **state)
{
    (void)state;
    int status = 0;
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        _exit(getpid() == kernels() && getpid() != parent && getppid() == parent ? 0 : 1);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(getpid(), parent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_kernels),
        cmocka_unit_test(is_the_childs_after_a_fork),
    };
    return cmocka_run_group_tests_name("getpid", tests, NULL, NULL);
}
