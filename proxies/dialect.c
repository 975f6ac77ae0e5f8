/* SPDX-License-Identifier: MIT
 *
 * The table of dialects; see dialect.h.
 */
#include "proxies/dialect.h"

#include <string.h>

static const struct dialect *const dialects[] = {&dialect_raw, &dialect_pyzmqrpc, &dialect_jsonrpc,
                                                 &dialect_red, &dialect_zmqframework};

const struct dialect *dialect_find(const char *name)
{
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
        if (strcmp(dialects[i]->name, name) == 0)
            return dialects[i];
    }
    return NULL;
}

const char *dialect_names(void)
{
    return "raw, pyzmqrpc, jsonrpc, red, zmqframework";
}

bool dialect_is_heartbeat(const struct dialect *dialect, const struct message *body)
{
    return dialect->heartbeat && message_is(body, dialect->heartbeat, strlen(dialect->heartbeat));
}
