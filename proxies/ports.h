/* SPDX-License-Identifier: MIT
 *
 * The links of one side of a chain, one for each of its endpoints, all with the same options.
 */
#ifndef PROXYD_PROXIES_PORTS_H
#define PROXYD_PROXIES_PORTS_H

#include "proxies/door.h"
#include "proxies/link.h"
#include "proxies/stats.h"

#include <zmq.h>

struct port {
    struct link link;
    struct link_conf conf;
    struct backoff backoff;
};

struct ports {
    size_t count;
    size_t next; /* where the next look for input starts */
    struct port *items;
};

/* Opens a link to each endpoint. A backoff of 0 takes the usual one. The pointers must outlive the ports.
 * -1 with a reason in `err` that names the endpoint. */
int ports_open(struct ports *ports, const struct endpoint_list *endpoints,
               const struct socket_options *options, int64_t backoff_ms, int64_t backoff_max_ms,
               const struct surroundings *around, char *err, size_t err_size);

/* Closes what is open; libzmq may send what it holds for so long. */
void ports_close(struct ports *ports, int linger_ms);

/* When the first of the links is due for a tick. */
int64_t ports_next_ms(const struct ports *ports);

/* The next port whose socket may have input, each in its turn; -1 when none has. A port that was read dry does not
 * come again. */
int ports_next_ready(struct ports *ports);

/* True while one of the sockets may have input. With `is_stopped` nobody reads now: they are settled, and the
 * answer is false. */
bool ports_have_input(struct ports *ports, bool is_stopped);

/* Writes a row for each link that connects, and returns how many; `rows` NULL only counts. */
uint32_t ports_upstreams(const struct ports *ports, struct upstream_stats *rows);

/* One link_tick; what is news to an operator is reported, a lost connection counted. */
enum link_event port_tick(struct port *port, int64_t now_ms);

/* Whether a message whose first frame this is may come in by that door (NULL = open); sets *user as
 * doorman.check. */
enum door_verdict ports_check(const struct surroundings *around, struct door *door, zmq_msg_t *frame,
                              int64_t now_ms, const char **user);

/* Ticks all links until they are quiet. */
void ports_tick(struct ports *ports, int64_t now_ms);

#endif
