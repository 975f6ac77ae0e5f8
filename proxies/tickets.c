/* SPDX-License-Identifier: MIT
 *
 * Answering for tickets; see tickets.h. Each query under way is on one list until the queue has answered it.
 */
#include "proxies/tickets.h"

#include "proxies/dialect.h"
#include "proxies/ports.h"
#include "proxies/unsent.h"
#include "proxies/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUERIES_PER_TURN = 64,
    QUERIES_MAX = 512, /* under way; more wait in libzmq */
    QUERY_HWM = 100,
    ANSWER_HWM =
        1000, /* answers that libzmq holds for one caller who does not read; more are lost, as are those
                        * above UNSENT_BYTES_MAX */
    QUERY_BYTES_MAX = 1024,
    QUERY_FRAMES_MAX = 8,
};

struct tickets {
    const struct chain_conf *conf;
    const struct surroundings *around;
    struct queue *queue;
    struct ports ports;
    struct unsent unsent; /* answers */
    struct list asked;    /* struct query */
    uint32_t asked_count;
};

struct query {
    struct list link;
    struct tickets *tickets; /* NULL: closed, and nobody there to answer */
    size_t port;
    struct message envelope;
};

static void query_free(struct query *query)
{
    list_remove(&query->link);
    if (query->tickets)
        query->tickets->asked_count--;
    message_close(&query->envelope);
    free(query);
}

struct tickets *tickets_open(const struct chain_conf *conf, const struct surroundings *around,
                             struct queue *queue, char *err, size_t err_size)
{
    struct tickets *tickets = calloc(1, sizeof *tickets);
    if (!tickets) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    *tickets = (struct tickets){.conf = conf, .around = around, .queue = queue};
    unsent_init(&tickets->unsent);
    list_init(&tickets->asked);
    const struct socket_options options = {
        .type = ZMQ_ROUTER,
        .door = around->front_door,
        .send_hwm = ANSWER_HWM,
        .receive_hwm = QUERY_HWM,
        .max_frame_bytes = QUERY_BYTES_MAX * WIRE_MERCY,
        .max_frames = WIRE_FRAMES(QUERY_FRAMES_MAX),
        .chain = around->chain,
    };
    if (ports_open(&tickets->ports, &conf->frontend.tickets, &options, 0, 0, around, err, err_size) != 0) {
        free(tickets);
        return NULL;
    }
    return tickets;
}

static int add_word(struct message *message, const char *word)
{
    return message_add_bytes(message, word, strlen(word));
}

static int write_answer(const struct tickets *tickets, bool is_ok, enum queue_ticket state,
                        const struct message *reply, const char *reason, struct message *out)
{
    static const struct message no_request;
    if (!is_ok)
        return tickets->conf->dialect->error(&no_request, REASON_STORE_FAILED, out);
    switch (state) {
    case QUEUE_TICKET_PENDING:
        return add_word(out, "pending");
    case QUEUE_TICKET_DONE:
        return add_word(out, "done") == 0 ? message_append_copy(out, reply) : -1;
    case QUEUE_TICKET_DEAD:
        return add_word(out, "dead") == 0 ? add_word(out, reason) : -1;
    case QUEUE_TICKET_EXPIRED:
        return add_word(out, "expired");
    default:
        return add_word(out, "unknown");
    }
}

static void answer(struct query *query, bool is_ok, enum queue_ticket state, const struct message *reply,
                   const char *reason)
{
    struct tickets *tickets = query->tickets;
    struct message body = {0};
    struct socket *socket = &tickets->ports.items[query->port].link.socket;
    zmq_msg_t *routing_id = message_frame(&query->envelope, 0);
    if (write_answer(tickets, is_ok, state, reply, reason, &body) == 0 && socket->zmq &&
        unsent_bytes(&tickets->unsent, routing_id) <= UNSENT_BYTES_MAX) {
        unsent_add(&tickets->unsent, routing_id, &body);
        wire_send(socket, &query->envelope, true, &body);
    }
    message_close(&body);
}

static void tell(void *context, bool is_ok, enum queue_ticket state, const struct message *reply,
                 const char *reason)
{
    struct query *query = context;
    if (query->tickets)
        answer(query, is_ok, state, reply, reason);
    query_free(query);
}

/* The queue still knows the queries under way, and will tell. */
void tickets_close(struct tickets *tickets, int linger_ms)
{
    if (!tickets)
        return;
    LIST_EACH_SAFE (link, next, &tickets->asked) {
        struct query *query = LIST_ENTRY(link, struct query, link);
        answer(query, false, QUEUE_TICKET_UNKNOWN, NULL, NULL);
        list_remove(link);
        query->tickets = NULL;
    }
    ports_close(&tickets->ports, linger_ms);
    unsent_close(&tickets->unsent);
    free(tickets);
}

static struct query *query_new(struct tickets *tickets, size_t port, struct message *envelope)
{
    struct query *query = malloc(sizeof *query);
    if (!query)
        return NULL;
    *query = (struct query){.tickets = tickets, .port = port};
    list_append(&tickets->asked, &query->link);
    tickets->asked_count++;
    message_move(&query->envelope, envelope);
    return query;
}

/* Whoever may not use the chain has no tickets of it. */
static void ask(struct tickets *tickets, struct query *query, const struct message *body, int64_t now_ms)
{
    zmq_msg_t *ticket = message_frame(body, 0);
    const char *user;
    bool may_ask =
        ports_check(tickets->around, tickets->around->front_door, ticket, now_ms, &user) == DOOR_OPEN &&
        body->count == 1;
    if (may_ask)
        queue_find_ticket(tickets->queue, zmq_msg_data(ticket), zmq_msg_size(ticket),
                          user ? queue_owner(user) : 0, tell, query);
    else
        tell(query, true, QUEUE_TICKET_UNKNOWN, NULL, NULL);
}

/* False when there is nothing to read. */
static bool read_query(struct tickets *tickets, size_t port, int64_t now_ms)
{
    static const struct wire_limits limits = {.max_bytes = QUERY_BYTES_MAX, .max_frames = QUERY_FRAMES_MAX};
    struct message envelope = {0}, body = {0};
    enum wire_received received =
        wire_receive(&tickets->ports.items[port].link.socket, &limits, &envelope, &body);
    bool may_answer = received == WIRE_MESSAGE || (received == WIRE_TOO_LARGE && envelope.count > 0);
    struct query *query = may_answer ? query_new(tickets, port, &envelope) : NULL;
    if (query && received == WIRE_MESSAGE)
        ask(tickets, query, &body, now_ms);
    else if (query)
        tell(query, true, QUEUE_TICKET_UNKNOWN, NULL, NULL);
    message_close(&envelope);
    message_close(&body);
    return received != WIRE_NONE;
}

static bool is_busy(const struct tickets *tickets)
{
    return tickets->asked_count >= QUERIES_MAX;
}

void tickets_tick(struct tickets *tickets, int64_t now_ms)
{
    ports_tick(&tickets->ports, now_ms);
    for (size_t i = 0; i < tickets->ports.count; i++) {
        struct socket *socket = &tickets->ports.items[i].link.socket;
        for (int k = 0; k < QUERIES_PER_TURN && socket->zmq && socket->is_ready && !is_busy(tickets); k++) {
            if (!read_query(tickets, i, now_ms))
                break;
        }
    }
}

int64_t tickets_next_ms(const struct tickets *tickets)
{
    return ports_next_ms(&tickets->ports);
}

bool tickets_have_input(struct tickets *tickets)
{
    return ports_have_input(&tickets->ports, is_busy(tickets));
}
