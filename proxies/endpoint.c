/* SPDX-License-Identifier: MIT
 *
 * Endpoints; see endpoint.h. Accepts what libzmq accepts and a daemon can use, and refuses with a reason what
 * libzmq would take and never bring to life: an address to connect to without a port, a source address, a
 * path that does not fit into sun_path, an IPv6 address without brackets. Never looks anything up.
 */
#include "proxies/endpoint.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#define HOST_MAX        253 /* of a DNS name */
#define INPROC_NAME_MAX 255

static const char *const prefixes[] = {
    [TRANSPORT_TCP] = "tcp://", [TRANSPORT_IPC] = "ipc://", [TRANSPORT_INPROC] = "inproc://",
    [TRANSPORT_WS] = "ws://",   [TRANSPORT_WSS] = "wss://",
};

/* What follows the transport, or NULL when there is none that we know. */
static const char *skip_transport(struct endpoint *endpoint)
{
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        size_t length = strlen(prefixes[i]);
        if (strncmp(endpoint->address, prefixes[i], length) == 0) {
            endpoint->transport = (enum transport)i;
            return endpoint->address + length;
        }
    }
    return NULL;
}

static bool is_printable(const char *text)
{
    for (; *text; text++)
        if (!isgraph((unsigned char)*text))
            return false;
    return true;
}

/* The reason why `port` is none, or NULL. */
static const char *parse_port(struct endpoint *endpoint, const char *port)
{
    bool is_any = strcmp(port, "*") == 0;
    size_t digits = strspn(port, "0123456789");
    if (!is_any && (digits == 0 || digits > 5 || port[digits] != '\0'))
        return "the port must be a number from 1 to 65535";
    endpoint->port = is_any ? 0 : atoi(port);
    if (endpoint->port > 65535)
        return "the port must be a number from 1 to 65535";
    if (endpoint->port == 0 && !endpoint->is_bind)
        return "port 0 can be bound but not connected to";
    return NULL;
}

/* An address may carry a zone, "fe80::1%eth0". */
static bool is_ipv6(const char *host)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    size_t length = strcspn(host, "%");
    if (length >= sizeof(address) || (host[length] == '%' && host[length + 1] == '\0'))
        return false;
    memcpy(address, host, length);
    address[length] = '\0';
    return inet_pton(AF_INET6, address, &ignored) == 1;
}

/* The reason why `endpoint->host` is none, or NULL. */
static const char *check_host(const struct endpoint *endpoint, bool has_brackets)
{
    static const char name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    const char *host = endpoint->host;
    struct in_addr ignored;
    if (has_brackets)
        return is_ipv6(host) ? NULL : "no IPv6 address in the brackets";
    if (strchr(host, ':') != NULL)
        return "an IPv6 address is written in brackets, [::1]";
    if (strcmp(host, "*") == 0)
        return endpoint->is_bind ? NULL : "\"*\" can be bound but not connected to";
    if (*host == '\0')
        return "there is no host";
    if (strlen(host) > HOST_MAX || host[strspn(host, name_characters)] != '\0')
        return "this is not a host name";
    if (host[strspn(host, "0123456789.")] == '\0' && inet_pton(AF_INET, host, &ignored) != 1)
        return "this is not an IPv4 address";
    return NULL;
}

/* host:port, the host perhaps in brackets. The reason why it is none, or NULL. */
static const char *parse_tcp(struct endpoint *endpoint, const char *rest)
{
    if (strchr(rest, '@') != NULL)
        return "a user name is written as username";
    if (strchr(rest, ';') != NULL)
        return "a source address (\";\") is not supported";
    const char *colon = strrchr(rest, ':');
    if (colon == NULL || strchr(colon, ']') != NULL)
        return "there is no port";
    bool has_brackets = rest[0] == '[' && colon - rest >= 2 && colon[-1] == ']';
    endpoint->host =
        has_brackets ? strndup(rest + 1, (size_t)(colon - rest - 2)) : strndup(rest, (size_t)(colon - rest));
    if (endpoint->host == NULL)
        return "out of memory";
    const char *reason = check_host(endpoint, has_brackets);
    return reason != NULL ? reason : parse_port(endpoint, colon + 1);
}

/* RFC 6455, 3. The path is the server's business. The reason why it is none, or NULL. */
static const char *parse_websocket(struct endpoint *endpoint, const char *rest)
{
    endpoint->is_bind = false;
    if (endpoint->text[0] == '@')
        return "a WebSocket is connected to, and never bound";
    if (strchr(rest, '#') != NULL)
        return "a WebSocket has no fragment (\"#\")";
    const char *path = endpoint_path(endpoint);
    if (*path == '?')
        return "a query (\"?\") stands behind a path";
    size_t size;
    const char *authority = endpoint_authority(endpoint, &size);
    const char *colon = memrchr(authority, ':', size), *bracket = memrchr(authority, ']', size);
    if (endpoint->transport == TRANSPORT_WSS && bracket != NULL) /* which it cuts at the first colon */
        return "libwebsockets cannot hold an IPv6 address against a certificate, but a name";
    bool has_port = colon != NULL && (bracket == NULL || bracket < colon);
    char place[HOST_MAX + sizeof "[]:65535"];
    int used = snprintf(place, sizeof(place), "%.*s%s", (int)size, authority,
                        has_port                               ? ""
                        : endpoint->transport == TRANSPORT_WSS ? ":443"
                                                               : ":80");
    return used < (int)sizeof(place) ? parse_tcp(endpoint, place) : "this is not a host name";
}

