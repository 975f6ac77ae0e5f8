/* SPDX-License-Identifier: MIT
 *
 * The frontend that listens to publishers: one SUB for each endpoint, so that a publisher that fell silent
 * gets a new socket without disturbing the others. Nobody waits for an answer here. A WebSocket server is a
 * publisher, too: its link brings [method, notification] and has subscribed with it (websocket.h).
 */
#include "proxies/front.h"

#include "proxies/dialect.h"
#include "proxies/ports.h"
#include "proxies/wire.h"

#include <stdio.h>
#include <stdlib.h>

enum { PUBLISHER_HWM = 1000 }; /* messages that libzmq holds from one publisher */

struct front {
    const struct chain_conf *conf;
    const struct surroundings *around;
    struct ports ports;
    int64_t *heard_ms; /* for each port: when it last gave a sign of life, or came up */
};

static void sub_close(struct front *front, int linger_ms)
{
    ports_close(&front->ports, linger_ms);
    free(front->heard_ms);
    free(front);
}

static struct front *sub_open(const struct chain_conf *conf, const struct surroundings *around, char *err,
                              size_t err_size)
{
    struct front *front = calloc(1, sizeof *front);
    int64_t *heard_ms = calloc(conf->frontend.endpoints.count, sizeof *heard_ms);
    if (!front || !heard_ms) {
        snprintf(err, err_size, "out of memory");
        free(front);
        free(heard_ms);
        return NULL;
    }
    *front = (struct front){.conf = conf, .around = around, .heard_ms = heard_ms};
    const struct socket_options options = {
        .type = ZMQ_SUB,
        .door = around->front_door,
        .send_hwm = PUBLISHER_HWM,
        .receive_hwm = PUBLISHER_HWM,
        .max_frame_bytes = conf->frontend.max_message_bytes * WIRE_MERCY,
        .max_frames = WIRE_FRAMES(conf->frontend.max_frames),
        .chain = around->chain,
        .may_fall_silent = conf->queue.when_full == QUEUE_BLOCK,
        .credentials = &conf->frontend.credentials,
        .subscribe = &conf->frontend.subscribe,
        .subscribe_also = conf->dialect->heartbeat,
    };
    if (ports_open(&front->ports, &conf->frontend.endpoints, &options, conf->frontend.backoff_ms,
                   conf->frontend.backoff_max_ms, around, err, err_size) != 0) {
        free(heard_ms);
        free(front);
        return NULL;
    }
    return front;
}

static bool is_too_silent(const struct front *front, size_t port, int64_t now_ms)
{
    return front->conf->frontend.recreate_after_ms > 0 && front->ports.items[port].link.state == LINK_UP &&
           now_ms - front->heard_ms[port] >= front->conf->frontend.recreate_after_ms;
}

static void tick_port(struct front *front, size_t port, int64_t now_ms)
{
    struct link *link = &front->ports.items[port].link;
    if (is_too_silent(front, port, now_ms)) {
        EVENT(&front->around->runtime->events, EVENT_WARNING, "publisher-silent",
              EVENT_TEXT("chain", front->around->chain), EVENT_TEXT("endpoint", link->conf->endpoint->text),
              EVENT_NUMBER("after_ms", now_ms - front->heard_ms[port]));
        front->around->ledger->recreates++;
        link_discard(link, "silent");
    }
    enum link_event event;
    while ((event = port_tick(&front->ports.items[port], now_ms)) != LINK_QUIET) {
        if (event == LINK_CAME_UP)
            front->heard_ms[port] = now_ms;
    }
}

static void sub_tick(struct front *front, int64_t now_ms)
{
    for (size_t i = 0; i < front->ports.count; i++)
        tick_port(front, i, now_ms);
}

static int64_t sub_next_ms(const struct front *front)
{
    int64_t next = ports_next_ms(&front->ports), limit = front->conf->frontend.recreate_after_ms;
    for (size_t i = 0; limit > 0 && i < front->ports.count; i++) {
        if (front->ports.items[i].link.state == LINK_UP && front->heard_ms[i] + limit < next)
            next = front->heard_ms[i] + limit;
    }
    return next;
}

static enum front_taken take_from(struct front *front, size_t port, struct queue_item *item, int64_t now_ms)
{
    const struct wire_limits limits = {front->conf->frontend.max_message_bytes,
                                       front->conf->frontend.max_frames};
    enum wire_received received =
        wire_receive(&front->ports.items[port].link.socket, &limits, NULL, &item->body);
    if (received == WIRE_NONE)
        return FRONT_NOTHING;
    front->heard_ms[port] = now_ms;
    backoff_reset(&front->ports.items[port].backoff);
    if (received == WIRE_TOO_LARGE)
        return FRONT_TOO_LARGE;
    if (received == WIRE_SHORT)
        return FRONT_SHORT;
    const char *user;
    enum door_verdict verdict =
        ports_check(front->around, front->around->front_door, message_frame(&item->body, 0), now_ms, &user);
    if (verdict != DOOR_OPEN)
        return verdict == DOOR_DENIED ? FRONT_DENIED : FRONT_RATE_LIMITED;
    if (!dialect_is_heartbeat(front->conf->dialect, &item->body))
        return FRONT_MESSAGE;
    front->around->ledger->heartbeats++;
    message_close(&item->body);
    return FRONT_SWALLOWED;
}

static enum front_taken sub_take(struct front *front, struct queue_item *item, int64_t now_ms)
{
    enum front_taken taken = FRONT_NOTHING;
    int port;
    while (taken == FRONT_NOTHING && (port = ports_next_ready(&front->ports)) >= 0)
        taken = take_from(front, (size_t)port, item, now_ms);
    return taken;
}

static bool sub_has_input(struct front *front, bool is_stopped)
{
    return ports_have_input(&front->ports, is_stopped);
}

static void sub_answer(struct front *front, struct queue_item *item, struct message *body, int64_t now_ms)
{
    (void)front;
    (void)item;
    (void)body;
    (void)now_ms;
}

static uint32_t sub_upstreams(const struct front *front, struct upstream_stats *rows)
{
    return ports_upstreams(&front->ports, rows);
}

const struct front_ops front_sub = {
    .open = sub_open,
    .close = sub_close,
    .tick = sub_tick,
    .next_ms = sub_next_ms,
    .take = sub_take,
    .has_input = sub_has_input,
    .answer = sub_answer,
    .upstreams = sub_upstreams,
};
