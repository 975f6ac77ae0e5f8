/* SPDX-License-Identifier: MIT
 *
 * What the JSON dialects have in common: their own objects are jansson's, whatever is given back of the
 * request is the request's own text.
 */
#ifndef PROXYD_PROXIES_DIALECT_JSON_H
#define PROXYD_PROXIES_DIALECT_JSON_H

#include "buffer/message.h"

struct json_t;

/* Appends `object` as a frame of compact JSON to `out`; takes the reference. -1 when memory is short, also
 * for a NULL object. */
int dialect_add_json(struct message *out, struct json_t *object);

#endif
