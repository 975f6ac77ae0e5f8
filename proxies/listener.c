/* SPDX-License-Identifier: MIT
 *
 * Listening sockets; see listener.h. Owns one descriptor for each address, and the ipc files that they made.
 * Never accepts: that is libzmq's.
 */
#include "proxies/listener.h"

#include "buffer/list.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <libgen.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,
    /* libzmq closes what was given up a moment ago on its own thread. */
    LEAVING_MS = 200,
    LEAVING_STEP_MS = 2
};

struct listener {
    struct list link;
    struct endpoint endpoint;
    int fd;
    bool is_wanted, is_new; /* between listeners_begin and listeners_settle */
    dev_t device;           /* ipc: of the file that we made, */
    ino_t inode;            /* 0 = none */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct list all = {&all, &all}; /* guarded by the mutex */

/* Where a socket is to be bound. */
struct place {
    struct sockaddr_storage address;
    socklen_t size;
    const char *path; /* of an ipc file; NULL = none */
};

static int refuse(char *err, size_t err_size, const char *what)
{
    snprintf(err, err_size, "%s: %s", what, strerror(errno));
    return -1;
}

bool listener_suits(const struct endpoint *endpoint)
{
    if (endpoint->transport == TRANSPORT_IPC)
        return endpoint->address[strlen("ipc://")] != '*';
    return endpoint->transport == TRANSPORT_TCP && endpoint->port != 0;
}

/* ---- places ---- */

static int place_ipc(struct place *place, const char *path, char *err, size_t err_size)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&place->address;
    size_t length = strlen(path);
    if (length >= sizeof address->sun_path) {
        snprintf(err, err_size, "%s: path too long", path);
        return -1;
    }
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    place->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (path[0] == '@') {
        address->sun_path[0] = '\0';
        return 0;
    }
    place->size++;
    place->path = path;
    return 0;
}

/* The address of a network interface, as libzmq takes it: the first of IPv4. */
static bool place_interface(struct place *place, const char *name, int port)
{
    struct ifaddrs *interfaces = NULL;
    if (getifaddrs(&interfaces) != 0)
        return false;
    for (const struct ifaddrs *at = interfaces; at && place->size == 0; at = at->ifa_next) {
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET || strcmp(at->ifa_name, name) != 0)
            continue;
        struct sockaddr_in address = *(const struct sockaddr_in *)(const void *)at->ifa_addr;
        address.sin_port = htons((uint16_t)port);
        memcpy(&place->address, &address, sizeof address);
        place->size = sizeof address;
    }
    freeifaddrs(interfaces);
    return place->size > 0;
}

static int place_tcp(struct place *place, const struct endpoint *endpoint, char *err, size_t err_size)
{
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", endpoint->port);
    const char *host = strcmp(endpoint->host, "*") == 0 ? "0.0.0.0" : endpoint->host;
    if (place_interface(place, host, endpoint->port))
        return 0;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        errno = ENODEV;
        return refuse(err, err_size, "cannot bind");
    }
    memcpy(&place->address, found->ai_addr, found->ai_addrlen);
    place->size = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int find_place(struct place *place, const struct endpoint *endpoint, char *err, size_t err_size)
{
    *place = (struct place){0};
    return endpoint->transport == TRANSPORT_IPC
               ? place_ipc(place, endpoint->address + strlen("ipc://"), err, err_size)
               : place_tcp(place, endpoint, err, err_size);
}

/* ---- ipc files ---- */

/* Whether the path may be bound: nothing there, or a socket file that nobody listens on, which is removed. */
static int clear_path(const struct place *place, char *err, size_t err_size)
{
    struct stat found;
    if (lstat(place->path, &found) != 0)
        return errno == ENOENT ? 0 : refuse(err, err_size, place->path);
    if (!S_ISSOCK(found.st_mode)) {
        snprintf(err, err_size, "%s: exists and is no socket; it is left alone", place->path);
        return -1;
    }
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe == -1)
        return refuse(err, err_size, place->path);
    bool is_stale =
        connect(probe, (const struct sockaddr *)&place->address, place->size) != 0 && errno == ECONNREFUSED;
    close(probe);
    if (!is_stale) {
        snprintf(err, err_size, "%s: in use by a running program", place->path);
        return -1;
    }
    return unlink(place->path) == 0 || errno == ENOENT ? 0 : refuse(err, err_size, place->path);
}

/* The folder's lock keeps two daemons from both finding the path free, and one from removing the other's file. */
static int lock_folder(const char *path)
{
    char folder[sizeof((struct sockaddr_un *)0)->sun_path + 2];
    snprintf(folder, sizeof folder, "%s", path);
    int lock = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock != -1)
        flock(lock, LOCK_EX);
    return lock;
}

static void remove_file(const struct listener *listener)
{
    const char *path = listener->endpoint.address + strlen("ipc://");
    struct stat found;
    int lock = listener->inode != 0 ? lock_folder(path) : -1;
    if (lock == -1)
        return;
    if (lstat(path, &found) == 0 && found.st_dev == listener->device && found.st_ino == listener->inode)
        unlink(path);
    close(lock);
}

/* ---- listening ---- */

static void share_port(const struct listener *listener, bool is_shared)
{
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEPORT, &(int){is_shared}, sizeof(int));
}

/* Those that collide with `endpoint` and are about to go let it in beside them. False when there are none. */
static bool make_way(const struct endpoint *endpoint, bool is_shared)
{
    bool is_any = false;
    LIST_EACH (link, &all) {
        const struct listener *other = LIST_ENTRY(link, struct listener, link);
        if (other->is_wanted || !endpoint_collides(&other->endpoint, endpoint))
            continue;
        share_port(other, is_shared);
        is_any = true;
    }
    return is_any;
}

