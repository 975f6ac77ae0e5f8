/* SPDX-License-Identifier: MIT
 *
 * Endpoints as they stand in the configuration: ZeroMQ's `tcp://host:port`, `ipc://path`, `inproc://name`, with
 * a leading `@` that forces bind and `>` that forces connect (as in czmq), and WebSocket servers to connect to,
 * `ws://host[:port][/path]` and `wss://…` (RFC 6455). Pure: parsing only.
 */
#ifndef PROXYD_PROXIES_ENDPOINT_H
#define PROXYD_PROXIES_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

enum transport { TRANSPORT_TCP, TRANSPORT_IPC, TRANSPORT_INPROC, TRANSPORT_WS, TRANSPORT_WSS };

struct endpoint {
    char *text;    /* as configured, for people */
    char *address; /* without the prefix, for libzmq */
    enum transport transport;
    bool is_bind;
    char *host; /* tcp, ws: name or numeric address without brackets, "*" or an interface; else NULL */
    int port;   /* tcp, ws: 0..65535; 0 ("*" or ":0") only where bound */
};

/* Over WebSocket, by itself or inside TLS. */
bool endpoint_is_websocket(const struct endpoint *endpoint);

/* Of a WebSocket: "host[:port]" as written, `*size` bytes of it, and "/path" (with its query), or "" for "/". */
const char *endpoint_authority(const struct endpoint *endpoint, size_t *size);
const char *endpoint_path(const struct endpoint *endpoint);

/* Fills `endpoint`; `binds` is what happens without a prefix. -1 with a reason in `err`. */
int endpoint_parse(struct endpoint *endpoint, const char *text, bool binds, char *err, size_t err_size);

/* Releases the strings. */
void endpoint_close(struct endpoint *endpoint);

/* True when both would bind the same place, as far as the text shows (tcp: same port and same host, however an
 * address is written, or one of the hosts is "::", or "*" or "0.0.0.0" and the other no IPv6 address). Ports of 0
 * never collide. */
bool endpoint_collides(const struct endpoint *a, const struct endpoint *b);

/* True for ipc, inproc and tcp or WebSocket on a loopback address. A name other than "localhost" counts as not. */
bool endpoint_is_local(const struct endpoint *endpoint);

#endif
