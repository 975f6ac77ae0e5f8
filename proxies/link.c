/* SPDX-License-Identifier: MIT
 *
 * The life of one endpoint's socket; see link.h.
 */
#include "proxies/link.h"

#include <stdio.h>
#include <string.h>
#include <zmq.h>

/* Longer than libzmq's own limits, for the failures of which it says nothing. */
enum { ATTEMPT_MS = SOCKET_HANDSHAKE_MS + 500 };

static const char mismatch[] = "mechanism-mismatch";

/* A peer that hangs up in the handshake does not say why. Where the mechanisms differ both ends find that, and
 * it is chance who hangs up first: what was known already holds. */
static const char *cause_of(const struct link *link, enum watch_end end)
{
    switch (end) {
    case WATCH_LOST:
        return link->cause == mismatch ? mismatch : "refused";
    case WATCH_DENIED:
        return "auth-denied";
    case WATCH_MISMATCH:
        return mismatch;
    case WATCH_SILENT:
        return "silent";
    case WATCH_UNTRUSTED:
        return "untrusted";
    default:
        return "refused";
    }
}

/* A WebSocket server is told when we leave it in peace, with nothing unanswered. */
static void close_socket(struct link *link, int linger_ms, bool is_polite)
{
    if (link->watch)
        watch_stop(link->watch, link->socket.zmq);
    if (link->websocket)
        websocket_stop(link->websocket, is_polite);
    link->watch = NULL;
    link->websocket = NULL;
    link->is_ending = false;
    socket_close_gently(&link->socket, linger_ms);
}

static void forget_lookup(struct link *link)
{
    if (link->lookup)
        lookup_release(link->lookup);
    link->lookup = NULL;
}

static int open_socket(struct link *link, char *err, size_t err_size)
{
    const struct runtime *runtime = link->around->runtime;
    if (socket_open(&link->socket, runtime->zmq, link->around->poller, &link->conf->options,
                    link->conf->endpoint, err, err_size) != 0)
        return -1;
    link->handshakes = 0;
    link->is_ending = false;
    if (link->socket.is_inproc)
        return 0; /* has no handshake to watch: see facts_of */
    link->watch = watch_start(runtime->monitor, link->socket.zmq, link->around->waker, err, err_size);
    if (!link->watch)
        socket_close(&link->socket);
    return link->watch ? 0 : -1;
}

static int open_websocket(struct link *link, const char *address, char *err, size_t err_size)
{
    const struct runtime *runtime = link->around->runtime;
    struct socket_options pair = link->conf->options;
    pair.type = ZMQ_PAIR;
    pair.credentials = NULL;
    if (socket_open(&link->socket, runtime->zmq, link->around->poller, &pair, link->conf->endpoint, err,
                    err_size) != 0)
        return -1;
    link->websocket =
        websocket_start(runtime->websockets, link->conf->endpoint, address, &link->conf->options,
                        &link->socket, link->around->waker, err, err_size);
    if (!link->websocket)
        socket_close(&link->socket);
    return link->websocket ? 0 : -1;
}

static int bind_now(struct link *link, char *err, size_t err_size)
{
    if (open_socket(link, err, err_size) != 0)
        return -1;
    if (socket_bind(&link->socket, link->conf->endpoint, err, err_size) != 0) {
        close_socket(link, 0, false);
        return -1;
    }
    link->state = LINK_CONNECTING;
    link->deadline_ms = INT64_MAX;
    return 0;
}

int link_open(struct link *link, const struct link_conf *conf, const struct surroundings *around,
              struct backoff *backoff, char *err, size_t err_size)
{
    *link = (struct link){.conf = conf, .around = around, .backoff = backoff, .state = LINK_WAITING};
    if (endpoint_is_websocket(conf->endpoint))
        return websockets_need(around->runtime->websockets, err, err_size);
    if (!conf->endpoint->is_bind || bind_now(link, err, err_size) == 0)
        return 0;
    /* The name is another chain's, which is about to give it up: link_tick tries again. */
    return conf->endpoint->transport == TRANSPORT_INPROC ? 0 : -1;
}

static enum link_event fail(struct link *link, const char *cause, int64_t now_ms)
{
    close_socket(link, 0, false);
    forget_lookup(link);
    backoff_fail(link->backoff, now_ms, link->conf->backoff_ms, link->conf->backoff_max_ms, retry_random());
    link->state = LINK_WAITING;
    link->cause = cause;
    return LINK_FAILED;
}

static enum link_event connect_to(struct link *link, const char *address, int64_t now_ms)
{
    char err[256];
    int rc = endpoint_is_websocket(link->conf->endpoint) ? open_websocket(link, address, err, sizeof err)
                                                         : open_socket(link, err, sizeof err);
    if (rc != 0)
        return fail(link, "refused", now_ms);
    if (!link->websocket && socket_connect(&link->socket, address, err, sizeof err) != 0)
        return fail(link, "refused", now_ms);
    link->state = LINK_CONNECTING;
    link->deadline_ms = now_ms + ATTEMPT_MS;
    return LINK_QUIET;
}

static enum link_event connect_to_resolved(struct link *link, int64_t now_ms)
{
    const char *address = lookup_address(link->lookup, link->address);
    char text[128];
    if (endpoint_is_websocket(link->conf->endpoint))
        return connect_to(link, address, now_ms);
    snprintf(text, sizeof text, strchr(address, ':') ? "tcp://[%s]:%d" : "tcp://%s:%d", address,
             link->conf->endpoint->port);
    return connect_to(link, text, now_ms);
}

