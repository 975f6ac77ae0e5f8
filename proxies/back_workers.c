/* SPDX-License-Identifier: MIT
 *
 * The backend that ZeroMQFramework's workers connect to. One ROUTER for each endpoint carries requests, [worker, id,
 * "", body…], and replies, which begin with the same frames; another one takes heartbeats, from which alone it is known
 * who the workers are:
 *
 *     live --timeout--> late (no new requests) --max_missed intervals--> dead, and forgotten
 *       ^________________|  a heartbeat
 *
 * A worker that lets an attempt time out loses its connection, with everything on it, and is set aside for a while.
 * With strategy "sticky" requests may wait here for the one worker that they belong to.
 */
#include "proxies/back.h"

#include "proxies/flights.h"
#include "proxies/lru.h"
#include "proxies/payload.h"
#include "proxies/ports.h"
#include "proxies/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPLIES_PER_TURN = 256,
    REPLY_FRAMES_MAX = 1024,
    HEARTBEATS_PER_TURN = 64,
    HEARTBEAT_BYTES_MAX = 4096,
    HEARTBEAT_FRAMES_MAX = 8,
    HEARTBEAT_HWM = 100,
    FLIGHTS_MAX = 65536,
    CALLERS_MAX = 65536, /* whose workers are remembered */
    REQUEST_FRAMES = 2,  /* workers drop a request of fewer, and say nothing */
    RETURN_MS = 100      /* a worker whose connection was cut is not back sooner */
};

_Static_assert((int)PAYLOAD_NODE_BYTES == (int)WORKER_ID_BYTES, "routing ids of workers");

struct worker {
    uint32_t number; /* tells it from others before it; 0 = none */
    char id[WORKER_ID_BYTES];
    char *user_id; /* as ZAP gave it, of whoever says that it lives; NULL where names are not asked for */
    uint32_t port; /* where it was last reached */
    int64_t heard_ms;
    bool is_gone; /* was not connected when last tried */
    struct backoff backoff;
    struct lane lane;
    struct list parked; /* of flight.link: to be sent when it has room */
};

/* strategy = sticky: which worker had a caller's last request. */
struct caller {
    struct lru_entry entry;
    uint32_t worker; /* its number */
};

struct back {
    const struct chain_conf *conf;
    const struct workers_conf *workers_conf;
    const struct surroundings *around;
    struct flights flights;
    struct flight *given; /* the outcome that the chain looks at */
    struct ports ports, heartbeats;
    struct worker *workers[BACK_WORKERS_MAX];
    uint32_t count;
    uint32_t next; /* round-robin: where the next look starts */
    uint32_t last_number;
    struct lru *callers; /* NULL: not sticky */
    bool is_full;        /* an event has told so */
    int64_t ticked_ms;
};

/* ---- opening and closing ---- */

static void free_worker(struct worker *worker)
{
    free(worker->user_id);
    free(worker);
}

static void workers_close(struct back *back, int linger_ms)
{
    (void)linger_ms; /* a request that was given up must not leave later */
    for (uint32_t i = 0; i < back->count; i++)
        free_worker(back->workers[i]);
    ports_close(&back->ports, 0);
    ports_close(&back->heartbeats, 0);
    flights_close(&back->flights);
    lru_free(back->callers);
    free(back);
}

static int open_ports(struct back *back, char *err, size_t err_size)
{
    const struct surroundings *around = back->around;
    struct socket_options options = {
        .type = ZMQ_ROUTER,
        .door = around->back_door,
        .receive_hwm = (int)back->conf->backend.window,
        .max_frame_bytes = back->conf->queue.max_bytes,
        .max_frames = REPLY_FRAMES_MAX,
        .chain = around->chain,
    };
    if (ports_open(&back->ports, &back->conf->backend.endpoints, &options, 0, 0, around, err, err_size) != 0)
        return -1;
    options.receive_hwm = HEARTBEAT_HWM;
    options.max_frame_bytes = HEARTBEAT_BYTES_MAX;
    options.max_frames = HEARTBEAT_FRAMES_MAX;
    return ports_open(&back->heartbeats, &back->workers_conf->heartbeat, &options, 0, 0, around, err,
                      err_size);
}

