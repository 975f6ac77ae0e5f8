/* SPDX-License-Identifier: MIT
 *
 * Callers: lock-step ones, each a REQ socket with one call at a time, or pipelined ones, each a DEALER with
 * many. One thread and one epoll over the sockets' descriptors serve them all; a socket that was used is
 * asked again until it has nothing, because any call on it may swallow its signal.
 */
#include "tests/bench/meter.h"
#include "tests/bench/roles.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

#define PRIME_LIMIT_NS INT64_C(60000000000)
#define END_LIMIT_NS   INT64_C(10000000000)

enum { STAMP_BYTES = 16, VISIT = 64 };

enum expected { EXPECT_ECHO, EXPECT_ACCEPTED, EXPECT_ANY };

struct caller {
    void *zmq;
    struct caller *next_dirty;
    bool is_dirty, was_answered;
    uint32_t sent, answered; /* places in `stamps`, modulo its size */
    int64_t *stamps;         /* when each call in flight was sent, oldest at `answered` */
};

struct calls {
    struct caller *callers;
    uint32_t caller_count, outstanding; /* calls of one caller */
    uint32_t slots, active, limit;      /* calls of all callers: possible, in flight, wanted */
    struct caller **idle;               /* a ring: a caller is in it once for each call that it could make */
    uint32_t idle_from, idle_count;
    struct caller *dirty;
    uint32_t unanswered; /* callers that never had an answer */
    size_t bytes;
    char *body, *stamp; /* in the body: when this call was sent */
    bool is_json;
    enum expected expected;
    bool is_pipelined, is_ending;
    const char *user, *password;
    struct meter *meter; /* NULL while priming */
    int epoll;
};

static void put_stamp(char *at, uint64_t value)
{
    for (int i = STAMP_BYTES - 1; i >= 0; i--, value >>= 4)
        at[i] = "0123456789abcdef"[value & 15];
}

static uint64_t read_stamp(const char *at)
{
    uint64_t value = 0;
    for (int i = 0; i < STAMP_BYTES; i++)
        value = value << 4 | (uint64_t)(at[i] <= '9' ? at[i] - '0' : at[i] - 'a' + 10);
    return value;
}

static void mark_dirty(struct calls *calls, struct caller *caller)
{
    if (caller->is_dirty)
        return;
    caller->is_dirty = true;
    caller->next_dirty = calls->dirty;
    calls->dirty = caller;
}

static void push_idle(struct calls *calls, struct caller *caller)
{
    calls->idle[(calls->idle_from + calls->idle_count++) % calls->slots] = caller;
}

static void send_call(struct calls *calls, struct caller *caller)
{
    int64_t now_ns = clock_ns();
    put_stamp(calls->stamp, (uint64_t)now_ns);
    caller->stamps[caller->sent++ % calls->outstanding] = now_ns;
    if (calls->is_pipelined)
        need(zmq_send(caller->zmq, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) == 0, "send");
    need(zmq_send(caller->zmq, calls->body, calls->bytes, ZMQ_DONTWAIT) >= 0, "send");
    calls->active++;
    mark_dirty(calls, caller);
}

static void send_calls(struct calls *calls)
{
    while (!calls->is_ending && calls->active < calls->limit && calls->idle_count > 0) {
        struct caller *caller = calls->idle[calls->idle_from];
        calls->idle_from = (calls->idle_from + 1) % calls->slots;
        calls->idle_count--;
        send_call(calls, caller);
    }
}

/* Whether the answer is right, and when its call was sent: an echo says so itself, others come in order. */
static bool check_answer(const struct calls *calls, struct caller *caller, zmq_msg_t *answer,
                         int64_t *sent_ns)
{
    const char *data = zmq_msg_data(answer);
    size_t size = zmq_msg_size(answer);
    *sent_ns = caller->stamps[caller->answered++ % calls->outstanding];
    switch (calls->expected) {
    case EXPECT_ECHO:
        if (size != calls->bytes ||
            memcmp(data + STAMP_BYTES, calls->body + STAMP_BYTES, size - STAMP_BYTES) != 0)
            return false;
        *sent_ns = (int64_t)read_stamp(data);
        return true;
    case EXPECT_ACCEPTED:
        return size >= strlen("accepted") && memcmp(data, "accepted", strlen("accepted")) == 0;
    default:
        return true;
    }
}

