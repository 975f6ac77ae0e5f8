/* SPDX-License-Identifier: MIT
 *
 * The dialect of Red's ZMQ server: one JSON object; an answer has the request's id, whatever it is, a status
 * and a message.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

#include <stdio.h>

enum { STATUS_ACCEPTED = 202 };

static int red_ack(const struct message *request, const char *level, const char *ticket, struct message *out)
{
    (void)level;
    char tail[DIALECT_WORDS_BYTES];
    snprintf(tail, sizeof tail, ",\"status\":%d,\"message\":\"accepted\"%s%s%s}", STATUS_ACCEPTED,
             ticket ? ",\"ticket\":\"" : "", ticket ? ticket : "", ticket ? "\"" : "");
    return dialect_add_answer(out, "{\"id\":", json_span_member(dialect_read_json(request), "id"), tail);
}

static int red_error(const struct message *request, enum reason reason, struct message *out)
{
    const struct reason_info *info = reason_info(reason);
    char tail[DIALECT_WORDS_BYTES];
    snprintf(tail, sizeof tail, ",\"status\":%d,\"message\":\"%s: %s\"}", info->code, info->name, info->text);
    return dialect_add_answer(out, "{\"id\":", json_span_member(dialect_read_json(request), "id"), tail);
}

const struct dialect dialect_red = {.name = "red", .ack = red_ack, .error = red_error};
