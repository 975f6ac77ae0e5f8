/* links: proxies/guard.c proxies/claims.c proxies/zmtp.c */
/* SPDX-License-Identifier: MIT
 *
 * The guard before real libzmq sockets. Peers are plain TCP or unix sockets, so that they can be silent, come
 * from any loopback address, and say what no ZeroMQ peer would.
 */
#include "proxies/guard.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define DEADLINE_MS 10000

static const char greeting[64] = "\xFF\0\0\0\0\0\0\0\1\x7F\3\0NULL";
static const char publisher[] = "\4\x19\5READY\13Socket-Type\0\0\0\3PUB";
static const char ready[] = "\4\x1C\5READY\13Socket-Type\0\0\0\6DEALER";

/* What the events said, in one line each. */
static struct {
    char lines[64][160];
    _Atomic int count;
} told;

static void note_event(void *context, enum event_level level, const char *token,
                       const struct event_field *fields, unsigned count)
{
    (void)context;
    (void)level;
    char *line = told.lines[told.count % 64];
    int used = snprintf(line, sizeof told.lines[0], "%s", token);
    for (unsigned i = 0; i < count && used < (int)sizeof told.lines[0]; i++) {
        if (fields[i].text)
            used += snprintf(line + used, sizeof told.lines[0] - (size_t)used, " %s=%s", fields[i].key,
                             fields[i].text);
        else
            used += snprintf(line + used, sizeof told.lines[0] - (size_t)used, " %s=%lld", fields[i].key,
                             (long long)fields[i].number);
    }
    told.count++;
}

static const struct event_sink sink = {.emit = note_event};

/* A guarded ROUTER. */
struct house {
    void *zmq, *router;
    char endpoint[100];
    bool is_ipc;
    uint8_t last_id[5]; /* the routing id that the ROUTER gave whom it served last */
};

static void open_house(struct house *house, struct guard_conf conf, const struct guard_limits *limits,
                       const char *endpoint)
{
    char err[256];
    told.count = 0;
    assert_int_equal(guard_open(&conf, sink, err, sizeof err), 0);
    house->zmq = zmq_ctx_new();
    house->router = zmq_socket(house->zmq, ZMQ_ROUTER);
    zmq_setsockopt(house->router, ZMQ_HANDSHAKE_IVL, &(int){0}, sizeof(int)); /* never, unless a test asks */
    assert_int_equal(guard_bind(house->router, endpoint, -1, limits), 0);
    assert_int_equal(
        zmq_getsockopt(house->router, ZMQ_LAST_ENDPOINT, house->endpoint, &(size_t){sizeof house->endpoint}),
        0);
    house->is_ipc = strncmp(house->endpoint, "ipc:", 4) == 0;
}

static void close_house(struct house *house)
{
    zmq_close(house->router);
    zmq_ctx_term(house->zmq);
    assert_int_equal(guard_stats().connections, 0);
    guard_close();
}

static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether the counter comes to be `wanted` before the deadline. */
static bool comes_to(uint64_t (*counter)(void), uint64_t wanted)
{
    for (int64_t end_ms = clock_ms() + DEADLINE_MS; clock_ms() < end_ms; poll(NULL, 0, 1))
        if (counter() == wanted)
            return true;
    return false;
}

static uint64_t connections(void)
{
    return guard_stats().connections;
}

static uint64_t refused(void)
{
    return guard_stats().refused;
}

static uint64_t cut(void)
{
    return guard_stats().cut;
}

/* Connects a new socket, or `fd`, to where the house stands; over tcp from the address `from`. */
static int dial_by(int fd, const struct house *house, const char *from)
{
    struct sockaddr_in own = {.sin_family = AF_INET}, peer = {.sin_family = AF_INET};
    inet_pton(AF_INET, from, &own.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &peer.sin_addr);
    peer.sin_port = htons((uint16_t)atoi(strrchr(house->endpoint, ':') + 1));
    struct sockaddr_un file = {.sun_family = AF_UNIX};
    snprintf(file.sun_path, sizeof file.sun_path, "%s", house->endpoint + 6);
    if (house->is_ipc) {
        assert_int_equal(connect(fd, (struct sockaddr *)&file, sizeof file), 0);
        return fd;
    }
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof own), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&peer, sizeof peer), 0);
    return fd;
}