static struct back *workers_open(const struct chain_conf *conf, const struct surroundings *around, char *err,
                                 size_t err_size)
{
    struct back *back = calloc(1, sizeof *back);
    if (!back) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    back->conf = conf;
    back->workers_conf = &conf->backend.workers;
    back->around = around;
    bool is_sticky = back->workers_conf->strategy == STRATEGY_STICKY;
    if (is_sticky)
        back->callers = lru_new(sizeof(struct caller), CALLERS_MAX);
    int64_t most = BACK_WORKERS_MAX * conf->backend.window;
    snprintf(err, err_size, "out of memory");
    if (flights_open(&back->flights, most < FLIGHTS_MAX ? (uint32_t)most : FLIGHTS_MAX) == 0 &&
        (back->callers || !is_sticky) && open_ports(back, err, err_size) == 0)
        return back;
    workers_close(back, 0);
    return NULL;
}

/* ---- who they are ---- */

static int64_t late_ms(const struct back *back, const struct worker *worker)
{
    return worker->heard_ms + back->workers_conf->timeout_ms;
}

static int64_t dead_ms(const struct back *back, const struct worker *worker)
{
    return late_ms(back, worker) + (back->workers_conf->max_missed - 1) * back->workers_conf->interval_ms;
}

/* It may have requests, be it busy or not. */
static bool is_usable(const struct back *back, const struct worker *worker, int64_t now_ms)
{
    return now_ms < late_ms(back, worker) && now_ms >= worker->backoff.until_ms;
}

/* After a failure one request goes out as a probe, until it is answered. */
static bool has_room(const struct back *back, const struct worker *worker)
{
    uint32_t window = worker->backoff.failures > 0 ? 1 : (uint32_t)back->conf->backend.window;
    return worker->lane.count < window;
}

static struct worker *find_worker(const struct back *back, const void *id, size_t size)
{
    for (uint32_t i = 0; i < back->count; i++) {
        if (strlen(back->workers[i]->id) == size && memcmp(back->workers[i]->id, id, size) == 0)
            return back->workers[i];
    }
    return NULL;
}

static void tell(const struct back *back, const struct worker *worker, enum event_level level,
                 const char *token)
{
    EVENT(&back->around->runtime->events, level, token, EVENT_TEXT("chain", back->around->chain),
          EVENT_TEXT("worker", worker->id), EVENT_NUMBER("inflight", worker->lane.count));
}

static struct worker *add_worker(struct back *back, const char *id, const char *user_id)
{
    struct worker *worker = back->count < BACK_WORKERS_MAX ? calloc(1, sizeof *worker) : NULL;
    if (worker && user_id && !(worker->user_id = strdup(user_id))) {
        free(worker);
        return NULL;
    }
    if (!worker) {
        if (!back->is_full)
            EVENT(&back->around->runtime->events, EVENT_WARNING, "workers-full",
                  EVENT_TEXT("chain", back->around->chain), EVENT_NUMBER("workers", back->count));
        back->is_full = true;
        return NULL;
    }
    worker->number = ++back->last_number;
    snprintf(worker->id, sizeof worker->id, "%s", id);
    lane_open(&worker->lane);
    list_init(&worker->parked);
    back->workers[back->count++] = worker;
    tell(back, worker, EVENT_INFO, "worker-up");
    return worker;
}

/* ---- the ends of attempts ---- */

static void unpark(struct back *back, struct flight *flight)
{
    flight->result = BACK_UNSENT;
    list_remove(&flight->link);
    list_append(&back->flights.ended, &flight->link);
}

static void unpark_all(struct back *back, struct worker *worker)
{
    LIST_EACH_SAFE (link, following, &worker->parked)
        unpark(back, LIST_ENTRY(link, struct flight, link));
}

/* Everybody whom that socket reached is gone. */
static void end_port(struct back *back, uint32_t port, const struct flight *overdue, int64_t now_ms)
{
    for (uint32_t i = 0; i < back->count; i++) {
        struct worker *worker = back->workers[i];
        if (worker->port != port)
            continue;
        lane_abandon(&back->flights, &worker->lane, overdue, now_ms);
        worker->is_gone = true;
    }
}

/* Gives the worker's connection up, with what is on it. Under CURVE nobody can tell which one that is: then the
 * socket goes, and every worker has to connect anew. */
static void cut(struct back *back, struct worker *worker, const struct flight *overdue, int64_t now_ms)
{
    bool is_hidden = back->around->back_door && back->around->back_door->mechanism == DOOR_CURVE;
    if (guard_cut(back->around->chain, worker->id, strlen(worker->id)) == 0 && is_hidden) {
        link_discard(&back->ports.items[worker->port].link, NULL);
        end_port(back, worker->port, overdue, now_ms);
    }
    lane_abandon(&back->flights, &worker->lane, overdue, now_ms);
    back->around->ledger->recreates++;
}

