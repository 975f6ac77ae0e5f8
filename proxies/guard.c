/* SPDX-License-Identifier: MIT
 *
 * Between libzmq and the kernel; see guard.h. An executable's symbols are found before those of any library:
 *
 *     zmq_bind       listen   ─┐
 *     I/O thread     accept4   ├─>  here  ─>  kernel
 *                    connect   │
 *                    recv      │
 *                    close    ─┘
 *
 * Descriptors that libzmq did not get in this way pass untouched. Everything happens on libzmq's own threads,
 * between its call and the kernel's, so no descriptor can have changed hands meanwhile, as it can have when a
 * monitor's event is read. The mutex guards counts and lists; it is taken when a connection comes, has finished
 * its handshake, and goes, but not for what it sends.
 */
#include "proxies/guard.h"

#include "buffer/list.h"
#include "proxies/claims.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum {
    DESCRIPTORS_MAX = 65536,
    KEPT_SHARE = 4, /* of few descriptors, connections get at least this part */
    ORIGIN_LISTS = 1024,
    CHAIN_BYTES = 65,
    PEER_BYTES = 32 * 1024,    /* what libzmq needs for the messages of one peer, besides those */
    LEFT_BYTES_MAX = 64 << 20, /* of peers that have gone, unread */
    QUIET_MS = 10000           /* between two events of one kind */
};

/* What the connections to one listening socket have in common; or those of one call. */
struct port {
    unsigned references; /* its listener or call, and each of its connections */
    uint64_t number;     /* never given twice */
    bool is_counted;
    bool keeps_ids;
    struct zmtp_limits message;
    uint64_t kept_messages;
    char chain[CHAIN_BYTES];
    atomic_bool is_behind;      /* messages wait there; its reader says so, as the next */
    atomic_uint_fast64_t taken; /* messages, ever */
    uint64_t gone, left_bytes;  /* peers that went while it was behind, and what they left; by the mutex */
    uint64_t left_until;        /* when so many are taken, nothing of that is left; likewise */
};

/* Where connections come from: an IPv4 address, or an IPv6 network of 64 bits. */
struct origin {
    struct list link; /* guard.origins[] */
    uint8_t key[8];
    bool is_ipv6;
    int64_t count;
    struct list unfinished; /* struct guarded.beside, oldest first */
};

/* A descriptor of libzmq's: a listener, or a connection that a peer made to one. */
struct guarded {
    int fd;
    uint64_t serial;
    bool is_listener;
    atomic_bool is_retired; /* of a listener */
    struct port *port;
    /* of a connection */
    bool has_finished; /* its handshake; its own thread's, as the next */
    bool is_proven;    /* it has a name, and libzmq read on when it had seen that */
    bool is_counted;   /* guarded by the mutex, as are the following */
    struct list unfinished, beside;
    struct origin *origin;              /* NULL: has no address */
    struct claim *claim;                /* its name; NULL: has none, or not yet */
    uint64_t bytes;                     /* ever received; its own thread's, as the next */
    uint64_t read_bytes, read_messages; /* of what was received, before its socket was behind */
    struct zmtp stream;                 /* its own thread's; with a claim until that is entered */
    atomic_uint_fast64_t routing_id;    /* of the stream */
};

/* A connection that libzmq is about to make. */
struct guard_call {
    struct list link; /* guard.calls, until it is made */
    struct sockaddr_storage place;
    struct port *port;
};

enum told { TOLD_REFUSED, TOLD_CUT, TOLD_COUNT };

static _Atomic(struct guarded *) descriptors[DESCRIPTORS_MAX];

