/* SPDX-License-Identifier: MIT
 *
 * The `tickets` endpoints of a buffered chain: a caller sends one frame, its ticket, and hears what became of its
 * request. Queries are not messages: they are in no ledger.
 *
 *     ["done", reply frames…]   ["pending"]   ["dead", reason]   ["expired"]   ["unknown"]
 */
#ifndef PROXYD_PROXIES_TICKETS_H
#define PROXYD_PROXIES_TICKETS_H

#include "buffer/queue.h"
#include "proxies/conf.h"
#include "proxies/runtime.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tickets;

/* Opens the endpoints. The pointers must outlive it. NULL with a reason in `err`. */
struct tickets *tickets_open(const struct chain_conf *conf, const struct surroundings *around,
                             struct queue *queue, char *err, size_t err_size);

/* Closes them, after the queue, whose answers still to come are not wanted any more. NULL is fine. */
void tickets_close(struct tickets *tickets, int linger_ms);

/* Reads queries and passes them to the queue; answers leave from queue_next_stored. */
void tickets_tick(struct tickets *tickets, int64_t now_ms);

/* When tick is due next without anything happening (INT64_MAX when never), and whether it would find something now. */
int64_t tickets_next_ms(const struct tickets *tickets);
bool tickets_have_input(struct tickets *tickets);

#endif
