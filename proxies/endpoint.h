/* SPDX-License-Identifier: MIT
 *
 * ZeroMQ endpoints as they stand in the configuration: `tcp://host:port`, `ipc://path`, `inproc://name`, with
 * a leading `@` that forces bind and `>` that forces connect (as in czmq). Pure: parsing only.
 */
#ifndef PROXYD_PROXIES_ENDPOINT_H
#define PROXYD_PROXIES_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

enum transport { TRANSPORT_TCP, TRANSPORT_IPC, TRANSPORT_INPROC };

struct endpoint {
    char *text;    /* as configured, for people */
    char *address; /* without the prefix, for libzmq */
    enum transport transport;
    bool is_bind;
    char *host; /* tcp: name or numeric address without brackets, "*" or an interface; else NULL */
    int port;   /* tcp: 0..65535; 0 ("*" or ":0") only where bound */
};

/* Fills `endpoint`; `binds` is what happens without a prefix. -1 with a reason in `err`. */
int endpoint_parse(struct endpoint *endpoint, const char *text, bool binds, char *err, size_t err_size);

/* Releases the strings. */
void endpoint_close(struct endpoint *endpoint);

/* True when both would bind the same place, as far as the text shows (tcp: same port and same host, or one
 * of the hosts is "*" or "0.0.0.0" or "::"). Ports of 0 never collide. */
bool endpoint_collides(const struct endpoint *a, const struct endpoint *b);

/* True for ipc, inproc and tcp on a loopback address. A name other than "localhost" counts as not. */
bool endpoint_is_local(const struct endpoint *endpoint);

#endif