static void set_aside(struct back *back, struct worker *worker, int64_t least_ms, int64_t now_ms)
{
    const struct backend_conf *conf = &back->conf->backend;
    backoff_fail(&worker->backoff, now_ms, conf->backoff_ms, conf->backoff_max_ms, retry_random());
    if (worker->backoff.until_ms < now_ms + least_ms)
        worker->backoff.until_ms = now_ms + least_ms;
}

static const struct flight *head_of(const struct worker *worker)
{
    struct list *link = list_first(&worker->lane.flights);
    return link ? LIST_ENTRY(link, struct flight, link) : NULL;
}

static void check_deadlines(struct back *back, struct worker *worker, int64_t now_ms)
{
    bool is_overdue = now_ms >= lane_deadline_ms(&worker->lane, back->conf->backend.timeout_ms);
    if (!is_overdue && !lane_has_expired(&worker->lane, now_ms))
        return;
    tell(back, worker, EVENT_WARNING, "worker-timeout");
    cut(back, worker, is_overdue ? head_of(worker) : NULL, now_ms);
    set_aside(back, worker, RETURN_MS, now_ms);
}

/* ---- requests ---- */

/* Sends to the worker, by whichever socket it is connected to. */
static enum wire_sent send_flight(struct back *back, struct worker *worker, const struct flight *flight)
{
    struct message envelope = {0};
    enum wire_sent sent = WIRE_FULL;
    if (message_add_bytes(&envelope, worker->id, strlen(worker->id)) == 0 &&
        flights_write_id(&back->flights, flight, &envelope) == 0) {
        sent = WIRE_GONE;
        for (size_t i = 0; i < back->ports.count && sent == WIRE_GONE; i++) {
            uint32_t port = (uint32_t)((worker->port + i) % back->ports.count);
            struct socket *socket = &back->ports.items[port].link.socket;
            if (socket->zmq)
                sent = wire_send_copy(socket, &envelope, true, &flight->item->body);
            if (sent == WIRE_SENT)
                worker->port = port;
        }
    }
    message_close(&envelope);
    return sent;
}

/* False when it was not taken: the worker is gone, or libzmq has no room. */
static bool dispatch(struct back *back, struct worker *worker, struct flight *flight, int64_t now_ms)
{
    enum wire_sent sent = send_flight(back, worker, flight);
    if (sent == WIRE_GONE && !worker->is_gone) {
        worker->is_gone = true;
        lane_abandon(&back->flights, &worker->lane, NULL, now_ms);
    }
    if (sent != WIRE_SENT) {
        set_aside(back, worker, 0, now_ms);
        return false;
    }
    struct queue_item *item = flight->item;
    worker->is_gone = false;
    lane_add(&worker->lane, flight, back->conf->queue.max_age_ms, now_ms);
    back->around->ledger->redelivered += item->was_sent;
    item->was_sent = true;
    item->hint = worker->number;
    return true;
}

/* What waited for this worker is sent as it gets room, and goes elsewhere when it cannot have any. */
static void tick_parked(struct back *back, struct worker *worker, int64_t now_ms)
{
    int64_t max_age_ms = back->conf->queue.max_age_ms;
    LIST_EACH_SAFE (link, following, &worker->parked) {
        struct flight *flight = LIST_ENTRY(link, struct flight, link);
        bool is_too_old = max_age_ms > 0 && now_ms - flight->item->taken_ms >= max_age_ms;
        if (!is_usable(back, worker, now_ms) || is_too_old) {
            unpark(back, flight);
        } else if (has_room(back, worker)) {
            list_remove(link);
            if (!dispatch(back, worker, flight, now_ms)) {
                list_prepend(&worker->parked, link);
                unpark_all(back, worker);
                return;
            }
        }
    }
}

/* ---- which worker ---- */

static uint64_t mark_caller(const struct back *back, const struct queue_item *item)
{
    zmq_msg_t *id = message_frame(&item->envelope, 0);
    return runtime_mark(back->around->runtime, item->port, zmq_msg_data(id), zmq_msg_size(id));
}

/* The next one, or the least busy one, that has room. A retry takes the one that failed it only if there is no
 * other. */
