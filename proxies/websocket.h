/* SPDX-License-Identifier: MIT
 *
 * Connections to WebSocket servers that speak JSON-RPC 2.0. To the chain one looks like a ZeroMQ peer: the far end of
 * an inproc PAIR, which a link owns and its chain reads and writes like any other socket:
 *
 *     a REQ backend sends    [id, "", request]        and gets  [id, "", answer]
 *     a frontend             (what it subscribes to)  and gets  [method, notification]
 *
 * Facts about the connection come as those of a monitor do. One thread serves all WebSockets of the daemon; it starts,
 * and libwebsockets is loaded, when the first chain names one.
 */
#ifndef PROXYD_PROXIES_WEBSOCKET_H
#define PROXYD_PROXIES_WEBSOCKET_H

#include "proxies/monitor.h"
#include "proxies/socket.h"

#include <stdbool.h>
#include <stddef.h>

struct websocket; /* one connection, once; shared by its link and the thread */
struct websockets;

/* Nothing is started yet. NULL when memory is short. */
struct websockets *websockets_new(void *zmq_context);

/* Ends the thread, if there is one. Every connection must be stopped. */
void websockets_free(struct websockets *websockets);

/* Whether libwebsockets is there and can be loaded. For the main thread, before any websockets_need of what it checks.
 * -1 with a reason in `err` that names its package. */
int websockets_check(char *err, size_t err_size);

/* Loads libwebsockets and starts the thread, unless that is done. -1 with a reason in `err`. */
int websockets_need(struct websockets *websockets, char *err, size_t err_size);

/* Connects to the server of `endpoint` at the numeric `address`, after websockets_need. `pair` is an open PAIR; of
 * `options` the bounds, credentials and topics (`subscribe`, NULL: it is for calls) are copied. Every new fact wakes
 * `waker`. The caller owns it until websocket_stop. NULL with a reason in `err`. */
struct websocket *websocket_start(struct websockets *websockets, const struct endpoint *endpoint,
                                  const char *address, const struct socket_options *options,
                                  struct socket *pair, struct waker *waker, char *err, size_t err_size);

/* Lets go of it. From here on nothing that this process still holds reaches the server, but, with `is_polite`, that we
 * are leaving: then nothing may be unanswered. */
void websocket_stop(struct websocket *websocket, bool is_polite);

/* The facts so far. A handshake is finished when the server has agreed to WebSocket, and to what we subscribe to. */
struct watch_facts websocket_facts(const struct websocket *websocket);

#endif
