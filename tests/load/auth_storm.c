/* links: auth/zap.c auth/zap_frames.c auth/verify.c auth/users.c auth/digest.c auth/limits.c auth/secret.c */
/* links: auth/address.c */
/* SPDX-License-Identifier: MIT
 *
 * How the door stands a storm: a server process with a ZAP handler and an echoing ROUTER, and this process
 * as its clients, good and bad. Prints figures; `tests/load/run auth_storm` builds and starts it.
 *
 *     bad N      N libzmq clients with bad passwords, while good users connect, known (remembered) and not
 *     raw N      N connections that try bad passwords as fast as they can, the same
 *     cold N     N good users, none of them remembered, all at once
 *     timing N   how long a denial takes for an unknown user and for a wrong password
 *     decide     what the decision for one message costs
 */
#include "auth/clock.h"
#include "auth/zap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#define ENFORCE_DOMAIN 93

enum { HANDSHAKE_MS = 5000, MEMORY_BYTES = 64 * 1024 * 1024, USERS = 2000, STORM_MS = 15000 };

static char *everybody[] = {"*"};

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, zmq_strerror(errno));
    exit(1);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void set_int(void *socket, int option, int value)
{
    if (zmq_setsockopt(socket, option, &value, sizeof value))
        die("setsockopt");
}

static void print_problem(void *context, const char *problem)
{
    (void)context;
    fprintf(stderr, "%s\n", problem);
}

/* Users u0, u1… with the password "pw"; one hash serves all, and is checked for each. */
static struct users *make_users(void)
{
    char hash[SECRET_TEXT_BYTES], *text = malloc(USERS * 160);
    size_t size = 0;
    if (secret_hash_make(hash, "pw", 2, SECRET_MEMORY_KIB, SECRET_PASSES))
        die("hash");
    for (int i = 0; i < USERS; i++)
        size += (size_t)sprintf(text + size, "u%d:%s\n", i, hash);
    struct users *users =
        users_parse("users", text, size, USERS_PASSWORDS, MEMORY_BYTES, print_problem, NULL);
    free(text);
    return users;
}

/* --- the server process --- */

static void *new_server(void *zmq, int port_pipe)
{
    char endpoint[64];
    size_t size = sizeof endpoint;
    void *server = zmq_socket(zmq, ZMQ_ROUTER);
    set_int(server, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(server, ZMQ_BACKLOG, 1024);
    set_int(server, ZMQ_PLAIN_SERVER, 1);
    zmq_setsockopt(server, ZMQ_ZAP_DOMAIN, "calls", 5);
    set_int(server, ENFORCE_DOMAIN, 1);
    if (zmq_bind(server, "tcp://127.0.0.1:*") || zmq_getsockopt(server, ZMQ_LAST_ENDPOINT, endpoint, &size))
        die("bind");
    if (write(port_pipe, endpoint, sizeof endpoint) != sizeof endpoint)
        die("pipe");
    return server;
}

static void serve(int port_pipe)
{
    char err[256];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    void *zmq = zmq_ctx_new();
    zmq_ctx_set(zmq, ZMQ_MAX_SOCKETS, 8192);
    struct zap_conf conf = {
        .zmq = zmq, .handshake_ms = HANDSHAKE_MS, .memory_bytes = MEMORY_BYTES, .waker = -1};
    struct zap_policy policy = {
        .domain = "calls",
        .chain = "calls",
        .mechanism = ZAP_PLAIN,
        .users = users_slot_new(make_users()),
        .patterns = everybody,
        .pattern_count = 1,
    };
    struct zap *zap = zap_open(&conf, err, sizeof err);
    if (!zap || zap_set_policies(zap, &policy, 1))
        die(err);
    void *server = new_server(zmq, port_pipe);
    for (;;) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        int more;
        do {
            if (zmq_msg_recv(&frame, server, 0) < 0)
                die("recv");
            more = zmq_msg_more(&frame);
            zmq_msg_send(&frame, server, more ? ZMQ_SNDMORE : 0);
        } while (more);
    }
}

/* A figure of /proc/PID/status, in KiB. */
static long status_kib(pid_t pid, const char *name)
{
    char path[64], line[256];
    long value = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtol(line + strlen(name) + 1, NULL, 10);
    if (file)
        fclose(file);
    return value;
}