static struct worker *choose(const struct back *back, const struct queue_item *item, int64_t now_ms)
{
    bool is_round_robin = back->workers_conf->strategy == STRATEGY_ROUND_ROBIN;
    struct worker *chosen = NULL, *failed = NULL;
    for (uint32_t i = 0; i < back->count; i++) {
        struct worker *worker = back->workers[(back->next + i) % back->count];
        if (!is_usable(back, worker, now_ms) || !has_room(back, worker))
            continue;
        if (item->was_sent && item->hint == worker->number)
            failed = worker;
        else if (!chosen || worker->lane.count < chosen->lane.count)
            chosen = worker;
        if (is_round_robin && chosen)
            break;
    }
    return chosen ? chosen : failed;
}

/* The worker that this caller has, when it may have requests. */
static struct worker *worker_of(const struct back *back, const struct caller *caller, int64_t now_ms)
{
    for (uint32_t i = 0; caller && i < back->count; i++) {
        if (back->workers[i]->number == caller->worker && is_usable(back, back->workers[i], now_ms))
            return back->workers[i];
    }
    return NULL;
}

/* Sends to the caller's own worker, or lets the flight wait for it. False: it has none, and may get one. */
static bool send_sticky(struct back *back, struct caller *caller, struct flight *flight, int64_t now_ms)
{
    struct worker *worker = worker_of(back, caller, now_ms);
    if (!worker || (flight->item->was_sent && flight->item->hint == worker->number))
        return false;
    if (has_room(back, worker) && list_is_empty(&worker->parked))
        return dispatch(back, worker, flight, now_ms);
    list_append(&worker->parked, &flight->link);
    return true;
}

static bool send_to_any(struct back *back, struct flight *flight, struct caller *caller, int64_t now_ms)
{
    struct worker *worker;
    while ((worker = choose(back, flight->item, now_ms)) != NULL) {
        if (!dispatch(back, worker, flight, now_ms))
            continue; /* it is set aside now */
        while (back->workers[back->next % back->count] != worker)
            back->next = (back->next + 1) % back->count;
        back->next = (back->next + 1) % back->count;
        if (caller)
            caller->worker = worker->number;
        return true;
    }
    return false;
}

static bool workers_carries(const struct back *back, const struct message *body)
{
    (void)back;
    return body->count >= REQUEST_FRAMES;
}

static bool workers_send(struct back *back, struct queue_item *item, int64_t now_ms)
{
    struct flight *flight = flights_take(&back->flights, item);
    if (!flight)
        return false;
    struct caller *caller = NULL;
    if (back->callers) {
        uint64_t mark = mark_caller(back, item);
        caller = lru_find(back->callers, mark);
        if (!caller)
            caller = lru_add(back->callers, mark);
    }
    if (send_sticky(back, caller, flight, now_ms) || send_to_any(back, flight, caller, now_ms))
        return true;
    flights_return(&back->flights, flight);
    return false;
}

/* ---- replies and heartbeats ---- */

static bool asks_names(const struct back *back)
{
    return back->around->back_door && back->around->back_door->mechanism != DOOR_NULL;
}

/* Whether whoever sent that may still be a worker. */
static bool has_come_in(const struct back *back, const struct message *body, int64_t now_ms)
{
    const char *user;
    return ports_check(back->around, back->around->back_door, message_frame(body, 0), now_ms, &user) ==
           DOOR_OPEN;
}

static void take_reply(struct back *back, const struct message *envelope, struct message *body,
                       int64_t now_ms)
{
    zmq_msg_t *id = message_frame(envelope, 0);
    bool is_welcome = has_come_in(back, body, now_ms);
    struct worker *worker =
        is_welcome && envelope->count == 2 ? find_worker(back, zmq_msg_data(id), zmq_msg_size(id)) : NULL;
    struct flight *flight =
        worker ? flights_find(&back->flights, &worker->lane, message_frame(envelope, 1)) : NULL;
    if (!flight) {
        back->around->ledger->stray++;
        return;
    }
    lane_answer(&back->flights, flight, body, now_ms);
    backoff_reset(&worker->backoff);
}

static bool is_users(const struct worker *worker, const char *user_id)
{
    return !worker->user_id || strcmp(worker->user_id, user_id) == 0;
}

static void take_heartbeat(struct back *back, const struct message *body, int64_t now_ms)
{
    char id[WORKER_ID_BYTES];
    bool is_worker;
    if (!has_come_in(back, body, now_ms))
        return;
    const char *user_id = asks_names(back) ? zmq_msg_gets(message_frame(body, 0), "User-Id") : NULL;
    struct worker *worker = NULL;
    if (!payload_heartbeat(body, id, &is_worker) ||
        ((worker = find_worker(back, id, strlen(id))) && !is_users(worker, user_id))) {
        back->around->ledger->stray++;
        return;
    }
    back->around->ledger->heartbeats++;
    if (is_worker && !worker)
        worker = add_worker(back, id, user_id);
    if (!is_worker || !worker)
        return;
    worker->heard_ms = now_ms;
    if (back->ports.items[worker->port].link.state == LINK_UP)
        worker->is_gone = false; /* as far as that can be known */
}

