/* SPDX-License-Identifier: MIT
 *
 * The WebSocket thread; see websocket.h, and the only file that sees libwebsockets. All calls into the library are
 * this thread's but lws_cancel_service, which ends its sleep: it allows no other. The descriptors of the PAIRs are in
 * its poll set beside its own. It is one thread, and not the chains' loops, since the library wants to own the loop;
 * and the far end of a socket, and not a backend, so that window, balance, retries and deadlines stay where they are.
 *
 * A request that timed out takes its connection with it, as on every upstream: websocket_stop shuts the TCP connection
 * down before anybody hears of it, so that what waits in the PAIR, in the library or in TLS is not sent. Names are
 * looked up before (link.c); redirects, which could lead credentials elsewhere, are not followed.
 */
#include "proxies/websocket.h"

#include "buffer/list.h"
#include "proxies/calls.h"
#include "proxies/library.h"
#include "proxies/wire.h"

#include <libwebsockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    PAIR_HWM = 1000,              /* messages on their way to a chain that has no bound of its own */
    SENT_PER_TURN = 64,           /* requests */
    RECEIVE_BYTES = 64 * 1024,    /* at once */
    MESSAGE_BYTES_MAX = 64 << 20, /* where the chain names no bound */
    KEPT_BYTES = 64 * 1024,       /* of a buffer, from one message to the next */
    DESCRIPTORS_MAX = 8192,       /* of connections and PAIRs */
    LEAVE_S = 1,                  /* for closing handshakes at the end */
    TIMEOUT_S = 10,               /* of the library; the link's own comes first */
    NEVER_S = UINT16_MAX,
    PING_S = SOCKET_HEARTBEAT_MS / 1000,
    SILENT_S = (SOCKET_HEARTBEAT_MS + SOCKET_HEARTBEAT_TIMEOUT_MS) / 1000,
};

#define SUBSCRIBE_ID "\"proxyd-subscribe\""

#define FUNCTIONS(X)                                                                                         \
    X(lws_add_http_header_by_token)                                                                          \
    X(lws_adopt_descriptor_vhost)                                                                            \
    X(lws_b64_encode_string)                                                                                 \
    X(lws_callback_on_writable)                                                                              \
    X(lws_cancel_service)                                                                                    \
    X(lws_client_connect_via_info)                                                                           \
    X(lws_close_reason)                                                                                      \
    X(lws_context_destroy)                                                                                   \
    X(lws_create_context)                                                                                    \
    X(lws_create_vhost)                                                                                      \
    X(lws_get_opaque_user_data)                                                                              \
    X(lws_get_socket_fd)                                                                                     \
    X(lws_http_client_http_response)                                                                         \
    X(lws_is_final_fragment)                                                                                 \
    X(lws_remaining_packet_payload)                                                                          \
    X(lws_rx_flow_control)                                                                                   \
    X(lws_send_pipe_choked)                                                                                  \
    X(lws_service)                                                                                           \
    X(lws_set_log_level)                                                                                     \
    X(lws_set_opaque_user_data)                                                                              \
    X(lws_set_timeout)                                                                                       \
    X(lws_validity_confirmed)                                                                                \
    X(lws_write)

static struct {
    FUNCTIONS(LIBRARY_MEMBER)
} ws;

static const struct library library = {
    .soname = "libwebsockets.so.17", .package = "libwebsockets17", .names = LIBRARY_NAMES(FUNCTIONS)};

static const lws_retry_bo_t watchful = {.secs_since_valid_ping = PING_S, .secs_since_valid_hangup = SILENT_S};
static const lws_retry_bo_t patient = {.secs_since_valid_ping = NEVER_S - 1,
                                       .secs_since_valid_hangup = NEVER_S};

/* What stands for one set of trusted certificates. Stays to the end. */
struct trust {
    struct list link;
    char *ca_file; /* NULL = the system's */
    int64_t ca_changed_ns;
    bool has_tls;
    struct lws_vhost *vhost;
};

struct websockets {
    void *zmq;
    atomic_ulong names;
    pthread_mutex_t mutex;
    bool is_started;  /* guarded by mutex, as the next */
    struct list news; /* of websocket.link: started or stopped, not looked at yet */
    pthread_t thread;
    atomic_bool is_closing, is_hurried;
    struct lws_context *lws; /* the thread's, as the rest */
    struct list trusts;
    unsigned leaving_count;
};