static int new_socket(const struct house *house)
{
    return socket(house->is_ipc ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
}

static int dial(const struct house *house, const char *from)
{
    return dial_by(new_socket(house), house, from);
}

static void say(int fd, const void *bytes, size_t size)
{
    (void)!send(fd, bytes, size, MSG_NOSIGNAL);
}

/* Reads on until the other side has ended the connection; false when it has not before the deadline. */
static bool has_ended(int fd)
{
    char rest[4096];
    for (int64_t end_ms = clock_ms() + DEADLINE_MS; clock_ms() < end_ms;) {
        struct pollfd event = {.fd = fd, .events = POLLIN};
        if (poll(&event, 1, 100) == 1 && read(fd, rest, sizeof rest) <= 0)
            return true;
    }
    return false;
}

static bool is_alive(int fd)
{
    char first;
    ssize_t peeked = recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
    return peeked == 1 || (peeked == -1 && errno == EAGAIN);
}

static bool read_exactly(int fd, uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = recv(fd, data + at, size - at, 0);
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

/* libzmq takes messages only after its own READY went out. */
static bool shake_hands_as(int fd, const char *own, size_t size)
{
    uint8_t theirs[256];
    say(fd, greeting, sizeof greeting);
    say(fd, own, size);
    return read_exactly(fd, theirs, 64) && read_exactly(fd, theirs, 2) && read_exactly(fd, theirs, theirs[1]);
}

static bool shake_hands(int fd)
{
    return shake_hands_as(fd, ready, sizeof ready - 1);
}

/* A finished handshake and one request; true when the ROUTER has it. */
static bool is_served(struct house *house, int fd)
{
    char request[4];
    if (!shake_hands(fd))
        return false;
    say(fd, "\1\0\0\4ping", 8);
    zmq_setsockopt(house->router, ZMQ_RCVTIMEO, &(int){DEADLINE_MS}, sizeof(int));
    return zmq_recv(house->router, house->last_id, sizeof house->last_id, 0) == sizeof house->last_id &&
           zmq_recv(house->router, request, sizeof request, 0) == 0 &&
           zmq_recv(house->router, request, sizeof request, 0) == sizeof request &&
           memcmp(request, "ping", sizeof request) == 0;
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

static const struct guard_limits generous = {.chain = "calls", .message = {1 << 20, 1000}};

static void who_comes_and_goes_is_counted(void **state)
{
    (void)state;
    struct house house;
    open_house(&house, (struct guard_conf){0}, &generous, "tcp://127.0.0.1:*");
    int fds[10];
    for (int i = 0; i < 10; i++)
        fds[i] = dial(&house, "127.0.0.1");
    assert_true(comes_to(connections, 10));
    assert_true(is_served(&house, fds[0]));
    close_all(fds, 9);
    assert_true(comes_to(connections, 1));
    close(fds[9]);
    assert_true(comes_to(connections, 0));
    assert_int_equal(refused(), 0);
    assert_int_equal(told.count, 0);
    close_house(&house);
}

static void the_oldest_silent_one_gives_way(void **state)
{
    (void)state;
    struct house house;
    open_house(&house, (struct guard_conf){.max_connections = 3}, &generous, "tcp://127.0.0.1:*");
    int fds[5];
    fds[0] = dial(&house, "127.0.0.1");
    assert_true(is_served(&house, fds[0]));
    for (int i = 1; i < 5; i++) {
        fds[i] = dial(&house, "127.0.0.2");
        assert_true(comes_to(connections, i < 3 ? (uint64_t)i + 1 : 3));
        assert_true(comes_to(refused, i < 3 ? 0 : (uint64_t)i - 2));
    }
    assert_true(has_ended(fds[1]) && has_ended(fds[2]));
    assert_true(is_alive(fds[0]));
    assert_true(is_served(&house, fds[3]) && is_served(&house, fds[4]));
    assert_int_equal(told.count, 1); /* two were given up, but one event is enough */
    assert_non_null(
        strstr(told.lines[0], "connection-refused chain=calls address=127.0.0.2 limit=max_connections "));
    close_all(fds, 5);
    close_house(&house);
}

static void where_nobody_is_silent_the_new_one_is_refused(void **state)
{
    (void)state;
    struct house house;
    open_house(&house, (struct guard_conf){.max_connections = 2}, &generous, "tcp://127.0.0.1:*");
    int fds[2] = {dial(&house, "127.0.0.1"), dial(&house, "127.0.0.1")};
    assert_true(is_served(&house, fds[0]) && is_served(&house, fds[1]));
    int late = dial(&house, "127.0.0.1");
    assert_true(has_ended(late));
    close(late);
    assert_true(is_alive(fds[0]) && is_alive(fds[1]));
    assert_int_equal(refused(), 1);
    close(fds[0]);
    assert_true(comes_to(connections, 1));
    fds[0] = dial(&house, "127.0.0.1");
    assert_true(is_served(&house, fds[0]));
    close_all(fds, 2);
    close_house(&house);
}

static void one_address_cannot_take_the_others_places(void **state)
{
    (void)state;
    struct house house;
    open_house(&house, (struct guard_conf){.max_connections = 100, .max_connections_per_address = 2},
               &generous, "tcp://127.0.0.1:*");
    int fds[4];
    for (int i = 0; i < 2; i++) {
        fds[i] = dial(&house, "127.0.0.2");
        assert_true(is_served(&house, fds[i]));
    }
    int third = dial(&house, "127.0.0.2");
    assert_true(has_ended(third));
    close(third);
    for (int i = 2; i < 4; i++) {
        fds[i] = dial(&house, "127.0.0.3");
        assert_true(is_served(&house, fds[i]));
    }
    assert_non_null(strstr(told.lines[0], "address=127.0.0.2 limit=max_connections_per_address"));
    close_all(fds, 4);
    close_house(&house);
}

static void a_limit_of_one_per_address_lets_the_newest_in(void **state)
{
    (void)state;
    struct house house;
    open_house(&house, (struct guard_conf){.max_connections_per_address = 1}, &generous, "tcp://127.0.0.1:*");
    int fds[3];
    for (int i = 0; i < 3; i++)
        fds[i] = dial(&house, "127.0.0.2");
    assert_true(has_ended(fds[0]) && has_ended(fds[1]));
    assert_true(is_served(&house, fds[2]));
    close_all(fds, 3);
    close_house(&house);
}

/* A house behind a listener of its own, which is returned. */
static int open_listening_house(struct house *house, const struct guard_limits *limits)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 10), 0);
    getsockname(listener, (struct sockaddr *)&address, &(socklen_t){sizeof address});
    open_house(house, (struct guard_conf){0}, limits, "tcp://127.0.0.1:*");
    snprintf(house->endpoint, sizeof house->endpoint, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(guard_bind(house->router, house->endpoint, listener, limits), 0);
    return listener;
}

/* Sends so many requests of nearly 1 MiB, and goes; false when it is not let in. */
static bool leaves_mebibytes(const struct house *house, int count)
{
    static const uint8_t request[1 << 20] = {2, 0, 0, 0, 0, 0, 0x0F, 0xFF, 0xF7};
    int fd = dial(house, "127.0.0.1");
    bool is_in = shake_hands(fd);
    for (int i = 0; i < count; i++)
        say(fd, request, sizeof request);
    close(fd);
    assert_true(comes_to(connections, 0));
    return is_in;
}

static void what_the_gone_have_left_keeps_newcomers_out_until_it_is_read(void **state)
{
    (void)state;
    struct house house;
    int listener = open_listening_house(&house, &generous), left = 0;
    assert_true(leaves_mebibytes(&house, 70)); /* all of it will be read */
    guard_note_reading(listener, true, 0);
    while (leaves_mebibytes(&house, 1))
        assert_true(++left <= 64);
    assert_true(left >= 60);
    assert_non_null(strstr(told.lines[0], "connection-refused chain=calls address=127.0.0.1 limit=unread"));
    guard_note_reading(listener, true, (uint64_t)left - 1);
    assert_false(leaves_mebibytes(&house, 1));
    guard_note_reading(listener, true, 2 * (uint64_t)left);
    assert_true(leaves_mebibytes(&house, 70));
    assert_false(leaves_mebibytes(&house, 1));
    guard_note_reading(listener, false, 2 * (uint64_t)left);
    assert_true(leaves_mebibytes(&house, 1));
    close_house(&house);
}

static void no_more_counts_as_left_than_libzmq_keeps(void **state)
{
    (void)state;
    static const struct guard_limits few = {.chain = "calls", .message = {1 << 20, 1000}, .kept_messages = 1};
    struct house house;
    int listener = open_listening_house(&house, &few);
    guard_note_reading(listener, true, 0);
    assert_true(leaves_mebibytes(&house, 70));
    assert_true(leaves_mebibytes(&house, 1));
    close_house(&house);
}

/* One socket for both families: IPv4 peers come as ::ffff:127.0.0.2. */
static void mapped_addresses_are_those_of_ipv4(void **state)
{
    (void)state;
    char err[256];
    struct house house = {.zmq = zmq_ctx_new()};
    struct guard_conf conf = {.max_connections_per_address = 1};
    told.count = 0;
    assert_int_equal(guard_open(&conf, sink, err, sizeof err), 0);
    house.router = zmq_socket(house.zmq, ZMQ_ROUTER);
    zmq_setsockopt(house.router, ZMQ_IPV6, &(int){1}, sizeof(int));
    assert_int_equal(guard_bind(house.router, "tcp://[::]:*", -1, &generous), 0);
    zmq_getsockopt(house.router, ZMQ_LAST_ENDPOINT, house.endpoint, &(size_t){sizeof house.endpoint});
    int fds[3] = {dial(&house, "127.0.0.2"), dial(&house, "127.0.0.3"), dial(&house, "127.0.0.2")};
    assert_true(has_ended(fds[0]));
    assert_true(is_served(&house, fds[1]) && is_served(&house, fds[2]));
    assert_non_null(strstr(told.lines[0], "127.0.0.2 limit=max_connections_per_address"));
    close_all(fds, 3);
    close_house(&house);
}

static void connections_of_no_chain_do_not_count(void **state)
{
    (void)state;
    struct house house;
    const struct guard_limits apart = {.message = {1 << 20, 1000}};
    open_house(&house, (struct guard_conf){.max_connections = 1}, &apart, "tcp://127.0.0.1:*");
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = dial(&house, "127.0.0.1");
        assert_true(is_served(&house, fds[i]));
    }
    assert_int_equal(connections(), 0);
    close_all(fds, 3);
    close_house(&house);
}

