/* SPDX-License-Identifier: MIT
 *
 * The backend that sends requests to upstream servers and brings their replies: which upstream gets the next
 * request, and for `balance = "all"`, what the answers of all of them add up to.
 *
 * Where order counts (buffered and sub-req kinds), requests left unanswered by a broken connection are
 * suspects: one of them may be what broke it. They go one at a time until one succeeds.
 */
#include "proxies/back.h"

#include "proxies/calls.h"
#include "proxies/kinds.h"
#include "proxies/upstream.h"

#include <stdio.h>
#include <stdlib.h>

/* balance = all: one item at several upstreams. Lives until the item leaves the queue. */
struct fanout {
    uint64_t answered; /* a bit for each of at most BALANCE_ALL_MAX upstreams */
    uint32_t pending;
    enum back_result worst;
    bool was_alone;
    uint64_t last;        /* number of its last flight */
    struct message reply; /* the first upstream's */
};

struct back {
    const struct chain_conf *conf;
    const struct surroundings *around;
    struct flights flights;
    struct upstream *upstreams;
    uint32_t count;
    uint32_t next; /* round-robin: where the next look starts */
    bool is_ordered;
    bool has_websocket; /* among the upstreams */
    bool has_suspects;
    const struct queue_item *trial; /* sent alone since; its success clears the others */
    struct flight *given;           /* the last outcome's, which has its reply */
};

static bool goes_to_all(const struct back *back)
{
    return back->conf->backend.balance == BALANCE_ALL;
}

static void req_close(struct back *back, int linger_ms)
{
    (void)linger_ms; /* a request that was given up must not leave later */
    for (uint32_t i = 0; i < back->count; i++)
        upstream_close(&back->upstreams[i]);
    flights_close(&back->flights);
    free(back->upstreams);
    free(back);
}

static struct back *req_open(const struct chain_conf *conf, const struct surroundings *around, char *err,
                             size_t err_size)
{
    const struct endpoint_list *endpoints = &conf->backend.endpoints;
    struct back *back = calloc(1, sizeof *back);
    struct upstream *upstreams = calloc(endpoints->count, sizeof *upstreams);
    if (!back || !upstreams) {
        snprintf(err, err_size, "out of memory");
        free(back);
        free(upstreams);
        return NULL;
    }
    *back = (struct back){
        .conf = conf, .around = around, .upstreams = upstreams, .is_ordered = conf->kind->is_ordered};
    if (flights_open(&back->flights, (uint32_t)(endpoints->count * (size_t)conf->backend.window)) != 0) {
        snprintf(err, err_size, "out of memory");
        req_close(back, 0);
        return NULL;
    }
    for (size_t i = 0; i < endpoints->count; i++) {
        char why[256];
        if (upstream_open(&upstreams[i], &endpoints->items[i], conf, around, &back->flights, back->is_ordered,
                          why, sizeof why) != 0) {
            snprintf(err, err_size, "%s: %s", endpoints->items[i].text, why);
            req_close(back, 0);
            return NULL;
        }
        back->count++;
        back->has_websocket |= endpoint_is_websocket(&endpoints->items[i]);
    }
    return back;
}

static void req_tick(struct back *back, uint64_t waiting, int64_t now_ms)
{
    for (uint32_t i = 0; i < back->count; i++)
        upstream_tick(&back->upstreams[i], waiting, now_ms);
}

static int64_t req_next_ms(const struct back *back)
{
    int64_t next = INT64_MAX;
    for (uint32_t i = 0; i < back->count; i++) {
        int64_t due = upstream_next_ms(&back->upstreams[i]);
        next = due < next ? due : next;
    }
    return next;
}

static bool req_has_input(const struct back *back)
{
    for (uint32_t i = 0; i < back->count; i++) {
        if (upstream_has_input(&back->upstreams[i]))
            return true;
    }
    return false;
}

static bool req_is_connected(const struct back *back)
{
    bool needs_all = goes_to_all(back);
    for (uint32_t i = 0; i < back->count; i++) {
        if (upstream_is_connected(&back->upstreams[i]) != needs_all)
            return !needs_all;
    }
    return needs_all;
}

/* The first upstream that is there, from number `start` on; NULL when none is. */
static struct upstream *first_there(const struct back *back, uint32_t start, int64_t now_ms)
{
    for (uint32_t i = 0; i < back->count; i++) {
        struct upstream *upstream = &back->upstreams[(start + i) % back->count];
        if (upstream_is_connected(upstream) && now_ms >= upstream->backoff.until_ms)
            return upstream;
    }
    return NULL;
}

static bool req_has_room(const struct back *back, int64_t now_ms)
{
    if (back->has_suspects && back->flights.used > 0)
        return false;
    if (back->conf->backend.balance == BALANCE_FAILOVER) {
        const struct upstream *target = first_there(back, 0, now_ms);
        return target && upstream_has_room(target, now_ms);
    }
    for (uint32_t i = 0; i < back->count; i++) {
        if (upstream_has_room(&back->upstreams[i], now_ms))
            return true;
    }
    return false;
}