/* A text message that is being received, or whose contents wait for room in the PAIR. */
struct incoming {
    char *data;
    size_t size, capacity;
    bool is_whole;            /* `whole` was read */
    struct json_span whole;   /* of data; an array's elements are taken one by one: */
    struct json_span element; /* the last one that was */
};

struct websocket {
    struct list link; /* websockets->news; guarded by its mutex */
    struct websockets *websockets;
    atomic_int references;
    struct waker *waker;
    atomic_uint handshakes, connections;
    atomic_int end;
    bool is_stopped, is_polite; /* guarded by websockets->mutex, as the next */
    int fd;                     /* the connection's, while it is established; -1 = none */

    /* The thread's. */
    struct lws *wsi, *pair_wsi; /* NULL before and after */
    bool is_leaving;            /* stopped, and still shaking hands */
    struct socket pair;
    struct calls *calls;
    struct incoming in;
    struct message held_envelope, held_body; /* for the chain, when the PAIR was full */
    bool is_holding;
    unsigned char *out; /* LWS_PRE bytes, then what is being written */
    size_t out_capacity;

    /* What to connect to, and as whom. */
    char *address, *host, *path, *authorization, *ca_file;
    char *subscribe; /* the request; NULL = it is for calls */
    int64_t ca_changed_ns;
    int port;
    bool has_tls, may_fall_silent;
    size_t max_bytes;
};

/* ---- sharing ---- */

static void free_text(char **text)
{
    if (*text)
        explicit_bzero(*text, strlen(*text)); /* one is a password */
    free(*text);
    *text = NULL;
}

static void websocket_release(struct websocket *websocket)
{
    if (atomic_fetch_sub(&websocket->references, 1) != 1)
        return;
    char **texts[] = {&websocket->address,       &websocket->host,    &websocket->path,
                      &websocket->authorization, &websocket->ca_file, &websocket->subscribe};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free_text(texts[i]);
    calls_free(websocket->calls);
    message_close(&websocket->held_envelope);
    message_close(&websocket->held_body);
    free(websocket->in.data);
    free(websocket->out);
    waker_release(websocket->waker);
    free(websocket);
}

/* ---- facts ---- */

struct watch_facts websocket_facts(const struct websocket *websocket)
{
    return (struct watch_facts){
        .handshakes = atomic_load(&websocket->handshakes),
        .connections = atomic_load(&websocket->connections),
        .end = atomic_load(&websocket->end),
    };
}

static void came_up(struct websocket *websocket)
{
    atomic_store(&websocket->connections, 1);
    atomic_store(&websocket->handshakes, 1);
    waker_wake(websocket->waker);
}

/* The first cause counts. */
static void ended(struct websocket *websocket, enum watch_end end)
{
    int expected = WATCH_OPEN;
    atomic_store(&websocket->connections, 0);
    atomic_compare_exchange_strong(&websocket->end, &expected, end);
    waker_wake(websocket->waker);
}

static void set_fd(struct websocket *websocket, int fd)
{
    pthread_mutex_lock(&websocket->websockets->mutex);
    websocket->fd = fd;
    if (websocket->is_stopped && !websocket->is_polite && fd != -1)
        shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&websocket->websockets->mutex);
}

/* ---- from the chain to the server ---- */

static int write_text(struct websocket *websocket, const struct json_span *pieces, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].size;
    if (LWS_PRE + size > websocket->out_capacity) {
        unsigned char *out = realloc(websocket->out, LWS_PRE + size);
        if (!out)
            return -1;
        websocket->out = out;
        websocket->out_capacity = LWS_PRE + size;
    }
    unsigned char *at = websocket->out + LWS_PRE;
    for (size_t i = 0; i < count; at += pieces[i++].size)
        memcpy(at, pieces[i].at, pieces[i].size);
    int written = ws.lws_write(websocket->wsi, websocket->out + LWS_PRE, size, LWS_WRITE_TEXT);
    if (websocket->out_capacity > KEPT_BYTES) {
        free(websocket->out);
        websocket->out = NULL;
        websocket->out_capacity = 0;
    }
    return written < 0 ? -1 : 0;
}

struct sending {
    struct websocket *websocket;
    bool has_failed;
};

