/* SPDX-License-Identifier: MIT
 *
 * JSON that other programs wrote; see payload.h. Sessions are looked for in every message of a stream, so only the one
 * value is read, not built into a tree; where a key occurs twice, the last one counts, as for the programs that read
 * the message next.
 */
#include "proxies/payload.h"

#include "proxies/json_span.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The object in frame `index`; NULL when that is anything else. */
static json_t *read_object(const struct message *message, uint32_t index)
{
    zmq_msg_t *frame = message_frame(message, index);
    json_t *json = json_loadb(zmq_msg_data(frame), zmq_msg_size(frame), JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(json))
        return json;
    json_decref(json);
    return NULL;
}

/* The text that a JSON string stands for, where it is neither empty nor too long. */
static bool read_text(struct json_span string, char text[PAYLOAD_SESSION_BYTES])
{
    size_t size = string.size - 2;
    if (!memchr(string.at, '\\', string.size)) {
        bool is_good = size > 0 && size < PAYLOAD_SESSION_BYTES;
        if (is_good)
            *(char *)mempcpy(text, string.at + 1, size) = '\0';
        return is_good;
    }
    json_t *json = json_loadb(string.at, string.size, JSON_DECODE_ANY, NULL);
    size = json_string_length(json);
    bool is_good = size > 0 && size < PAYLOAD_SESSION_BYTES;
    if (is_good)
        memcpy(text, json_string_value(json), size + 1);
    json_decref(json);
    return is_good;
}

bool payload_session(const struct message *message, const char *field, char session[PAYLOAD_SESSION_BYTES])
{
    struct json_span data;
    zmq_msg_t *frame = message->count == 3 ? message_frame(message, 1) : NULL;
    if (!frame || !json_span_read(zmq_msg_data(frame), zmq_msg_size(frame), &data))
        return false;
    struct json_span value = json_span_member(data, field);
    return value.at && value.at[0] == '"' && read_text(value, session);
}

int payload_question(const char *method, const char *session, struct message *out)
{
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s}", "jsonrpc", "2.0", "method", method, "params", session, "id", "1");
    char *text = json_dumps(json, JSON_COMPACT);
    int rc = text ? message_add_bytes(out, text, strlen(text)) : -1;
    free(text);
    json_decref(json);
    return rc;
}

enum payload_verdict payload_verdict(const struct message *reply)
{
    json_t *json = reply->count == 1 ? read_object(reply, 0) : NULL;
    const json_t *result = json_object_get(json, "result");
    enum payload_verdict verdict = !result || json_object_get(json, "error") ? PAYLOAD_UNKNOWN
                                   : json_is_true(result)                    ? PAYLOAD_YES
                                                                             : PAYLOAD_NO;
    json_decref(json);
    return verdict;
}

static bool is_text(zmq_msg_t *frame, const char *text)
{
    return zmq_msg_size(frame) == strlen(text) && memcmp(zmq_msg_data(frame), text, strlen(text)) == 0;
}

/* Operators are shown it: it has no control characters, which in UTF-8 are U+0080 to U+009F, too. */
static bool is_printable(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++)
        if (*at < 0x20 || *at == 0x7f || (*at == 0xc2 && at[1] < 0xa0))
            return false;
    return true;
}

bool payload_heartbeat(const struct message *message, char routing_id[PAYLOAD_NODE_BYTES], bool *is_worker)
{
    bool is_heartbeat = message->count == 2 && is_text(message_frame(message, 0), "heartbeat");
    json_t *json = is_heartbeat ? read_object(message, 1) : NULL;
    const char *node = json_string_value(json_object_get(json, "node_id"));
    const char *session = json_string_value(json_object_get(json, "session_id"));
    const char *type = json_string_value(json_object_get(json, "node_type"));
    bool is_complete =
        node && session && type &&
        snprintf(routing_id, PAYLOAD_NODE_BYTES, "%s_%s", node, session) < PAYLOAD_NODE_BYTES &&
        is_printable(routing_id);
    *is_worker = is_complete && strcmp(type, "worker") == 0;
    json_decref(json);
    return is_complete;
}