/* Takes a whole message; false when there is none. The answer is its last frame. */
static bool receive(struct caller *caller, zmq_msg_t *frame)
{
    do {
        if (zmq_msg_recv(frame, caller->zmq, ZMQ_DONTWAIT) == -1)
            return false;
    } while (zmq_msg_more(frame));
    return true;
}

static void take_answer(struct calls *calls, struct caller *caller, zmq_msg_t *answer)
{
    int64_t now_ns = clock_ns(), sent_ns;
    bool is_right = check_answer(calls, caller, answer, &sent_ns);
    calls->active--;
    push_idle(calls, caller);
    if (is_right && !caller->was_answered) {
        caller->was_answered = true;
        calls->unanswered--;
    }
    if (!calls->meter)
        return;
    if (!calls->is_ending && !meter_goes_on(calls->meter, now_ns))
        calls->is_ending = true;
    if (is_right)
        meter_count(calls->meter, now_ns - sent_ns);
    else
        calls->meter->errors++;
}

static void visit(struct calls *calls, struct caller *caller)
{
    zmq_msg_t answer;
    zmq_msg_init(&answer);
    for (int i = 0; i < VISIT; i++) {
        if (!receive(caller, &answer)) {
            if (errno == EFSM) { /* nothing is owed: take the signal, and nothing else */
                int events;
                zmq_getsockopt(caller->zmq, ZMQ_EVENTS, &events, &(size_t){sizeof events});
            }
            zmq_msg_close(&answer);
            return;
        }
        take_answer(calls, caller, &answer);
        send_calls(calls);
    }
    zmq_msg_close(&answer);
    mark_dirty(calls, caller);
}

static void turn(struct calls *calls)
{
    struct epoll_event events[256];
    int count = epoll_wait(calls->epoll, events, sizeof events / sizeof *events, calls->dirty ? 0 : 100);
    for (int i = 0; i < count; i++)
        mark_dirty(calls, events[i].data.ptr);
    struct caller *caller = calls->dirty;
    calls->dirty = NULL;
    while (caller) {
        struct caller *next = caller->next_dirty;
        caller->is_dirty = false;
        visit(calls, caller);
        caller = next;
    }
}

/* Waits for what is in flight; what does not come is lost, and its caller of no more use. */
static void finish(struct calls *calls)
{
    calls->is_ending = true;
    int64_t until_ns = clock_ns() + END_LIMIT_NS;
    while (calls->active > 0 && clock_ns() < until_ns)
        turn(calls);
}

static void run(struct calls *calls, struct meter *meter)
{
    calls->meter = meter;
    calls->is_ending = false;
    send_calls(calls);
    while (!calls->is_ending) {
        turn(calls);
        if (!calls->is_ending && !meter_goes_on(meter, clock_ns()))
            break;
    }
    finish(calls);
    meter->lost = calls->active;
}

/* Every caller calls until it has had a right answer. */
static void prime(struct calls *calls)
{
    int64_t until_ns = clock_ns() + PRIME_LIMIT_NS;
    send_calls(calls);
    while (calls->unanswered > 0 && clock_ns() < until_ns)
        turn(calls);
    finish(calls);
    errno = ETIMEDOUT;
    need(calls->unanswered == 0 && calls->active == 0, "some callers get no right answer");
}

