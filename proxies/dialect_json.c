/* SPDX-License-Identifier: MIT
 *
 * JSON into frames; see dialect_json.h.
 */
#include "proxies/dialect_json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int dialect_add_json(struct message *out, struct json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    int rc = text ? message_add_bytes(out, text, strlen(text)) : -1;
    free(text);
    return rc;
}