static double cpu_seconds(pid_t pid)
{
    char path[64];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file &&
        fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        user = 0;
    if (file)
        fclose(file);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* --- clients --- */

struct storm {
    void *zmq;
    char endpoint[64]; /* of the server */
    pid_t server;
    atomic_bool is_over;
    atomic_ulong attempts;
    int count;
};

/* From a loopback address of its own: `from` is what follows "127.". */
static void *connect_client(const struct storm *storm, const char *from, const char *name,
                            const char *password)
{
    char endpoint[128];
    void *client = zmq_socket(storm->zmq, ZMQ_DEALER);
    if (!client)
        die("socket");
    set_int(client, ZMQ_LINGER, 0);
    set_int(client, ZMQ_HANDSHAKE_IVL, 2 * HANDSHAKE_MS);
    zmq_setsockopt(client, ZMQ_PLAIN_USERNAME, name, strlen(name));
    zmq_setsockopt(client, ZMQ_PLAIN_PASSWORD, password, strlen(password));
    snprintf(endpoint, sizeof endpoint, "tcp://127.%s:0;%s", from, storm->endpoint + strlen("tcp://"));
    if (zmq_connect(client, endpoint))
        die("connect");
    return client;
}

/* One call; how long it took, or -1 after `limit_ms`. */
static double call(void *client, int limit_ms)
{
    double start = now_ms();
    zmq_pollitem_t item = {.socket = client, .events = ZMQ_POLLIN};
    zmq_send(client, "x", 1, 0);
    if (zmq_poll(&item, 1, limit_ms) != 1)
        return -1;
    char byte;
    zmq_recv(client, &byte, 1, 0);
    return now_ms() - start;
}

/* How long it takes a fresh client to be let in and served. */
static double connect_and_call(const struct storm *storm, const char *from, const char *name, int limit_ms)
{
    double start = now_ms();
    void *client = connect_client(storm, from, name, "pw");
    double taken = call(client, limit_ms) < 0 ? -1 : now_ms() - start;
    zmq_close(client);
    return taken;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, size_t count, double q)
{
    qsort(values, count, sizeof *values, compare);
    return count ? values[(size_t)((double)(count - 1) * q)] : -1;
}

struct watch {
    double *calls, *connects;
    size_t call_count, connect_count;
    double worst_connect;
};

/* Calls over a session that stands, and connects the known user again and again, for a while. */
static void watch(const struct storm *storm, void *session, double duration_ms, struct watch *watch)
{
    double end = now_ms() + duration_ms, next_connect = now_ms();
    *watch =
        (struct watch){.calls = malloc(1000000 * sizeof(double)), .connects = malloc(10000 * sizeof(double))};
    while (now_ms() < end && watch->call_count < 1000000) {
        watch->calls[watch->call_count++] = call(session, 10000);
        usleep(1000);
        if (now_ms() < next_connect)
            continue;
        next_connect += 200;
        double taken = connect_and_call(storm, "0.0.1", "u0", 30000);
        watch->connects[watch->connect_count++] = taken;
        if (taken < 0 || taken > watch->worst_connect)
            watch->worst_connect = taken < 0 ? 1e9 : taken;
    }
}

static void print_watch(const char *when, struct watch *watch)
{
    printf("  %-8s session call p50 %.2f ms, p99 %.2f ms; known user connects in p50 %.1f ms, worst %.1f ms "
           "(%zu)\n",
           when, quantile(watch->calls, watch->call_count, 0.5),
           quantile(watch->calls, watch->call_count, 0.99),
           quantile(watch->connects, watch->connect_count, 0.5), watch->worst_connect, watch->connect_count);
    free(watch->calls);
    free(watch->connects);
}

static void *bad_clients(void *context)
{
    struct storm *storm = context;
    void **clients = calloc((size_t)storm->count, sizeof *clients);
    for (int i = 0; i < storm->count; i++) {
        char password[32];
        snprintf(password, sizeof password, "bad%d", i);
        clients[i] = connect_client(storm, "0.0.1", i % 2 ? "u0" : "u3", password);
        storm->attempts++;
    }
    while (!storm->is_over)
        usleep(10000);
    for (int i = 0; i < storm->count; i++)
        zmq_close(clients[i]);
    free(clients);
    return NULL;
}

/* Greeting and HELLO of one attempt; returns its size. */
static size_t write_attempt(uint8_t bytes[256], unsigned long number)
{
    char password[32];
    uint8_t *at = bytes;
    memset(bytes, 0, 64);
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    memcpy(bytes + 12, "PLAIN", 5);
    at += 64;
    size_t size = (size_t)snprintf(password, sizeof password, "bad%lu", number);
    *at++ = 4; /* a short command */
    *at++ = (uint8_t)(6 + 1 + 2 + 1 + size);
    memcpy(at, "\5HELLO", 6);
    memcpy(at + 6, number % 2 ? "\2u0" : "\2u3", 3);
    at[9] = (uint8_t)size;
    memcpy(at + 10, password, size);
    return (size_t)(at + 10 + size - bytes);
}

static int raw_connect(int epoll, const struct sockaddr_in *address, uint32_t index)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct linger reset = {.l_onoff = 1, .l_linger = 0}; /* no TIME_WAIT, or ports run out */
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = index};
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) && errno != EINPROGRESS)
        die("connect");
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