static void send_one(void *context, const struct json_span *pieces, size_t count)
{
    struct sending *sending = context;
    if (!sending->has_failed && write_text(sending->websocket, pieces, count) != 0)
        sending->has_failed = true;
}

/* Moves both messages to the chain, or keeps them until it has room: then nothing more is read. */
static void give(struct websocket *websocket, struct message *envelope, bool has_delimiter,
                 struct message *body)
{
    if (wire_send(&websocket->pair, envelope, has_delimiter, body) == WIRE_FULL) {
        message_move(&websocket->held_envelope, envelope);
        message_move(&websocket->held_body, body);
        websocket->is_holding = true;
        if (websocket->wsi)
            ws.lws_rx_flow_control(websocket->wsi, 0);
        return;
    }
    message_close(envelope);
    message_close(body);
}

/* A notification is answered with an empty frame as soon as it is on its way. */
static int send_request(struct websocket *websocket, struct message *tag, const struct message *body)
{
    struct sending sending = {.websocket = websocket};
    struct message nothing = {0};
    switch (calls_begin(websocket->calls, tag, body, send_one, &sending)) {
    case CALLS_TOLD:
        if (sending.has_failed || message_add_bytes(&nothing, "", 0) != 0)
            return -1;
        give(websocket, tag, true, &nothing);
        return 0;
    case CALLS_WAITING:
        return sending.has_failed ? -1 : 0;
    default:
        return -1; /* memory is short: what the chain sends is a request */
    }
}

/* Sends what the chain has for the server; -1 when the connection is of no use any more. */
static int send_requests(struct websocket *websocket)
{
    static const struct wire_limits no_limits = {0};
    for (int i = 0; i < SENT_PER_TURN && !ws.lws_send_pipe_choked(websocket->wsi); i++) {
        struct message tag = {0}, body = {0};
        if (websocket->is_holding)
            return 0;
        enum wire_received received = wire_receive(&websocket->pair, &no_limits, &tag, &body);
        int rc = received == WIRE_NONE                                                   ? 1
                 : received == WIRE_MESSAGE && send_request(websocket, &tag, &body) == 0 ? 0
                                                                                         : -1;
        message_close(&tag);
        message_close(&body);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
    }
    ws.lws_callback_on_writable(websocket->wsi);
    return 0;
}

/* ---- from the server to the chain ---- */

/* A stray answer is the chain's to count: it comes without an id. */
static void give_answer(struct websocket *websocket, struct json_span value)
{
    struct message tag = {0}, body = {0};
    switch (calls_end(websocket->calls, value, &tag, &body)) {
    case CALLS_STRAY:
        if (message_add_bytes(&body, "", 0) == 0)
            give(websocket, &tag, true, &body);
        break;
    case CALLS_ANSWERED:
        if (body.count > 0)
            give(websocket, &tag, true, &body);
        break;
    default:
        break;
    }
    message_close(&tag);
    message_close(&body);
}

/* Some servers write the missing id of a notification as null. */
static bool is_notification(struct json_span value)
{
    struct json_span method = json_span_member(value, "method"), id = json_span_member(value, "id");
    return method.at && *method.at == '"' && (!id.at || *id.at == 'n');
}

static void give_notification(struct websocket *websocket, struct json_span value)
{
    struct json_span method = json_span_member(value, "method");
    struct message none = {0}, body = {0};
    char *name = malloc(method.size);
    if (name && message_add_bytes(&body, name, json_span_text(method, name)) == 0 &&
        message_add_bytes(&body, value.at, value.size) == 0)
        give(websocket, &none, false, &body);
    message_close(&body);
    free(name);
}

static void end_subscription(struct websocket *websocket, struct json_span value)
{
    struct json_span id = json_span_member(value, "id");
    if (!id.at || id.size != strlen(SUBSCRIBE_ID) || memcmp(id.at, SUBSCRIBE_ID, id.size) != 0)
        return;
    struct json_span error = json_span_member(value, "error");
    if (error.at && *error.at != 'n')
        ended(websocket, WATCH_REFUSED);
    else
        came_up(websocket);
}

static void take_value(struct websocket *websocket, struct json_span value)
{
    if (!websocket->subscribe)
        give_answer(websocket, value);
    else if (is_notification(value))
        give_notification(websocket, value);
    else
        end_subscription(websocket, value);
}

