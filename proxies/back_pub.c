/* SPDX-License-Identifier: MIT
 *
 * The backend that publishes: one PUB for each endpoint, each message to all of them. Delivered means handed
 * to libzmq; what it drops for a subscriber that does not keep up it does not tell, so the sockets refuse
 * first (ZMQ_XPUB_NODROP), the episode is counted, and the message goes out to the subscribers that have
 * room.
 */
#include "proxies/back.h"

#include "proxies/dialect.h"
#include "proxies/ports.h"
#include "proxies/subscribers.h"
#include "proxies/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EPISODE_END_MS = 1000 }; /* nobody was full for so long: the episode is over */

struct back {
    const struct chain_conf *conf;
    const struct surroundings *around;
    struct ports ports;
    struct subscribers subscribers; /* where the door asks for names */
    struct queue_item *sent;        /* the one outcome not yet asked for */
    int64_t last_sent_ms;           /* for the heartbeat */
    int64_t episode_until_ms;       /* a subscriber was full; 0 = none */
};

static void pub_close(struct back *back, int linger_ms)
{
    ports_close(&back->ports, linger_ms);
    subscribers_free(&back->subscribers);
    free(back);
}

static bool knows_subscribers(const struct surroundings *around)
{
    return around->back_door && around->back_door->checks_messages;
}

static struct back *pub_open(const struct chain_conf *conf, const struct surroundings *around, char *err,
                             size_t err_size)
{
    struct back *back = calloc(1, sizeof *back);
    if (!back) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    *back = (struct back){.conf = conf, .around = around};
    const struct socket_options options = {
        .type = knows_subscribers(around) ? ZMQ_XPUB : ZMQ_PUB,
        .door = around->back_door,
        .send_hwm = (int)conf->backend.hwm,
        .credentials = &conf->backend.credentials,
        .chain = around->chain,
    };
    if (ports_open(&back->ports, &conf->backend.endpoints, &options, 0, 0, around, err, err_size) != 0) {
        free(back);
        return NULL;
    }
    return back;
}

/* A subscriber is full: the others get the message all the same. */
static void send_to_those_with_room(struct back *back, struct socket *socket, const struct message *message,
                                    int64_t now_ms)
{
    if (back->episode_until_ms == 0) {
        back->around->ledger->slow_subscriber++;
        EVENT(&back->around->runtime->events, EVENT_WARNING, "slow-subscriber",
              EVENT_TEXT("chain", back->around->chain));
    }
    back->episode_until_ms = now_ms + EPISODE_END_MS;
    zmq_setsockopt(socket->zmq, ZMQ_XPUB_NODROP, &(int){0}, sizeof(int));
    wire_send_copy(socket, NULL, false, message);
    zmq_setsockopt(socket->zmq, ZMQ_XPUB_NODROP, &(int){1}, sizeof(int));
}

static enum wire_sent publish_on(struct socket *socket, struct message *message, bool is_taken)
{
    return is_taken ? wire_send(socket, NULL, false, message) : wire_send_copy(socket, NULL, false, message);
}

/* The last socket may take what nobody needs any more. */
static void publish(struct back *back, struct message *message, bool is_needed, int64_t now_ms)
{
    for (size_t i = 0; i < back->ports.count; i++) {
        struct socket *socket = &back->ports.items[i].link.socket;
        bool is_taken = !is_needed && i + 1 == back->ports.count;
        if (socket->zmq && publish_on(socket, message, is_taken) != WIRE_SENT)
            send_to_those_with_room(back, socket, message, now_ms);
    }
    back->last_sent_ms = now_ms;
}

static void send_heartbeat(struct back *back, int64_t now_ms)
{
    struct message heartbeat = {0};
    const char *text = back->conf->dialect->heartbeat;
    if (message_add_bytes(&heartbeat, text, strlen(text)) == 0)
        publish(back, &heartbeat, false, now_ms);
    message_close(&heartbeat);
}

static bool has_heartbeat(const struct back *back)
{
    return back->conf->backend.heartbeat_ms > 0 && back->conf->dialect->heartbeat;
}

/* What subscribers have to say is libzmq's business, but for who they are. */
static void read_subscriptions(struct back *back, int64_t now_ms)
{
    const struct surroundings *around = back->around;
    bool knows = knows_subscribers(around);
    if (knows && around->runtime->doorman->refresh(around->back_door))
        subscribers_review(&back->subscribers, around->runtime->doorman, around->back_door, now_ms);
    for (size_t i = 0; i < back->ports.count; i++) {
        struct socket *socket = &back->ports.items[i].link.socket;
        if (!socket->zmq || !socket->is_ready)
            continue;
        socket_settle(socket);
        socket->is_ready = false;
        if (knows)
            subscribers_read(&back->subscribers, socket, around->runtime->doorman, around->back_door, now_ms);
    }
}

static void pub_tick(struct back *back, uint64_t waiting, int64_t now_ms)
{
    (void)waiting;
    ports_tick(&back->ports, now_ms);
    read_subscriptions(back, now_ms);
    if (back->episode_until_ms > 0 && now_ms >= back->episode_until_ms)
        back->episode_until_ms = 0;
    if (has_heartbeat(back) && now_ms - back->last_sent_ms >= back->conf->backend.heartbeat_ms)
        send_heartbeat(back, now_ms);
}

static int64_t pub_next_ms(const struct back *back)
{
    int64_t next = ports_next_ms(&back->ports);
    int64_t heartbeat =
        has_heartbeat(back) ? back->last_sent_ms + back->conf->backend.heartbeat_ms : INT64_MAX;
    return heartbeat < next ? heartbeat : next;
}

static bool pub_has_input(const struct back *back)
{
    bool has_input = false;
    for (size_t i = 0; knows_subscribers(back->around) && i < back->ports.count; i++)
        has_input |= back->ports.items[i].link.socket.zmq && back->ports.items[i].link.socket.is_ready;
    return has_input;
}

static bool pub_is_connected(const struct back *back)
{
    (void)back;
    return true; /* a publication goes to whoever is there */
}

static bool pub_has_room(const struct back *back, int64_t now_ms)
{
    (void)now_ms;
    return back->sent == NULL;
}

static bool pub_send(struct back *back, struct queue_item *item, int64_t now_ms)
{
    publish(back, &item->body, item->envelope.count > 0, now_ms); /* an ack may repeat some of it */
    item->was_sent = true;
    back->sent = item;
    return true;
}

static bool pub_next_outcome(struct back *back, struct back_outcome *outcome)
{
    if (!back->sent)
        return false;
    *outcome = (struct back_outcome){.item = back->sent, .result = BACK_DELIVERED};
    back->sent = NULL;
    return true;
}

static void pub_forget(struct back *back, struct queue_item *item)
{
    (void)back;
    (void)item;
}

static void pub_abandon(struct back *back, int64_t now_ms)
{
    (void)back;
    (void)now_ms;
}

static uint32_t pub_upstreams(const struct back *back, struct upstream_stats *rows)
{
    return ports_upstreams(&back->ports, rows);
}

const struct back_ops back_pub = {
    .open = pub_open,
    .close = pub_close,
    .tick = pub_tick,
    .next_ms = pub_next_ms,
    .has_input = pub_has_input,
    .is_connected = pub_is_connected,
    .has_room = pub_has_room,
    .send = pub_send,
    .next_outcome = pub_next_outcome,
    .forget = pub_forget,
    .abandon = pub_abandon,
    .upstreams = pub_upstreams,
};
