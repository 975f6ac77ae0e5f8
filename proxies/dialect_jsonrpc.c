/* SPDX-License-Identifier: MIT
 *
 * JSON-RPC 2.0, one frame. An answer has the id of its request, byte by byte. A batch is answered by an array
 * with an answer for each of its requests; a notification, and a batch of nothing else, by an empty frame,
 * because a REQ socket needs some answer.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

#include <jansson.h>

enum {
    PARSE_ERROR = -32700,
    BATCH_MAX = 1000 /* longer ones are answered as a whole: an answer is many times a short request's size */
};

static bool is_batch(struct json_span request)
{
    size_t count = 0;
    struct json_span element = {0};
    while (count <= BATCH_MAX && (element = json_span_element(request, element)).at)
        count++;
    return count > 0 && count <= BATCH_MAX;
}

/* Returns whether there was anything to write. */
static bool write_one(FILE *stream, char before, struct json_span request, const char *members)
{
    if (json_span_is_notification(request))
        return false;
    if (before)
        fputc(before, stream);
    dialect_write_answer(stream, "\"jsonrpc\":\"2.0\",", request, members);
    return true;
}

static void write_answers(FILE *stream, struct json_span request, const char *members)
{
    if (!is_batch(request)) {
        write_one(stream, '\0', request, members);
        return;
    }
    char before = '[';
    struct json_span element = {0};
    while ((element = json_span_element(request, element)).at) {
        if (write_one(stream, before, element, members))
            before = ',';
    }
    if (before == ',')
        fputc(']', stream);
}

static int jsonrpc_ack(const struct message *request, const char *level, const char *ticket,
                       struct message *out)
{
    json_t *members =
        json_pack("{s:{s:b, s:s*, s:s*}}", "result", "accepted", 1, "ack", level, "ticket", ticket);
    return dialect_add_answer(out, write_answers, dialect_read_json(request), members);
}

static int jsonrpc_error(const struct message *request, enum reason reason, const char *detail,
                         struct message *out)
{
    (void)detail;
    const struct reason_info *info = reason_info(reason);
    struct json_span value = dialect_read_json(request);
    int code = reason == REASON_BAD_REQUEST && !value.at ? PARSE_ERROR : info->jsonrpc_code;
    json_t *members = json_pack("{s:{s:i, s:s, s:{s:i}}}", "error", "code", code, "message", info->name,
                                "data", "code", info->code);
    return dialect_add_answer(out, write_answers, value, members);
}

const struct dialect dialect_jsonrpc = {.name = "jsonrpc", .ack = jsonrpc_ack, .error = jsonrpc_error};
