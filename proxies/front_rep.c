/* SPDX-License-Identifier: MIT
 *
 * The frontend for REQ and DEALER callers (RFC 28): one ROUTER for each endpoint, since a REP socket allows
 * one caller at a time. The routing id and the other address frames travel with the request and bring its
 * answer back. An answer for which a caller has no room waits here, within bounds; a caller that is gone is
 * counted.
 */
#include "proxies/front.h"

#include "buffer/fnv.h"
#include "proxies/dialect.h"
#include "proxies/ports.h"
#include "proxies/unsent.h"
#include "proxies/wire.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define UNREAD_BYTES (INT64_C(64) << 20)

enum {
    NAMED_LISTS = 64,
    CALLER_HWM = 4000,     /* answers that libzmq holds for one caller who does not read */
    REQUEST_HWM_MAX = 256, /* requests that libzmq holds from one caller; fewer make one who pipelines wait */
    REQUEST_HWM_MIN = 8,
    HELD_RETRY_MS = 5, /* a ROUTER does not tell when a caller has room again */
    HELD_LIMIT_MS = 30000,
    HELD_SHARE = 4 /* answers held back: at most this part of the queue's bounds */
};

struct held_answer {
    struct list link;
    uint32_t port;
    int64_t until_ms;
    struct message envelope, body;
};

struct front {
    const struct chain_conf *conf;
    const struct surroundings *around;
    struct ports ports;
    struct unsent unsent; /* answers */
    struct list held;     /* struct held_answer, oldest first */
    uint64_t held_count, held_bytes;
    int64_t held_next_ms;
    struct list named[NAMED_LISTS]; /* of queue_item.route: requests of callers that chose their id */
};

static void drop_held(struct front *front, struct held_answer *held)
{
    list_remove(&held->link);
    front->held_count--;
    front->held_bytes -= held->body.bytes;
    message_close(&held->envelope);
    message_close(&held->body);
    free(held);
}

static void rep_close(struct front *front, int linger_ms)
{
    LIST_EACH_SAFE (link, following, &front->held) {
        front->around->ledger->orphaned++;
        drop_held(front, LIST_ENTRY(link, struct held_answer, link));
    }
    for (int i = 0; i < NAMED_LISTS; i++)
        LIST_EACH_SAFE (link, following, &front->named[i])
            list_remove(link);
    ports_close(&front->ports, linger_ms);
    unsent_close(&front->unsent);
    free(front);
}

/* A chain that always reads, if only to refuse, is faster than the wire. Where it may stop (`block`, a disk that is
 * behind), the unread requests of a caller who does not wait for answers stay within UNREAD_BYTES. */
static int request_hwm(const struct chain_conf *conf)
{
    int64_t max_message_bytes = conf->frontend.max_message_bytes;
    if (conf->queue.when_full != QUEUE_BLOCK && conf->queue.store == STORE_MEMORY)
        return REQUEST_HWM_MAX;
    int64_t count = max_message_bytes > 0 ? UNREAD_BYTES / max_message_bytes : REQUEST_HWM_MIN;
    return count > REQUEST_HWM_MAX ? REQUEST_HWM_MAX : count < REQUEST_HWM_MIN ? REQUEST_HWM_MIN : (int)count;
}

static struct front *rep_open(const struct chain_conf *conf, const struct surroundings *around, char *err,
                              size_t err_size)
{
    struct front *front = calloc(1, sizeof *front);
    if (!front) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    *front = (struct front){.conf = conf, .around = around};
    unsent_init(&front->unsent);
    list_init(&front->held);
    for (int i = 0; i < NAMED_LISTS; i++)
        list_init(&front->named[i]);
    const struct socket_options options = {
        .type = ZMQ_ROUTER,
        .door = around->front_door,
        .send_hwm = CALLER_HWM,
        .receive_hwm = request_hwm(conf),
        .max_frame_bytes = conf->frontend.max_message_bytes * WIRE_MERCY,
        .max_frames = WIRE_FRAMES(conf->frontend.max_frames),
        .chain = around->chain,
        .may_fall_silent = conf->queue.when_full == QUEUE_BLOCK,
    };
    if (ports_open(&front->ports, &conf->frontend.endpoints, &options, 0, 0, around, err, err_size) != 0) {
        free(front);
        return NULL;
    }
    return front;
}

/* Delivers or counts; false when the caller has no room. */
static bool deliver(struct front *front, uint32_t port, struct message *envelope, struct message *body)
{
    struct socket *socket = &front->ports.items[port].link.socket;
    enum wire_sent sent = socket->zmq ? wire_send(socket, envelope, true, body) : WIRE_GONE;
    if (sent == WIRE_GONE)
        front->around->ledger->orphaned++;
    return sent != WIRE_FULL;
}

