/* SPDX-License-Identifier: MIT
 *
 * Requests to one upstream endpoint; see upstream.h. Whoever gives a request up closes the connection it was
 * sent on, with nothing lingering, before anybody hears of it.
 */
#include "proxies/upstream.h"

#include "proxies/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPLIES_PER_TURN = 256,
    REPLY_FRAMES_MAX = 65536,
    REPLY_BYTES_MIN = 64 << 20 /* what a server that we connect to may always answer with */
};

enum peer { PEER_UNKNOWN, PEER_LOCKSTEP, PEER_ENVELOPE };

struct connection {
    struct list link; /* upstream->connections */
    struct list room; /* upstream->with_room, while its peer may get another request */
    struct link line;
    enum peer peer;
    struct lane lane;
    bool is_blocked; /* libzmq has no room, or no peer yet */
};

static bool is_bound(const struct upstream *upstream)
{
    return upstream->link_conf.endpoint->is_bind;
}

static struct connection *first_connection(const struct upstream *upstream)
{
    return LIST_ENTRY(upstream->connections.next, struct connection, link);
}

static enum peer initial_peer(const struct upstream *upstream)
{
    if (endpoint_is_websocket(upstream->link_conf.endpoint))
        return PEER_ENVELOPE; /* the far end of our PAIR keeps them apart, see websocket.h */
    switch (upstream->conf->backend.correlation) {
    case CORRELATION_LOCKSTEP:
        return PEER_LOCKSTEP;
    case CORRELATION_ENVELOPE:
        return PEER_ENVELOPE;
    default:
        return PEER_UNKNOWN;
    }
}

static int add_connection(struct upstream *upstream, char *err, size_t err_size)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) {
        snprintf(err, err_size, "out of memory");
        return -1;
    }
    connection->peer = initial_peer(upstream);
    lane_open(&connection->lane);
    if (link_open(&connection->line, &upstream->link_conf, upstream->around, &upstream->backoff, err,
                  err_size) != 0) {
        free(connection);
        return -1;
    }
    list_append(&upstream->connections, &connection->link);
    list_append(&upstream->with_room, &connection->room);
    upstream->connection_count++;
    return 0;
}

/* To be called when it has got a request, or owes one less. */
static void note_room(struct upstream *upstream, struct connection *connection)
{
    list_remove(&connection->room);
    if (connection->lane.count == 0 || connection->peer == PEER_ENVELOPE)
        list_prepend(&upstream->with_room, &connection->room);
}

static void remove_connection(struct upstream *upstream, struct connection *connection)
{
    link_close(&connection->line, 0);
    list_remove(&connection->link);
    list_remove(&connection->room);
    upstream->connection_count--;
    free(connection);
}

/* Anybody may come to where we are bound; 0 = no limit. */
static int64_t reply_bytes_max(const struct upstream *upstream)
{
    int64_t max_bytes = upstream->conf->queue.max_bytes;
    bool is_raised = max_bytes > 0 && max_bytes < REPLY_BYTES_MIN && !is_bound(upstream);
    return is_raised ? REPLY_BYTES_MIN : max_bytes;
}

int upstream_open(struct upstream *upstream, const struct endpoint *endpoint, const struct chain_conf *conf,
                  const struct surroundings *around, struct flights *flights, bool is_careful, char *err,
                  size_t err_size)
{
    *upstream = (struct upstream){
        .conf = conf,
        .around = around,
        .flights = flights,
        .is_careful = is_careful,
        .link_conf = {.endpoint = endpoint,
                      .options = {.type = ZMQ_DEALER,
                                  .credentials = &conf->backend.credentials,
                                  .max_frames = REPLY_FRAMES_MAX,
                                  .chain = around->chain},
                      .backoff_ms = conf->backend.backoff_ms,
                      .backoff_max_ms = conf->backend.backoff_max_ms},
    };
    upstream->link_conf.options.max_frame_bytes = reply_bytes_max(upstream);
    list_init(&upstream->connections);
    list_init(&upstream->with_room);
    return add_connection(upstream, err, err_size);
}

void upstream_close(struct upstream *upstream)
{
    LIST_EACH_SAFE (link, following, &upstream->connections)
        remove_connection(upstream, LIST_ENTRY(link, struct connection, link));
}

