/* SPDX-License-Identifier: MIT
 *
 * The dialect of pyzmqrpc3: one JSON object {"status_code", "status_message", …}; anything but 200 raises an
 * exception with the status_message at its client. Its heartbeat is a literal frame.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

#include <jansson.h>
#include <stdio.h>

static int pyzmqrpc_ack(const struct message *request, const char *level, const char *ticket,
                        struct message *out)
{
    (void)request;
    json_t *ack = json_pack("{s:i, s:s, s:s*, s:s*}", "status_code", 200, "status_message", "OK", "ack",
                            level, "ticket", ticket);
    return dialect_add_json(out, ack);
}

static int pyzmqrpc_error(const struct message *request, enum reason reason, const char *detail,
                          struct message *out)
{
    (void)request;
    const struct reason_info *info = reason_info(reason);
    char text[256];
    snprintf(text, sizeof text, "%s: %s", info->name, detail ? detail : info->text);
    json_t *error =
        json_pack("{s:i, s:s, s:i}", "status_code", 482, "status_message", text, "code", info->code);
    return dialect_add_json(out, error);
}

const struct dialect dialect_pyzmqrpc = {
    .name = "pyzmqrpc", .heartbeat = "zmq_sub_heartbeat", .ack = pyzmqrpc_ack, .error = pyzmqrpc_error};