/* The next value of the message, or none. */
static struct json_span next_value(struct incoming *in)
{
    if (in->whole.at && *in->whole.at == '[')
        return in->element = json_span_element(in->whole, in->element);
    struct json_span value = in->whole;
    in->whole = (struct json_span){0};
    return value;
}

/* Takes in a whole message, as far as the chain has room. What is no JSON answers nobody. */
static void take_message(struct websocket *websocket)
{
    struct incoming *in = &websocket->in;
    if (!in->is_whole && !json_span_read(in->data, in->size, &in->whole))
        in->whole = (struct json_span){.at = "null", .size = 4};
    in->is_whole = true;
    struct json_span value;
    while (!websocket->is_holding && (value = next_value(in)).at)
        take_value(websocket, value);
    if (websocket->is_holding)
        return;
    free(in->data);
    *in = (struct incoming){0};
}

static bool pair_can(struct websocket *websocket, int wanted)
{
    int events = 0;
    zmq_getsockopt(websocket->pair.zmq, ZMQ_EVENTS, &events, &(size_t){sizeof events});
    return events & wanted;
}

/* The chain may have room again, or something to send. To be called whenever the PAIR's descriptor fired, and when
 * something was sent on it, which may swallow that. */
static void attend_pair(struct websocket *websocket)
{
    if (websocket->is_holding && pair_can(websocket, ZMQ_POLLOUT)) {
        struct message envelope = {0}, body = {0};
        message_move(&envelope, &websocket->held_envelope);
        message_move(&body, &websocket->held_body);
        websocket->is_holding = false;
        give(websocket, &envelope, !websocket->subscribe, &body);
        if (!websocket->is_holding && websocket->in.is_whole)
            take_message(websocket);
        if (!websocket->is_holding && websocket->wsi)
            ws.lws_rx_flow_control(websocket->wsi, 1);
    }
    bool has_requests = pair_can(websocket, ZMQ_POLLIN); /* always asked: it quietens the descriptor */
    if (has_requests && websocket->wsi && atomic_load(&websocket->connections))
        ws.lws_callback_on_writable(websocket->wsi);
}

/* One fragment. -1 ends the connection, at once: with a reason for its peer libwebsockets 4.1 would go on reading,
 * beyond its buffer. */
static int receive(struct websocket *websocket, const void *data, size_t size)
{
    struct incoming *in = &websocket->in;
    if (websocket->is_leaving)
        return 0;
    if (in->is_whole || in->size + size > websocket->max_bytes)
        return -1;
    size_t remaining = ws.lws_remaining_packet_payload(websocket->wsi);
    /* One byte more, so that there is a block for an empty message, too. */
    size_t wanted = in->size + size + (remaining < websocket->max_bytes ? remaining : 0) + 1;
    if (wanted > in->capacity) {
        size_t capacity = wanted > 2 * in->capacity ? wanted : 2 * in->capacity;
        char *grown = realloc(in->data, capacity);
        if (!grown)
            return -1;
        in->data = grown;
        in->capacity = capacity;
    }
    if (size > 0)
        memcpy(in->data + in->size, data, size);
    in->size += size;
    if (remaining == 0 && ws.lws_is_final_fragment(websocket->wsi)) {
        take_message(websocket);
        attend_pair(websocket);
    }
    return atomic_load(&websocket->end) == WATCH_OPEN ? 0 : -1;
}

/* ---- the library's callbacks ---- */

/* Whether there was an answer to what opens a connection, whatever became of it since. */
static bool was_reached(int fd)
{
    struct tcp_info info = {0};
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &(socklen_t){sizeof info}) == 0 && info.tcpi_rtt > 0;
}

/* Who takes the connection and then does not agree is no WebSocket server, or none that speaks our TLS. */
static enum watch_end failure_of(struct lws *wsi)
{
    unsigned status = ws.lws_http_client_http_response(wsi);
    if (status == 401 || status == 403)
        return WATCH_DENIED;
    return status > 0 || was_reached(ws.lws_get_socket_fd(wsi)) ? WATCH_MISMATCH : WATCH_REFUSED;
}