static struct {
    atomic_bool is_open;
    struct guard_conf conf;
    struct event_sink events;
    pthread_mutex_t mutex;  /* guards the rest */
    int64_t count;          /* of counted connections */
    struct list unfinished; /* of those, the ones in their handshake, oldest first */
    struct list origins[ORIGIN_LISTS];
    uint64_t seed;
    struct claims claims;
    struct list calls;
    uint64_t serials; /* ever */
    int spare;        /* a descriptor to give up when there are no others; -1 = it was taken */
    int64_t quiet_until_ms[TOLD_COUNT];
    uint64_t refused, cut;
} guard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .spare = -1};

static atomic_uint calls_waiting; /* in guard.calls */

/* The bind that this thread is in. */
static _Thread_local struct {
    const struct guard_limits *limits; /* NULL = in none */
    bool has_listened;
} binding;

/* ---- what the kernel does ---- */

static int kernel_listen(int fd, int backlog)
{
    return (int)syscall(SYS_listen, fd, backlog);
}

static int kernel_accept(int fd, struct sockaddr *peer, socklen_t *size, int flags)
{
    return (int)syscall(SYS_accept4, fd, peer, size, flags);
}

static int kernel_connect(int fd, const struct sockaddr *place, socklen_t size)
{
    return (int)syscall(SYS_connect, fd, place, size);
}

static int kernel_close(int fd)
{
    return (int)syscall(SYS_close, fd);
}

static struct guarded *find(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS_MAX ? atomic_load_explicit(&descriptors[fd], memory_order_acquire)
                                           : NULL;
}

static int64_t coarse_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- events; the mutex is held ---- */

/* True at most once in QUIET_MS for each kind. */
static bool may_tell(enum told kind)
{
    int64_t now_ms = coarse_ms();
    if (now_ms < guard.quiet_until_ms[kind])
        return false;
    guard.quiet_until_ms[kind] = now_ms + QUIET_MS;
    return true;
}

static void print_address(const struct sockaddr_storage *peer, char *text, socklen_t size)
{
    text[0] = '\0';
    if (peer->ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, text, size);
    else if (peer->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, text, size);
    else if (peer->ss_family == AF_UNIX)
        snprintf(text, size, "ipc");
}

static void tell_refused(const struct port *port, const struct sockaddr_storage *peer, const char *limit)
{
    char address[INET6_ADDRSTRLEN];
    guard.refused++;
    if (!may_tell(TOLD_REFUSED))
        return;
    print_address(peer, address, sizeof address);
    EVENT(&guard.events, EVENT_WARNING, "connection-refused", EVENT_TEXT("chain", port->chain),
          EVENT_TEXT("address", address), EVENT_TEXT("limit", limit),
          EVENT_NUMBER("connections", guard.count), EVENT_NUMBER("refused", (int64_t)guard.refused));
}

static void tell_cut(const struct guarded *connection, const char *cause)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    char address[INET6_ADDRSTRLEN];
    guard.cut++;
    if (!may_tell(TOLD_CUT))
        return;
    getpeername(connection->fd, (struct sockaddr *)&peer, &(socklen_t){sizeof peer});
    print_address(&peer, address, sizeof address);
    EVENT(&guard.events, EVENT_WARNING, "connection-cut", EVENT_TEXT("chain", connection->port->chain),
          EVENT_TEXT("address", address), EVENT_TEXT("cause", cause),
          EVENT_NUMBER("frames", (int64_t)connection->stream.frames),
          EVENT_NUMBER("bytes", (int64_t)connection->stream.bytes), EVENT_NUMBER("cut", (int64_t)guard.cut));
}

/* ---- who is connected; the mutex is held ---- */

