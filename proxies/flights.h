/* SPDX-License-Identifier: MIT
 *
 * Requests that were handed to libzmq and have no answer yet: a table of them for a backend, and a lane for each
 * connection, in the order of sending, with the clock of the oldest one. Pure: sends nothing, time is an argument.
 */
#ifndef PROXYD_PROXIES_FLIGHTS_H
#define PROXYD_PROXIES_FLIGHTS_H

#include "buffer/queue.h"
#include "proxies/back.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one connection owes answers for. */
struct lane {
    struct list flights; /* oldest first */
    uint32_t count;
    int64_t head_since_ms;   /* since when the first flight is the oldest one owed an answer */
    int64_t earliest_end_ms; /* no flight's max_age ends before this */
};

struct upstream;

/* One attempt. */
struct flight {
    struct list link; /* its lane's; then the ended ones' */
    struct queue_item *item;
    struct upstream *upstream; /* REQ: where it went */
    struct lane *lane;         /* NULL once it has ended */
    uint32_t generation;       /* tells it from earlier users of the same slot */
    int64_t expires_ms;        /* when its item's max_age ends the attempt */
    uint64_t number;           /* of those ever taken */
    enum back_result result;
    bool was_alone; /* nothing was in flight when it was taken and, once it has ended, nothing joined it */
    struct message reply;
};

/* All flights of a backend; a flight's slot and generation are its id on the wire. */
struct flights {
    struct flight *slots;
    uint32_t capacity, used;
    uint64_t taken_total;
    uint32_t touched;          /* slots below this have been used before; the others cost no memory yet */
    struct list unused, ended; /* of flight.link */
};

/* Room for `capacity` flights. -1 when memory is short. */
int flights_open(struct flights *flights, uint32_t capacity);
void flights_close(struct flights *flights);

/* A flight for `item`, not on its way yet; NULL when all are used. */
struct flight *flights_take(struct flights *flights, struct queue_item *item);

/* Gives a flight back that ended, or was not sent after all. */
void flights_return(struct flights *flights, struct flight *flight);

/* The next flight that ended, now the caller's until flights_return; NULL when there is none. */
struct flight *flights_next_ended(struct flights *flights);

/* Appends the flight's id frame to `envelope`: an earlier flight, of this process or the ones before, had another. -1
 * when memory is short. */
int flights_write_id(const struct flights *flights, const struct flight *flight, struct message *envelope);

/* The flight on `lane` that this frame is the id of; NULL when there is none. */
struct flight *flights_find(const struct flights *flights, const struct lane *lane, zmq_msg_t *frame);

void lane_open(struct lane *lane);

/* The flight was sent: it is the last one on `lane`. */
void lane_add(struct lane *lane, struct flight *flight, int64_t max_age_ms, int64_t now_ms);

/* The flight has its answer, which is moved out of `reply`. It is among the ended ones. */
void lane_answer(struct flights *flights, struct flight *flight, struct message *reply, int64_t now_ms);

/* The connection is closed, or about to be: what is on `lane` ends as lost, or as timed out where it is `overdue` (may
 * be NULL) or its max_age has passed. Returns how many that are. */
uint32_t lane_abandon(struct flights *flights, struct lane *lane, const struct flight *overdue,
                      int64_t now_ms);

/* When the oldest flight's time is up; INT64_MAX when there is none, or no limit (0). */
int64_t lane_deadline_ms(const struct lane *lane, int64_t timeout_ms);

/* Whether some flight's max_age has passed. */
bool lane_has_expired(struct lane *lane, int64_t now_ms);

#endif
