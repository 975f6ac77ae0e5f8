/* SPDX-License-Identifier: MIT
 *
 * Making sockets; see socket.h. The values and why they are so:
 *
 *   RECONNECT_IVL 2^30  twelve days, which is never: link.c reconnects, with its own backoff, also after a refused
 *                       handshake. -1 would say so, but throws away what has arrived and is not read yet when
 *                       the peer closes; IMMEDIATE 1 does, too. Nothing is sent before the handshake is done
 *                       all the same: link.c knows when that is
 *   ROUTER_MANDATORY 1  an answer that cannot be delivered is an error, not a silent success
 *   ROUTER_HANDOVER 1   a new connection with an old one's routing id replaces it, behind a door for passwords only
 *                       if it is the same user's. Otherwise libzmq never reads the new one, and keeps for ever what
 *                       that has sent. Behind CURVE, where the guard sees no ids, anybody could take a name: 0
 *   HEARTBEAT_*         half-open links are found. No TIMEOUT on bound sockets, where libzmq would walk the timers
 *                       of all connections for each answer (10,000 callers stopped it), nor where we may stop
 *                       reading, since libzmq then does not see the answers either
 *   TCP_MAXRT           a peer whose kernel does not even acknowledge our heartbeats is gone
 *   ZAP_ENFORCE_DOMAIN  a socket with a domain stays closed while no handler answers; never set without a
 *                       domain, which would abort the process
 *   MAXMSGSIZE          before the handshake, too: without it a header can pin gigabytes, and with less than a
 *                       handshake's frames have nobody gets in
 */
#include "proxies/socket.h"

#include "proxies/door.h"
#include "proxies/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

/* Declared only for draft builds, honoured by all. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

enum {
    NEVER_MS = 1 << 30,
    KEEPALIVE_IDLE_S = 15,
    KEEPALIVE_INTERVAL_S = 5,
    KEEPALIVE_COUNT = 3,
    UNACKED_MS = 15000, /* data that the peer's kernel does not take for so long ends the connection */
    HANDSHAKE_BYTES_MAX = 4096,
    SUBSCRIPTION_BYTES_MAX = 4096,
    SUBSCRIPTION_FRAMES_MAX = 4
};

static int refuse(char *err, size_t err_size, const char *what)
{
    snprintf(err, err_size, "%s: %s", what, zmq_strerror(errno));
    return -1;
}

enum { TEXT_BYTES = 256, KEY_BYTES = 41 };

/* Sets an option and reads it back. libzmq tells types apart by the `room` that it is given to answer: of a number its
 * size, of a text TEXT_BYTES, of a CURVE key as text KEY_BYTES. */
static int set(void *zmq, int option, const char *name, const void *value, size_t size, size_t room,
               char *err, size_t err_size)
{
    char now[TEXT_BYTES] = "";
    if (zmq_setsockopt(zmq, option, value, size) != 0 || zmq_getsockopt(zmq, option, now, &room) != 0)
        return refuse(err, err_size, name);
    bool is_same = memcmp(now, value, size) == 0 && now[size] == '\0';
    explicit_bzero(now, sizeof now); /* it may be a password */
    if (!is_same)
        snprintf(err, err_size, "%s: was not taken", name);
    return is_same ? 0 : -1;
}