/* The upstream for `item`, or NULL. A retry starts its look behind the one that failed it. */
static struct upstream *choose(const struct back *back, const struct queue_item *item, int64_t now_ms)
{
    bool is_failover = back->conf->backend.balance == BALANCE_FAILOVER;
    uint32_t start = item->was_sent ? item->hint + 1 : is_failover ? 0 : back->next;
    if (is_failover)
        return first_there(back, start, now_ms); /* it takes all; when it is busy, they wait */
    struct upstream *chosen = NULL;
    for (uint32_t i = 0; i < back->count; i++) {
        struct upstream *upstream = &back->upstreams[(start + i) % back->count];
        if (!upstream_has_room(upstream, now_ms))
            continue;
        if (back->conf->backend.balance == BALANCE_ROUND_ROBIN)
            return upstream;
        if (!chosen || upstream->inflight < chosen->inflight)
            chosen = upstream;
    }
    return chosen;
}

static bool send_to_one(struct back *back, struct queue_item *item, int64_t now_ms)
{
    struct upstream *upstream = choose(back, item, now_ms);
    if (!upstream || !upstream_send(upstream, item, now_ms))
        return false;
    if (back->has_suspects)
        back->trial = item;
    item->hint = (uint32_t)(upstream - back->upstreams);
    back->next = (item->hint + 1) % back->count;
    return true;
}

static bool send_to_all(struct back *back, struct queue_item *item, int64_t now_ms)
{
    struct fanout *fanout = item->call;
    if (!fanout) {
        item->call = fanout = calloc(1, sizeof *fanout);
        if (!fanout)
            return false;
    }
    for (uint32_t i = 0; i < back->count; i++) {
        if (!(fanout->answered >> i & 1) && !upstream_has_room(&back->upstreams[i], now_ms))
            return false;
    }
    fanout->worst = BACK_DELIVERED;
    fanout->was_alone = back->flights.used == 0;
    bool was_sent = item->was_sent;
    for (uint32_t i = 0; i < back->count; i++) {
        item->was_sent = was_sent; /* the upstreams of one attempt are no redeliveries of each other */
        if (fanout->answered >> i & 1)
            continue;
        if (upstream_send(&back->upstreams[i], item, now_ms))
            fanout->pending++;
        else
            fanout->worst =
                BACK_LOST; /* it broke this moment: the attempt has failed when the others are in */
    }
    item->was_sent = was_sent || fanout->pending > 0;
    fanout->last = back->flights.taken_total;
    if (back->has_suspects)
        back->trial = item;
    return fanout->pending > 0;
}

static bool req_send(struct back *back, struct queue_item *item, int64_t now_ms)
{
    return goes_to_all(back) ? send_to_all(back, item, now_ms) : send_to_one(back, item, now_ms);
}

/* Adds one upstream's result; true when the attempt is over. */
static bool add_to_fanout(const struct back *back, struct fanout *fanout, struct flight *flight)
{
    uint32_t index = (uint32_t)(flight->upstream - back->upstreams);
    fanout->pending--;
    if (flight->result == BACK_DELIVERED) {
        fanout->answered |= UINT64_C(1) << index;
        if (index == 0)
            message_move(&fanout->reply, &flight->reply);
    } else if (fanout->worst != BACK_TIMEOUT) {
        fanout->worst = flight->result;
    }
    return fanout->pending == 0;
}

static bool take_outcome(struct back *back, struct flight *flight, struct back_outcome *outcome)
{
    outcome->item = flight->item;
    outcome->reply = &flight->reply;
    struct fanout *fanout = flight->item->call;
    if (!fanout) {
        outcome->result = flight->result;
        outcome->was_alone = flight->was_alone;
        return true;
    }
    if (!add_to_fanout(back, fanout, flight))
        return false;
    outcome->result = fanout->worst;
    outcome->was_alone = fanout->was_alone && fanout->last == back->flights.taken_total;
    if (fanout->worst == BACK_DELIVERED)
        message_move(&flight->reply, &fanout->reply);
    return true;
}

static bool req_next_outcome(struct back *back, struct back_outcome *outcome)
{
    struct flight *flight = back->given;
    do {
        if (flight)
            flights_return(&back->flights, flight);
        flight = flights_next_ended(&back->flights);
    } while (flight && !take_outcome(back, flight, outcome));
    back->given = flight;
    if (!flight)
        return false;
    if (outcome->result != BACK_DELIVERED && back->is_ordered)
        back->has_suspects = true;
    else if (outcome->item == back->trial)
        back->has_suspects = false;
    if (outcome->item == back->trial)
        back->trial = NULL;
    return true;
}

static void req_forget(struct back *back, struct queue_item *item)
{
    (void)back;
    struct fanout *fanout = item->call;
    if (!fanout)
        return;
    message_close(&fanout->reply);
    free(fanout);
    item->call = NULL;
}

/* A WebSocket server is asked in JSON-RPC, and what it could not read would cost everybody the connection. */
static bool req_carries(const struct back *back, const struct message *body)
{
    return !back->has_websocket || calls_is_request(body);
}

static void req_abandon(struct back *back, int64_t now_ms)
{
    for (uint32_t i = 0; i < back->count; i++)
        upstream_abandon(&back->upstreams[i], now_ms);
}

static uint32_t req_upstreams(const struct back *back, struct upstream_stats *rows)
{
    for (uint32_t i = 0; rows && i < back->count; i++)
        upstream_stats(&back->upstreams[i], &rows[i]);
    return back->count;
}

const struct back_ops back_req = {
    .open = req_open,
    .close = req_close,
    .tick = req_tick,
    .next_ms = req_next_ms,
    .has_input = req_has_input,
    .is_connected = req_is_connected,
    .has_room = req_has_room,
    .send = req_send,
    .next_outcome = req_next_outcome,
    .forget = req_forget,
    .carries = req_carries,
    .abandon = req_abandon,
    .upstreams = req_upstreams,
};
