/* SPDX-License-Identifier: MIT
 *
 * The dialect of Red's ZMQ server: one JSON object; an answer has the request's id, whatever it is, a status
 * and a message.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

#include <jansson.h>

enum { STATUS_ACCEPTED = 202 };

static void write_answer(FILE *stream, struct json_span request, const char *members)
{
    dialect_write_answer(stream, "", request, members);
}

static int red_ack(const struct message *request, const char *level, const char *ticket, struct message *out)
{
    (void)level;
    json_t *members =
        json_pack("{s:i, s:s, s:s*}", "status", STATUS_ACCEPTED, "message", "accepted", "ticket", ticket);
    return dialect_add_answer(out, write_answer, dialect_read_json(request), members);
}

static int red_error(const struct message *request, enum reason reason, const char *detail,
                     struct message *out)
{
    const struct reason_info *info = reason_info(reason);
    json_t *text = json_sprintf("%s: %s", info->name, detail ? detail : info->text);
    json_t *members = json_pack("{s:i, s:o}", "status", info->code, "message", text);
    return dialect_add_answer(out, write_answer, dialect_read_json(request), members);
}

const struct dialect dialect_red = {.name = "red", .ack = red_ack, .error = red_error};