/* A leading '@' is Linux's abstract name space. The reason why it is no path, or NULL. */
static const char *check_ipc(const char *path)
{
    if (*path == '\0' || strcmp(path, "@") == 0 || strcmp(path, "*") == 0)
        return "there is no path";
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return "the path is longer than 107 bytes, the most that a socket can have";
    return NULL;
}

static const char *parse_address(struct endpoint *endpoint)
{
    const char *rest = skip_transport(endpoint);
    if (rest == NULL)
        return "an endpoint begins with tcp://, ipc://, inproc://, ws:// or wss://";
    if (endpoint->transport == TRANSPORT_TCP)
        return parse_tcp(endpoint, rest);
    if (endpoint_is_websocket(endpoint))
        return parse_websocket(endpoint, rest);
    if (endpoint->transport == TRANSPORT_IPC)
        return check_ipc(rest);
    if (strncmp(rest, "zeromq.", strlen("zeromq.")) == 0)
        return "inproc names that begin with zeromq. belong to ZeroMQ (RFC 27)";
    return *rest != '\0' && strlen(rest) <= INPROC_NAME_MAX ? NULL : "an inproc name has 1 to 255 bytes";
}

/* Where in a refused `text` the host begins that somebody wrote a user name and a password before; NULL = nowhere. */
static const char *skip_credentials(const char *text)
{
    const char *address = text + strspn(text, "@>");
    if (strncmp(address, "ipc://", 6) == 0 || strncmp(address, "inproc://", 9) == 0)
        return NULL;
    return strrchr(address, '@');
}

int endpoint_parse(struct endpoint *endpoint, const char *text, bool binds, char *err, size_t err_size)
{
    bool is_forced = text[0] == '@' || text[0] == '>';
    *endpoint = (struct endpoint){
        .text = strdup(text),
        .address = strdup(text + is_forced),
        .is_bind = is_forced ? text[0] == '@' : binds,
    };
    const char *reason = NULL;
    if (endpoint->text == NULL || endpoint->address == NULL)
        reason = "out of memory";
    else if (!is_printable(text))
        reason = "blanks, control characters and anything but ASCII have no place in an endpoint";
    else
        reason = parse_address(endpoint);
    if (reason == NULL)
        return 0;
    endpoint_close(endpoint);
    const char *host = skip_credentials(text);
    if (host != NULL)
        snprintf(err, err_size, "endpoint \"...%s\": %s", host, reason);
    else
        snprintf(err, err_size, "endpoint \"%s\": %s", text, reason);
    return -1;
}

void endpoint_close(struct endpoint *endpoint)
{
    free(endpoint->text);
    free(endpoint->address);
    free(endpoint->host);
    *endpoint = (struct endpoint){0};
}

bool endpoint_is_websocket(const struct endpoint *endpoint)
{
    return endpoint->transport == TRANSPORT_WS || endpoint->transport == TRANSPORT_WSS;
}

const char *endpoint_authority(const struct endpoint *endpoint, size_t *size)
{
    const char *authority = strstr(endpoint->address, "://") + strlen("://");
    *size = strcspn(authority, "/?");
    return authority;
}

const char *endpoint_path(const struct endpoint *endpoint)
{
    size_t size;
    const char *authority = endpoint_authority(endpoint, &size);
    return authority + size;
}

/* A numeric host in the one form that every spelling of it has: IPv4 as mapped into IPv6, "*" as its zeros. */
static bool to_number(const char *host, struct in6_addr *address)
{
    *address = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    return strcmp(host, "*") == 0 || inet_pton(AF_INET, host, &address->s6_addr[12]) == 1 ||
           inet_pton(AF_INET6, host, address) == 1;
}

/* Whether who binds `host` has `other`, too. NULL is a name or an interface; "::" takes IPv4 in as well. */
static bool covers(const struct in6_addr *host, const struct in6_addr *other)
{
    if (!host)
        return false;
    bool is_any_ipv4 = IN6_IS_ADDR_V4MAPPED(host) && host->s6_addr32[3] == 0;
    return IN6_IS_ADDR_UNSPECIFIED(host) || (is_any_ipv4 && (!other || IN6_IS_ADDR_V4MAPPED(other)));
}

static bool hosts_collide(const char *a, const char *b)
{
    struct in6_addr numbers[2];
    const struct in6_addr *left = to_number(a, &numbers[0]) ? &numbers[0] : NULL;
    const struct in6_addr *right = to_number(b, &numbers[1]) ? &numbers[1] : NULL;
    if (covers(left, right) || covers(right, left))
        return true;
    return left && right ? IN6_ARE_ADDR_EQUAL(left, right) : strcasecmp(a, b) == 0;
}

bool endpoint_collides(const struct endpoint *a, const struct endpoint *b)
{
    if (!a->is_bind || !b->is_bind || a->transport != b->transport)
        return false;
    if (a->transport != TRANSPORT_TCP)
        return strcmp(a->address, b->address) == 0;
    return a->port != 0 && a->port == b->port && hosts_collide(a->host, b->host);
}

bool endpoint_is_local(const struct endpoint *endpoint)
{
    struct in_addr address;
    struct in6_addr address6;
    if (!endpoint->host || strcasecmp(endpoint->host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, endpoint->host, &address) == 1)
        return ntohl(address.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, endpoint->host, &address6) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&address6) ||
           (IN6_IS_ADDR_V4MAPPED(&address6) && address6.s6_addr[12] == 127);
}