static int append_headers(struct websocket *websocket, unsigned char **at, size_t size)
{
    const char *value = websocket->authorization;
    return value &&
           ws.lws_add_http_header_by_token(websocket->wsi, WSI_TOKEN_HTTP_AUTHORIZATION,
                                           (const unsigned char *)value, (int)strlen(value), at, *at + size);
}

static int established(struct websocket *websocket)
{
    set_fd(websocket, ws.lws_get_socket_fd(websocket->wsi));
    if (websocket->subscribe)
        ws.lws_callback_on_writable(websocket->wsi);
    else
        came_up(websocket);
    return 0;
}

static int writeable(struct websocket *websocket)
{
    if (!websocket->subscribe)
        return send_requests(websocket);
    if (atomic_load(&websocket->handshakes))
        return 0;
    const struct json_span request = {websocket->subscribe, strlen(websocket->subscribe)};
    return write_text(websocket, &request, 1);
}

/* Neither its link nor the library knows it any more. */
static void has_left(struct websocket *websocket)
{
    websocket->websockets->leaving_count--;
    websocket_release(websocket);
}

static int on_connection(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
    struct websocket *websocket = wsi ? ws.lws_get_opaque_user_data(wsi) : NULL;
    (void)user;
    if (!websocket || wsi == websocket->pair_wsi)
        return 0;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        return append_headers(websocket, in, size);
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        return established(websocket);
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return writeable(websocket);
    case LWS_CALLBACK_CLIENT_RECEIVE:
        ws.lws_validity_confirmed(wsi);
        return receive(websocket, in, size);
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        ended(websocket, failure_of(wsi));
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
        set_fd(websocket, -1);
        ended(websocket, WATCH_LOST);
        return 0;
    case LWS_CALLBACK_OPENSSL_PERFORM_SERVER_CERT_VERIFICATION:
        if (size == 0) /* OpenSSL has found a fault */
            ended(websocket, WATCH_UNTRUSTED);
        return 0;
    case LWS_CALLBACK_WSI_DESTROY: /* the last, whatever came before */
        set_fd(websocket, -1);
        websocket->wsi = NULL;
        if (websocket->is_leaving)
            has_left(websocket);
        return 0;
    default:
        return 0;
    }
}

static int on_pair(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
    (void)user;
    (void)in;
    (void)size;
    if (reason == LWS_CALLBACK_RAW_RX_FILE)
        attend_pair(ws.lws_get_opaque_user_data(wsi));
    return 0;
}

static const struct lws_protocols protocols[] = {
    {.name = "proxyd", .callback = on_connection, .rx_buffer_size = RECEIVE_BYTES},
    {.name = "proxyd-pair", .callback = on_pair},
    {0},
};

/* ---- life of a connection ---- */

static bool is_same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* One vhost for each set of trusted certificates, made when first asked for; NULL when it cannot be. */
static struct lws_vhost *vhost_of(struct websockets *websockets, bool has_tls, const char *ca_file,
                                  int64_t ca_changed_ns)
{
    LIST_EACH (link, &websockets->trusts) {
        const struct trust *trust = LIST_ENTRY(link, struct trust, link);
        if (trust->has_tls == has_tls && is_same_text(trust->ca_file, ca_file) &&
            trust->ca_changed_ns == ca_changed_ns)
            return trust->vhost;
    }
    const struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = protocols,
        .vhost_name = ca_file   ? ca_file
                      : has_tls ? "tls"
                                : "plain",
        .options = (has_tls ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT : 0) |
                   (ca_file ? LWS_SERVER_OPTION_DISABLE_OS_CA_CERTS : 0),
        .client_ssl_ca_filepath = ca_file,
        /* Of no meaning beside a file; but vhosts that are given the same share what the first one has read. */
        .client_ssl_ca_mem = ca_file ? &ca_changed_ns : NULL,
        .client_ssl_ca_mem_len = ca_file ? sizeof ca_changed_ns : 0,
    };
    struct trust *trust = calloc(1, sizeof *trust);
    char *copy = ca_file ? strdup(ca_file) : NULL;
    struct lws_vhost *vhost =
        trust && (copy || !ca_file) ? ws.lws_create_vhost(websockets->lws, &info) : NULL;
    if (!vhost) {
        free(trust);
        free(copy);
        return NULL;
    }
    *trust =
        (struct trust){.ca_file = copy, .ca_changed_ns = ca_changed_ns, .has_tls = has_tls, .vhost = vhost};
    list_append(&websockets->trusts, &trust->link);
    return vhost;
}

