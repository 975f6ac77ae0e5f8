/* SPDX-License-Identifier: MIT
 *
 * epoll and eventfd; see poller.h. Level-triggered: a ZMQ_FD stays readable until the socket was used.
 */
#include "proxies/poller.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int poller_open(struct poller *poller)
{
    poller->epoll = epoll_create1(EPOLL_CLOEXEC);
    return poller->epoll == -1 ? -1 : 0;
}

void poller_close(struct poller *poller)
{
    close(poller->epoll);
    poller->epoll = -1;
}

int poller_add(struct poller *poller, int fd, bool *is_ready)
{
    return epoll_ctl(poller->epoll, EPOLL_CTL_ADD, fd,
                     &(struct epoll_event){.events = EPOLLIN, .data.ptr = is_ready});
}

void poller_remove(struct poller *poller, int fd)
{
    epoll_ctl(poller->epoll, EPOLL_CTL_DEL, fd, NULL);
}

void poller_wait(struct poller *poller, int64_t timeout_ms)
{
    struct epoll_event events[64];
    int timeout = timeout_ms == INT64_MAX ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
    int count = epoll_wait(poller->epoll, events, sizeof events / sizeof *events, timeout);
    for (int i = 0; i < count; i++)
        *(bool *)events[i].data.ptr = true;
}

struct waker {
    int fd;
    atomic_int references;
};

struct waker *waker_new(void)
{
    struct waker *waker = malloc(sizeof *waker);
    if (!waker)
        return NULL;
    atomic_init(&waker->references, 1);
    waker->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (waker->fd == -1) {
        free(waker);
        return NULL;
    }
    return waker;
}

struct waker *waker_share(struct waker *waker)
{
    atomic_fetch_add(&waker->references, 1);
    return waker;
}

void waker_release(struct waker *waker)
{
    if (atomic_fetch_sub(&waker->references, 1) == 1) {
        close(waker->fd);
        free(waker);
    }
}

void waker_wake(struct waker *waker)
{
    eventfd_write(waker->fd, 1);
}

int waker_fd(const struct waker *waker)
{
    return waker->fd;
}

void waker_clear(struct waker *waker)
{
    eventfd_t count;
    eventfd_read(waker->fd, &count);
}