/* The connection's socket is closed, or about to be. */
static void end_flights(struct upstream *upstream, struct connection *connection,
                        const struct flight *overdue, int64_t now_ms)
{
    upstream->is_suspect |= connection->lane.count > 0;
    upstream->inflight -= lane_abandon(upstream->flights, &connection->lane, overdue, now_ms);
    connection->peer = initial_peer(upstream);
    connection->is_blocked = false;
    note_room(upstream, connection);
}

/* Gives the connection up, with every request on it. */
static void abandon(struct upstream *upstream, struct connection *connection, const struct flight *overdue,
                    const char *cause, int64_t now_ms)
{
    link_discard(&connection->line, cause);
    end_flights(upstream, connection, overdue, now_ms);
    upstream->around->ledger->recreates++;
    backoff_fail(&upstream->backoff, now_ms, upstream->link_conf.backoff_ms,
                 upstream->link_conf.backoff_max_ms, retry_random());
}

static void learn_peer(struct connection *connection, const struct message *body)
{
    if (connection->peer != PEER_UNKNOWN)
        return;
    const char *type = zmq_msg_gets(message_frame(body, 0), "Socket-Type");
    connection->peer = type && strcmp(type, "REP") == 0 ? PEER_ENVELOPE : PEER_LOCKSTEP;
}

/* Which request this reply belongs to; NULL when to none. */
static struct flight *match_reply(struct upstream *upstream, struct connection *connection,
                                  const struct message *envelope)
{
    if (envelope->count == 1)
        return flights_find(upstream->flights, &connection->lane, message_frame(envelope, 0));
    if (envelope->count > 1 || connection->lane.count == 0)
        return NULL;
    /* A reply without an id can only answer a request that was sent without one: then it is alone here. */
    bool was_lockstep = connection->lane.count == 1 && connection->peer != PEER_ENVELOPE;
    return was_lockstep ? LIST_ENTRY(connection->lane.flights.next, struct flight, link) : NULL;
}

/* Takes one reply; false when there is none to read. */
static bool read_reply(struct upstream *upstream, struct connection *connection, int64_t now_ms)
{
    static const struct wire_limits no_limits = {0};
    struct message envelope, body;
    message_init(&envelope);
    message_init(&body);
    enum wire_received received = wire_receive(&connection->line.socket, &no_limits, &envelope, &body);
    if (received == WIRE_NONE)
        return false;
    struct flight *flight = received == WIRE_MESSAGE ? match_reply(upstream, connection, &envelope) : NULL;
    message_close(&envelope);
    if (!flight) {
        message_close(&body);
        upstream->around->ledger->stray++;
        /* In lock-step the next reply could be taken for another's: only a new connection is in step again. */
        if (received == WIRE_MESSAGE && connection->peer != PEER_ENVELOPE) {
            abandon(upstream, connection, NULL, NULL, now_ms);
            return false;
        }
        return true;
    }
    learn_peer(connection, &body);
    lane_answer(upstream->flights, flight, &body, now_ms);
    note_room(upstream, connection);
    upstream->inflight--;
    upstream->is_suspect = false;
    backoff_reset(&upstream->backoff);
    return true;
}

static void read_replies(struct upstream *upstream, struct connection *connection, int64_t now_ms)
{
    connection->is_blocked = false;
    for (int i = 0; i < REPLIES_PER_TURN && connection->line.socket.is_ready; i++) {
        if (!read_reply(upstream, connection, now_ms))
            return;
    }
}

static int64_t head_deadline_ms(const struct upstream *upstream, const struct connection *connection)
{
    return lane_deadline_ms(&connection->lane, upstream->conf->backend.timeout_ms);
}

static void check_deadlines(struct upstream *upstream, struct connection *connection, int64_t now_ms)
{
    bool is_overdue = now_ms >= head_deadline_ms(upstream, connection);
    if (!is_overdue && !lane_has_expired(&connection->lane, now_ms))
        return;
    EVENT(&upstream->around->runtime->events, EVENT_WARNING, "upstream-timeout",
          EVENT_TEXT("chain", upstream->around->chain),
          EVENT_TEXT("endpoint", upstream->link_conf.endpoint->text),
          EVENT_NUMBER("after_ms", now_ms - connection->lane.head_since_ms),
          EVENT_NUMBER("inflight", connection->lane.count));
    struct flight *head = LIST_ENTRY(connection->lane.flights.next, struct flight, link);
    abandon(upstream, connection, is_overdue ? head : NULL, "silent", now_ms);
}

