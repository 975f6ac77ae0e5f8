/* SPDX-License-Identifier: MIT
 *
 * getaddrinfo in short-lived threads; see resolver.h. A lookup is shared by its owner and its thread; the
 * last one to let go frees it.
 */
#include "proxies/resolver.h"

#include "proxies/poller.h"

#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { ADDRESSES_MAX = 16, LOOKUP_STACK_BYTES = 256 * 1024 };

struct lookup {
    atomic_int references;
    atomic_int state; /* enum lookup_state; the addresses are written before it leaves PENDING */
    struct waker *waker;
    size_t count;
    char addresses[ADDRESSES_MAX][NI_MAXHOST];
    char host[];
};

void lookup_release(struct lookup *lookup)
{
    if (atomic_fetch_sub(&lookup->references, 1) == 1) {
        waker_release(lookup->waker);
        free(lookup);
    }
}

static void keep_addresses(struct lookup *lookup, const struct addrinfo *found, int family)
{
    for (; found && lookup->count < ADDRESSES_MAX; found = found->ai_next) {
        if (found->ai_family == family &&
            getnameinfo(found->ai_addr, found->ai_addrlen, lookup->addresses[lookup->count], NI_MAXHOST, NULL,
                        0, NI_NUMERICHOST) == 0)
            lookup->count++;
    }
}

static int look_up(struct lookup *lookup, int flags)
{
    struct addrinfo *found = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    if (getaddrinfo(lookup->host, NULL, &hints, &found) == 0) {
        keep_addresses(lookup, found, AF_INET);
        keep_addresses(lookup, found, AF_INET6);
        freeaddrinfo(found);
    }
    return lookup->count > 0 ? 0 : -1;
}

static void *lookup_run(void *argument)
{
    struct lookup *lookup = argument;
    pthread_setname_np(pthread_self(), "lookup");
    atomic_store(&lookup->state, look_up(lookup, AI_ADDRCONFIG) == 0 ? LOOKUP_DONE : LOOKUP_FAILED);
    waker_wake(lookup->waker);
    lookup_release(lookup);
    return NULL;
}

struct lookup *lookup_start(const char *host, struct waker *waker)
{
    size_t size = strlen(host) + 1;
    struct lookup *lookup = calloc(1, sizeof *lookup + size);
    if (!lookup)
        return NULL;
    memcpy(lookup->host, host, size);
    lookup->waker = waker_share(waker);
    if (look_up(lookup, AI_NUMERICHOST) == 0) {
        atomic_init(&lookup->references, 1);
        atomic_init(&lookup->state, LOOKUP_DONE);
        return lookup;
    }
    atomic_init(&lookup->references, 2);
    atomic_init(&lookup->state, LOOKUP_PENDING);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, LOOKUP_STACK_BYTES);
    pthread_t thread;
    int failed = pthread_create(&thread, &attributes, lookup_run, lookup);
    pthread_attr_destroy(&attributes);
    if (failed) {
        waker_release(lookup->waker);
        free(lookup);
        return NULL;
    }
    return lookup;
}

enum lookup_state lookup_state(const struct lookup *lookup)
{
    return (enum lookup_state)atomic_load(&lookup->state);
}

const char *lookup_address(const struct lookup *lookup, size_t index)
{
    return index < lookup->count ? lookup->addresses[index] : NULL;
}