static int bind_tcp(const struct listener *listener, const struct place *place)
{
    int rc, on = 1;
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int)); /* fails where it is IPv4 */
    const struct timespec step = {.tv_nsec = LEAVING_STEP_MS * 1000000};
    for (int waited_ms = 0;; waited_ms += LEAVING_STEP_MS) {
        rc = bind(listener->fd, (const struct sockaddr *)&place->address, place->size);
        if (rc == 0)
            rc = listen(listener->fd, BACKLOG);
        if (rc == 0 || errno != EADDRINUSE || !listener->is_new || waited_ms >= LEAVING_MS)
            return rc;
        nanosleep(&step, NULL);
    }
}

static int listen_tcp(struct listener *listener, const struct place *place, char *err, size_t err_size)
{
    /* Only then: Linux remembers of a port that it was shared once, and would let another proxyd in. */
    share_port(listener, make_way(&listener->endpoint, true));
    int rc = bind_tcp(listener, place);
    int error = errno;
    share_port(listener, false);
    make_way(&listener->endpoint, false);
    errno = error;
    return rc == 0 ? 0 : refuse(err, err_size, "cannot bind");
}

static int listen_ipc(struct listener *listener, const struct place *place, char *err, size_t err_size)
{
    int lock = place->path ? lock_folder(place->path) : -1;
    if (place->path && lock == -1)
        return refuse(err, err_size, place->path);
    int rc = place->path ? clear_path(place, err, err_size) : 0;
    if (rc == 0 && (bind(listener->fd, (const struct sockaddr *)&place->address, place->size) != 0 ||
                    listen(listener->fd, BACKLOG) != 0))
        rc = refuse(err, err_size, "cannot bind");
    struct stat made;
    if (rc == 0 && place->path && lstat(place->path, &made) == 0) {
        listener->device = made.st_dev;
        listener->inode = made.st_ino;
    }
    if (lock != -1)
        close(lock);
    return rc;
}

static void listener_free(struct listener *listener)
{
    list_remove(&listener->link);
    if (listener->fd != -1)
        close(listener->fd);
    endpoint_close(&listener->endpoint);
    free(listener);
}

/* The mutex is held. NULL with a reason. */
static struct listener *listener_new(const struct endpoint *endpoint, bool is_new, char *err, size_t err_size)
{
    struct place place;
    if (find_place(&place, endpoint, err, err_size) != 0)
        return NULL;
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    list_init(&listener->link);
    listener->is_new = listener->is_wanted = is_new;
    listener->fd = socket(place.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (endpoint_parse(&listener->endpoint, endpoint->text, endpoint->is_bind, err, err_size) != 0 ||
        (listener->fd == -1 && refuse(err, err_size, "cannot make a socket") != 0) ||
        (place.address.ss_family == AF_UNIX ? listen_ipc(listener, &place, err, err_size)
                                            : listen_tcp(listener, &place, err, err_size)) != 0) {
        listener_free(listener);
        return NULL;
    }
    list_append(&all, &listener->link);
    return listener;
}

static struct listener *find(const struct endpoint *endpoint)
{
    LIST_EACH (link, &all) {
        struct listener *listener = LIST_ENTRY(link, struct listener, link);
        if (strcmp(listener->endpoint.address, endpoint->address) == 0)
            return listener;
    }
    return NULL;
}

int listener_share(const struct endpoint *endpoint, char *err, size_t err_size)
{
    int fd = -1;
    pthread_mutex_lock(&mutex);
    struct listener *listener = find(endpoint);
    if (!listener)
        listener = listener_new(endpoint, false, err, err_size);
    if (listener && (fd = fcntl(listener->fd, F_DUPFD_CLOEXEC, 0)) == -1)
        refuse(err, err_size, "cannot bind");
    pthread_mutex_unlock(&mutex);
    return fd;
}

void listener_end(const struct endpoint *endpoint)
{
    pthread_mutex_lock(&mutex);
    struct listener *listener = find(endpoint);
    if (listener) {
        remove_file(listener);
        listener_free(listener);
    }
    pthread_mutex_unlock(&mutex);
}

/* ---- another set ---- */

void listeners_begin(void)
{
    pthread_mutex_lock(&mutex);
    LIST_EACH (link, &all) {
        struct listener *listener = LIST_ENTRY(link, struct listener, link);
        listener->is_wanted = listener->is_new = false;
    }
    pthread_mutex_unlock(&mutex);
}

int listeners_want(const struct endpoint *endpoint, char *err, size_t err_size)
{
    pthread_mutex_lock(&mutex);
    struct listener *listener = find(endpoint);
    if (listener)
        listener->is_wanted = true;
    else
        listener = listener_new(endpoint, true, err, err_size);
    pthread_mutex_unlock(&mutex);
    return listener ? 0 : -1;
}

void listeners_settle(bool is_good)
{
    pthread_mutex_lock(&mutex);
    LIST_EACH_SAFE (link, following, &all) {
        struct listener *listener = LIST_ENTRY(link, struct listener, link);
        if (is_good ? listener->is_wanted : !listener->is_new)
            continue;
        remove_file(listener);
        listener_free(listener);
    }
    pthread_mutex_unlock(&mutex);
}

void listeners_close(void)
{
    listeners_begin();
    listeners_settle(true);
}