/* False where there is no address to tell peers apart by. */
static bool key_of(const struct sockaddr_storage *peer, struct origin *origin)
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    if (peer->ss_family == AF_INET) {
        memcpy(origin->key, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
        return true;
    }
    if (peer->ss_family != AF_INET6)
        return false;
    const uint8_t *address = ((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr.s6_addr;
    origin->is_ipv6 = memcmp(address, mapped, sizeof mapped) != 0;
    if (origin->is_ipv6)
        memcpy(origin->key, address, 8);
    else
        memcpy(origin->key, address + sizeof mapped, 4);
    return true;
}

static struct list *origin_list(const struct origin *origin)
{
    uint64_t hash;
    memcpy(&hash, origin->key, sizeof hash);
    hash = (hash ^ guard.seed) * UINT64_C(0x9E3779B97F4A7C15);
    return &guard.origins[hash >> 32 & (ORIGIN_LISTS - 1)];
}

/* The origin of a peer, made if it is new. NULL: it has none, or memory is short. */
static struct origin *find_origin(const struct sockaddr_storage *peer)
{
    struct origin wanted = {0};
    if (!key_of(peer, &wanted))
        return NULL;
    struct list *list = origin_list(&wanted);
    LIST_EACH (link, list) {
        struct origin *origin = LIST_ENTRY(link, struct origin, link);
        if (origin->is_ipv6 == wanted.is_ipv6 && memcmp(origin->key, wanted.key, sizeof wanted.key) == 0)
            return origin;
    }
    struct origin *origin = malloc(sizeof *origin);
    if (!origin)
        return NULL;
    *origin = wanted;
    list_init(&origin->unfinished);
    list_prepend(list, &origin->link);
    return origin;
}

static void release_origin(struct origin *origin)
{
    if (origin && origin->count == 0) {
        list_remove(&origin->link);
        free(origin);
    }
}

static void discount(struct guarded *connection)
{
    list_remove(&connection->unfinished);
    list_remove(&connection->beside);
    if (!connection->is_counted)
        return;
    connection->is_counted = false;
    guard.count--;
    if (connection->origin)
        connection->origin->count--;
    release_origin(connection->origin);
    connection->origin = NULL;
}

/* Ends a connection for a newer one. libzmq closes it as soon as it looks. */
static void give_up(struct guarded *connection, const char *limit)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    getpeername(connection->fd, (struct sockaddr *)&peer, &(socklen_t){sizeof peer});
    tell_refused(connection->port, &peer, limit);
    discount(connection);
    shutdown(connection->fd, SHUT_RDWR);
}

static bool is_over(int64_t count, int64_t limit)
{
    return limit > 0 && count > limit;
}

/* The limit that is exceeded although one which had not finished its handshake was given up, where there was
 * one; NULL = none. */
static const char *make_room(const struct origin *origin)
{
    static const char in_total[] = "max_connections", by_address[] = "max_connections_per_address";
    if (origin && is_over(origin->count, guard.conf.max_connections_per_address)) {
        if (list_is_empty(&origin->unfinished))
            return by_address;
        give_up(LIST_ENTRY(origin->unfinished.next, struct guarded, beside), by_address);
    }
    if (is_over(guard.count, guard.conf.max_connections)) {
        if (list_is_empty(&guard.unfinished))
            return in_total;
        give_up(LIST_ENTRY(guard.unfinished.next, struct guarded, unfinished), in_total);
    }
    return NULL;
}

/* ---- what is left by those who have gone; the mutex is held ---- */

/* libzmq reads its peers by turns: who left n messages has been read when everyone had n turns. How many it was is not
 * known, but no more than libzmq keeps. */
static void note_gone(const struct guarded *connection)
{
    struct port *port = connection->port;
    uint64_t messages = connection->stream.messages - connection->read_messages;
    uint64_t bytes = connection->bytes - connection->read_bytes;
    uint64_t taken = atomic_load(&port->taken);
    if (!atomic_load(&port->is_behind) || messages == 0)
        return;
    if (taken >= port->left_until)
        port->gone = port->left_bytes = 0;
    uint64_t kept =
        port->kept_messages > 0 && messages > port->kept_messages ? port->kept_messages : messages;
    port->gone++;
    port->left_bytes += PEER_BYTES + bytes / messages * kept;
    uint64_t until = taken + kept * (port->references + port->gone);
    port->left_until = until > port->left_until ? until : port->left_until;
}

static bool has_too_much_left(const struct port *port)
{
    return atomic_load(&port->is_behind) && port->left_bytes > LEFT_BYTES_MAX &&
           atomic_load(&port->taken) < port->left_until;
}

static void release_port(struct port *port)
{
    if (--port->references == 0)
        free(port);
}

static struct guarded *guarded_new(int fd, struct port *port)
{
    struct guarded *guarded = calloc(1, sizeof *guarded);
    if (!guarded)
        return NULL;
    guarded->fd = fd;
    guarded->port = port;
    list_init(&guarded->unfinished);
    list_init(&guarded->beside);
    return guarded;
}

static void guarded_free(struct guarded *guarded)
{
    free(guarded->stream.claim);
    free(guarded);
}

static void enter(struct guarded *guarded)
{
    guarded->port->references++;
    guarded->serial = ++guard.serials;
    atomic_store_explicit(&descriptors[guarded->fd], guarded, memory_order_release);
}

static const char *count_in(struct guarded *connection, const struct sockaddr_storage *peer)
{
    connection->is_counted = true;
    connection->origin = find_origin(peer);
    guard.count++;
    if (connection->origin)
        connection->origin->count++;
    const char *limit = make_room(connection->origin);
    if (limit) {
        discount(connection);
        return limit;
    }
    list_append(&guard.unfinished, &connection->unfinished);
    if (connection->origin)
        list_append(&connection->origin->unfinished, &connection->beside);
    return NULL;
}

/* Lets an accepted connection in; or tells by what limit it is refused. */
static const char *admit(struct port *port, int fd, const struct sockaddr_storage *peer)
{
    if (fd >= DESCRIPTORS_MAX)
        return "descriptors";
    if (has_too_much_left(port))
        return "unread";
    struct guarded *connection = guarded_new(fd, port);
    struct zmtp_claim *claim = port->keeps_ids ? calloc(1, sizeof *claim) : NULL;
    if (!connection || (port->keeps_ids && !claim)) {
        free(connection);
        free(claim);
        return "memory";
    }
    connection->stream.claim = claim;
    const char *limit = port->is_counted ? count_in(connection, peer) : NULL;
    if (limit)
        guarded_free(connection);
    else
        enter(connection);
    return limit;
}

/* No descriptor is left for a connection that waits: gives the spare one up to take it in, and ends it.
 * Otherwise the listener would be woken for it for ever. */
static void turn_away(const struct port *port, int listener)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    if (guard.spare != -1)
        kernel_close(guard.spare);
    int fd = kernel_accept(listener, (struct sockaddr *)&peer, &(socklen_t){sizeof peer}, SOCK_CLOEXEC);
    if (fd != -1) {
        kernel_close(fd);
        tell_refused(port, &peer, "descriptors");
    }
    guard.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static bool is_short_of_descriptors(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* ---- libzmq's calls ---- */

int guard_listen(int fd, int backlog) __asm__("listen");
int guard_connect_descriptor(int fd, const struct sockaddr *place, socklen_t size) __asm__("connect");
int guard_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags) __asm__("accept4");
ssize_t guard_recv(int fd, void *buffer, size_t size, int flags) __asm__("recv");
int guard_close_descriptor(int fd) __asm__("close");

static bool is_same_place(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in *v4[] = {(const void *)a, (const void *)b};
    const struct sockaddr_in6 *v6[] = {(const void *)a, (const void *)b};
    const struct sockaddr_un *local[] = {(const void *)a, (const void *)b};
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return v4[0]->sin_port == v4[1]->sin_port && v4[0]->sin_addr.s_addr == v4[1]->sin_addr.s_addr;
    if (a->ss_family == AF_INET6)
        return v6[0]->sin6_port == v6[1]->sin6_port &&
               memcmp(&v6[0]->sin6_addr, &v6[1]->sin6_addr, sizeof v6[0]->sin6_addr) == 0;
    return memcmp(local[0]->sun_path, local[1]->sun_path, sizeof local[0]->sun_path) == 0;
}

/* Calls to one place cannot be told apart, so each gets the widest of their limits; 0 = none. */
static uint64_t wider(uint64_t limit, uint64_t other)
{
    return limit == 0 || other == 0 ? 0 : limit > other ? limit : other;
}

/* The mutex is held. */
static struct port *take_call(const struct sockaddr_storage *place)
{
    struct guard_call *taken = NULL;
    struct zmtp_limits widest = {1, 1};
    LIST_EACH (link, &guard.calls) {
        struct guard_call *call = LIST_ENTRY(link, struct guard_call, link);
        if (!is_same_place(&call->place, place))
            continue;
        taken = taken ? taken : call;
        widest.max_bytes = wider(widest.max_bytes, call->port->message.max_bytes);
        widest.max_frames = wider(widest.max_frames, call->port->message.max_frames);
    }
    if (!taken)
        return NULL;
    LIST_EACH (link, &guard.calls) {
        struct guard_call *call = LIST_ENTRY(link, struct guard_call, link);
        if (is_same_place(&call->place, place))
            call->port->message = widest;
    }
    list_remove(&taken->link);
    atomic_fetch_sub(&calls_waiting, 1);
    return taken->port;
}

int guard_connect_descriptor(int fd, const struct sockaddr *place, socklen_t size)
{
    struct sockaddr_storage copy = {.ss_family = AF_UNSPEC};
    if (atomic_load(&calls_waiting) == 0 || fd < 0 || fd >= DESCRIPTORS_MAX || size > sizeof copy)
        return kernel_connect(fd, place, size);
    memcpy(&copy, place, size);
    pthread_mutex_lock(&guard.mutex);
    struct port *port = take_call(&copy);
    struct guarded *connection = port ? guarded_new(fd, port) : NULL;
    if (connection)
        enter(connection);
    pthread_mutex_unlock(&guard.mutex);
    return kernel_connect(fd, place, size);
}

static struct port *port_new(const struct guard_limits *limits)
{
    struct port *port = calloc(1, sizeof *port);
    if (!port)
        return NULL;
    port->message = limits->message;
    snprintf(port->chain, sizeof port->chain, "%s", limits->chain ? limits->chain : "");
    return port;
}

/* Who connects to the listening socket `fd` is guarded from now on. */
static int watch(int fd, const struct guard_limits *limits)
{
    struct port *port = port_new(limits);
    struct guarded *listener = guarded_new(fd, port);
    if (fd >= DESCRIPTORS_MAX || !port || !listener) {
        free(port);
        free(listener);
        errno = fd >= DESCRIPTORS_MAX ? EMFILE : ENOMEM;
        return -1;
    }
    port->is_counted = limits->chain != NULL;
    port->kept_messages = (uint64_t)limits->kept_messages;
    port->keeps_ids = limits->keeps_ids;
    listener->is_listener = true;
    pthread_mutex_lock(&guard.mutex);
    enter(listener);
    port->number = listener->serial;
    pthread_mutex_unlock(&guard.mutex);
    return 0;
}

int guard_listen(int fd, int backlog)
{
    if (!binding.limits || fd < 0 || fd >= DESCRIPTORS_MAX)
        return kernel_listen(fd, backlog);
    if (watch(fd, binding.limits) != 0)
        return -1;
    binding.has_listened = true;
    return kernel_listen(fd, backlog);
}

int guard_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags)
{
    struct guarded *listener = find(fd);
    if (!listener || !listener->is_listener)
        return kernel_accept(fd, peer, size, flags);
    if (atomic_load(&listener->is_retired)) {
        errno = EAGAIN;
        return -1;
    }
    struct sockaddr_storage from = {.ss_family = AF_UNSPEC};
    socklen_t from_size = sizeof from;
    int accepted = kernel_accept(fd, (struct sockaddr *)&from, &from_size, flags);
    int error = errno;
    pthread_mutex_lock(&guard.mutex);
    const char *limit = accepted != -1 ? admit(listener->port, accepted, &from) : NULL;
    if (limit) {
        kernel_close(accepted);
        tell_refused(listener->port, &from, limit);
        accepted = -1;
        error = ECONNABORTED;
    } else if (accepted == -1 && is_short_of_descriptors(error)) {
        turn_away(listener->port, fd);
        error = ECONNABORTED; /* which every listener of libzmq's takes calmly */
    }
    pthread_mutex_unlock(&guard.mutex);
    if (accepted != -1 && peer) {
        memcpy(peer, &from, *size < from_size ? *size : from_size);
        *size = from_size;
    }
    errno = error;
    return accepted;
}

