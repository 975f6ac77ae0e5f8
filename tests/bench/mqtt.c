/* SPDX-License-Identifier: MIT
 *
 * Publishers to an MQTT broker, each waiting for the ack of its QoS 1 message before it sends the next, and
 * one subscriber with a persistent session that takes and acks them all, in a thread of its own.
 */
#include "tests/bench/meter.h"
#include "tests/bench/roles.h"

#include <errno.h>
#include <mosquitto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define PRIME_LIMIT_NS INT64_C(10000000000)

enum { MISC_MS = 1000 };

struct load;

struct publisher {
    struct load *load;
    struct mosquitto *mqtt;
    int64_t sent_ns; /* of the message in flight; 0 = none */
    uint32_t events; /* what epoll waits for */
};

struct load {
    struct publisher *publishers;
    int count, connected, inflight;
    size_t bytes;
    char *body;
    int epoll;
    bool is_ending;
    struct meter *meter; /* NULL while connecting */
};

static void publish(struct publisher *publisher)
{
    const struct load *load = publisher->load;
    publisher->sent_ns = clock_ns();
    need(mosquitto_publish(publisher->mqtt, NULL, "bench", (int)load->bytes, load->body, 1, false) ==
             MOSQ_ERR_SUCCESS,
         "publish");
    publisher->load->inflight++;
}

static void on_connect(struct mosquitto *mqtt, void *context, int refused)
{
    (void)mqtt;
    struct publisher *publisher = context;
    need(!refused, "the broker refuses");
    publisher->load->connected++;
}

static void on_publish(struct mosquitto *mqtt, void *context, int id)
{
    (void)mqtt;
    (void)id;
    struct publisher *publisher = context;
    struct load *load = publisher->load;
    int64_t now_ns = clock_ns();
    load->inflight--;
    if (!load->is_ending && !meter_goes_on(load->meter, now_ns))
        load->is_ending = true;
    meter_count(load->meter, now_ns - publisher->sent_ns);
    if (!load->is_ending)
        publish(publisher);
}

static void watch(struct publisher *publisher, int operation)
{
    uint32_t events = EPOLLIN | (mosquitto_want_write(publisher->mqtt) ? (uint32_t)EPOLLOUT : 0);
    if (events == publisher->events)
        return;
    publisher->events = events;
    need(epoll_ctl(publisher->load->epoll, operation, mosquitto_socket(publisher->mqtt),
                   &(struct epoll_event){.events = events, .data.ptr = publisher}) == 0,
         "epoll");
}

static void turn(struct load *load)
{
    struct epoll_event events[64];
    int count = epoll_wait(load->epoll, events, sizeof events / sizeof *events, MISC_MS);
    for (int i = 0; i < count; i++) {
        struct publisher *publisher = events[i].data.ptr;
        int rc = MOSQ_ERR_SUCCESS;
        if (events[i].events & EPOLLOUT)
            rc = mosquitto_loop_write(publisher->mqtt, 1);
        if (rc == MOSQ_ERR_SUCCESS && events[i].events & ~(uint32_t)EPOLLOUT)
            rc = mosquitto_loop_read(publisher->mqtt, 1);
        need(rc == MOSQ_ERR_SUCCESS, mosquitto_strerror(rc));
        watch(publisher, EPOLL_CTL_MOD);
    }
    if (count > 0)
        return;
    for (int i = 0; i < load->count; i++)
        mosquitto_loop_misc(load->publishers[i].mqtt);
}

static void run(struct load *load, struct meter *meter)
{
    load->meter = meter;
    load->is_ending = false;
    for (int i = 0; i < load->count; i++) {
        publish(&load->publishers[i]);
        watch(&load->publishers[i], EPOLL_CTL_MOD);
    }
    while (load->inflight > 0)
        turn(load);
}

static void start_subscriber(const char *host, int port)
{
    struct mosquitto *mqtt = mosquitto_new("bench-subscriber", false, NULL);
    need(mqtt && mosquitto_connect(mqtt, host, port, 60) == MOSQ_ERR_SUCCESS &&
             mosquitto_subscribe(mqtt, NULL, "bench", 1) == MOSQ_ERR_SUCCESS &&
             mosquitto_loop_start(mqtt) == MOSQ_ERR_SUCCESS,
         "subscribe");
}

static void open_publishers(struct load *load, const char *host, int port)
{
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->publishers = calloc((size_t)load->count, sizeof *load->publishers);
    load->body = malloc(load->bytes);
    need(load->publishers && load->body, "memory");
    memset(load->body, 'x', load->bytes);
    for (int i = 0; i < load->count; i++) {
        struct publisher *publisher = &load->publishers[i];
        *publisher = (struct publisher){.load = load, .mqtt = mosquitto_new(NULL, true, publisher)};
        need(publisher->mqtt != NULL, "memory");
        mosquitto_int_option(publisher->mqtt, MOSQ_OPT_TCP_NODELAY, 1);
        mosquitto_connect_callback_set(publisher->mqtt, on_connect);
        mosquitto_publish_callback_set(publisher->mqtt, on_publish);
        need(mosquitto_connect(publisher->mqtt, host, port, 60) == MOSQ_ERR_SUCCESS, "connect");
        watch(publisher, EPOLL_CTL_ADD);
    }
    int64_t until_ns = clock_ns() + PRIME_LIMIT_NS;
    while (load->connected < load->count && clock_ns() < until_ns)
        turn(load);
    errno = ETIMEDOUT;
    need(load->connected == load->count, "the broker does not answer");
}

int role_mqtt(int argc, char **argv)
{
    struct load load = {.count = 1, .bytes = 32};
    int option;
    while ((option = getopt(argc, argv, "c:b:")) != -1) {
        if (option == 'c')
            load.count = atoi(optarg);
        else if (option == 'b')
            load.bytes = (size_t)atol(optarg);
        else
            return 2;
    }
    if (optind + 2 != argc)
        return 2;
    mosquitto_lib_init();
    start_subscriber(argv[optind], atoi(argv[optind + 1]));
    open_publishers(&load, argv[optind], atoi(argv[optind + 1]));
    meter_ready();
    static struct meter meter;
    while (meter_next(&meter)) {
        run(&load, &meter);
        meter_print(&meter);
    }
    return 0;
}