static bool is_over_held_bounds(const struct front *front)
{
    const struct queue_conf *bounds = &front->conf->queue;
    return (bounds->max_messages > 0 && front->held_count > (uint64_t)bounds->max_messages / HELD_SHARE) ||
           (bounds->max_bytes > 0 && front->held_bytes > (uint64_t)bounds->max_bytes / HELD_SHARE);
}

static void hold(struct front *front, struct queue_item *item, struct message *body, int64_t now_ms)
{
    struct held_answer *held = calloc(1, sizeof *held);
    if (!held) {
        front->around->ledger->orphaned++;
        return;
    }
    message_move(&held->envelope, &item->envelope);
    message_move(&held->body, body);
    if (list_is_empty(&front->held))
        front->held_next_ms = now_ms + HELD_RETRY_MS;
    held->port = item->port;
    held->until_ms = now_ms + HELD_LIMIT_MS;
    list_append(&front->held, &held->link);
    front->held_count++;
    front->held_bytes += held->body.bytes;
    while (is_over_held_bounds(front)) {
        front->around->ledger->orphaned++;
        drop_held(front, LIST_ENTRY(front->held.next, struct held_answer, link));
    }
}

static void rep_answer(struct front *front, struct queue_item *item, struct message *body, int64_t now_ms)
{
    if (item->envelope.count > 0) {
        unsent_add(&front->unsent, message_frame(&item->envelope, 0), body);
        if (!deliver(front, item->port, &item->envelope, body))
            hold(front, item, body, now_ms);
    }
    message_close(&item->envelope);
    message_close(body);
}

/* Its requests are refused, rather than its answers thrown away: a queue full of them can be answered by any number of
 * gigabytes. */
static bool rep_is_clogged(struct front *front, const struct queue_item *item)
{
    return item->envelope.count > 0 &&
           unsent_bytes(&front->unsent, message_frame(&item->envelope, 0)) > UNSENT_BYTES_MAX;
}

static void retry_held(struct front *front, int64_t now_ms)
{
    LIST_EACH_SAFE (link, following, &front->held) {
        struct held_answer *held = LIST_ENTRY(link, struct held_answer, link);
        if (deliver(front, held->port, &held->envelope, &held->body)) {
            drop_held(front, held);
        } else if (now_ms >= held->until_ms) {
            front->around->ledger->orphaned++;
            drop_held(front, held);
        }
    }
    front->held_next_ms = now_ms + HELD_RETRY_MS;
}

static void rep_tick(struct front *front, int64_t now_ms)
{
    ports_tick(&front->ports, now_ms);
    if (!list_is_empty(&front->held) && now_ms >= front->held_next_ms)
        retry_held(front, now_ms);
}

static int64_t rep_next_ms(const struct front *front)
{
    int64_t next = ports_next_ms(&front->ports);
    return !list_is_empty(&front->held) && front->held_next_ms < next ? front->held_next_ms : next;
}

/* ---- callers that chose their own routing id ----
 *
 * libzmq never gives an id twice, and its own begin with a zero byte. A caller that names itself may come
 * back under its name on a new connection (ZMQ_ROUTER_HANDOVER), which must not get what the old one asked
 * for. */

/* A mark of the connection that `fd` is now. */
static uint64_t mark_connection(int fd)
{
    struct sockaddr_in6 peer = {0}; /* IPv4 fits in, too */
    struct ucred process = {0};
    if (getpeername(fd, (struct sockaddr *)&peer, &(socklen_t){sizeof peer}) == 0)
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &process,
                   &(socklen_t){sizeof process}); /* ipc has no address */
    memcpy(&peer.sin6_scope_id, &process.pid, sizeof peer.sin6_scope_id);
    return (uint64_t)(uint32_t)fd << 32 | (uint32_t)fnv_add(FNV_OFFSET, &peer, sizeof peer);
}

static bool is_same_frame(zmq_msg_t *a, zmq_msg_t *b)
{
    return zmq_msg_size(a) == zmq_msg_size(b) &&
           memcmp(zmq_msg_data(a), zmq_msg_data(b), zmq_msg_size(a)) == 0;
}

static struct list *named_list(struct front *front, zmq_msg_t *id)
{
    const uint8_t *bytes = zmq_msg_data(id);
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < zmq_msg_size(id); i++)
        hash = (hash ^ bytes[i]) * 16777619U;
    return &front->named[hash % NAMED_LISTS];
}