static enum link_event resolve(struct link *link, int64_t now_ms)
{
    switch (lookup_state(link->lookup)) {
    case LOOKUP_DONE:
        return connect_to_resolved(link, now_ms);
    case LOOKUP_FAILED:
        return fail(link, "unresolved", now_ms);
    default:
        if (now_ms < link->deadline_ms)
            return LINK_QUIET;
        link->cause = "unresolved"; /* and go on waiting: asking again would not be answered sooner */
        link->deadline_ms = INT64_MAX;
        return LINK_FAILED;
    }
}

static enum link_event begin(struct link *link, int64_t now_ms)
{
    const struct endpoint *endpoint = link->conf->endpoint;
    if (endpoint->is_bind) {
        char err[256];
        return bind_now(link, err, sizeof err) == 0 ? LINK_QUIET : fail(link, "refused", now_ms);
    }
    if (!endpoint->host)
        return connect_to(link, endpoint->address, now_ms);
    link->lookup = lookup_start(endpoint->host, link->around->waker);
    if (!link->lookup)
        return fail(link, "unresolved", now_ms);
    link->address = 0;
    link->state = LINK_RESOLVING;
    link->deadline_ms = now_ms + ATTEMPT_MS;
    return resolve(link, now_ms);
}

static enum link_event did_not_connect(struct link *link, const char *cause, int64_t now_ms)
{
    if (link->lookup && lookup_address(link->lookup, link->address + 1)) {
        close_socket(link, 0, false);
        link->address++;
        return connect_to_resolved(link, now_ms);
    }
    return fail(link, cause, now_ms);
}

static enum link_event came_up(struct link *link)
{
    forget_lookup(link);
    link->state = LINK_UP;
    link->cause = NULL;
    link->socket.is_ready = true;
    return LINK_CAME_UP;
}

static struct watch_facts facts_of(const struct link *link)
{
    struct watch_facts facts = {.handshakes = 1};
    if (link->websocket)
        return websocket_facts(link->websocket);
    if (link->watch)
        return watch_facts(link->watch);
    if (link->conf->endpoint->is_bind)
        facts.connections = inproc_connections(link->socket.inproc, &facts.handshakes);
    else if (inproc_is_gone(link->socket.inproc))
        facts.end = WATCH_LOST;
    return facts;
}

/* What had arrived before the peer left is read first; true once it is. */
static bool is_read_out(struct link *link)
{
    if (!link->is_ending)
        link->socket.is_ready = true;
    link->is_ending = true;
    return !link->socket.is_ready;
}

static enum link_event tick_connected(struct link *link, int64_t now_ms)
{
    struct watch_facts facts = facts_of(link);
    if (facts.end != WATCH_OPEN && link->state == LINK_CONNECTING && facts.handshakes == 0)
        return did_not_connect(link, cause_of(link, facts.end), now_ms);
    if (link->state == LINK_CONNECTING && facts.handshakes > 0)
        return came_up(link);
    if (facts.end != WATCH_OPEN) {
        if (!is_read_out(link))
            return LINK_QUIET;
        fail(link, NULL, now_ms); /* nobody refused anything: it is connecting again */
        return LINK_BROKE;
    }
    if (link->state == LINK_CONNECTING && now_ms >= link->deadline_ms)
        return did_not_connect(link, "silent", now_ms);
    return LINK_QUIET;
}

static enum link_event tick_bound(struct link *link)
{
    struct watch_facts facts = facts_of(link);
    bool is_new = facts.handshakes != link->handshakes;
    link->handshakes = facts.handshakes;
    if (link->state == LINK_CONNECTING && facts.connections > 0)
        return came_up(link);
    if (link->is_ending || (link->state == LINK_UP && facts.connections == 0)) {
        if (!is_read_out(link))
            return LINK_QUIET;
        link->is_ending = false;
        link->state = LINK_CONNECTING;
        return LINK_BROKE;
    }
    if (link->state == LINK_UP && is_new)
        link->socket.is_ready = true;
    return LINK_QUIET;
}

enum link_event link_tick(struct link *link, int64_t now_ms)
{
    switch (link->state) {
    case LINK_WAITING:
        return now_ms >= link->backoff->until_ms ? begin(link, now_ms) : LINK_QUIET;
    case LINK_RESOLVING:
        return resolve(link, now_ms);
    default:
        return link->conf->endpoint->is_bind ? tick_bound(link) : tick_connected(link, now_ms);
    }
}

bool link_is_usable(const struct link *link)
{
    return link->state == LINK_UP && !link->is_ending;
}

int64_t link_next_ms(const struct link *link)
{
    if (link->is_ending)
        return link->socket.is_ready ? INT64_MAX : 0;
    switch (link->state) {
    case LINK_WAITING:
        return link->backoff->until_ms;
    case LINK_RESOLVING:
    case LINK_CONNECTING:
        return link->deadline_ms;
    default:
        return INT64_MAX;
    }
}

void link_discard(struct link *link, const char *cause)
{
    close_socket(link, 0, false);
    forget_lookup(link);
    link->state = LINK_WAITING;
    link->cause = cause;
}

void link_close(struct link *link, int linger_ms)
{
    if (link->conf) /* was opened */
        close_socket(link, linger_ms, true);
    forget_lookup(link);
}
