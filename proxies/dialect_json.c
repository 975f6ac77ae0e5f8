/* SPDX-License-Identifier: MIT
 *
 * Text into frames; see dialect_json.h.
 */
#include "proxies/dialect_json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int dialect_add_text(struct message *out, const char *format, ...)
{
    char words[DIALECT_WORDS_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    return message_add_bytes(out, words, strlen(words));
}

void dialect_write_ack(char words[static DIALECT_WORDS_BYTES], const char *level, const char *ticket)
{
    words[0] = '\0';
    if (level && ticket)
        snprintf(words, DIALECT_WORDS_BYTES, ",\"ack\":\"%s\",\"ticket\":\"%s\"", level, ticket);
}

struct json_span dialect_read_json(const struct message *request)
{
    struct json_span value;
    zmq_msg_t *frame = request->count == 1 ? message_frame(request, 0) : NULL;
    bool is_json = frame && json_span_read(zmq_msg_data(frame), zmq_msg_size(frame), &value);
    return is_json ? value : (struct json_span){0};
}

/* A member that is not there reads as null. */
static struct json_span or_null(struct json_span id)
{
    return id.at ? id : (struct json_span){"null", strlen("null")};
}

char *dialect_write_answer(char *at, const char *head, struct json_span id, const char *tail)
{
    id = or_null(id);
    at = mempcpy(at, head, strlen(head));
    at = mempcpy(at, id.at, id.size);
    return mempcpy(at, tail, strlen(tail));
}

int dialect_add_answer(struct message *out, const char *head, struct json_span id, const char *tail)
{
    zmq_msg_t frame;
    if (zmq_msg_init_size(&frame, strlen(head) + or_null(id).size + strlen(tail)) != 0)
        return -1;
    dialect_write_answer(zmq_msg_data(&frame), head, id, tail);
    int rc = message_add(out, &frame);
    zmq_msg_close(&frame);
    return rc;
}