static void finish_handshake(struct guarded *connection)
{
    connection->has_finished = true;
    pthread_mutex_lock(&guard.mutex);
    list_remove(&connection->unfinished);
    list_remove(&connection->beside);
    pthread_mutex_unlock(&guard.mutex);
}

/* False when the name it comes with is another user's; libzmq has seen nothing of it then. Whether the user is who
 * it says shows in what libzmq does: it ends a peer that goes on without having been let in, and reads no more. */
static bool take_name(struct guarded *connection)
{
    struct zmtp_claim *said = connection->stream.claim;
    connection->stream.claim = NULL;
    bool is_named = said->id_bytes > 0;
    if (is_named) {
        pthread_mutex_lock(&guard.mutex);
        connection->claim = claims_take(&guard.claims, connection->port->number, said, coarse_ms());
        pthread_mutex_unlock(&guard.mutex);
    }
    free(said);
    return connection->claim || !is_named;
}

static void prove_name(struct guarded *connection)
{
    connection->is_proven = true;
    pthread_mutex_lock(&guard.mutex);
    claims_prove(connection->claim);
    pthread_mutex_unlock(&guard.mutex);
}

static ssize_t cut(const struct guarded *connection, const char *cause)
{
    pthread_mutex_lock(&guard.mutex);
    tell_cut(connection, cause);
    pthread_mutex_unlock(&guard.mutex);
    errno = ECONNRESET;
    return -1;
}

