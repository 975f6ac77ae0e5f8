/* SPDX-License-Identifier: MIT
 *
 * The JSON-RPC 2.0 calls that wait for an answer on one connection which many callers share. Each caller chose its
 * ids alone, so every request goes out with an id of ours, and its answer comes back with the caller's own, byte by
 * byte. A batch goes out as single requests, since not every server takes one, and comes back as one array.
 *
 *     caller   {"id":"a", "method":…}  -->  {"id":1048576, "method":…}   server
 *              {"id":"a", "result":…}  <--  {"id":1048576, "result":…}
 *
 * Pure: it reads and writes nothing but memory.
 */
#ifndef PROXYD_PROXIES_CALLS_H
#define PROXYD_PROXIES_CALLS_H

#include "buffer/message.h"
#include "proxies/json_span.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More requests than that are no batch, but a flood. */
#define CALLS_BATCH_MAX 1000

/* Whether `body` is what a call may be: one frame with one request, or an array of at least one and at most
 * CALLS_BATCH_MAX. A request is an object with a method that is a string, and not two ids. */
bool calls_is_request(const struct message *body);

struct calls;

/* No call yet. NULL when memory is short. */
struct calls *calls_new(void);
void calls_free(struct calls *calls);

/* One request as the server is to get it: these pieces, one behind the other, for the time of the call. */
typedef void calls_send_fn(void *context, const struct json_span *pieces, size_t count);

enum calls_begun {
    CALLS_WAITING, /* for the answer */
    CALLS_TOLD,    /* there were notifications only, which nobody answers */
    CALLS_REFUSED  /* no request, or memory is short: nothing was sent */
};

/* Sends what `body` asks for; `tag` stands for the caller. */
enum calls_begun calls_begin(struct calls *calls, const struct message *tag, const struct message *body,
                             calls_send_fn *send, void *context);

enum calls_answer {
    CALLS_ANSWERED, /* the call is over */
    CALLS_PART,     /* of a batch that is not complete */
    CALLS_STRAY,    /* no call waits for it */
    CALLS_NOT       /* no answer: a request or a notification of the server's own */
};

/* Takes what the server sent, one object (or whatever else it is). For CALLS_ANSWERED the caller's tag and the answer
 * are moved into the empty `tag` and `body`, the latter left empty when memory is short. */
enum calls_answer calls_end(struct calls *calls, struct json_span answer, struct message *tag,
                            struct message *body);

#endif
