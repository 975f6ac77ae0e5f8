/* SPDX-License-Identifier: MIT
 *
 * JSON into frames; see dialect_json.h.
 */
#include "proxies/dialect_json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static char *text_of(struct json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

int dialect_add_json(struct message *out, struct json_t *object)
{
    char *text = text_of(object);
    int rc = text ? message_add_bytes(out, text, strlen(text)) : -1;
    free(text);
    return rc;
}

struct json_span dialect_read_json(const struct message *request)
{
    struct json_span value;
    zmq_msg_t *frame = request->count == 1 ? message_frame(request, 0) : NULL;
    bool is_json = frame && json_span_read(zmq_msg_data(frame), zmq_msg_size(frame), &value);
    return is_json ? value : (struct json_span){0};
}

void dialect_write_answer(FILE *stream, const char *head, struct json_span request, const char *members)
{
    struct json_span id = json_span_member(request, "id");
    fprintf(stream, "{%s\"id\":", head);
    if (id.at)
        fwrite(id.at, 1, id.size, stream);
    else
        fputs("null", stream);
    fprintf(stream, ",%s", members + 1);
}

int dialect_add_answer(struct message *out, dialect_write_fn *write, struct json_span request,
                       struct json_t *members)
{
    char *own = text_of(members), *text = NULL;
    size_t size;
    FILE *stream = own ? open_memstream(&text, &size) : NULL;
    int rc = -1;
    if (stream) {
        write(stream, request, own);
        bool is_whole = !ferror(stream);
        if (fclose(stream) == 0 && is_whole)
            rc = message_add_bytes(out, text, size);
    }
    free(text);
    free(own);
    return rc;
}
