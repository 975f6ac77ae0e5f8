/* SPDX-License-Identifier: MIT
 *
 * What the JSON dialects have in common: their own members are jansson's, and what they give back of a
 * request is the request's own text.
 */
#ifndef PROXYD_PROXIES_DIALECT_JSON_H
#define PROXYD_PROXIES_DIALECT_JSON_H

#include "buffer/message.h"
#include "proxies/json_span.h"

#include <stdio.h>

struct json_t;

/* Appends `object` as a frame of compact JSON to `out`; takes the reference. -1 when memory is short, also
 * for a NULL object. */
int dialect_add_json(struct message *out, struct json_t *object);

/* The JSON value that is the only frame of `request`; none where it is no JSON, or other than one frame. It
 * points into the request. */
struct json_span dialect_read_json(const struct message *request);

/* Writes `{`, `head`, `"id":` with the id of `request` as it stands there (null where there is none), and
 * `members`, which is the text of an object. */
void dialect_write_answer(FILE *stream, const char *head, struct json_span request, const char *members);

typedef void dialect_write_fn(FILE *stream, struct json_span request, const char *members);

/* Appends a frame with what `write` writes, given the text of `members`, whose reference is taken. -1 when
 * memory is short, also for NULL members. */
int dialect_add_answer(struct message *out, dialect_write_fn *write, struct json_span request,
                       struct json_t *members);

#endif
