/* SPDX-License-Identifier: MIT
 *
 * The dialect of pyzmqrpc3: one JSON object {"status_code", "status_message", …}; anything but 200 raises an
 * exception with the status_message at its client. Its heartbeat is a literal frame.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

static int pyzmqrpc_ack(const struct message *request, const char *level, const char *ticket,
                        struct message *out)
{
    (void)request;
    char ack[DIALECT_WORDS_BYTES];
    dialect_write_ack(ack, level, ticket);
    return dialect_add_text(out, "{\"status_code\":200,\"status_message\":\"OK\"%s}", ack);
}

static int pyzmqrpc_error(const struct message *request, enum reason reason, struct message *out)
{
    (void)request;
    const struct reason_info *info = reason_info(reason);
    return dialect_add_text(out, "{\"status_code\":482,\"status_message\":\"%s: %s\",\"code\":%d}",
                            info->name, info->text, info->code);
}

const struct dialect dialect_pyzmqrpc = {
    .name = "pyzmqrpc", .heartbeat = "zmq_sub_heartbeat", .ack = pyzmqrpc_ack, .error = pyzmqrpc_error};
