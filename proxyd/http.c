/* SPDX-License-Identifier: MIT
 *
 * Requests and their answers; see http.h. libmicrohttpd limits how many connections there are and how large a header
 * may be. Time is limited here: a connection ends VISIT_MS after it was made or was last answered, whatever trickles
 * in or out meanwhile (libmicrohttpd's own limit begins anew with each byte).
 */
#include "proxyd/http.h"

#include "buffer/list.h"
#include "proxies/endpoint.h"
#include "proxies/library.h"
#include "proxyd/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 64,
    CONNECTIONS_MAX_PER_ADDRESS = 32,
    CONNECTION_BYTES = 8 * 1024, /* request line and headers, and those of the answer */
    VISIT_MS = 5000,
    STUCK_MS = 2000, /* a chain's turn takes less than a millisecond */
    BACKLOG = 128
};

#define FUNCTIONS(X)                                                                                         \
    X(MHD_start_daemon)                                                                                      \
    X(MHD_stop_daemon)                                                                                       \
    X(MHD_run)                                                                                               \
    X(MHD_get_timeout)                                                                                       \
    X(MHD_get_daemon_info)                                                                                   \
    X(MHD_get_connection_info)                                                                               \
    X(MHD_lookup_connection_value)                                                                           \
    X(MHD_create_response_from_buffer)                                                                       \
    X(MHD_add_response_header)                                                                               \
    X(MHD_queue_response)                                                                                    \
    X(MHD_destroy_response)

static struct {
    FUNCTIONS(LIBRARY_MEMBER)
} mhd;

static const struct library library = {"libmicrohttpd.so.12", "libmicrohttpd12", LIBRARY_NAMES(FUNCTIONS)};

/* The status page, as it is in the source tree. */
extern const char status_page[] __attribute__((visibility("hidden")));
extern const char status_page_end[] __attribute__((visibility("hidden")));
__asm__(".pushsection .rodata\n"
        ".hidden status_page, status_page_end\n"
        ".global status_page, status_page_end\n"
        "status_page:\n"
        ".incbin \"proxyd/status.html\"\n"
        "status_page_end:\n"
        ".byte 0\n"
        ".popsection\n");

struct http {
    const struct report_scope *scope;
    struct MHD_Daemon *daemon;
    bool is_local;
    int64_t now_ms;     /* of this turn */
    struct list visits; /* the longest without an answer first */
};

/* One connection. */
struct visit {
    struct list link; /* http.visits; on none once it was ended */
    int fd;
    int64_t ends_ms;
    bool is_over; /* the peer has said all it will */
};

struct answer {
    unsigned status;
    char *body; /* allocated, or NULL when memory is short */
    size_t size;
};

/* ---- the answers ---- */

static struct answer answer_text(unsigned status, const char *text)
{
    char *body = strdup(text);
    return (struct answer){status, body, strlen(text)};
}

static struct answer give_page(const struct http *http)
{
    (void)http;
    size_t size = (size_t)(status_page_end - status_page);
    return (struct answer){MHD_HTTP_OK, strndup(status_page, size), size};
}

static struct answer give_metrics(const struct http *http)
{
    struct answer answer = {.status = MHD_HTTP_OK};
    answer.body = metrics_text(http->scope, &answer.size);
    return answer;
}

static struct answer give_status(const struct http *http)
{
    json_t *json = report_status(http->scope, http->now_ms);
    char *body = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return (struct answer){MHD_HTTP_OK, body, body ? strlen(body) : 0};
}

/* Lines `NAME what` about those chains for which `look` returns a word, else "ok". */
static struct answer give_verdict(const struct http *http, const char *(*look)(struct chain *chain))
{
    struct answer answer = {.status = MHD_HTTP_OK};
    FILE *out = open_memstream(&answer.body, &answer.size);
    if (!out)
        return answer;
    for (size_t i = 0; i < http->scope->chain_count; i++) {
        const char *word = look(http->scope->chains[i]);
        if (!word)
            continue;
        answer.status = MHD_HTTP_SERVICE_UNAVAILABLE;
        fprintf(out, "%s %s\n", chain_conf(http->scope->chains[i])->name, word);
    }
    if (answer.status == MHD_HTTP_OK)
        fputs("ok\n", out);
    fclose(out);
    return answer;
}

static const char *why_sick(struct chain *chain)
{
    bool is_stuck = chain_silent_ms(chain) > STUCK_MS;
    chain_ping(chain); /* for the next look */
    return chain_is_stopped(chain) ? "stopped" : is_stuck ? "stuck" : NULL;
}