/* Whoever is answered or cut off tries the next password at once. */
static void *raw_attackers(void *context)
{
    struct storm *storm = context;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons((uint16_t)atoi(strrchr(storm->endpoint, ':') + 1));
    int epoll = epoll_create1(EPOLL_CLOEXEC), *fds = calloc((size_t)storm->count, sizeof *fds);
    for (int i = 0; i < storm->count; i++)
        fds[i] = raw_connect(epoll, &address, (uint32_t)i);
    while (!storm->is_over) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < count; i++) {
            uint32_t index = events[i].data.u32;
            uint8_t bytes[256];
            if (events[i].events & EPOLLOUT) {
                size_t size = write_attempt(bytes, storm->attempts++);
                struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
                if (write(fds[index], bytes, size) >= 0)
                    epoll_ctl(epoll, EPOLL_CTL_MOD, fds[index], &event);
                continue;
            }
            ssize_t size = read(fds[index], bytes, sizeof bytes);
            bool is_refused = size > 0 && memmem(bytes, (size_t)size, "ERROR", 5);
            if (size <= 0 || is_refused) {
                close(fds[index]);
                fds[index] = raw_connect(epoll, &address, index);
            }
        }
    }
    for (int i = 0; i < storm->count; i++)
        close(fds[i]);
    close(epoll);
    free(fds);
    return NULL;
}

static void run_storm(struct storm *storm, void *(*attack)(void *))
{
    struct watch quiet, stormy;
    pthread_t thread;
    void *session = connect_client(storm, "0.0.1", "u0", "pw");
    if (call(session, 10000) < 0)
        die("first call");
    watch(storm, session, 3000, &quiet);
    print_watch("before:", &quiet);
    long before_kib = status_kib(storm->server, "VmRSS:");
    double cpu = cpu_seconds(storm->server), start = now_ms();
    pthread_create(&thread, NULL, attack, storm);
    watch(storm, session, STORM_MS, &stormy);
    double elapsed = (now_ms() - start) / 1e3;
    print_watch("storm:", &stormy);
    printf("  server: %.2f CPUs; resident %ld -> %ld KiB, at most %ld KiB; attempts %lu\n",
           (cpu_seconds(storm->server) - cpu) / elapsed, before_kib, status_kib(storm->server, "VmRSS:"),
           status_kib(storm->server, "VmHWM:"), (unsigned long)storm->attempts);
    printf("  user not remembered, other address:      %.0f ms\n",
           connect_and_call(storm, "0.0.2", "u1", 30000));
    printf("  user not remembered, attackers' address: %.0f ms\n",
           connect_and_call(storm, "0.0.1", "u2", 30000));
    printf("  attacked user, not remembered, other address: %.0f ms\n",
           connect_and_call(storm, "0.0.3", "u3", 30000));
    storm->is_over = true;
    pthread_join(thread, NULL);
    zmq_close(session);
}

static void run_cold(struct storm *storm)
{
    void **clients = calloc((size_t)storm->count, sizeof *clients);
    zmq_pollitem_t *items = calloc((size_t)storm->count, sizeof *items);
    double *taken = calloc((size_t)storm->count, sizeof *taken), start = now_ms(),
           cpu = cpu_seconds(storm->server);
    for (int i = 0; i < storm->count; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%d", i);
        clients[i] = connect_client(storm, "0.0.1", name, "pw");
        zmq_send(clients[i], "x", 1, 0);
        items[i] = (zmq_pollitem_t){.socket = clients[i], .events = ZMQ_POLLIN};
    }
    int in = 0;
    while (in < storm->count && now_ms() - start < 120000) {
        zmq_poll(items, storm->count, 100);
        for (int i = 0; i < storm->count; i++)
            if (items[i].revents && taken[i] == 0) {
                char byte;
                zmq_recv(clients[i], &byte, 1, 0);
                taken[i] = now_ms() - start;
                in++;
            }
    }
    double elapsed = (now_ms() - start) / 1e3;
    printf("  %d of %d users in after %.1f s (p50 %.1f s); %.0f hashes a second; server %.2f CPUs, resident "
           "at most "
           "%ld KiB\n",
           in, storm->count, elapsed, quantile(taken, (size_t)storm->count, 0.5) / 1e3, in / elapsed,
           (cpu_seconds(storm->server) - cpu) / elapsed, status_kib(storm->server, "VmHWM:"));
    for (int i = 0; i < storm->count; i++)
        zmq_close(clients[i]);
}