static void assert_is_cut(struct house *house, int fd, const void *frame, size_t size, unsigned most)
{
    assert_true(shake_hands(fd));
    for (unsigned i = 0; i < most && is_alive(fd); i++)
        say(fd, frame, size);
    assert_true(has_ended(fd));
    assert_true(comes_to(cut, 1));
    assert_int_equal(zmq_recv(house->router, NULL, 0, ZMQ_DONTWAIT), -1);
    close(fd);
}

static void endless_messages_are_cut_at_their_limit(void **state)
{
    (void)state;
    static char filled[260] = "\1\xFF";
    const struct {
        const char *frame;
        size_t size;
        const char *said;
    } kinds[] = {{"\1\0", 2, "cause=too-large frames=1001 bytes=0 cut=1"},
                 {filled, 257, "cause=too-large frames=393 bytes=100215 cut=1"}};
    const struct guard_limits limits = {.chain = "calls", .message = {100000, 1000}};
    char path[64];
    snprintf(path, sizeof path, "ipc:///tmp/test_guard-%d", getpid());
    for (int i = 0; i < 4; i++) {
        struct house house;
        open_house(&house, (struct guard_conf){0}, &limits, i >= 2 ? path : "tcp://127.0.0.1:*");
        int fd = dial(&house, "127.0.0.1");
        assert_is_cut(&house, fd, kinds[i % 2].frame, kinds[i % 2].size, 1000000);
        assert_int_equal(told.count, 1);
        assert_non_null(strstr(told.lines[0], "connection-cut chain=calls address="));
        assert_non_null(strstr(told.lines[0], house.is_ipc ? "address=ipc" : "address=127.0.0.1"));
        assert_non_null(strstr(told.lines[0], kinds[i % 2].said));
        close_house(&house);
    }
    unlink(path + 6);
}