ssize_t guard_recv(int fd, void *buffer, size_t size, int flags)
{
    struct guarded *connection = find(fd);
    if (connection && connection->claim && !connection->is_proven)
        prove_name(connection);
    ssize_t received = recvfrom(fd, buffer, size, flags, NULL, NULL);
    if (!connection || received <= 0)
        return received;
    enum zmtp_verdict verdict =
        zmtp_read(&connection->stream, &connection->port->message, buffer, (size_t)received);
    connection->bytes += (uint64_t)received;
    if (!atomic_load_explicit(&connection->port->is_behind, memory_order_relaxed)) {
        connection->read_bytes = connection->bytes;
        connection->read_messages = connection->stream.messages;
    }
    if (verdict != ZMTP_FINE)
        return cut(connection, verdict == ZMTP_TOO_LARGE ? "too-large" : "reserved-id");
    if (connection->stream.claim && connection->stream.claim->is_complete && !take_name(connection))
        return cut(connection, "id-taken");
    if (connection->stream.routing_id != atomic_load_explicit(&connection->routing_id, memory_order_relaxed))
        atomic_store_explicit(&connection->routing_id, connection->stream.routing_id, memory_order_relaxed);
    if (connection->stream.has_finished_handshake && !connection->has_finished)
        finish_handshake(connection);
    return received;
}

