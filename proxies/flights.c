/* SPDX-License-Identifier: MIT
 *
 * Requests in flight; see flights.h.
 */
#include "proxies/flights.h"

#include "proxies/retry.h"

#include <stdlib.h>
#include <string.h>

int flights_open(struct flights *flights, uint32_t capacity)
{
    *flights = (struct flights){.slots = calloc(capacity, sizeof *flights->slots), .capacity = capacity};
    if (!flights->slots)
        return -1;
    list_init(&flights->unused);
    list_init(&flights->ended);
    return 0;
}

void flights_close(struct flights *flights)
{
    for (uint32_t i = 0; i < flights->touched; i++)
        message_close(&flights->slots[i].reply);
    free(flights->slots);
    *flights = (struct flights){0};
}

struct flight *flights_take(struct flights *flights, struct queue_item *item)
{
    struct list *link = list_first(&flights->unused);
    struct flight *flight = NULL;
    if (link) {
        list_remove(link);
        flight = LIST_ENTRY(link, struct flight, link);
        flight->generation++;
    } else if (flights->touched < flights->capacity) {
        flight = &flights->slots[flights->touched++];
        flight->generation = retry_random(); /* the processes before this one had others */
        list_init(&flight->link);
    }
    if (!flight)
        return NULL;
    flight->item = item;
    flight->was_alone = flights->used == 0;
    flight->number = ++flights->taken_total;
    flights->used++;
    return flight;
}

void flights_return(struct flights *flights, struct flight *flight)
{
    message_close(&flight->reply);
    flight->item = NULL;
    flight->lane = NULL;
    list_prepend(&flights->unused, &flight->link);
    flights->used--;
}

struct flight *flights_next_ended(struct flights *flights)
{
    struct list *link = list_first(&flights->ended);
    if (!link)
        return NULL;
    list_remove(link);
    return LIST_ENTRY(link, struct flight, link);
}

/* The id frame of an envelope. */
struct wire_id {
    uint32_t slot, generation;
};

int flights_write_id(const struct flights *flights, const struct flight *flight, struct message *envelope)
{
    const struct wire_id id = {(uint32_t)(flight - flights->slots), flight->generation};
    return message_add_bytes(envelope, &id, sizeof id);
}

struct flight *flights_find(const struct flights *flights, const struct lane *lane, zmq_msg_t *frame)
{
    struct wire_id id;
    if (zmq_msg_size(frame) != sizeof id)
        return NULL;
    memcpy(&id, zmq_msg_data(frame), sizeof id);
    if (id.slot >= flights->touched)
        return NULL;
    struct flight *flight = &flights->slots[id.slot];
    return flight->lane == lane && flight->generation == id.generation ? flight : NULL;
}

/* ---- lanes ---- */

void lane_open(struct lane *lane)
{
    *lane = (struct lane){.earliest_end_ms = INT64_MAX};
    list_init(&lane->flights);
}

void lane_add(struct lane *lane, struct flight *flight, int64_t max_age_ms, int64_t now_ms)
{
    flight->lane = lane;
    flight->expires_ms = max_age_ms > 0 ? flight->item->taken_ms + max_age_ms : INT64_MAX;
    if (flight->expires_ms < lane->earliest_end_ms)
        lane->earliest_end_ms = flight->expires_ms;
    if (lane->count == 0)
        lane->head_since_ms = now_ms;
    list_append(&lane->flights, &flight->link);
    lane->count++;
}

/* The flight leaves its lane and is handed back with a result. */
static void end_flight(struct flights *flights, struct flight *flight, enum back_result result)
{
    flight->result = result;
    flight->was_alone = flight->was_alone && flight->number == flights->taken_total;
    flight->lane->count--;
    flight->lane = NULL;
    list_remove(&flight->link);
    list_append(&flights->ended, &flight->link);
}

void lane_answer(struct flights *flights, struct flight *flight, struct message *reply, int64_t now_ms)
{
    struct lane *lane = flight->lane;
    if (lane->flights.next == &flight->link)
        lane->head_since_ms = now_ms;
    message_move(&flight->reply, reply);
    end_flight(flights, flight, BACK_DELIVERED);
}

uint32_t lane_abandon(struct flights *flights, struct lane *lane, const struct flight *overdue,
                      int64_t now_ms)
{
    uint32_t count = lane->count;
    LIST_EACH_SAFE (link, following, &lane->flights) {
        struct flight *flight = LIST_ENTRY(link, struct flight, link);
        bool is_late = flight == overdue || flight->expires_ms <= now_ms;
        end_flight(flights, flight, is_late ? BACK_TIMEOUT : BACK_LOST);
    }
    lane->earliest_end_ms = INT64_MAX;
    return count;
}

int64_t lane_deadline_ms(const struct lane *lane, int64_t timeout_ms)
{
    return timeout_ms > 0 && lane->count > 0 ? lane->head_since_ms + timeout_ms : INT64_MAX;
}

/* The scan is rare: earliest_end_ms only moves on when it has come. */
bool lane_has_expired(struct lane *lane, int64_t now_ms)
{
    if (lane->count == 0 || now_ms < lane->earliest_end_ms)
        return false;
    lane->earliest_end_ms = INT64_MAX;
    LIST_EACH (link, &lane->flights) {
        const struct flight *flight = LIST_ENTRY(link, struct flight, link);
        if (flight->expires_ms < lane->earliest_end_ms)
            lane->earliest_end_ms = flight->expires_ms;
    }
    return lane->earliest_end_ms <= now_ms;
}