static void tick_connection(struct upstream *upstream, struct connection *connection, int64_t now_ms)
{
    struct link *line = &connection->line;
    enum link_event event;
    while ((event = link_tick(line, now_ms)) != LINK_QUIET) {
        if (event == LINK_BROKE) {
            end_flights(upstream, connection, NULL, now_ms);
            upstream->around->ledger->recreates++;
        }
    }
    if (line->socket.zmq && line->socket.is_ready) {
        if (line->state == LINK_UP) {
            read_replies(upstream, connection, now_ms);
        } else {
            socket_settle(&line->socket);
            line->socket.is_ready = false;
        }
    }
    check_deadlines(upstream, connection, now_ms);
}

static bool has_envelope_peer(const struct upstream *upstream)
{
    LIST_EACH (link, &upstream->connections) {
        const struct connection *connection = LIST_ENTRY(link, struct connection, link);
        if (connection->peer == PEER_ENVELOPE && link_is_usable(&connection->line))
            return true;
    }
    return false;
}

/* How many requests may be in flight now. Only who left requests unanswered is probed with one: for who could
 * not be reached the handshake was the proof. */
static uint32_t window_now(const struct upstream *upstream)
{
    if (upstream->is_suspect)
        return 1;
    if (upstream->is_careful && first_connection(upstream)->peer == PEER_UNKNOWN)
        return 1;
    return (uint32_t)upstream->conf->backend.window;
}

/* As many connections as lock-step needs; one where envelopes are understood. */
static void fit_connections(struct upstream *upstream, uint64_t waiting)
{
    bool needs_one =
        is_bound(upstream) || initial_peer(upstream) == PEER_ENVELOPE || has_envelope_peer(upstream);
    uint64_t idle = 0;
    LIST_EACH_SAFE (link, following, &upstream->connections) {
        struct connection *connection = LIST_ENTRY(link, struct connection, link);
        if (connection->lane.count > 0)
            continue;
        bool is_spare = needs_one && connection->peer != PEER_ENVELOPE;
        bool is_broken = connection->line.state == LINK_WAITING;
        if (upstream->connection_count > 1 && (is_spare || is_broken))
            remove_connection(upstream, connection);
        else
            idle++;
    }
    bool is_unreachable = upstream->backoff.failures > 0 && !upstream_is_connected(upstream);
    if (needs_one || is_unreachable)
        return;
    char err[256];
    while (idle < waiting && upstream->connection_count < window_now(upstream) &&
           add_connection(upstream, err, sizeof err) == 0)
        idle++;
}

/* One event for each change of what status says. */
static void report(struct upstream *upstream)
{
    bool is_up = upstream_is_connected(upstream);
    const char *cause = is_up ? NULL : first_connection(upstream)->line.cause;
    if (is_up == upstream->was_up && cause == upstream->last_cause)
        return;
    const struct event_sink *events = &upstream->around->runtime->events;
    const char *chain = upstream->around->chain, *endpoint = upstream->link_conf.endpoint->text;
    if (is_up)
        EVENT(events, EVENT_INFO, "upstream-up", EVENT_TEXT("chain", chain),
              EVENT_TEXT("endpoint", endpoint));
    else if (cause)
        EVENT(events, EVENT_WARNING, "upstream-down", EVENT_TEXT("chain", chain),
              EVENT_TEXT("endpoint", endpoint), EVENT_TEXT("cause", cause));
    else
        EVENT(events, EVENT_WARNING, "upstream-lost", EVENT_TEXT("chain", chain),
              EVENT_TEXT("endpoint", endpoint));
    upstream->was_up = is_up;
    upstream->last_cause = cause;
}

void upstream_tick(struct upstream *upstream, uint64_t waiting, int64_t now_ms)
{
    LIST_EACH_SAFE (link, following, &upstream->connections)
        tick_connection(upstream, LIST_ENTRY(link, struct connection, link), now_ms);
    fit_connections(upstream, waiting);
    report(upstream);
    upstream->ticked_ms = now_ms;
}

