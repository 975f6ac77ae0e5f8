/* SPDX-License-Identifier: MIT
 *
 * A publisher and a subscriber on both sides of a proxy. Publications cannot be held back, and what does not
 * fit is lost silently, so the publisher never has more than so many on the way: as fast as goes without
 * losing one. A hole in the numbering counts as lost all the same.
 */
#include "tests/bench/meter.h"
#include "tests/bench/roles.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

enum { ARRIVAL_LIMIT_MS = 2000, PROBE_MS = 20, PROBES_MAX = 1000 };

struct head {
    uint64_t number; /* 0 = a probe: is anybody there? */
    int64_t sent_ns;
};

struct stream {
    size_t bytes;
    uint64_t outstanding;
    void *publisher, *subscriber;
    atomic_uint_least64_t sent;
    atomic_uint_least64_t received; /* the number of the newest */
    atomic_uint_least64_t wanted;   /* the publisher sleeps until `received` is there */
    int waker;
    atomic_bool is_ending;
    struct meter *meter;
};

static void publish(struct stream *stream, uint64_t number)
{
    zmq_msg_t message;
    need(zmq_msg_init_size(&message, stream->bytes) == 0, "memory");
    struct head head = {number, clock_ns()};
    memset(zmq_msg_data(&message), 'x', stream->bytes);
    memcpy(zmq_msg_data(&message), &head, sizeof head);
    need(zmq_msg_send(&message, stream->publisher, 0) != -1, "publish");
}

static void wait_for_room(struct stream *stream)
{
    atomic_store(&stream->wanted, atomic_load(&stream->sent) - stream->outstanding / 2);
    eventfd_t count;
    while (!atomic_load(&stream->is_ending) && atomic_load(&stream->received) < atomic_load(&stream->wanted))
        eventfd_read(stream->waker, &count);
}

static void *publish_all(void *argument)
{
    struct stream *stream = argument;
    while (!atomic_load(&stream->is_ending)) {
        if (atomic_load(&stream->sent) - atomic_load(&stream->received) >= stream->outstanding)
            wait_for_room(stream);
        publish(stream, atomic_fetch_add(&stream->sent, 1) + 1);
    }
    return NULL;
}

/* Takes one publication; false when none came for a while. */
static bool receive(struct stream *stream, struct head *head)
{
    zmq_msg_t message;
    zmq_msg_init(&message);
    bool is_there = zmq_msg_recv(&message, stream->subscriber, 0) != -1;
    if (is_there) {
        need(zmq_msg_size(&message) == stream->bytes, "a publication of the wrong size");
        memcpy(head, zmq_msg_data(&message), sizeof *head);
    }
    zmq_msg_close(&message);
    return is_there;
}

static void count(struct stream *stream, const struct head *head)
{
    uint64_t newest = atomic_load_explicit(&stream->received, memory_order_relaxed);
    if (head->number == 0)
        return;
    stream->meter->lost += head->number - newest - 1;
    meter_count(stream->meter, clock_ns() - head->sent_ns);
    atomic_store(&stream->received, head->number);
    if (head->number == atomic_load(&stream->wanted))
        eventfd_write(stream->waker, 1);
}

/* Nothing has come for long: what is on the way is lost, and the publisher need not wait for it. */
static void give_up(struct stream *stream)
{
    stream->meter->lost += atomic_load(&stream->sent) - atomic_load(&stream->received);
    atomic_store(&stream->received, atomic_load(&stream->sent));
    eventfd_write(stream->waker, 1);
}

static void run(struct stream *stream, struct meter *meter)
{
    pthread_t publisher;
    struct head head;
    stream->meter = meter;
    atomic_store(&stream->is_ending, false);
    need(pthread_create(&publisher, NULL, publish_all, stream) == 0, "thread");
    while (meter_goes_on(meter, clock_ns())) {
        if (receive(stream, &head))
            count(stream, &head);
        else
            give_up(stream);
    }
    atomic_store(&stream->is_ending, true);
    eventfd_write(stream->waker, 1);
    pthread_join(publisher, NULL);
    while (atomic_load(&stream->received) < atomic_load(&stream->sent) && receive(stream, &head))
        count(stream, &head);
    give_up(stream);
}

static void *open_socket(int type, const char *endpoint)
{
    int none = 0, limit_ms = ARRIVAL_LIMIT_MS;
    void *socket = zmq_socket(zmq_ctx_new(), type);
    need(socket != NULL, "socket");
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &limit_ms, sizeof limit_ms);
    if (type == ZMQ_SUB)
        zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0);
    need((type == ZMQ_PUB ? zmq_bind : zmq_connect)(socket, endpoint) == 0, endpoint);
    return socket;
}

/* A subscription has arrived when a probe comes through. */
static void prime(struct stream *stream)
{
    for (int i = 0; i < PROBES_MAX; i++) {
        publish(stream, 0);
        zmq_pollitem_t item = {.socket = stream->subscriber, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, PROBE_MS) > 0)
            return;
    }
    errno = ETIMEDOUT;
    need(false, "no publication comes through");
}

int role_stream(int argc, char **argv)
{
    struct stream stream = {.bytes = 32, .outstanding = 1000, .waker = eventfd(0, EFD_CLOEXEC)};
    int option;
    while ((option = getopt(argc, argv, "b:o:")) != -1) {
        if (option == 'b')
            stream.bytes = (size_t)atol(optarg);
        else if (option == 'o')
            stream.outstanding = (uint64_t)atol(optarg);
        else
            return 2;
    }
    if (optind + 2 != argc || stream.bytes < sizeof(struct head) || stream.outstanding < 2)
        return 2;
    stream.publisher = open_socket(ZMQ_PUB, argv[optind]);
    stream.subscriber = open_socket(ZMQ_SUB, argv[optind + 1]);
    prime(&stream);
    meter_ready();
    static struct meter meter;
    while (meter_next(&meter)) {
        run(&stream, &meter);
        meter_print(&meter);
    }
    return 0;
}
