/* SPDX-License-Identifier: MIT
 *
 * Operators' questions to the queues of chains, as they come over the control socket: `queue`, `dead` and
 * `ticket`. A chain answers from its own loop, later; whoever asked is answered then. Asked and answered in the
 * main loop; only the moment of an answer is another thread's.
 */
#ifndef PROXYD_PROXYD_INSPECT_H
#define PROXYD_PROXYD_INSPECT_H

#include "buffer/message.h"
#include "proxies/chain.h"
#include "proxyd/commands.h"

#include <jansson.h>
#include <stdbool.h>

struct inspect;

/* `eventfd` is written to when there is an answer. NULL when memory is short. */
struct inspect *inspect_new(int eventfd);

/* Releases it, with questions never answered. All chains have been freed. NULL is fine. */
void inspect_free(struct inspect *inspect);

/* Passes a question on to `chain`: COMMAND_QUEUE, COMMAND_DEAD or COMMAND_TICKET with its params. The envelope is
 * taken, and `id` referred to, when it returns NULL; otherwise it returns what is wrong with the params (static). */
const char *inspect_ask(struct inspect *inspect, enum command_id id, struct chain *chain,
                        const json_t *params, struct message *envelope, json_t *request_id);

/* The next answer: its envelope is moved into the empty `envelope`, *request_id (may be NULL) and *result are the
 * caller's references; *result is NULL when the chain could not tell. False when there is none. */
bool inspect_next(struct inspect *inspect, struct message *envelope, json_t **request_id, json_t **result);

#endif