/* From connecting to being denied, as the client's monitor sees it. */
static double time_denial(const struct storm *storm, int number, const char *name)
{
    char from[16], monitor_at[32], endpoint[128];
    uint8_t event[6];
    void *client = zmq_socket(storm->zmq, ZMQ_DEALER), *monitor = zmq_socket(storm->zmq, ZMQ_PAIR);
    set_int(client, ZMQ_LINGER, 0);
    set_int(monitor, ZMQ_RCVTIMEO, 10000);
    zmq_setsockopt(client, ZMQ_PLAIN_USERNAME, name, strlen(name));
    zmq_setsockopt(client, ZMQ_PLAIN_PASSWORD, "bad", 3);
    snprintf(monitor_at, sizeof monitor_at, "inproc://denial-%d", number);
    if (zmq_socket_monitor(client, monitor_at, ZMQ_EVENT_HANDSHAKE_FAILED_AUTH))
        die("monitor");
    zmq_connect(monitor, monitor_at);
    snprintf(from, sizeof from, "1.%d.%d", number / 200, 1 + number % 200);
    snprintf(endpoint, sizeof endpoint, "tcp://127.%s:0;%s", from, storm->endpoint + strlen("tcp://"));
    double start = now_ms();
    zmq_connect(client, endpoint);
    double taken = zmq_recv(monitor, event, sizeof event, 0) < 0 ? -1 : now_ms() - start;
    zmq_close(client);
    zmq_close(monitor);
    return taken;
}

/* The chance that a denial of `a` takes longer than one of `b`: 0.5 tells nothing. */
static double area_under_curve(const double *a, const double *b, size_t count)
{
    double wins = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count; k++)
            wins += a[i] > b[k] ? 1 : a[i] == b[k] ? 0.5 : 0;
    return wins / (double)count / (double)count;
}

static void run_timing(struct storm *storm)
{
    size_t count = (size_t)storm->count;
    double *unknown = calloc(count, sizeof *unknown), *known = calloc(count, sizeof *known);
    for (size_t i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%zu", i % USERS);
        known[i] = time_denial(storm, (int)(2 * i), name);
        snprintf(name, sizeof name, "v%zu", i % USERS);
        unknown[i] = time_denial(storm, (int)(2 * i + 1), name);
    }
    printf("  AUC %.3f\n", area_under_curve(unknown, known, count));
    printf("  unknown user:   p10 %.2f p50 %.2f p90 %.2f ms\n", quantile(unknown, count, 0.1),
           quantile(unknown, count, 0.5), quantile(unknown, count, 0.9));
    printf("  wrong password: p10 %.2f p50 %.2f p90 %.2f ms\n", quantile(known, count, 0.1),
           quantile(known, count, 0.5), quantile(known, count, 0.9));
    free(unknown);
    free(known);
}

static void run_decide(void)
{
    enum { CALLS = 10000000, IDS = 64 };
    char ids[IDS][USERS_ID_BYTES];
    struct users_view view = {.slot = users_slot_new(make_users())};
    const struct users *users = users_view_refresh(&view);
    for (int i = 0; i < IDS; i++)
        users_write_id(users_any(users, (uint64_t)i * 31), ids[i]);
    unsigned long granted = 0;
    double start = now_ms();
    for (int i = 0; i < CALLS; i++)
        granted += users_decide(users_view_refresh(&view), ids[i % IDS], "calls", everybody, 1) != NULL;
    printf("  %.0f ns a message among %d users (%lu granted)\n", (now_ms() - start) * 1e6 / CALLS, USERS,
           granted);
    users_view_close(&view);
    users_slot_free(view.slot);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    struct storm storm = {.count = argc > 2 ? atoi(argv[2]) : 200};
    int port_pipe[2];
    printf("%s %d\n", what, storm.count);
    if (strcmp(what, "decide") == 0) {
        run_decide();
        return 0;
    }
    if (pipe(port_pipe) || (storm.server = fork()) < 0)
        die("fork");
    if (storm.server == 0)
        serve(port_pipe[1]);
    if (read(port_pipe[0], storm.endpoint, sizeof storm.endpoint) != sizeof storm.endpoint)
        die("the server did not start");
    storm.zmq = zmq_ctx_new();
    zmq_ctx_set(storm.zmq, ZMQ_MAX_SOCKETS, 8192);
    if (strcmp(what, "bad") == 0)
        run_storm(&storm, bad_clients);
    else if (strcmp(what, "raw") == 0)
        run_storm(&storm, raw_attackers);
    else if (strcmp(what, "cold") == 0 && storm.count <= USERS)
        run_cold(&storm);
    else if (strcmp(what, "timing") == 0)
        run_timing(&storm);
    else
        fprintf(stderr, "usage: %s bad N | raw N | cold N (up to %d) | timing N | decide\n", argv[0], USERS);
    kill(storm.server, SIGKILL);
    waitpid(storm.server, NULL, 0);
    zmq_ctx_term(storm.zmq);
    return 0;
}