static void open_caller(struct calls *calls, struct caller *caller, void *context, const char *endpoint)
{
    int none = 0, fd = -1;
    caller->stamps = calloc(calls->outstanding, sizeof *caller->stamps);
    caller->zmq = zmq_socket(context, calls->is_pipelined ? ZMQ_DEALER : ZMQ_REQ);
    need(caller->zmq && caller->stamps, "socket");
    zmq_setsockopt(caller->zmq, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(caller->zmq, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(caller->zmq, ZMQ_RCVHWM, &none, sizeof none);
    if (calls->user) {
        zmq_setsockopt(caller->zmq, ZMQ_PLAIN_USERNAME, calls->user, strlen(calls->user));
        zmq_setsockopt(caller->zmq, ZMQ_PLAIN_PASSWORD, calls->password, strlen(calls->password));
    }
    need(zmq_connect(caller->zmq, endpoint) == 0, endpoint);
    zmq_getsockopt(caller->zmq, ZMQ_FD, &fd, &(size_t){sizeof fd});
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = caller};
    need(epoll_ctl(calls->epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll");
    for (uint32_t i = 0; i < calls->outstanding; i++)
        push_idle(calls, caller);
}

static const char json_head[] = "{\"jsonrpc\":\"2.0\",\"method\":\"verify\",\"params\":\"";
static const char json_id[] = "\",\"id\":\"", json_tail[] = "\"}";

/* A request of JSON-RPC 2.0, which Red's server would read, too; its id is the stamp. */
static void make_json(struct calls *calls)
{
    char *tail = calls->body + calls->bytes - strlen(json_tail);
    memcpy(calls->body, json_head, strlen(json_head));
    memcpy(tail, json_tail, strlen(json_tail));
    calls->stamp = tail - STAMP_BYTES;
    memcpy(calls->stamp - strlen(json_id), json_id, strlen(json_id));
}

static void open_callers(struct calls *calls, char **endpoints, uint32_t endpoint_count)
{
    void *context = zmq_ctx_new();
    need(context && zmq_ctx_set(context, ZMQ_MAX_SOCKETS, (int)calls->caller_count + 16) == 0, "context");
    calls->epoll = epoll_create1(EPOLL_CLOEXEC);
    calls->slots = calls->caller_count * calls->outstanding;
    calls->callers = calloc(calls->caller_count, sizeof *calls->callers);
    calls->idle = calloc(calls->slots, sizeof(struct caller *));
    calls->body = malloc(calls->bytes);
    need(calls->callers && calls->idle && calls->body, "memory");
    memset(calls->body, 'x', calls->bytes);
    calls->stamp = calls->body;
    if (calls->is_json)
        make_json(calls);
    for (uint32_t i = 0; i < calls->caller_count; i++)
        open_caller(calls, &calls->callers[i], context, endpoints[i % endpoint_count]);
    calls->unanswered = calls->caller_count;
    if (calls->limit == 0 || calls->limit > calls->slots)
        calls->limit = calls->slots;
}

static int read_options(struct calls *calls, int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "c:a:o:b:e:u:p:j")) != -1) {
        switch (option) {
        case 'c':
            calls->caller_count = (uint32_t)atoi(optarg);
            break;
        case 'a':
            calls->limit = (uint32_t)atoi(optarg);
            break;
        case 'o':
            calls->outstanding = (uint32_t)atoi(optarg);
            calls->is_pipelined = true;
            break;
        case 'b':
            calls->bytes = (size_t)atol(optarg);
            break;
        case 'e':
            calls->expected = *optarg == 'e'                       ? EXPECT_ECHO
                              : *optarg == 'a' && optarg[1] == 'c' ? EXPECT_ACCEPTED
                                                                   : EXPECT_ANY;
            break;
        case 'j':
            calls->is_json = true;
            break;
        case 'u':
            calls->user = optarg;
            break;
        case 'p':
            calls->password = optarg;
            break;
        default:
            return -1;
        }
    }
    size_t least = STAMP_BYTES;
    if (calls->is_json)
        least += strlen(json_head) + strlen(json_id) + strlen(json_tail);
    bool is_right = optind < argc && calls->caller_count > 0 && calls->outstanding > 0 &&
                    calls->bytes >= least && !calls->user == !calls->password &&
                    !(calls->is_json && calls->expected == EXPECT_ECHO);
    return is_right ? 0 : -1;
}

int role_calls(int argc, char **argv)
{
    struct calls calls = {.caller_count = 1, .outstanding = 1, .bytes = 32};
    if (read_options(&calls, argc, argv) != 0)
        return 2;
    open_callers(&calls, argv + optind, (uint32_t)(argc - optind));
    prime(&calls);
    meter_ready();
    static struct meter meter;
    while (meter_next(&meter)) {
        run(&calls, &meter);
        meter_print(&meter);
    }
    return 0;
}