static const char *why_not_ready(struct chain *chain)
{
    struct chain_stats stats;
    if (chain_stats(chain, &stats) < 0)
        return "unknown";
    enum chain_state state = stats.state;
    chain_stats_close(&stats);
    return state == CHAIN_UP || state == CHAIN_DEGRADED ? NULL : chain_state_name(state);
}

static struct answer give_health(const struct http *http)
{
    const char *reason;
    if (!doors_are_kept(http->scope->doors, &reason))
        return answer_text(MHD_HTTP_SERVICE_UNAVAILABLE, "auth stopped\n");
    return give_verdict(http, why_sick);
}

static struct answer give_readiness(const struct http *http)
{
    return give_verdict(http, why_not_ready);
}

static const struct {
    const char *path, *type;
    struct answer (*give)(const struct http *http);
} pages[] = {
    {"/", "text/html; charset=utf-8", give_page},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", give_metrics},
    {"/healthz", "text/plain; charset=utf-8", give_health},
    {"/readyz", "text/plain; charset=utf-8", give_readiness},
    {"/api/status", "application/json", give_status},
};

enum { PAGE_COUNT = sizeof(pages) / sizeof(pages[0]) };

/* ---- requests ---- */

static const struct {
    const char *name, *value;
} headers[] = {
    {"Cache-Control", "no-store"},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                                "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                                "frame-ancestors 'none'"},
};