/* Reads at most `most` messages off a socket. */
static void read_port(struct back *back, struct port *port, const struct wire_limits *limits, int most,
                      bool is_heartbeat, int64_t now_ms)
{
    struct socket *socket = &port->link.socket;
    for (int i = 0; i < most && socket->zmq && socket->is_ready; i++) {
        struct message envelope = {0}, body = {0};
        enum wire_received received = wire_receive(socket, limits, &envelope, &body);
        if (received == WIRE_MESSAGE && is_heartbeat)
            take_heartbeat(back, &body, now_ms);
        else if (received == WIRE_MESSAGE)
            take_reply(back, &envelope, &body, now_ms);
        else if (received != WIRE_NONE)
            back->around->ledger->stray++;
        message_close(&envelope);
        message_close(&body);
    }
}

/* ---- turning ---- */

static void tick_port(struct back *back, uint32_t index, int64_t now_ms)
{
    static const struct wire_limits no_limits = {0};
    struct port *port = &back->ports.items[index];
    read_port(back, port, &no_limits, REPLIES_PER_TURN, false, now_ms);
    enum link_event event;
    while ((event = port_tick(port, now_ms)) != LINK_QUIET) {
        if (event == LINK_BROKE) /* nobody is connected any more */
            end_port(back, index, NULL, now_ms);
    }
}

static void remove_worker(struct back *back, uint32_t index, const struct flight *overdue, int64_t now_ms)
{
    struct worker *worker = back->workers[index];
    tell(back, worker, EVENT_WARNING, "worker-lost");
    if (worker->lane.count > 0)
        cut(back, worker, overdue, now_ms);
    unpark_all(back, worker);
    free_worker(worker);
    back->workers[index] = back->workers[--back->count];
    back->is_full = false;
}

/* Workers of users who are not welcome any more lose their connections, and what is on them is lost. */
static void review(struct back *back, int64_t now_ms)
{
    for (uint32_t i = back->count; i-- > 0;) {
        const char *user;
        const struct worker *worker = back->workers[i];
        if (!worker->user_id ||
            back->around->runtime->doorman->check(back->around->back_door, worker->user_id, NULL, now_ms,
                                                  &user) != DOOR_DENIED)
            continue;
        guard_cut(back->around->chain, worker->id, strlen(worker->id));
        remove_worker(back, i, NULL, now_ms);
    }
}

