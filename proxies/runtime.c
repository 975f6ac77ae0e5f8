/* SPDX-License-Identifier: MIT
 *
 * The libzmq context and its monitor; see runtime.h.
 */
#include "proxies/runtime.h"

#include "proxies/monitor.h"
#include "proxies/websocket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

/* Declared only for draft builds, honoured by all. Without it a queued message of a few bytes keeps the whole
 * 8 KiB that it was received in. */
#ifndef ZMQ_ZERO_COPY_RECV
#define ZMQ_ZERO_COPY_RECV 10
#endif

int runtime_open(struct runtime *runtime, int socket_count, struct event_sink events, char *err,
                 size_t err_size)
{
    *runtime = (struct runtime){.zmq = zmq_ctx_new(), .events = events};
    snprintf(err, err_size, "out of memory");
    if (!runtime->zmq || zmq_ctx_set(runtime->zmq, ZMQ_MAX_SOCKETS, socket_count) != 0 ||
        zmq_ctx_set(runtime->zmq, ZMQ_BLOCKY, 0) != 0 ||
        zmq_ctx_set(runtime->zmq, ZMQ_ZERO_COPY_RECV, 0) != 0) {
        snprintf(err, err_size, "cannot start libzmq: %s", zmq_strerror(errno));
    } else {
        runtime->websockets = websockets_new(runtime->zmq);
        runtime->monitor = runtime->websockets ? monitor_open(runtime->zmq, err, err_size) : NULL;
        if (runtime->monitor)
            return 0;
        websockets_free(runtime->websockets);
    }
    if (runtime->zmq)
        zmq_ctx_term(runtime->zmq);
    return -1;
}

void runtime_close(struct runtime *runtime)
{
    websockets_free(runtime->websockets);
    monitor_close(runtime->monitor);
    while (zmq_ctx_term(runtime->zmq) != 0 && errno == EINTR)
        ;
    *runtime = (struct runtime){0};
}

uint64_t runtime_mark(const struct runtime *runtime, uint64_t sender, const void *data, size_t size)
{
    struct message message = {0};
    uint8_t digest[QUEUE_DIGEST_BYTES] = {0};
    uint64_t mark;
    if (message_add_bytes(&message, data, size) == 0)
        runtime->digest(sender, &message, digest);
    message_close(&message);
    memcpy(&mark, digest, sizeof mark);
    return mark;
}