int guard_close_descriptor(int fd)
{
    struct guarded *guarded = find(fd);
    if (guarded) {
        pthread_mutex_lock(&guard.mutex);
        atomic_store_explicit(&descriptors[fd], NULL, memory_order_relaxed);
        discount(guarded);
        note_gone(guarded);
        if (guarded->claim)
            claims_leave(&guard.claims, guarded->claim, coarse_ms());
        release_port(guarded->port);
        pthread_mutex_unlock(&guard.mutex);
        guarded_free(guarded);
    }
    return kernel_close(fd);
}

/* ---- life ---- */

/* No more connections than there can be descriptors for. */
static void fit_to_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    int64_t wanted = guard.conf.max_connections;
    int64_t most = limit.rlim_cur < DESCRIPTORS_MAX ? (int64_t)limit.rlim_cur : DESCRIPTORS_MAX;
    int64_t room = most - guard.conf.kept_descriptors, least = most / KEPT_SHARE;
    room = room > least ? room : least;
    if (wanted > 0 && wanted <= room)
        return;
    guard.conf.max_connections = room;
    if (wanted > 0)
        EVENT(&guard.events, EVENT_WARNING, "connections-limited", EVENT_NUMBER("max_connections", wanted),
              EVENT_NUMBER("possible", room), EVENT_NUMBER("descriptors", most));
}