static void messages_within_their_limits_never_are(void **state)
{
    (void)state;
    struct house house;
    const struct guard_limits limits = {.chain = "calls", .message = {1000, 4}};
    open_house(&house, (struct guard_conf){0}, &limits, "tcp://127.0.0.1:*");
    int fd = dial(&house, "127.0.0.1");
    assert_true(is_served(&house, fd));
    static char request[] = "\1\0\1\1a\1\0\2\0\0\0\0\0\0\3\xE7";
    for (int i = 0; i < 3000; i++) {
        static const char body[999];
        say(fd, request, sizeof request - 1);
        say(fd, body, sizeof body);
        for (int frame = 0; frame < 5; frame++)
            assert_true(zmq_recv(house.router, NULL, 0, 0) >= 0);
    }
    assert_int_equal(cut(), 0);
    close(fd);
    close_house(&house);
}

/* libzmq counts its ids up; a ROUTER that is about to hand out one that a peer has claimed aborts. */
static void nobody_claims_a_routing_id_of_libzmqs(void **state)
{
    (void)state;
    struct house house;
    open_house(&house, (struct guard_conf){0}, &generous, "tcp://127.0.0.1:*");
    int first = dial(&house, "127.0.0.1"), squatter = dial(&house, "127.0.0.1");
    assert_true(is_served(&house, first));
    uint8_t claim[] = "\4\x2E\5READY\13Socket-Type\0\0\0\6DEALER\10Identity\0\0\0\5\0----";
    memcpy(claim + sizeof claim - 1 - 4, house.last_id + 1, 4);
    for (int at = (int)sizeof claim - 2; ++claim[at] == 0;)
        at--;
    say(squatter, greeting, sizeof greeting);
    say(squatter, claim, sizeof claim - 1);
    assert_true(has_ended(squatter));
    int next = dial(&house, "127.0.0.1");
    assert_true(is_served(&house, next));
    assert_int_equal(cut(), 1);
    assert_non_null(strstr(told.lines[0], "cause=reserved-id"));
    close_all((int[]){first, squatter, next}, 3);
    close_house(&house);
}