#define SET(option, value, size, room)                                                                       \
    if (set(zmq, option, #option, value, size, room, err, err_size) != 0)                                    \
    return -1
#define SET_INT(option, number)   SET(option, &(int){number}, sizeof(int), sizeof(int))
#define SET_INT64(option, number) SET(option, &(int64_t){number}, sizeof(int64_t), sizeof(int64_t))
#define SET_TEXT(option, text)    SET(option, text, strlen(text), TEXT_BYTES)
#define SET_KEY(option, text)     SET(option, text, strlen(text), KEY_BYTES)

static int set_tcp(void *zmq, const struct socket_options *options, bool is_bind, char *err, size_t err_size)
{
    SET_INT(ZMQ_HEARTBEAT_IVL, SOCKET_HEARTBEAT_MS);
    bool awaits_answer = !is_bind && !options->may_fall_silent;
    SET_INT(ZMQ_HEARTBEAT_TIMEOUT, awaits_answer ? SOCKET_HEARTBEAT_TIMEOUT_MS : 0);
    SET_INT(ZMQ_HEARTBEAT_TTL, SOCKET_HEARTBEAT_MS + SOCKET_HEARTBEAT_TIMEOUT_MS);
    SET_INT(ZMQ_TCP_KEEPALIVE, 1);
    SET_INT(ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S);
    SET_INT(ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S);
    SET_INT(ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT);
    SET_INT(ZMQ_TCP_MAXRT, UNACKED_MS);
    if (!is_bind)
        SET_INT(ZMQ_CONNECT_TIMEOUT, SOCKET_HANDSHAKE_MS);
    return 0;
}

/* PLAIN and CURVE exclude each other, and the last one set wins: only one is. */
static int set_door(void *zmq, const struct door *door, char *err, size_t err_size)
{
    static const int expected[] = {
        [DOOR_NULL] = ZMQ_NULL, [DOOR_PLAIN] = ZMQ_PLAIN, [DOOR_CURVE] = ZMQ_CURVE};
    if (!door->zap_domain)
        return 0;
    SET_TEXT(ZMQ_ZAP_DOMAIN, door->zap_domain);
    SET_INT(ZMQ_ZAP_ENFORCE_DOMAIN, 1);
    if (door->mechanism == DOOR_PLAIN)
        SET_INT(ZMQ_PLAIN_SERVER, 1);
    if (door->mechanism == DOOR_CURVE) {
        SET_KEY(ZMQ_CURVE_SECRETKEY, door->curve_secret_key);
        SET_INT(ZMQ_CURVE_SERVER, 1);
    }
    int mechanism = -1;
    zmq_getsockopt(zmq, ZMQ_MECHANISM, &mechanism, &(size_t){sizeof mechanism});
    if (mechanism != expected[door->mechanism]) {
        snprintf(err, err_size, "the security mechanism was not taken");
        return -1;
    }
    return 0;
}

static int set_credentials(void *zmq, const struct credentials *credentials, char *err, size_t err_size)
{
    if (credentials->username) {
        SET_TEXT(ZMQ_PLAIN_USERNAME, credentials->username);
        SET_TEXT(ZMQ_PLAIN_PASSWORD, credentials->password);
    }
    if (credentials->curve_server_key) {
        SET_KEY(ZMQ_CURVE_PUBLICKEY, credentials->curve_public_key);
        SET_KEY(ZMQ_CURVE_SECRETKEY, credentials->curve_secret_key);
        SET_KEY(ZMQ_CURVE_SERVERKEY, credentials->curve_server_key);
    }
    return 0;
}

static bool takes_over(const struct socket_options *options)
{
    return options->type == ZMQ_ROUTER && !(options->door && options->door->mechanism == DOOR_CURVE);
}

static bool is_publisher(int type)
{
    return type == ZMQ_PUB || type == ZMQ_XPUB;
}

static int set_write_only(void *zmq, const struct socket_options *options, char *err, size_t err_size)
{
    int on = 1;
    if (options->type == ZMQ_ROUTER && zmq_setsockopt(zmq, ZMQ_ROUTER_MANDATORY, &on, sizeof on) != 0)
        return refuse(err, err_size, "ZMQ_ROUTER_MANDATORY");
    if (takes_over(options) && zmq_setsockopt(zmq, ZMQ_ROUTER_HANDOVER, &on, sizeof on) != 0)
        return refuse(err, err_size, "ZMQ_ROUTER_HANDOVER");
    if (is_publisher(options->type) && zmq_setsockopt(zmq, ZMQ_XPUB_NODROP, &on, sizeof on) != 0)
        return refuse(err, err_size, "ZMQ_XPUB_NODROP");
    if (options->type == ZMQ_XPUB && zmq_setsockopt(zmq, ZMQ_XPUB_VERBOSE, &on, sizeof on) != 0)
        return refuse(err, err_size, "ZMQ_XPUB_VERBOSE");
    if (options->type != ZMQ_SUB)
        return 0;
    for (size_t i = 0; i < options->subscribe->count; i++) {
        const char *topic = options->subscribe->items[i];
        if (zmq_setsockopt(zmq, ZMQ_SUBSCRIBE, topic, strlen(topic)) != 0)
            return refuse(err, err_size, "ZMQ_SUBSCRIBE");
    }
    if (options->subscribe_also &&
        zmq_setsockopt(zmq, ZMQ_SUBSCRIBE, options->subscribe_also, strlen(options->subscribe_also)) != 0)
        return refuse(err, err_size, "ZMQ_SUBSCRIBE");
    return 0;
}

static int set_options(void *zmq, const struct socket_options *options, const struct endpoint *endpoint,
                       char *err, size_t err_size)
{
    int64_t frame_bytes = options->max_frame_bytes > 0 ? options->max_frame_bytes : -1;
    if (frame_bytes > 0 && frame_bytes < HANDSHAKE_BYTES_MAX)
        frame_bytes = HANDSHAKE_BYTES_MAX;
    if (is_publisher(options->type) && endpoint->is_bind)
        frame_bytes = SUBSCRIPTION_BYTES_MAX; /* subscribers send topics only */
    SET_INT(ZMQ_LINGER, 0);
    SET_INT(ZMQ_SNDHWM, options->send_hwm);
    SET_INT(ZMQ_RCVHWM, options->receive_hwm);
    SET_INT64(ZMQ_MAXMSGSIZE, frame_bytes);
    SET_INT(ZMQ_HANDSHAKE_IVL, SOCKET_HANDSHAKE_MS);
    SET_INT(ZMQ_IPV6, endpoint->host && strchr(endpoint->host, ':') ? 1 : 0);
    if (endpoint->transport == TRANSPORT_TCP && set_tcp(zmq, options, endpoint->is_bind, err, err_size) != 0)
        return -1;
    if (endpoint->is_bind) {
        if (options->door && set_door(zmq, options->door, err, err_size) != 0)
            return -1;
    } else {
        SET_INT(ZMQ_RECONNECT_IVL, NEVER_MS);
        SET_INT(ZMQ_IMMEDIATE, 0);
    }
    if (options->credentials && set_credentials(zmq, options->credentials, err, err_size) != 0)
        return -1;
    return set_write_only(zmq, options, err, err_size);
}

static struct guard_limits guard_limits_of(const struct socket_options *options)
{
    struct guard_limits limits = {
        .chain = options->chain,
        .message = {(uint64_t)options->max_frame_bytes, (uint64_t)options->max_frames},
        .kept_messages = options->receive_hwm,
        .keeps_ids = takes_over(options) && options->door && options->door->mechanism == DOOR_PLAIN,
    };
    if (is_publisher(options->type))
        limits.message = (struct zmtp_limits){SUBSCRIPTION_BYTES_MAX, SUBSCRIPTION_FRAMES_MAX};
    return limits;
}

static int descriptor(void *zmq)
{
    int fd = -1;
    zmq_getsockopt(zmq, ZMQ_FD, &fd, &(size_t){sizeof fd});
    return fd;
}

int socket_open(struct socket *socket, void *zmq_context, struct poller *poller,
                const struct socket_options *options, const struct endpoint *endpoint, char *err,
                size_t err_size)
{
    *socket = (struct socket){.poller = poller, .type = options->type, .listener = -1, .is_ready = true};
    socket->is_inproc = endpoint->transport == TRANSPORT_INPROC;
    socket->limits = guard_limits_of(options);
    void *zmq = zmq_socket(zmq_context, options->type);
    if (!zmq)
        return refuse(err, err_size, "cannot make a socket");
    if (set_options(zmq, options, endpoint, err, err_size) != 0) {
        zmq_close(zmq);
        return -1;
    }
    if (poller && poller_add(poller, descriptor(zmq), &socket->is_ready) != 0) {
        refuse(err, err_size, "cannot poll a socket");
        zmq_close(zmq);
        return -1;
    }
    socket->zmq = zmq;
    return 0;
}

int socket_bind(struct socket *socket, const struct endpoint *endpoint, char *err, size_t err_size)
{
    int rc;
    if (socket->is_inproc) {
        socket->inproc = inproc_bind(socket->zmq, endpoint->address);
        rc = socket->inproc ? 0 : -1;
    } else if (!listener_suits(endpoint)) {
        rc = guard_bind(socket->zmq, endpoint->address, -1, &socket->limits);
    } else {
        int fd = listener_share(endpoint, err, err_size);
        if (fd == -1)
            return -1;
        rc = guard_bind(socket->zmq, endpoint->address, fd, &socket->limits);
        if (rc != 0)
            close(fd);
        socket->listener = rc == 0 ? fd : -1;
    }
    return rc == 0 ? 0 : refuse(err, err_size, "cannot bind");
}

int socket_connect(struct socket *socket, const char *address, char *err, size_t err_size)
{
    int rc;
    if (socket->is_inproc) {
        socket->inproc = inproc_connect(socket->zmq, address);
        rc = socket->inproc ? 0 : -1;
    } else {
        rc = guard_connect(socket->zmq, address, &socket->limits, &socket->call);
    }
    return rc == 0 ? 0 : refuse(err, err_size, "cannot connect");
}

void socket_close_gently(struct socket *socket, int linger_ms)
{
    if (!socket->zmq)
        return;
    if (socket->poller)
        poller_remove(socket->poller, descriptor(socket->zmq));
    if (socket->listener != -1)
        guard_retire(socket->listener);
    guard_end_call(socket->call);
    if (socket->inproc)
        inproc_leave(socket->inproc, socket->zmq);
    zmq_setsockopt(socket->zmq, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(socket->zmq);
    *socket = (struct socket){.poller = socket->poller, .listener = -1};
}

void socket_close(struct socket *socket)
{
    socket_close_gently(socket, 0);
}

void socket_settle(struct socket *socket)
{
    int events;
    zmq_getsockopt(socket->zmq, ZMQ_EVENTS, &events, &(size_t){sizeof events});
}

void socket_note_reading(struct socket *socket, bool is_behind)
{
    if (socket->listener == -1 || (!is_behind && !socket->is_behind))
        return;
    socket->is_behind = is_behind;
    guard_note_reading(socket->listener, is_behind, socket->taken);
}