static void workers_tick(struct back *back, uint64_t waiting, int64_t now_ms)
{
    static const struct wire_limits heartbeat_limits = {HEARTBEAT_BYTES_MAX, HEARTBEAT_FRAMES_MAX};
    (void)waiting;
    back->ticked_ms = now_ms;
    if (back->around->back_door && back->around->runtime->doorman->refresh(back->around->back_door))
        review(back, now_ms);
    ports_tick(&back->heartbeats, now_ms);
    read_port(back, back->heartbeats.items, &heartbeat_limits, HEARTBEATS_PER_TURN, true, now_ms);
    for (uint32_t i = 0; i < back->ports.count; i++)
        tick_port(back, i, now_ms);
    for (uint32_t i = back->count; i-- > 0;) {
        check_deadlines(back, back->workers[i], now_ms);
        tick_parked(back, back->workers[i], now_ms);
        if (now_ms >= dead_ms(back, back->workers[i]))
            remove_worker(back, i, head_of(back->workers[i]), now_ms);
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t worker_next_ms(const struct back *back, const struct worker *worker)
{
    int64_t next = lane_deadline_ms(&worker->lane, back->conf->backend.timeout_ms);
    int64_t late = late_ms(back, worker), aside = worker->backoff.until_ms;
    next = earlier(next, late > back->ticked_ms ? late : dead_ms(back, worker));
    next = earlier(next, aside > back->ticked_ms ? aside : INT64_MAX);
    next = earlier(next, worker->lane.count > 0 ? worker->lane.earliest_end_ms : INT64_MAX);
    int64_t max_age_ms = back->conf->queue.max_age_ms;
    LIST_EACH (link, &worker->parked) {
        if (max_age_ms > 0)
            next = earlier(next, LIST_ENTRY(link, struct flight, link)->item->taken_ms + max_age_ms);
    }
    return next;
}

static int64_t workers_next_ms(const struct back *back)
{
    int64_t next = earlier(ports_next_ms(&back->ports), ports_next_ms(&back->heartbeats));
    for (uint32_t i = 0; i < back->count; i++)
        next = earlier(next, worker_next_ms(back, back->workers[i]));
    return next;
}

static bool is_ready(const struct ports *ports)
{
    for (size_t i = 0; i < ports->count; i++) {
        const struct socket *socket = &ports->items[i].link.socket;
        if (socket->zmq && socket->is_ready)
            return true;
    }
    return false;
}

static bool workers_has_input(const struct back *back)
{
    return is_ready(&back->ports) || is_ready(&back->heartbeats);
}

static bool workers_is_connected(const struct back *back)
{
    for (uint32_t i = 0; i < back->count; i++) {
        if (back->ticked_ms < late_ms(back, back->workers[i]) && !back->workers[i]->is_gone)
            return true;
    }
    return false;
}

/* A sticky request may wait for a worker that is busy. */
static bool workers_has_room(const struct back *back, int64_t now_ms)
{
    for (uint32_t i = 0; i < back->count; i++) {
        if (is_usable(back, back->workers[i], now_ms) && (back->callers || has_room(back, back->workers[i])))
            return back->flights.used < back->flights.capacity;
    }
    return false;
}

static bool workers_next_outcome(struct back *back, struct back_outcome *outcome)
{
    struct flight *flight = back->given;
    if (flight)
        flights_return(&back->flights, flight);
    back->given = flight = flights_next_ended(&back->flights);
    if (!flight)
        return false;
    *outcome = (struct back_outcome){.item = flight->item, .result = flight->result, .reply = &flight->reply};
    return true;
}

static void workers_forget(struct back *back, struct queue_item *item)
{
    (void)back;
    (void)item;
}

static void workers_abandon(struct back *back, int64_t now_ms)
{
    for (uint32_t i = 0; i < back->ports.count; i++) {
        link_discard(&back->ports.items[i].link, NULL);
        end_port(back, i, NULL, now_ms);
    }
    for (uint32_t i = 0; i < back->count; i++)
        unpark_all(back, back->workers[i]);
}

/* ---- what others see ---- */

static enum worker_state state_of(const struct back *back, const struct worker *worker, int64_t now_ms)
{
    if (now_ms >= late_ms(back, worker))
        return WORKER_LATE;
    return worker->is_gone || now_ms < worker->backoff.until_ms ? WORKER_ASIDE : WORKER_LIVE;
}

static uint32_t workers_upstreams(const struct back *back, struct upstream_stats *rows)
{
    for (uint32_t i = 0; rows && i < back->ports.count; i++) {
        struct upstream_stats *row = &rows[i];
        *row = (struct upstream_stats){.endpoint = back->conf->backend.endpoints.items[i].text};
        for (uint32_t k = 0; k < back->count; k++) {
            const struct worker *worker = back->workers[k];
            if (worker->port != i)
                continue;
            row->inflight += worker->lane.count;
            row->connections += state_of(back, worker, back->ticked_ms) == WORKER_LIVE;
        }
        row->state = row->connections > 0     ? UPSTREAM_UP
                     : back->last_number == 0 ? UPSTREAM_CONNECTING
                                              : UPSTREAM_DOWN;
        row->cause = row->state == UPSTREAM_DOWN ? "silent" : NULL;
    }
    return (uint32_t)back->ports.count;
}

static uint32_t workers_rows(const struct back *back, struct worker_stats *rows)
{
    for (uint32_t i = 0; i < back->count; i++) {
        const struct worker *worker = back->workers[i];
        memcpy(rows[i].id, worker->id, sizeof rows[i].id);
        rows[i].state = state_of(back, worker, back->ticked_ms);
        rows[i].heard_ms = worker->heard_ms;
        rows[i].inflight = worker->lane.count;
    }
    return back->count;
}

const struct back_ops back_workers = {
    .open = workers_open,
    .close = workers_close,
    .tick = workers_tick,
    .next_ms = workers_next_ms,
    .has_input = workers_has_input,
    .is_connected = workers_is_connected,
    .has_room = workers_has_room,
    .carries = workers_carries,
    .send = workers_send,
    .next_outcome = workers_next_outcome,
    .forget = workers_forget,
    .abandon = workers_abandon,
    .upstreams = workers_upstreams,
    .workers = workers_rows,
};
