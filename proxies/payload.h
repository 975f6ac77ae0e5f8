/* SPDX-License-Identifier: MIT
 *
 * The few payloads that a chain itself must read or write: the session of a message, the question whether it is
 * valid and its answer, the heartbeat of a worker. All are JSON. Pure; whatever comes in, there is an answer.
 */
#ifndef PROXYD_PROXIES_PAYLOAD_H
#define PROXYD_PROXIES_PAYLOAD_H

#include "buffer/message.h"

#include <stdbool.h>
#include <stddef.h>

/* With its end. Longer ones are none. */
enum { PAYLOAD_SESSION_BYTES = 1024, PAYLOAD_NODE_BYTES = 128 };

/* Reads the session id of [topic, data, event] from the text `field` of the JSON object `data`. False when there is no
 * such thing. */
bool payload_session(const struct message *message, const char *field, char session[PAYLOAD_SESSION_BYTES]);

/* Appends the JSON-RPC 2.0 request `method` with the session id as its params to the empty `out`. -1 when memory is
 * short. */
int payload_question(const char *method, const char *session, struct message *out);

enum payload_verdict {
    PAYLOAD_YES,    /* the result is true */
    PAYLOAD_NO,     /* it is anything else */
    PAYLOAD_UNKNOWN /* no result: an error, or no JSON-RPC reply at all */
};

/* Reads the answer to a question. */
enum payload_verdict payload_verdict(const struct message *reply);

/* Reads ["heartbeat", JSON], and writes the routing id of the worker that sent it: "<node_id>_<session_id>". *is_worker
 * is false for nodes of another type. False when it is no heartbeat. */
bool payload_heartbeat(const struct message *message, char routing_id[PAYLOAD_NODE_BYTES], bool *is_worker);

#endif
