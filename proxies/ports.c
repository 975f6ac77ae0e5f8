/* SPDX-License-Identifier: MIT
 *
 * The links of one side of a chain; see ports.h.
 */
#include "proxies/ports.h"

#include <stdio.h>
#include <stdlib.h>

enum { BACKOFF_MS = 200, BACKOFF_MAX_MS = 2000 };

int ports_open(struct ports *ports, const struct endpoint_list *endpoints,
               const struct socket_options *options, int64_t backoff_ms, int64_t backoff_max_ms,
               const struct surroundings *around, char *err, size_t err_size)
{
    *ports = (struct ports){.items = calloc(endpoints->count, sizeof *ports->items)};
    if (!ports->items) {
        snprintf(err, err_size, "out of memory");
        return -1;
    }
    for (size_t i = 0; i < endpoints->count; i++) {
        struct port *port = &ports->items[i];
        port->conf = (struct link_conf){
            .endpoint = &endpoints->items[i],
            .options = *options,
            .backoff_ms = backoff_ms > 0 ? backoff_ms : BACKOFF_MS,
            .backoff_max_ms = backoff_max_ms > 0 ? backoff_max_ms : BACKOFF_MAX_MS,
        };
        char why[256];
        if (link_open(&port->link, &port->conf, around, &port->backoff, why, sizeof why) != 0) {
            snprintf(err, err_size, "%s: %s", endpoints->items[i].text, why);
            ports_close(ports, 0);
            return -1;
        }
        ports->count++;
    }
    return 0;
}

void ports_close(struct ports *ports, int linger_ms)
{
    for (size_t i = 0; i < ports->count; i++)
        link_close(&ports->items[i].link, linger_ms);
    free(ports->items);
    *ports = (struct ports){0};
}

int64_t ports_next_ms(const struct ports *ports)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < ports->count; i++) {
        int64_t due = link_next_ms(&ports->items[i].link);
        next = due < next ? due : next;
    }
    return next;
}

int ports_next_ready(struct ports *ports)
{
    for (size_t i = 0; i < ports->count; i++) {
        size_t port = (ports->next + i) % ports->count;
        const struct socket *socket = &ports->items[port].link.socket;
        if (socket->zmq && socket->is_ready) {
            ports->next = port + 1;
            return (int)port;
        }
    }
    return -1;
}

bool ports_have_input(struct ports *ports, bool is_stopped)
{
    bool has_input = false;
    for (size_t i = 0; i < ports->count; i++) {
        struct socket *socket = &ports->items[i].link.socket;
        if (!socket->zmq)
            continue;
        socket_note_reading(socket, socket->is_ready && (is_stopped || socket->is_behind));
        if (!socket->is_ready)
            continue;
        if (is_stopped)
            socket_settle(socket);
        has_input = true;
    }
    return has_input && !is_stopped;
}

uint32_t ports_upstreams(const struct ports *ports, struct upstream_stats *rows)
{
    uint32_t count = 0;
    for (size_t i = 0; i < ports->count; i++) {
        const struct link *link = &ports->items[i].link;
        if (link->conf->endpoint->is_bind)
            continue;
        if (rows) {
            rows[count] = (struct upstream_stats){
                .endpoint = link->conf->endpoint->text,
                .state = link->state == LINK_UP ? UPSTREAM_UP
                         : link->cause          ? UPSTREAM_DOWN
                                                : UPSTREAM_CONNECTING,
                .cause = link->state == LINK_UP ? NULL : link->cause,
                .connections = link->state == LINK_UP,
            };
        }
        count++;
    }
    return count;
}

static void report(const struct link *link, enum link_event event)
{
    const struct event_sink *events = &link->around->runtime->events;
    const char *chain = link->around->chain, *endpoint = link->conf->endpoint->text;
    switch (event) {
    case LINK_CAME_UP:
        EVENT(events, EVENT_INFO, "upstream-up", EVENT_TEXT("chain", chain),
              EVENT_TEXT("endpoint", endpoint));
        break;
    case LINK_BROKE:
        EVENT(events, EVENT_WARNING, "upstream-lost", EVENT_TEXT("chain", chain),
              EVENT_TEXT("endpoint", endpoint));
        break;
    case LINK_FAILED:
        if (link->backoff->failures <= 1) /* the first of a row; status tells of the others */
            EVENT(events, EVENT_WARNING, "upstream-down", EVENT_TEXT("chain", chain),
                  EVENT_TEXT("endpoint", endpoint), EVENT_TEXT("cause", link->cause));
        break;
    default:
        break;
    }
}

enum link_event port_tick(struct port *port, int64_t now_ms)
{
    enum link_event event = link_tick(&port->link, now_ms);
    if (port->conf.endpoint->is_bind)
        return event; /* peers that come and go are no upstreams */
    report(&port->link, event);
    if (event == LINK_BROKE)
        port->link.around->ledger->recreates++;
    return event;
}

enum door_verdict ports_check(const struct surroundings *around, struct door *door, zmq_msg_t *frame,
                              int64_t now_ms, const char **user)
{
    *user = NULL;
    if (!door || !door->checks_messages)
        return DOOR_OPEN;
    bool has_users = door->mechanism != DOOR_NULL;
    return around->runtime->doorman->check(door, has_users ? zmq_msg_gets(frame, "User-Id") : NULL,
                                           has_users ? NULL : zmq_msg_gets(frame, "Peer-Address"), now_ms,
                                           user);
}

void ports_tick(struct ports *ports, int64_t now_ms)
{
    for (size_t i = 0; i < ports->count; i++) {
        while (port_tick(&ports->items[i], now_ms) != LINK_QUIET)
            ;
    }
}