/* No descriptor is left beyond those in use now. Returns the limit to go back to. */
static struct rlimit use_descriptors_up(void)
{
    struct rlimit before;
    int next = dup(0);
    close(next);
    getrlimit(RLIMIT_NOFILE, &before);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)next, before.rlim_max});
    return before;
}

/* libzmq's ipc listener would abort, its tcp listener would spin. */
static void without_descriptors_connections_end_and_nothing_else_does(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "ipc:///tmp/test_guard-%d", getpid());
    for (int i = 0; i < 2; i++) {
        struct house house;
        open_house(&house, (struct guard_conf){0}, &generous, i ? path : "tcp://127.0.0.1:*");
        int early = dial(&house, "127.0.0.1"), late[10];
        assert_true(comes_to(connections, 1));
        for (int k = 0; k < 10; k++)
            late[k] = new_socket(&house);
        struct rlimit before = use_descriptors_up();
        for (int k = 0; k < 10; k++)
            assert_true(has_ended(dial_by(late[k], &house, "127.0.0.1")));
        assert_true(is_served(&house, early));
        assert_int_equal(refused(), 10);
        assert_non_null(strstr(told.lines[0], "limit=descriptors"));
        setrlimit(RLIMIT_NOFILE, &before);
        close_all(late, 10);
        int fd = dial(&house, "127.0.0.1");
        assert_true(is_served(&house, fd));
        close(fd);
        close(early);
        close_house(&house);
    }
    unlink(path + 6);
}

