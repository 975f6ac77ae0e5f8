/* SPDX-License-Identifier: MIT
 *
 * What libzmq hears of connections that have ended: nothing, before it wants to read or write again. While a peer's
 * messages find no room libzmq stops reading it, but the kernel tells of errors and hang-ups unasked. libzmq (4.3) then
 * drops the descriptor and keeps the connection for what is still to be read, and its next heartbeat to that peer aborts
 * the process. Whoever reads or writes hears of the end as an error of that call.
 *
 *     I/O thread    epoll_ctl   ─┐
 *                   epoll_wait  ─┴─>  here  ─>  kernel
 *
 * An executable's symbols are found before those of any library. Keeps one mark for each descriptor.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    DESCRIPTORS_MAX = 65536,
    UNASKED = EPOLLERR | EPOLLHUP,
    SIGNALS_BYTES = 8 /* of the kernel's sigset_t */
};

/* Nobody waits for them now: they are not in the kernel's set, though whoever added them thinks so. */
static atomic_bool are_away[DESCRIPTORS_MAX];

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    bool is_known = fd >= 0 && fd < DESCRIPTORS_MAX;
    bool is_wanted = operation != EPOLL_CTL_DEL && event->events != 0;
    bool is_away = operation == EPOLL_CTL_MOD && is_known && !is_wanted;
    bool was_away = is_known && atomic_exchange(&are_away[fd], is_away) && operation != EPOLL_CTL_ADD;
    if (was_away && !is_wanted)
        return 0;
    if (was_away)
        operation = EPOLL_CTL_ADD;
    else if (is_away)
        operation = EPOLL_CTL_DEL;
    return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms)
{
    int count = (int)syscall(SYS_epoll_pwait, epoll, events, most, timeout_ms, NULL, SIGNALS_BYTES);
    for (int i = 0; i < count; i++)
        if (events[i].events & ~(uint32_t)UNASKED)
            events[i].events &= ~(uint32_t)UNASKED;
    return count;
}
