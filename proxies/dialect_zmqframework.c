/* SPDX-License-Identifier: MIT
 *
 * The dialect of ZeroMQFramework: two frames, [event_name, JSON]; an answer repeats the event name, and its
 * client takes no fewer than two. A request that came without frames, or lost them for being too large, has
 * an empty name.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

#include <jansson.h>

static int add_event_name(struct message *out, const struct message *request)
{
    zmq_msg_t *name = request->count > 0 ? message_frame(request, 0) : NULL;
    return name ? message_add_bytes(out, zmq_msg_data(name), zmq_msg_size(name))
                : message_add_bytes(out, "", 0);
}

static int zmqframework_ack(const struct message *request, const char *level, const char *ticket,
                            struct message *out)
{
    if (add_event_name(out, request) != 0)
        return -1;
    return dialect_add_json(out,
                            json_pack("{s:b, s:s*, s:s*}", "accepted", 1, "ack", level, "ticket", ticket));
}

static int zmqframework_error(const struct message *request, enum reason reason, const char *detail,
                              struct message *out)
{
    (void)detail;
    const struct reason_info *info = reason_info(reason);
    if (add_event_name(out, request) != 0)
        return -1;
    return dialect_add_json(out, json_pack("{s:s, s:i}", "error", info->name, "code", info->code));
}

const struct dialect dialect_zmqframework = {
    .name = "zmqframework", .ack = zmqframework_ack, .error = zmqframework_error};
