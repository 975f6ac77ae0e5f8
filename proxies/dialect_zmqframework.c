/* SPDX-License-Identifier: MIT
 *
 * The dialect of ZeroMQFramework: two frames, [event_name, JSON]; an answer repeats the event name. Some of its
 * versions put an empty frame before the two. A client of it cannot read an answer whose name is empty: to a
 * request without a name, and to one that lost it for being too large, we answer by our own.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

static int add_event_name(struct message *out, const struct message *request)
{
    static const char own[] = "proxyd";
    uint32_t index = request->count > 2 && zmq_msg_size(message_frame(request, 0)) == 0;
    zmq_msg_t *name = request->count > 0 ? message_frame(request, index) : NULL;
    if (!name || zmq_msg_size(name) == 0)
        return message_add_bytes(out, own, sizeof own - 1);
    return message_add_bytes(out, zmq_msg_data(name), zmq_msg_size(name));
}

static int zmqframework_ack(const struct message *request, const char *level, const char *ticket,
                            struct message *out)
{
    char ack[DIALECT_WORDS_BYTES];
    dialect_write_ack(ack, level, ticket);
    if (add_event_name(out, request) != 0)
        return -1;
    return dialect_add_text(out, "{\"accepted\":true%s}", ack);
}

static int zmqframework_error(const struct message *request, enum reason reason, struct message *out)
{
    const struct reason_info *info = reason_info(reason);
    if (add_event_name(out, request) != 0)
        return -1;
    return dialect_add_text(out, "{\"error\":\"%s\",\"code\":%d}", info->name, info->code);
}

const struct dialect dialect_zmqframework = {
    .name = "zmqframework", .ack = zmqframework_ack, .error = zmqframework_error};