static int connect_now(struct websocket *websocket)
{
    struct websockets *websockets = websocket->websockets;
    struct lws_vhost *vhost =
        vhost_of(websockets, websocket->has_tls, websocket->ca_file, websocket->ca_changed_ns);
    const struct lws_client_connect_info info = {
        .context = websockets->lws,
        .vhost = vhost,
        .address = websocket->address,
        .port = websocket->port,
        .ssl_connection = LCCSCF_HTTP_NO_FOLLOW_REDIRECT | (websocket->has_tls ? LCCSCF_USE_SSL : 0),
        .path = websocket->path,
        .host = websocket->host,
        .alpn = "http/1.1",
        .local_protocol_name = protocols[0].name,
        .ietf_version_or_minus_one = -1,
        .opaque_user_data = websocket,
        .pwsi = &websocket->wsi,
        .retry_and_idle_policy = websocket->may_fall_silent ? &patient : &watchful,
    };
    if (vhost && ws.lws_client_connect_via_info(&info))
        return 0;
    websocket->wsi = NULL;
    return -1;
}

/* The library closes what it was given: it gets a descriptor of its own. */
static int watch_pair(struct websocket *websocket)
{
    int fd = -1;
    zmq_getsockopt(websocket->pair.zmq, ZMQ_FD, &fd, &(size_t){sizeof fd});
    struct lws_vhost *vhost = vhost_of(websocket->websockets, false, NULL, 0);
    lws_sock_file_fd_type own = {.filefd = dup(fd)};
    if (own.filefd == -1)
        return -1;
    websocket->pair_wsi =
        vhost ? ws.lws_adopt_descriptor_vhost(vhost, LWS_ADOPT_RAW_FILE_DESC, own, protocols[1].name, NULL)
              : NULL;
    if (!websocket->pair_wsi)
        return -1;
    ws.lws_set_opaque_user_data(websocket->pair_wsi, websocket);
    return 0;
}

/* Now, or where a close reason is set, when the closing handshake is over. */
static void close_wsi(struct lws *wsi)
{
    ws.lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
}

/* One that was started or stopped since the thread looked last. */
static void attend(struct websocket *websocket, bool is_stopped, bool is_polite)
{
    if (!is_stopped) {
        if (watch_pair(websocket) != 0 || connect_now(websocket) != 0)
            ended(websocket, WATCH_REFUSED);
        return;
    }
    if (websocket->pair_wsi)
        close_wsi(websocket->pair_wsi);
    socket_close(&websocket->pair);
    websocket->is_leaving = true;
    websocket->websockets->leaving_count++;
    if (!websocket->wsi) {
        has_left(websocket);
        return;
    }
    if (is_polite && atomic_load(&websocket->connections))
        ws.lws_close_reason(websocket->wsi, LWS_CLOSE_STATUS_NORMAL, NULL, 0);
    close_wsi(websocket->wsi);
}

/* ---- the thread ---- */

static struct websocket *next_news(struct websockets *websockets, bool *is_stopped, bool *is_polite)
{
    struct websocket *websocket = NULL;
    pthread_mutex_lock(&websockets->mutex);
    struct list *link = list_first(&websockets->news);
    if (link) {
        list_remove(link);
        websocket = LIST_ENTRY(link, struct websocket, link);
        *is_stopped = websocket->is_stopped;
        *is_polite = websocket->is_polite;
    }
    pthread_mutex_unlock(&websockets->mutex);
    return websocket;
}

static void *websockets_run(void *argument)
{
    struct websockets *websockets = argument;
    pthread_setname_np(pthread_self(), "websockets");
    for (;;) {
        /* Read first: once it is true nothing new arrives. */
        bool is_closing = atomic_load(&websockets->is_closing), is_stopped, is_polite;
        struct websocket *websocket;
        while ((websocket = next_news(websockets, &is_stopped, &is_polite)) != NULL)
            attend(websocket, is_stopped, is_polite);
        if (is_closing && (websockets->leaving_count == 0 || atomic_load(&websockets->is_hurried)))
            return NULL;
        ws.lws_service(websockets->lws, 0);
    }
}

