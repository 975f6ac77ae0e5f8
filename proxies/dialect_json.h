/* SPDX-License-Identifier: MIT
 *
 * What dialects have in common: frames of text, and the answers of the JSON ones. These are few and fixed: our own
 * words, which need no escaping (a reason's name and text, an ack's level, a ticket), and an id, which is the request's
 * own text.
 */
#ifndef PROXYD_PROXIES_DIALECT_JSON_H
#define PROXYD_PROXIES_DIALECT_JSON_H

#include "buffer/message.h"
#include "proxies/json_span.h"

/* Room for what an answer has beside an id. */
#define DIALECT_WORDS_BYTES 256

/* Appends a frame of formatted text, at most DIALECT_WORDS_BYTES - 1, to `out`. -1 when memory is short. */
int dialect_add_text(struct message *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes `,"ack":"LEVEL","ticket":"TICKET"`, nothing where both are NULL. */
void dialect_write_ack(char words[static DIALECT_WORDS_BYTES], const char *level, const char *ticket);

/* The JSON value that is the only frame of `request`; none where it is no JSON, or other than one frame. It
 * points into the request. */
struct json_span dialect_read_json(const struct message *request);

/* Writes `head`, `id` as it stands in its request (null where there is none) and `tail`, without a closing zero
 * byte. Returns where that ends. */
char *dialect_write_answer(char *at, const char *head, struct json_span id, const char *tail);

/* Appends a frame with the same to `out`. -1 when memory is short. */
int dialect_add_answer(struct message *out, const char *head, struct json_span id, const char *tail);

#endif