int64_t upstream_next_ms(const struct upstream *upstream)
{
    bool is_aside = upstream->backoff.until_ms > upstream->ticked_ms;
    int64_t next = is_aside ? upstream->backoff.until_ms : INT64_MAX;
    LIST_EACH (link, &upstream->connections) {
        const struct connection *connection = LIST_ENTRY(link, struct connection, link);
        const int64_t due[] = {link_next_ms(&connection->line), head_deadline_ms(upstream, connection),
                               connection->lane.count > 0 ? connection->lane.earliest_end_ms : INT64_MAX};
        for (size_t i = 0; i < sizeof due / sizeof *due; i++)
            next = due[i] < next ? due[i] : next;
    }
    return next;
}

bool upstream_has_input(const struct upstream *upstream)
{
    LIST_EACH (link, &upstream->connections) {
        const struct link *line = &LIST_ENTRY(link, struct connection, link)->line;
        if (line->state == LINK_UP && line->socket.is_ready)
            return true;
    }
    return false;
}

bool upstream_is_connected(const struct upstream *upstream)
{
    LIST_EACH (link, &upstream->connections) {
        if (link_is_usable(&LIST_ENTRY(link, struct connection, link)->line))
            return true;
    }
    return false;
}

static struct connection *connection_with_room(const struct upstream *upstream, int64_t now_ms)
{
    if (now_ms < upstream->backoff.until_ms || upstream->inflight >= window_now(upstream))
        return NULL;
    LIST_EACH (link, &upstream->with_room) {
        struct connection *connection = LIST_ENTRY(link, struct connection, room);
        if (link_is_usable(&connection->line) && !connection->is_blocked)
            return connection;
    }
    return NULL;
}

bool upstream_has_room(const struct upstream *upstream, int64_t now_ms)
{
    return connection_with_room(upstream, now_ms) != NULL;
}

static enum wire_sent send_request(struct upstream *upstream, struct connection *connection,
                                   struct flight *flight)
{
    struct message id;
    message_init(&id);
    if (connection->peer == PEER_ENVELOPE && flights_write_id(upstream->flights, flight, &id) != 0)
        return WIRE_FULL;
    enum wire_sent sent = wire_send_copy(&connection->line.socket, &id, true, &flight->item->body);
    message_close(&id);
    return sent;
}

bool upstream_send(struct upstream *upstream, struct queue_item *item, int64_t now_ms)
{
    struct connection *connection = connection_with_room(upstream, now_ms);
    struct flight *flight = connection ? flights_take(upstream->flights, item) : NULL;
    if (!flight)
        return false;
    if (send_request(upstream, connection, flight) != WIRE_SENT) {
        connection->is_blocked = true;
        flights_return(upstream->flights, flight);
        return false;
    }
    flight->upstream = upstream;
    lane_add(&connection->lane, flight, upstream->conf->queue.max_age_ms, now_ms);
    note_room(upstream, connection);
    upstream->inflight++;
    if (item->was_sent)
        upstream->around->ledger->redelivered++;
    item->was_sent = true;
    return true;
}

void upstream_abandon(struct upstream *upstream, int64_t now_ms)
{
    LIST_EACH (link, &upstream->connections) {
        struct connection *connection = LIST_ENTRY(link, struct connection, link);
        if (connection->lane.count > 0)
            abandon(upstream, connection, NULL, NULL, now_ms);
    }
}

void upstream_stats(const struct upstream *upstream, struct upstream_stats *row)
{
    const struct connection *first = first_connection(upstream);
    *row = (struct upstream_stats){.endpoint = upstream->link_conf.endpoint->text,
                                   .inflight = upstream->inflight};
    LIST_EACH (link, &upstream->connections)
        row->connections += link_is_usable(&LIST_ENTRY(link, struct connection, link)->line);
    row->state = row->connections > 0 ? UPSTREAM_UP : first->line.cause ? UPSTREAM_DOWN : UPSTREAM_CONNECTING;
    row->cause = row->connections > 0 ? NULL : first->line.cause;
    if (first->peer != PEER_UNKNOWN)
        row->peer = first->peer == PEER_ENVELOPE ? "envelope" : "lockstep";
}