struct websockets *websockets_new(void *zmq_context)
{
    struct websockets *websockets = calloc(1, sizeof *websockets);
    if (!websockets)
        return NULL;
    websockets->zmq = zmq_context;
    pthread_mutex_init(&websockets->mutex, NULL);
    list_init(&websockets->news);
    list_init(&websockets->trusts);
    return websockets;
}

void websockets_free(struct websockets *websockets)
{
    if (!websockets)
        return;
    if (websockets->is_started) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += LEAVE_S;
        atomic_store(&websockets->is_closing, true);
        ws.lws_cancel_service(websockets->lws);
        if (pthread_clockjoin_np(websockets->thread, NULL, CLOCK_MONOTONIC, &until) != 0) {
            atomic_store(&websockets->is_hurried, true);
            ws.lws_cancel_service(websockets->lws);
            pthread_join(websockets->thread, NULL);
        }
        ws.lws_context_destroy(websockets->lws);
    }
    LIST_EACH_SAFE (link, following, &websockets->trusts) {
        struct trust *trust = LIST_ENTRY(link, struct trust, link);
        free(trust->ca_file);
        free(trust);
    }
    pthread_mutex_destroy(&websockets->mutex);
    free(websockets);
}

int websockets_check(char *err, size_t err_size)
{
    static bool is_loaded;
    if (!is_loaded && library_open(&library, &ws, sizeof ws, err, err_size) != 0)
        return -1;
    is_loaded = true;
    return 0;
}

static int start(struct websockets *websockets, char *err, size_t err_size)
{
    const struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = protocols,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT,
        .fd_limit_per_thread = DESCRIPTORS_MAX,
        .pt_serv_buf_size = RECEIVE_BYTES,
        .timeout_secs = TIMEOUT_S,
        .connect_timeout_secs = TIMEOUT_S,
    };
    if (websockets_check(err, err_size) != 0)
        return -1;
    ws.lws_set_log_level(0, NULL);
    websockets->lws = ws.lws_create_context(&info);
    if (!websockets->lws) {
        snprintf(err, err_size, "cannot start libwebsockets");
        return -1;
    }
    if (pthread_create(&websockets->thread, NULL, websockets_run, websockets) != 0) {
        ws.lws_context_destroy(websockets->lws);
        snprintf(err, err_size, "cannot start a thread");
        return -1;
    }
    websockets->is_started = true;
    return 0;
}

int websockets_need(struct websockets *websockets, char *err, size_t err_size)
{
    pthread_mutex_lock(&websockets->mutex);
    int rc = websockets->is_started ? 0 : start(websockets, err, err_size);
    pthread_mutex_unlock(&websockets->mutex);
    return rc;
}

/* ---- what the chains call ---- */

/* `Basic` and the credentials (RFC 7617); NULL when memory is short. */
static char *basic_authorization(const struct credentials *credentials)
{
    char plain[512], text[sizeof "Basic " + sizeof plain * 4 / 3 + 4] = "Basic ";
    int size = snprintf(plain, sizeof plain, "%s:%s", credentials->username, credentials->password);
    ws.lws_b64_encode_string(plain, size, text + strlen(text), (int)(sizeof text - strlen(text)));
    char *copy = strdup(text);
    explicit_bzero(plain, sizeof plain);
    explicit_bzero(text, sizeof text);
    return copy;
}

static char *add_quoted(char *at, const char *text)
{
    *at++ = '"';
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte < 0x20)
            at += sprintf(at, "\\u%04x", byte);
        else
            at += sprintf(at, byte == '"' || byte == '\\' ? "\\%c" : "%c", byte);
    }
    *at++ = '"';
    return at;
}

/* The request for all topics at once; NULL when memory is short. */
static char *subscription(const struct text_list *topics)
{
    static const char head[] =
        "{\"jsonrpc\":\"2.0\",\"id\":" SUBSCRIBE_ID ",\"method\":\"SUBSCRIBE\",\"params\":[";
    size_t size = sizeof head + sizeof "]}";
    for (size_t i = 0; i < topics->count; i++)
        size += 6 * strlen(topics->items[i]) + sizeof "\"\",";
    char *text = malloc(size);
    if (!text)
        return NULL;
    char *at = stpcpy(text, head);
    for (size_t i = 0; i < topics->count; i++) {
        if (i > 0)
            *at++ = ',';
        at = add_quoted(at, topics->items[i]);
    }
    strcpy(at, "]}");
    return text;
}