static enum MHD_Result send_answer(struct MHD_Connection *connection, const struct answer *answer,
                                   const char *type)
{
    if (!answer->body)
        return MHD_NO; /* ends the connection */
    struct MHD_Response *response =
        mhd.MHD_create_response_from_buffer(answer->size, answer->body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(answer->body);
        return MHD_NO;
    }
    mhd.MHD_add_response_header(response, "Content-Type", type);
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
        mhd.MHD_add_response_header(response, headers[i].name, headers[i].value);
    if (answer->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        mhd.MHD_add_response_header(response, "Allow", "GET, HEAD");
    enum MHD_Result result = mhd.MHD_queue_response(connection, answer->status, response);
    mhd.MHD_destroy_response(response);
    return result;
}

static const char *header_of(struct MHD_Connection *connection, const char *name)
{
    return mhd.MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* Whether a Host header names this machine's loopback: a browser that was led here by a name of somebody else's
 * says so. */
static bool is_own_name(const char *host)
{
    char name[64];
    struct in_addr address;
    const char *end = *host == '[' ? strchr(host, ']') : host + strcspn(host, ":");
    size_t size = end ? (size_t)(end - host) : sizeof(name);
    if (size >= sizeof(name))
        return false;
    memcpy(name, host, size);
    name[size] = '\0';
    return strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1") == 0 ||
           (inet_pton(AF_INET, name, &address) == 1 && ntohl(address.s_addr) >> 24 == 127);
}

static bool has_body(struct MHD_Connection *connection)
{
    const char *length = header_of(connection, "Content-Length");
    return (length && strcmp(length, "0") != 0) || header_of(connection, "Transfer-Encoding");
}

/* What is wrong with a request, before its path is looked at; status 0 when nothing. */
static struct answer refuse(const struct http *http, struct MHD_Connection *connection, const char *method)
{
    const char *host = header_of(connection, "Host");
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return answer_text(MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (has_body(connection))
        return answer_text(MHD_HTTP_CONTENT_TOO_LARGE, "no request has a body here\n");
    if (http->is_local && host && !is_own_name(host))
        return answer_text(MHD_HTTP_FORBIDDEN, "this is not the host that you asked for\n");
    return (struct answer){0};
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **request)
{
    (void)version;
    (void)upload;
    (void)upload_size;
    static char is_known;
    const struct http *http = context;
    if (*request != &is_known) { /* only the headers are there: what may be answered is, at the second call */
        struct answer refusal = refuse(http, connection, method);
        *request = &is_known;
        return refusal.status ? send_answer(connection, &refusal, "text/plain; charset=utf-8") : MHD_YES;
    }
    size_t page = 0;
    while (page < PAGE_COUNT && strcmp(pages[page].path, path) != 0)
        page++;
    struct answer answer = page < PAGE_COUNT ? pages[page].give(http)
                                             : answer_text(MHD_HTTP_NOT_FOUND, "there is no such page\n");
    return send_answer(connection, &answer,
                       page < PAGE_COUNT ? pages[page].type : "text/plain; charset=utf-8");
}

/* ---- connections ---- */

static void extend(struct http *http, struct visit *visit)
{
    visit->ends_ms = http->now_ms + VISIT_MS;
    list_remove(&visit->link);
    list_append(&http->visits, &visit->link);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **place,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        struct visit *visit = *place;
        if (visit)
            list_remove(&visit->link);
        free(visit);
        return;
    }
    int fd = mhd.MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    struct visit *visit = *place = calloc(1, sizeof(*visit));
    if (!visit) {
        shutdown(fd, SHUT_RDWR);
        return;
    }
    list_init(&visit->link);
    visit->fd = fd;
    extend(context, visit);
}

static void on_answered(void *context, struct MHD_Connection *connection, void **request,
                        enum MHD_RequestTerminationCode code)
{
    (void)request;
    struct visit *visit =
        mhd.MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    if (visit && code == MHD_REQUEST_TERMINATED_COMPLETED_OK)
        extend(context, visit);
}

static struct visit *first_visit(const struct http *http)
{
    struct list *link = list_first(&http->visits);
    return link ? LIST_ENTRY(link, struct visit, link) : NULL;
}

int64_t http_next_ms(const struct http *http, int64_t now_ms)
{
    const struct visit *visit = first_visit(http);
    MHD_UNSIGNED_LONG_LONG left_ms;
    int64_t due_ms = visit ? visit->ends_ms : INT64_MAX;
    if (mhd.MHD_get_timeout(http->daemon, &left_ms) == MHD_YES && (int64_t)left_ms < due_ms - now_ms)
        due_ms = now_ms + (int64_t)left_ms;
    return due_ms;
}

/* When a peer's last bytes and its end come together, libmicrohttpd reads the bytes and waits for an edge that has
 * been (0.9.75). Another one makes it look. */
static void point_out_ends(const struct http *http)
{
    LIST_EACH (link, &http->visits) {
        struct visit *visit = LIST_ENTRY(link, struct visit, link);
        if (visit->is_over || recv(visit->fd, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
            continue;
        visit->is_over = true;
        shutdown(visit->fd, SHUT_RD);
    }
}

void http_turn(struct http *http, int64_t now_ms)
{
    struct visit *visit;
    http->now_ms = now_ms;
    while ((visit = first_visit(http)) != NULL && visit->ends_ms <= now_ms) {
        list_remove(&visit->link);
        shutdown(visit->fd, SHUT_RDWR);
    }
    mhd.MHD_run(http->daemon);
    point_out_ends(http);
}

/* ---- life ---- */

static int listen_at(const struct endpoint *endpoint, char *err, size_t err_size)
{
    char port[8];
    const char *host = strcmp(endpoint->host, "localhost") == 0 ? "127.0.0.1" : endpoint->host;
    const struct addrinfo hints = {.ai_family = strcmp(host, "*") == 0 ? AF_INET : AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    snprintf(port, sizeof(port), "%d", endpoint->port);
    int code = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
    if (code != 0) {
        snprintf(err, err_size, "http: %s: %s", endpoint->address, gai_strerror(code));
        return -1;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool is_listening = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) == 0 &&
                        bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    if (!is_listening)
        snprintf(err, err_size, "http: %s: %s", endpoint->address, strerror(errno));
    freeaddrinfo(found);
    if (!is_listening && fd >= 0)
        close(fd);
    return is_listening ? fd : -1;
}

static int open_socket(struct http *http, const char *address, char *err, size_t err_size)
{
    char text[300];
    struct endpoint endpoint;
    snprintf(text, sizeof(text), "tcp://%s", address);
    if (endpoint_parse(&endpoint, text, true, err, err_size) != 0)
        return -1;
    http->is_local = endpoint_is_local(&endpoint);
    int fd = listen_at(&endpoint, err, err_size);
    endpoint_close(&endpoint);
    return fd;
}

struct http *http_open(const char *address, const struct report_scope *scope, char *err, size_t err_size)
{
    if (library_open(&library, &mhd, sizeof(mhd), err, err_size) != 0)
        return NULL;
    snprintf(err, err_size, "out of memory");
    struct http *http = calloc(1, sizeof(*http));
    int fd = http ? open_socket(http, address, err, err_size) : -1;
    if (fd < 0) {
        free(http);
        return NULL;
    }
    http->scope = scope;
    list_init(&http->visits);
    http->daemon = mhd.MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, http, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_MAX_PER_ADDRESS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_NOTIFY_COMPLETED, on_answered, http,
        MHD_OPTION_END);
    if (http->daemon)
        return http;
    snprintf(err, err_size, "http: libmicrohttpd does not start");
    close(fd);
    free(http);
    return NULL;
}

bool http_is_local(const struct http *http)
{
    return http->is_local;
}

int http_fd(const struct http *http)
{
    return mhd.MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

void http_close(struct http *http)
{
    mhd.MHD_stop_daemon(http->daemon); /* closes the listening socket, too */
    free(http);
}
