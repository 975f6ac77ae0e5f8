/* SPDX-License-Identifier: MIT
 *
 * The number of this process, asked for once. libzmq wants it around each signal between two of its threads, to notice
 * a fork; glibc makes a system call of it every time. An executable's symbols are found before those of any library.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int known; /* 0: not yet */

static void forget(void)
{
    known = 0;
}

pid_t getpid(void)
{
    pid_t pid = atomic_load_explicit(&known, memory_order_relaxed);
    if (pid)
        return pid;
    pid = (pid_t)syscall(SYS_getpid);
    if (pthread_atfork(NULL, NULL, forget) == 0)
        known = pid;
    return pid;
}