static void few_descriptors_lower_the_limit_with_a_warning(void **state)
{
    (void)state;
    char err[256];
    struct rlimit before, few;
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    few.rlim_cur = 400;
    setrlimit(RLIMIT_NOFILE, &few);
    const struct {
        struct guard_conf conf;
        const char *said;
    } cases[] = {
        {{.max_connections = 300, .kept_descriptors = 100}, NULL},
        {{.max_connections = 301, .kept_descriptors = 100},
         "connections-limited max_connections=301 possible=300 descriptors=400"},
        {{.max_connections = 4096, .kept_descriptors = 399},
         "connections-limited max_connections=4096 possible=100 descriptors=400"},
        {{.max_connections = 0, .kept_descriptors = 100}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        told.count = 0;
        assert_int_equal(guard_open(&cases[i].conf, sink, err, sizeof err), 0);
        assert_int_equal(told.count, cases[i].said ? 1 : 0);
        if (cases[i].said)
            assert_string_equal(told.lines[0], cases[i].said);
        guard_close();
    }
    setrlimit(RLIMIT_NOFILE, &before);
}

static void what_does_not_listen_is_not_bound(void **state)
{
    (void)state;
    struct house house;
    open_house(&house, (struct guard_conf){0}, &generous, "tcp://127.0.0.1:*");
    assert_int_equal(guard_bind(house.router, "inproc://nobody-listens", -1, &generous), -1);
    assert_int_equal(zmq_errno(), ENOTSUP);
    assert_int_equal(zmq_bind(house.router, "inproc://nobody-listens"), 0); /* it was let go */
    close_house(&house);
}

/* Somebody who listens at a place of its own, and the endpoint of that. */
static int listen_at(const struct sockaddr_storage *place, socklen_t size, char *endpoint,
                     size_t endpoint_size)
{
    union {
        struct sockaddr_storage any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } own;
    int listener = socket(place->ss_family, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)place, size), 0);
    assert_int_equal(listen(listener, 10), 0);
    memset(&own, 0, sizeof own);
    getsockname(listener, (struct sockaddr *)&own.any, &(socklen_t){sizeof own});
    if (place->ss_family == AF_INET)
        snprintf(endpoint, endpoint_size, "tcp://127.0.0.1:%d", ntohs(own.v4.sin_port));
    else if (place->ss_family == AF_INET6)
        snprintf(endpoint, endpoint_size, "tcp://[::1]:%d", ntohs(own.v6.sin6_port));
    else
        snprintf(endpoint, endpoint_size, "ipc://@%s", own.local.sun_path + 1);
    return listener;
}

static void *subscribe_to(const struct house *house, const char *endpoint, uint64_t max_bytes,
                          struct guard_call **call)
{
    struct guard_limits limits = {.chain = "news", .message = {max_bytes, 8}};
    void *subscriber = zmq_socket(house->zmq, ZMQ_SUB);
    zmq_setsockopt(subscriber, ZMQ_IPV6, &(int){endpoint[6] == '['}, sizeof(int));
    zmq_setsockopt(subscriber, ZMQ_LINGER, &(int){0}, sizeof(int));
    zmq_setsockopt(subscriber, ZMQ_RECONNECT_IVL, &(int){-1}, sizeof(int));
    assert_int_equal(guard_connect(subscriber, endpoint, &limits, call), 0);
    assert_non_null(*call);
    return subscriber;
}

static void whom_we_connect_to_is_cut_for_what_it_sends(void **state)
{
    (void)state;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    int name_size = snprintf(local.sun_path + 1, sizeof local.sun_path - 1, "test_guard-%d", (int)getpid());
    struct sockaddr_storage places[3] = {0};
    memcpy(&places[0], &v4, sizeof v4);
    memcpy(&places[1], &v6, sizeof v6);
    memcpy(&places[2], &local, sizeof local);
    socklen_t sizes[] = {sizeof v4, sizeof v6,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) + (socklen_t)name_size};
    struct house house;
    open_house(&house, (struct guard_conf){.max_connections = 1}, &generous, "tcp://127.0.0.1:*");
    for (int i = 0; i < 3; i++) {
        char endpoint[200];
        struct guard_call *call;
        int listener = listen_at(&places[i], sizes[i], endpoint, sizeof endpoint);
        void *subscriber = subscribe_to(&house, endpoint, 100, &call);
        int fd = accept(listener, NULL, NULL);
        assert_true(shake_hands_as(fd, publisher, sizeof publisher - 1));
        say(fd, "\1\x32", 2); /* 50 bytes, and more to come */
        assert_true(is_alive(fd));
        assert_int_equal(cut(), i);
        char body[50] = {0};
        say(fd, body, sizeof body);
        say(fd, "\1\x33", 2);
        assert_true(has_ended(fd));
        assert_true(comes_to(cut, (uint64_t)i + 1));
        assert_int_equal(connections(), 0); /* max_connections is of those who come to us */
        guard_end_call(call);
        zmq_close(subscriber);
        close(fd);
        close(listener);
    }
    close_house(&house);
}