static int copy_destination(struct websocket *websocket, const struct endpoint *endpoint, const char *address,
                            const struct socket_options *options)
{
    size_t size;
    const char *authority = endpoint_authority(endpoint, &size), *path = endpoint_path(endpoint);
    const struct credentials *credentials = options->credentials;
    websocket->address = strdup(address);
    websocket->host = strndup(authority, size);
    websocket->path = strdup(*path ? path : "/");
    websocket->port = endpoint->port;
    websocket->has_tls = endpoint->transport == TRANSPORT_WSS;
    websocket->may_fall_silent = options->may_fall_silent;
    websocket->max_bytes =
        options->max_frame_bytes > 0 ? (size_t)options->max_frame_bytes : MESSAGE_BYTES_MAX;
    bool is_short = !websocket->address || !websocket->host || !websocket->path;
    if (credentials && credentials->username)
        is_short |= !(websocket->authorization = basic_authorization(credentials));
    if (credentials && credentials->tls_ca_file) {
        websocket->ca_changed_ns = credentials->tls_ca_changed_ns;
        is_short |= !(websocket->ca_file = strdup(credentials->tls_ca_file));
    }
    if (options->subscribe)
        is_short |= !(websocket->subscribe = subscription(options->subscribe));
    return is_short ? -1 : 0;
}

/* Our end of the PAIR; it is the thread's from here on. */
static int open_pair(struct websocket *websocket, const struct endpoint *endpoint, struct socket *pair,
                     const struct socket_options *options, char *err, size_t err_size)
{
    char name[64];
    struct websockets *websockets = websocket->websockets;
    const struct socket_options own = {
        .type = ZMQ_PAIR,
        .send_hwm = options->receive_hwm > 0 ? options->receive_hwm : PAIR_HWM,
        .receive_hwm = options->send_hwm,
    };
    snprintf(name, sizeof name, "inproc://websocket-%lu", atomic_fetch_add(&websockets->names, 1));
    if (socket_open(&websocket->pair, websockets->zmq, NULL, &own, endpoint, err, err_size) != 0)
        return -1;
    if (zmq_bind(websocket->pair.zmq, name) == 0 && zmq_connect(pair->zmq, name) == 0)
        return 0;
    snprintf(err, err_size, "cannot join a pair: %s", zmq_strerror(errno));
    socket_close(&websocket->pair);
    return -1;
}

static void tell(struct websocket *websocket)
{
    struct websockets *websockets = websocket->websockets;
    list_remove(&websocket->link);
    list_append(&websockets->news, &websocket->link);
}

struct websocket *websocket_start(struct websockets *websockets, const struct endpoint *endpoint,
                                  const char *address, const struct socket_options *options,
                                  struct socket *pair, struct waker *waker, char *err, size_t err_size)
{
    struct websocket *websocket = calloc(1, sizeof *websocket);
    snprintf(err, err_size, "out of memory");
    if (!websocket)
        return NULL;
    list_init(&websocket->link);
    websocket->websockets = websockets;
    websocket->fd = -1;
    websocket->waker = waker_share(waker);
    websocket->calls = calls_new();
    atomic_init(&websocket->references, 1);
    if (!websocket->calls || copy_destination(websocket, endpoint, address, options) != 0 ||
        open_pair(websocket, endpoint, pair, options, err, err_size) != 0) {
        websocket_release(websocket);
        return NULL;
    }
    atomic_store(&websocket->references, 2);
    pthread_mutex_lock(&websockets->mutex);
    tell(websocket);
    pthread_mutex_unlock(&websockets->mutex);
    ws.lws_cancel_service(websockets->lws);
    return websocket;
}

void websocket_stop(struct websocket *websocket, bool is_polite)
{
    struct websockets *websockets = websocket->websockets;
    pthread_mutex_lock(&websockets->mutex);
    websocket->is_stopped = true;
    websocket->is_polite = is_polite;
    if (!is_polite && websocket->fd != -1)
        shutdown(websocket->fd, SHUT_RDWR);
    tell(websocket);
    pthread_mutex_unlock(&websockets->mutex);
    ws.lws_cancel_service(websockets->lws);
    websocket_release(websocket);
}