int guard_open(const struct guard_conf *conf, struct event_sink events, char *err, size_t err_size)
{
    guard.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (guard.spare == -1 || getrandom(&guard.seed, sizeof guard.seed, 0) != sizeof guard.seed) {
        snprintf(err, err_size, "cannot guard connections: %s", strerror(errno));
        guard_close();
        return -1;
    }
    guard.conf = *conf;
    guard.events = events;
    guard.count = 0;
    guard.refused = guard.cut = 0;
    list_init(&guard.unfinished);
    list_init(&guard.calls);
    claims_init(&guard.claims, guard.seed);
    for (int i = 0; i < ORIGIN_LISTS; i++)
        list_init(&guard.origins[i]);
    memset(guard.quiet_until_ms, 0, sizeof guard.quiet_until_ms);
    fit_to_descriptors();
    atomic_store(&guard.is_open, true);
    return 0;
}

void guard_close(void)
{
    if (atomic_exchange(&guard.is_open, false))
        claims_clear(&guard.claims);
    if (guard.spare != -1)
        kernel_close(guard.spare);
    guard.spare = -1;
}

int guard_bind(void *zmq, const char *address, int listener, const struct guard_limits *limits)
{
    if (listener != -1 && zmq_setsockopt(zmq, ZMQ_USE_FD, &listener, sizeof listener) != 0)
        return -1;
    if (!atomic_load(&guard.is_open))
        return zmq_bind(zmq, address);
    if (listener != -1)
        return watch(listener, limits) == 0 ? zmq_bind(zmq, address) : -1;
    binding.limits = limits;
    binding.has_listened = false;
    int rc = zmq_bind(zmq, address);
    binding.limits = NULL;
    if (rc == 0 && !binding.has_listened) {
        zmq_unbind(zmq, address);
        errno = ENOTSUP;
        return -1;
    }
    return rc;
}

/* False where it is no place of the kernel's. */
static bool parse_place(const char *address, struct sockaddr_storage *place)
{
    struct sockaddr_un *local = (struct sockaddr_un *)(void *)place;
    const char *rest = strstr(address, "://"), *colon = strrchr(address, ':');
    *place = (struct sockaddr_storage){.ss_family = AF_UNIX};
    if (!rest)
        return false;
    rest += 3;
    if (strncmp(address, "ipc://", 6) == 0) {
        snprintf(local->sun_path, sizeof local->sun_path, "%s", rest);
        if (*rest == '@')
            local->sun_path[0] = '\0';
        return true;
    }
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE] = "";
    bool has_brackets = *rest == '[' && colon[-1] == ']';
    if (colon < rest || colon - rest >= (ptrdiff_t)sizeof host)
        return false;
    memcpy(host, rest + has_brackets, (size_t)(colon - rest) - 2 * has_brackets);
    struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
                    *found;
    if (getaddrinfo(host, colon + 1, &numeric, &found) != 0)
        return false;
    memcpy(place, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return true;
}