static bool is_deaf;

/* libzmq makes calls on a thread of its own, when it likes; while it is deaf, the test makes them. */
int zmq_connect(void *socket, const char *endpoint)
{
    int (*real)(void *, const char *);
    *(void **)&real = dlsym(RTLD_NEXT, "zmq_connect");
    return is_deaf ? 0 : real(socket, endpoint);
}

static void calls_to_one_place_get_the_widest_of_their_limits(void **state)
{
    (void)state;
    static const struct guard_limits narrow = {.chain = "news", .message = {10, 8}};
    struct sockaddr_storage place = {.ss_family = AF_INET};
    ((struct sockaddr_in *)&place)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct house house;
    open_house(&house, (struct guard_conf){0}, &generous, "tcp://127.0.0.1:*");
    char endpoint[200];
    int listener = listen_at(&place, sizeof(struct sockaddr_in), endpoint, sizeof endpoint);
    getsockname(listener, (struct sockaddr *)&place, &(socklen_t){sizeof place});
    struct guard_call *calls[2];
    int fds[2];
    is_deaf = true;
    for (int i = 0; i < 2; i++)
        assert_int_equal(guard_connect(NULL, endpoint, i == 0 ? &generous : &narrow, &calls[i]), 0);
    is_deaf = false;
    for (int i = 0; i < 2; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&place, sizeof(struct sockaddr_in)), 0);
    }
    for (int i = 0; i < 2; i++) {
        char body[2 + 50] = "\0\x32", rest[256];
        int fd = accept(listener, NULL, NULL);
        say(fd, greeting, sizeof greeting);
        say(fd, publisher, sizeof publisher - 1);
        say(fd, body, sizeof body);
        shutdown(fd, SHUT_WR);
        ssize_t got;
        while ((got = recv(fds[i], rest, sizeof rest, 0)) > 0)
            ;
        assert_int_equal(got, 0);
        guard_end_call(calls[i]);
        close(fds[i]);
        close(fd);
    }
    assert_int_equal(cut(), 0);
    close(listener);
    close_house(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_comes_and_goes_is_counted),
        cmocka_unit_test(the_oldest_silent_one_gives_way),
        cmocka_unit_test(where_nobody_is_silent_the_new_one_is_refused),
        cmocka_unit_test(one_address_cannot_take_the_others_places),
        cmocka_unit_test(a_limit_of_one_per_address_lets_the_newest_in),
        cmocka_unit_test(what_the_gone_have_left_keeps_newcomers_out_until_it_is_read),
        cmocka_unit_test(no_more_counts_as_left_than_libzmq_keeps),
        cmocka_unit_test(mapped_addresses_are_those_of_ipv4),
        cmocka_unit_test(connections_of_no_chain_do_not_count),
        cmocka_unit_test(endless_messages_are_cut_at_their_limit),
        cmocka_unit_test(messages_within_their_limits_never_are),
        cmocka_unit_test(nobody_claims_a_routing_id_of_libzmqs),
        cmocka_unit_test(without_descriptors_connections_end_and_nothing_else_does),
        cmocka_unit_test(few_descriptors_lower_the_limit_with_a_warning),
        cmocka_unit_test(what_does_not_listen_is_not_bound),
        cmocka_unit_test(whom_we_connect_to_is_cut_for_what_it_sends),
        cmocka_unit_test(calls_to_one_place_get_the_widest_of_their_limits),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
