/* SPDX-License-Identifier: MIT
 *
 * What a chain's loop sleeps on: epoll over the descriptors of its ZeroMQ sockets, and a waker by which other
 * threads (control, monitor, resolver, WebSockets) end that sleep.
 */
#ifndef PROXYD_PROXIES_POLLER_H
#define PROXYD_PROXIES_POLLER_H

#include <stdbool.h>
#include <stdint.h>

struct poller {
    int epoll;
};

/* -1 when out of descriptors. */
int poller_open(struct poller *poller);
void poller_close(struct poller *poller);

/* While `fd` is readable, every poller_wait sets *is_ready. -1 with errno. */
int poller_add(struct poller *poller, int fd, bool *is_ready);
void poller_remove(struct poller *poller, int fd);

/* Sleeps until something is ready or `timeout_ms` has passed (INT64_MAX: no end). */
void poller_wait(struct poller *poller, int64_t timeout_ms);

/* An eventfd shared by threads of different lifetimes: the last one to let go closes it. */
struct waker;

/* NULL when out of descriptors or memory; the caller holds one reference. */
struct waker *waker_new(void);
struct waker *waker_share(struct waker *waker);
void waker_release(struct waker *waker);

/* Ends the owner's sleep, now or the next. Any thread; never blocks. */
void waker_wake(struct waker *waker);

/* For the owner: the descriptor to poll, and its reset. */
int waker_fd(const struct waker *waker);
void waker_clear(struct waker *waker);

#endif
