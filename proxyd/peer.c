/* SPDX-License-Identifier: MIT
 *
 * A link of the chains', with a loop small enough for a tool; see peer.h.
 */
#include "proxyd/peer.h"

#include "buffer/clock.h"
#include "proxies/ledger.h"
#include "proxies/link.h"
#include "proxies/wire.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { SOCKETS = 16, BACKOFF_MS = 100, BACKOFF_MAX_MS = 2000, LINGER_MS = 1000 };

struct peer {
    struct runtime runtime;
    struct poller poller;
    struct waker *waker;
    int signals;
    bool is_woken;
    bool is_signalled;
    struct ledger ledger; /* of no interest here */
    struct surroundings around;
    struct endpoint endpoint;
    struct text_list subscribe;
    struct link_conf conf;
    struct backoff backoff;
    struct link link;
    const char *cause;
};

static void ignore_event(void *context, enum event_level level, const char *token,
                         const struct event_field *fields, unsigned count)
{
    (void)context;
    (void)level;
    (void)token;
    (void)fields;
    (void)count;
}

static int open_signals(struct peer *peer)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    peer->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return peer->signals < 0 ? -1 : poller_add(&peer->poller, peer->signals, &peer->is_signalled);
}

static int open_link(struct peer *peer, const struct peer_conf *conf, char *err, size_t err_size)
{
    static char *everything[] = {""};
    peer->subscribe = conf->subscribe ? *conf->subscribe : (struct text_list){everything, 1};
    peer->around = (struct surroundings){
        .runtime = &peer->runtime,
        .poller = &peer->poller,
        .waker = peer->waker,
        .chain = "",
        .ledger = &peer->ledger,
    };
    peer->conf = (struct link_conf){
        .endpoint = &peer->endpoint,
        .options = {.type = conf->type, .credentials = conf->credentials, .subscribe = &peer->subscribe},
        .backoff_ms = BACKOFF_MS,
        .backoff_max_ms = BACKOFF_MAX_MS,
    };
    return link_open(&peer->link, &peer->conf, &peer->around, &peer->backoff, err, err_size);
}

struct peer *peer_open(const struct peer_conf *conf, char *err, size_t err_size)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (!peer) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    peer->signals = peer->poller.epoll = -1;
    if (endpoint_parse(&peer->endpoint, conf->endpoint, conf->binds, err, err_size) < 0) {
        free(peer);
        return NULL;
    }
    if (endpoint_is_websocket(&peer->endpoint)) {
        snprintf(err, err_size, "a WebSocket is reached through a chain only");
        endpoint_close(&peer->endpoint);
        free(peer);
        return NULL;
    }
    peer->waker = waker_new();
    if (!peer->waker || poller_open(&peer->poller) < 0 || (conf->heeds_signals && open_signals(peer) < 0) ||
        poller_add(&peer->poller, waker_fd(peer->waker), &peer->is_woken) < 0)
        snprintf(err, err_size, "out of descriptors");
    else if (runtime_open(&peer->runtime, SOCKETS, (struct event_sink){.emit = ignore_event}, err,
                          err_size) == 0 &&
             open_link(peer, conf, err, err_size) == 0)
        return peer;
    peer_close(peer);
    return NULL;
}

/* Sleeps until something may have changed. */
static enum peer_result rest(struct peer *peer, int64_t deadline_ms)
{
    int64_t now_ms = clock_now_ms();
    if (now_ms >= deadline_ms)
        return PEER_TIMED_OUT;
    int64_t next_ms = link_next_ms(&peer->link);
    next_ms = next_ms < deadline_ms ? next_ms : deadline_ms;
    poller_wait(&peer->poller, next_ms == INT64_MAX ? next_ms : next_ms > now_ms ? next_ms - now_ms : 0);
    if (peer->is_woken) {
        peer->is_woken = false;
        waker_clear(peer->waker);
    }
    return peer->is_signalled ? PEER_INTERRUPTED : PEER_OK;
}

/* Moves the link on. */
static enum peer_result tick(struct peer *peer)
{
    for (;;) {
        switch (link_tick(&peer->link, clock_now_ms())) {
        case LINK_QUIET:
            return PEER_OK;
        case LINK_CAME_UP:
            backoff_reset(&peer->backoff);
            peer->cause = NULL;
            break;
        case LINK_BROKE:
            peer->cause = "lost";
            return PEER_FAILED;
        case LINK_FAILED:
            peer->cause = peer->link.cause;
            return PEER_FAILED;
        }
    }
}

static enum peer_result turn(struct peer *peer, int64_t deadline_ms)
{
    enum peer_result result = rest(peer, deadline_ms);
    return result == PEER_OK ? tick(peer) : result;
}

enum peer_result peer_await(struct peer *peer, int64_t deadline_ms)
{
    while (peer->link.state != LINK_UP) {
        enum peer_result result = turn(peer, deadline_ms);
        if (result != PEER_OK)
            return result;
    }
    return PEER_OK;
}

enum peer_result peer_receive(struct peer *peer, struct message *message, int64_t deadline_ms)
{
    static const struct wire_limits no_limits = {0};
    enum peer_result result = PEER_OK;
    while (result == PEER_OK) {
        if (peer->link.socket.zmq &&
            wire_receive(&peer->link.socket, &no_limits, NULL, message) == WIRE_MESSAGE)
            return PEER_OK;
        result = tick(peer);
        if (result == PEER_OK && !peer->link.is_ending) /* or else there may be more to read */
            result = rest(peer, deadline_ms);
    }
    return result;
}

enum peer_result peer_send(struct peer *peer, const struct message *message, int64_t deadline_ms)
{
    for (;;) {
        if (peer->link.is_ending)
            peer->link.socket.is_ready = false; /* nobody waits for what it still holds */
        if (peer->link.socket.zmq && (peer->endpoint.is_bind || link_is_usable(&peer->link))) {
            socket_settle(&peer->link.socket);
            if (wire_send_copy(&peer->link.socket, NULL, false, message) == WIRE_SENT)
                return PEER_OK;
        }
        enum peer_result result = turn(peer, deadline_ms);
        if (result != PEER_OK)
            return result;
    }
}

enum peer_result peer_sleep(struct peer *peer, int64_t deadline_ms)
{
    enum peer_result result;
    do
        result = turn(peer, deadline_ms);
    while (result == PEER_OK || result == PEER_FAILED);
    return result == PEER_TIMED_OUT ? PEER_OK : result;
}

const char *peer_cause(const struct peer *peer)
{
    return peer->cause ? peer->cause : "not connected";
}

void peer_close(struct peer *peer)
{
    if (!peer)
        return;
    link_close(&peer->link, LINGER_MS);
    if (peer->runtime.zmq)
        runtime_close(&peer->runtime);
    if (peer->waker)
        waker_release(peer->waker);
    if (peer->poller.epoll >= 0)
        poller_close(&peer->poller);
    if (peer->signals >= 0)
        close(peer->signals);
    endpoint_close(&peer->endpoint);
    free(peer);
}
