/* SPDX-License-Identifier: MIT
 *
 * JSON-RPC 2.0, one frame. An answer has the id of its request, byte by byte. A batch is answered by an array
 * with an answer for each of its requests; a notification, and a batch of nothing else, by an empty frame,
 * because a REQ socket needs some answer.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PARSE_ERROR = -32700,
    BATCH_MAX = 1000 /* longer ones are answered as a whole: an answer is many times a short request's size */
};

static const char head[] = "{\"jsonrpc\":\"2.0\",\"id\":";

/* How many requests a batch has; 0 for what is none, or is too long. */
static size_t batch_count(struct json_span request)
{
    size_t count = 0;
    struct json_span element = {0};
    while (count <= BATCH_MAX && (element = json_span_element(request, element)).at)
        count++;
    return count <= BATCH_MAX ? count : 0;
}

/* False for a notification; else the id to answer by, which may be none. */
static bool has_answer(struct json_span request, struct json_span *id)
{
    *id = json_span_member(request, "id");
    return id->at || !json_span_is_notification(request);
}

static int add_answers(struct message *out, struct json_span batch, size_t count, const char *tail)
{
    struct json_span id, element = {0};
    size_t each = strlen(",") + strlen(head) + strlen("null") + strlen(tail);
    char *text = malloc(batch.size + count * each + strlen("]")); /* the ids are part of the batch */
    if (!text)
        return -1;
    char *at = text, separator = '[';
    while ((element = json_span_element(batch, element)).at) {
        if (!has_answer(element, &id))
            continue;
        *at++ = separator;
        separator = ',';
        at = dialect_write_answer(at, head, id, tail);
    }
    if (at > text)
        *at++ = ']';
    int rc = message_add_bytes(out, text, (size_t)(at - text));
    free(text);
    return rc;
}

static int add_answer(struct message *out, struct json_span request, const char *tail)
{
    struct json_span id;
    size_t count = batch_count(request);
    if (count > 0)
        return add_answers(out, request, count, tail);
    if (!has_answer(request, &id))
        return message_add_bytes(out, "", 0);
    return dialect_add_answer(out, head, id, tail);
}

static int jsonrpc_ack(const struct message *request, const char *level, const char *ticket,
                       struct message *out)
{
    char ack[DIALECT_WORDS_BYTES], tail[DIALECT_WORDS_BYTES + 64];
    dialect_write_ack(ack, level, ticket);
    snprintf(tail, sizeof tail, ",\"result\":{\"accepted\":true%s}}", ack);
    return add_answer(out, dialect_read_json(request), tail);
}

static int jsonrpc_error(const struct message *request, enum reason reason, struct message *out)
{
    const struct reason_info *info = reason_info(reason);
    struct json_span value = dialect_read_json(request);
    int code = reason == REASON_BAD_REQUEST && !value.at ? PARSE_ERROR : info->jsonrpc_code;
    char tail[DIALECT_WORDS_BYTES];
    snprintf(tail, sizeof tail, ",\"error\":{\"code\":%d,\"message\":\"%s\",\"data\":{\"code\":%d}}}", code,
             info->name, info->code);
    return add_answer(out, value, tail);
}

const struct dialect dialect_jsonrpc = {.name = "jsonrpc", .ack = jsonrpc_ack, .error = jsonrpc_error};
