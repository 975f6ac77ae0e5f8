/* SPDX-License-Identifier: MIT
 *
 * What proxyd is compared with: libzmq's own zmq_proxy, ROUTER to DEALER or XSUB to XPUB, a thread for each
 * pair of endpoints, in one process with one context. Without high-water marks, since with them it loses
 * answers silently.
 */
#include "tests/bench/meter.h"
#include "tests/bench/roles.h"

#include <pthread.h>
#include <string.h>
#include <zmq.h>

enum { PAIRS_MAX = 64 };

static void *forward(void *sockets)
{
    void **pair = sockets;
    zmq_proxy(pair[0], pair[1], NULL);
    return NULL;
}

static void *open_socket(void *context, int type, const char *endpoint, int is_bind)
{
    int none = 0;
    void *socket = zmq_socket(context, type);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none);
    need(socket && (is_bind ? zmq_bind(socket, endpoint) : zmq_connect(socket, endpoint)) == 0, endpoint);
    return socket;
}

int role_forward(int argc, char **argv)
{
    static void *pairs[PAIRS_MAX][2];
    if (argc < 4 || argc % 2 != 0 || argc / 2 - 1 > PAIRS_MAX)
        return 2;
    int is_stream = strcmp(argv[1], "sub-pub") == 0;
    void *context = zmq_ctx_new();
    pthread_t thread;
    for (int i = 2; i < argc; i += 2) {
        void **pair = pairs[i / 2 - 1];
        pair[0] = open_socket(context, is_stream ? ZMQ_XSUB : ZMQ_ROUTER, argv[i], !is_stream);
        pair[1] = open_socket(context, is_stream ? ZMQ_XPUB : ZMQ_DEALER, argv[i + 1], is_stream);
        need(pthread_create(&thread, NULL, forward, pair) == 0, "thread");
    }
    meter_ready();
    pthread_join(thread, NULL);
    return 1;
}
