/* SPDX-License-Identifier: MIT
 *
 * The servers behind: `echo`, a REP that gives every request back at once, and `slow-echo`, a ROUTER that
 * takes a while over each request and serves any number at the same time.
 */
#include "tests/bench/meter.h"
#include "tests/bench/roles.h"

#include <stdlib.h>
#include <zmq.h>

static void *bind_socket(int type, char **endpoints, int count)
{
    int none = 0;
    void *socket = zmq_socket(zmq_ctx_new(), type);
    need(socket != NULL, "socket");
    zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none);
    for (int i = 0; i < count; i++)
        need(zmq_bind(socket, endpoints[i]) == 0, endpoints[i]);
    meter_ready();
    return socket;
}

int role_echo(int argc, char **argv)
{
    void *socket = bind_socket(ZMQ_REP, argv + 1, argc - 1);
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, socket, 0) != -1)
        need(zmq_msg_send(&frame, socket, zmq_msg_more(&frame) ? ZMQ_SNDMORE : 0) != -1, "send");
    return 1;
}

/* ---- slow-echo ---- */

enum { REQUESTS_MAX = 4096, FRAMES_MAX = 4 };

struct request {
    int64_t due_ns;
    int count;
    zmq_msg_t frames[FRAMES_MAX];
};

/* All take equally long, so the oldest is always due first. */
struct requests {
    struct request ring[REQUESTS_MAX];
    unsigned from, count;
};

static bool take_request(struct requests *requests, void *socket, int64_t delay_ns)
{
    struct request *request = &requests->ring[(requests->from + requests->count) % REQUESTS_MAX];
    request->count = 0;
    bool has_more = true;
    while (has_more) {
        need(request->count < FRAMES_MAX, "a request of too many frames");
        zmq_msg_t *frame = &request->frames[request->count++];
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) == -1)
            return false;
        has_more = zmq_msg_more(frame);
    }
    request->due_ns = clock_ns() + delay_ns;
    requests->count++;
    need(requests->count < REQUESTS_MAX, "too many requests at a time");
    return true;
}

static void answer_oldest(struct requests *requests, void *socket)
{
    struct request *request = &requests->ring[requests->from];
    for (int i = 0; i < request->count; i++)
        zmq_msg_send(&request->frames[i], socket, i + 1 < request->count ? ZMQ_SNDMORE : 0);
    requests->from = (requests->from + 1) % REQUESTS_MAX;
    requests->count--;
}

static long wait_ms(const struct requests *requests)
{
    if (requests->count == 0)
        return -1;
    int64_t left_ns = requests->ring[requests->from].due_ns - clock_ns();
    return left_ns <= 0 ? 0 : (long)((left_ns + 999999) / 1000000);
}

int role_slow_echo(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    static struct requests requests;
    int64_t delay_ns = atol(argv[1]) * 1000000;
    void *socket = bind_socket(ZMQ_ROUTER, argv + 2, 1);
    while (true) {
        zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
        need(zmq_poll(&item, 1, wait_ms(&requests)) != -1, "poll");
        while (take_request(&requests, socket, delay_ns))
            ;
        int64_t now_ns = clock_ns();
        while (requests.count > 0 && requests.ring[requests.from].due_ns <= now_ns)
            answer_oldest(&requests, socket);
    }
}