/* The name has moved to a new connection: whoever asked by the old one is gone. */
static void orphan_held(struct front *front, uint32_t port, zmq_msg_t *id)
{
    LIST_EACH_SAFE (link, following, &front->held) {
        struct held_answer *held = LIST_ENTRY(link, struct held_answer, link);
        if (held->port == port && is_same_frame(message_frame(&held->envelope, 0), id)) {
            front->around->ledger->orphaned++;
            drop_held(front, held);
        }
    }
}

/* The newest request of a name comes first in its list, so one look tells whether the name has moved. */
static void note_named_caller(struct front *front, struct queue_item *item)
{
    zmq_msg_t *id = message_frame(&item->envelope, 0);
    if (zmq_msg_size(id) == 0 || *(const char *)zmq_msg_data(id) == 0)
        return;
    item->connection = mark_connection(zmq_msg_get(message_frame(&item->body, 0), ZMQ_SRCFD));
    struct list *named = named_list(front, id);
    LIST_EACH_SAFE (link, following, named) {
        struct queue_item *earlier = LIST_ENTRY(link, struct queue_item, route);
        if (earlier->envelope.count == 0) {
            list_remove(link);
            continue;
        }
        if (earlier->port != item->port || !is_same_frame(message_frame(&earlier->envelope, 0), id))
            continue;
        if (earlier->connection == item->connection)
            break;
        front->around->ledger->orphaned++;
        message_close(&earlier->envelope);
        list_remove(link);
        orphan_held(front, item->port, id);
    }
    list_prepend(named, &item->route);
}

/* A heartbeat is answered like a call that succeeded, and goes no further. */
static void answer_heartbeat(struct front *front, struct queue_item *item, int64_t now_ms)
{
    struct message ack = {0};
    front->around->ledger->heartbeats++;
    if (front->conf->dialect->ack(&item->body, NULL, NULL, &ack) == 0)
        rep_answer(front, item, &ack, now_ms);
}

/* Who a ticket will belong to, and whose requests are looked through for an identical one. */
static void note_sender(const struct front *front, struct queue_item *item, const char *user)
{
    item->owner = user ? queue_owner(user) : 0;
    if (front->conf->queue.dedupe_ms == 0)
        return;
    const char *sender = user ? user : zmq_msg_gets(message_frame(&item->body, 0), "Peer-Address");
    item->sender = queue_owner(sender ? sender : "");
}

static enum front_taken judge(struct front *front, struct queue_item *item, int64_t now_ms)
{
    const char *user;
    switch (
        ports_check(front->around, front->around->front_door, message_frame(&item->body, 0), now_ms, &user)) {
    case DOOR_DENIED:
        return FRONT_DENIED;
    case DOOR_RATE_LIMITED:
        return FRONT_RATE_LIMITED;
    default:
        note_sender(front, item, user);
        if (!dialect_is_heartbeat(front->conf->dialect, &item->body))
            return FRONT_MESSAGE;
        answer_heartbeat(front, item, now_ms);
        return FRONT_SWALLOWED;
    }
}

static enum front_taken take_from(struct front *front, size_t port, struct queue_item *item, int64_t now_ms)
{
    const struct wire_limits limits = {front->conf->frontend.max_message_bytes,
                                       front->conf->frontend.max_frames};
    item->port = (uint32_t)port;
    switch (wire_receive(&front->ports.items[port].link.socket, &limits, &item->envelope, &item->body)) {
    case WIRE_NONE:
        return FRONT_NOTHING;
    case WIRE_TOO_LARGE:
        return FRONT_TOO_LARGE;
    case WIRE_MALFORMED:
        return FRONT_MALFORMED;
    case WIRE_SHORT:
        return FRONT_SHORT;
    default:
        note_named_caller(front, item);
        return judge(front, item, now_ms);
    }
}

static enum front_taken rep_take(struct front *front, struct queue_item *item, int64_t now_ms)
{
    enum front_taken taken = FRONT_NOTHING;
    int port;
    while (taken == FRONT_NOTHING && (port = ports_next_ready(&front->ports)) >= 0)
        taken = take_from(front, (size_t)port, item, now_ms);
    return taken;
}

static bool rep_has_input(struct front *front, bool is_stopped)
{
    return ports_have_input(&front->ports, is_stopped);
}

static uint32_t rep_upstreams(const struct front *front, struct upstream_stats *rows)
{
    (void)front;
    (void)rows;
    return 0;
}

const struct front_ops front_rep = {
    .has_callers = true,
    .open = rep_open,
    .close = rep_close,
    .tick = rep_tick,
    .next_ms = rep_next_ms,
    .take = rep_take,
    .has_input = rep_has_input,
    .answer = rep_answer,
    .is_clogged = rep_is_clogged,
    .upstreams = rep_upstreams,
};