int guard_connect(void *zmq, const char *address, const struct guard_limits *limits, struct guard_call **call)
{
    *call = NULL;
    bool is_limited = limits->message.max_bytes > 0 || limits->message.max_frames > 0;
    struct sockaddr_storage place;
    if (!is_limited || !atomic_load(&guard.is_open) || !parse_place(address, &place))
        return zmq_connect(zmq, address);
    struct guard_call *made = calloc(1, sizeof *made);
    struct port *port = port_new(limits);
    if (!made || !port) {
        free(made);
        free(port);
        errno = ENOMEM;
        return -1;
    }
    *made = (struct guard_call){.place = place, .port = port};
    port->references = 1;
    pthread_mutex_lock(&guard.mutex);
    port->number = ++guard.serials;
    list_append(&guard.calls, &made->link);
    atomic_fetch_add(&calls_waiting, 1);
    pthread_mutex_unlock(&guard.mutex);
    if (zmq_connect(zmq, address) == 0) {
        *call = made;
        return 0;
    }
    int error = errno;
    guard_end_call(made);
    errno = error;
    return -1;
}

void guard_end_call(struct guard_call *call)
{
    if (!call)
        return;
    pthread_mutex_lock(&guard.mutex);
    if (!list_is_empty(&call->link)) {
        list_remove(&call->link);
        atomic_fetch_sub(&calls_waiting, 1);
    }
    release_port(call->port);
    pthread_mutex_unlock(&guard.mutex);
    free(call);
}

void guard_retire(int listener)
{
    struct guarded *guarded = find(listener);
    if (guarded)
        atomic_store(&guarded->is_retired, true);
}

void guard_note_reading(int listener, bool is_behind, uint64_t taken)
{
    struct guarded *guarded = find(listener);
    if (!guarded)
        return;
    struct port *port = guarded->port;
    atomic_store(&port->taken, taken);
    if (atomic_exchange(&port->is_behind, is_behind) == is_behind)
        return;
    pthread_mutex_lock(&guard.mutex);
    port->gone = port->left_bytes = port->left_until = 0;
    pthread_mutex_unlock(&guard.mutex);
}

uint64_t guard_serial(int fd)
{
    pthread_mutex_lock(&guard.mutex);
    const struct guarded *guarded = find(fd);
    uint64_t serial = guarded && !guarded->is_listener ? guarded->serial : 0;
    pthread_mutex_unlock(&guard.mutex);
    return serial;
}

void guard_end(int fd, uint64_t serial)
{
    pthread_mutex_lock(&guard.mutex);
    const struct guarded *guarded = find(fd);
    if (guarded && guarded->serial == serial)
        shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&guard.mutex);
}

unsigned guard_cut(const char *chain, const void *routing_id, size_t size)
{
    uint64_t mark = zmtp_mark(routing_id, size);
    unsigned count = 0;
    pthread_mutex_lock(&guard.mutex); /* no descriptor in the table is closed now */
    for (int fd = 0; fd < DESCRIPTORS_MAX; fd++) {
        struct guarded *guarded = find(fd);
        if (!guarded || guarded->is_listener || strcmp(guarded->port->chain, chain) != 0 ||
            atomic_load_explicit(&guarded->routing_id, memory_order_relaxed) != mark)
            continue;
        shutdown(fd, SHUT_RDWR);
        count++;
    }
    pthread_mutex_unlock(&guard.mutex);
    return count;
}

struct guard_stats guard_stats(void)
{
    pthread_mutex_lock(&guard.mutex);
    struct guard_stats stats = {
        .connections = (uint64_t)guard.count, .refused = guard.refused, .cut = guard.cut};
    pthread_mutex_unlock(&guard.mutex);
    return stats;
}
