/* SPDX-License-Identifier: MIT
 *
 * The monitor thread; see monitor.h. It owns the reading ends of all monitor sockets. A watch has two owners,
 * the chain and this thread; the last one to let go frees it.
 */
#include "proxies/monitor.h"

#include "buffer/clock.h"
#include "buffer/list.h"
#include "proxies/poller.h"
#include "proxies/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

enum {
    WATCHED_EVENTS = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED |
                     ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                     ZMQ_EVENT_MONITOR_STOPPED | ZMQ_EVENT_ACCEPTED,
    CALM_MS = 1000,        /* after the last peer left, or much was freed: libzmq is done with it by then */
    SPARE_BYTES = 4 << 20, /* less is not worth the walk */
};

struct watch {
    struct list link; /* monitor->arriving, until the thread has it */
    void *events;     /* the PAIR socket; the monitor thread's once handed over */
    struct waker *waker;
    atomic_int references;
    atomic_uint handshakes;
    atomic_uint connections;
    atomic_int end;
    int failure;          /* the thread's own: an enum watch_end seen in the handshake now under way */
    unsigned unfinished;  /* the thread's own: accepted, handshake not finished */
    int64_t connected_ms; /* the thread's own: when we last connected */
};

struct monitor {
    void *zmq;
    pthread_t thread;
    int epoll;
    struct waker *waker;
    atomic_bool is_closing, has_freed;
    unsigned watched;   /* the thread's own: sockets whose end it has not heard of */
    int64_t look_at_ms; /* the thread's own: for memory to give back; INT64_MAX: there is no reason to */
    uint64_t kept;      /* the thread's own: bytes that stay spare, the least ever seen; 0: not known */
    pthread_mutex_t mutex;
    struct list arriving; /* guarded by mutex */
    atomic_ulong names;
};

static void watch_release(struct watch *watch)
{
    if (atomic_fetch_sub(&watch->references, 1) == 1) {
        waker_release(watch->waker);
        free(watch);
    }
}

/* A monitor event is [16-bit event, 32-bit value][endpoint]. */
static int receive_event(void *events, uint16_t *event, uint32_t *value)
{
    uint8_t head[6];
    int size = zmq_recv(events, head, sizeof head, ZMQ_DONTWAIT);
    if (size == -1)
        return -1;
    char endpoint[1];
    zmq_recv(events, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
    memcpy(event, head, sizeof *event);
    memcpy(value, head + 2, sizeof *value);
    return size == sizeof head ? 0 : -1;
}

/* When libzmq's own time for a handshake is up it gives as the reason whatever any connection's last error was. */
static enum watch_end handshake_failure(const struct watch *watch, uint16_t event, uint32_t value)
{
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        return WATCH_DENIED;
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)
        return WATCH_MISMATCH;
    bool was_long = clock_now_ms() - watch->connected_ms >= SOCKET_HANDSHAKE_MS * 9 / 10;
    return was_long || value == EAGAIN || value == ETIMEDOUT ? WATCH_SILENT : WATCH_LOST;
}

static void note_event(struct watch *watch, uint16_t event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_CONNECTED:
        watch->connected_ms = clock_now_ms();
        watch->unfinished++;
        return;
    case ZMQ_EVENT_ACCEPTED:
        watch->unfinished++;
        return;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        if (watch->unfinished > 0)
            watch->unfinished--;
        atomic_fetch_add(&watch->connections, 1);
        atomic_fetch_add(&watch->handshakes, 1);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        watch->failure = handshake_failure(watch, event, value);
        return;            /* a disconnect follows */
    case ZMQ_EVENT_CLOSED: /* a connect that came to nothing; or our own listener, which nobody asks about */
        atomic_store(&watch->end, WATCH_REFUSED);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (watch->unfinished > 0) {
            watch->unfinished--;
            atomic_store(&watch->end, watch->failure ? watch->failure : WATCH_MISMATCH);
        } else {
            if (atomic_load(&watch->connections) > 0)
                atomic_fetch_sub(&watch->connections, 1);
            atomic_store(&watch->end, WATCH_LOST);
        }
        watch->failure = WATCH_OPEN;
        break;
    default:
        return;
    }
    waker_wake(watch->waker);
}

/* Pages of this process that are in memory, less what is allocated; what others free meanwhile is not counted. */
static uint64_t spare_bytes(void)
{
    struct mallinfo2 heap = mallinfo2();
    char text[128] = "";
    uint64_t pages = 0, used = heap.uordblks + heap.hblkhd;
    int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (statm != -1 && read(statm, text, sizeof text - 1) > 0)
        sscanf(text, "%*u %" SCNu64, &pages);
    if (statm != -1)
        close(statm);
    uint64_t resident = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return resident > used ? resident - used : 0;
}

/* glibc keeps what lies between blocks in use until it is asked. Here, since it takes a while. Returns how long to wait
 * before the next look; -1: until something happens. */
static int give_back_memory(struct monitor *monitor)
{
    int64_t now_ms = clock_now_ms();
    if (atomic_exchange(&monitor->has_freed, false))
        monitor->look_at_ms = now_ms + CALM_MS;
    if (monitor->look_at_ms == INT64_MAX)
        return -1;
    if (monitor->look_at_ms > now_ms)
        return (int)(monitor->look_at_ms - now_ms);
    monitor->look_at_ms = INT64_MAX;
    uint64_t spare = spare_bytes();
    if (spare >= monitor->kept + SPARE_BYTES) {
        malloc_trim(0);
        spare = spare_bytes();
    }
    if (monitor->kept == 0 || spare < monitor->kept)
        monitor->kept = spare;
    return -1;
}

/* Reads all events of one socket; lets go of it when it was stopped. */
static void drain(struct monitor *monitor, struct watch *watch)
{
    uint16_t event;
    uint32_t value;
    while (receive_event(watch->events, &event, &value) == 0) {
        if (event == ZMQ_EVENT_MONITOR_STOPPED) {
            int fd;
            zmq_getsockopt(watch->events, ZMQ_FD, &fd, &(size_t){sizeof fd});
            epoll_ctl(monitor->epoll, EPOLL_CTL_DEL, fd, NULL);
            zmq_close(watch->events);
            watch_release(watch);
            monitor->watched--;
            return;
        }
        if (event == ZMQ_EVENT_DISCONNECTED) {
            monitor->look_at_ms = clock_now_ms() + CALM_MS;
        }
        note_event(watch, event, value);
    }
}

static void take_arriving(struct monitor *monitor)
{
    pthread_mutex_lock(&monitor->mutex);
    struct list taken;
    list_init(&taken);
    LIST_EACH_SAFE (link, following, &monitor->arriving) {
        list_remove(link);
        list_append(&taken, link);
    }
    pthread_mutex_unlock(&monitor->mutex);
    LIST_EACH_SAFE (link, following, &taken) {
        struct watch *watch = LIST_ENTRY(link, struct watch, link);
        list_remove(link);
        int fd;
        zmq_getsockopt(watch->events, ZMQ_FD, &fd, &(size_t){sizeof fd});
        epoll_ctl(monitor->epoll, EPOLL_CTL_ADD, fd,
                  &(struct epoll_event){.events = EPOLLIN, .data.ptr = watch});
        monitor->watched++;
        drain(monitor, watch);
    }
}

static void *monitor_run(void *argument)
{
    struct monitor *monitor = argument;
    pthread_setname_np(pthread_self(), "monitor");
    for (;;) {
        /* Read first: once it is true nothing new arrives, so that nothing is left behind. */
        bool is_closing = atomic_load(&monitor->is_closing);
        take_arriving(monitor);
        if (is_closing && monitor->watched == 0)
            return NULL;
        struct epoll_event events[64];
        int count =
            epoll_wait(monitor->epoll, events, sizeof events / sizeof *events, give_back_memory(monitor));
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                drain(monitor, events[i].data.ptr);
            else
                waker_clear(monitor->waker);
        }
    }
}

struct monitor *monitor_open(void *zmq_context, char *err, size_t err_size)
{
    struct monitor *monitor = calloc(1, sizeof *monitor);
    if (!monitor)
        goto failed;
    monitor->zmq = zmq_context;
    list_init(&monitor->arriving);
    pthread_mutex_init(&monitor->mutex, NULL);
    atomic_init(&monitor->has_freed, true); /* by starting */
    monitor->waker = waker_new();
    monitor->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!monitor->waker || monitor->epoll == -1)
        goto failed;
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(monitor->epoll, EPOLL_CTL_ADD, waker_fd(monitor->waker), &wake);
    if (pthread_create(&monitor->thread, NULL, monitor_run, monitor) != 0)
        goto failed;
    return monitor;
failed:
    snprintf(err, err_size, "cannot start the monitor: %s", strerror(errno));
    if (monitor) {
        if (monitor->waker)
            waker_release(monitor->waker);
        if (monitor->epoll > 0)
            close(monitor->epoll);
        free(monitor);
    }
    return NULL;
}

void monitor_note_freed(struct monitor *monitor)
{
    atomic_store(&monitor->has_freed, true);
    waker_wake(monitor->waker);
}

void monitor_close(struct monitor *monitor)
{
    atomic_store(&monitor->is_closing, true);
    waker_wake(monitor->waker);
    pthread_join(monitor->thread, NULL);
    close(monitor->epoll);
    waker_release(monitor->waker);
    pthread_mutex_destroy(&monitor->mutex);
    free(monitor);
}

struct watch *watch_start(struct monitor *monitor, void *watched, struct waker *waker, char *err,
                          size_t err_size)
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        goto failed;
    char address[64];
    snprintf(address, sizeof address, "inproc://monitor-%lu", atomic_fetch_add(&monitor->names, 1));
    /* All that may fail comes first, and connecting at once: an event that nobody can take blocks the thread that
     * has it, ours too, and stopping is an event. */
    watch->events = zmq_socket(monitor->zmq, ZMQ_PAIR);
    if (!watch->events || zmq_setsockopt(watch->events, ZMQ_RCVHWM, &(int){0}, sizeof(int)) != 0 ||
        zmq_setsockopt(watch->events, ZMQ_LINGER, &(int){0}, sizeof(int)) != 0 ||
        zmq_socket_monitor(watched, address, WATCHED_EVENTS) != 0 || zmq_connect(watch->events, address) != 0)
        goto failed;
    watch->waker = waker_share(waker);
    atomic_init(&watch->references, 2);
    pthread_mutex_lock(&monitor->mutex);
    list_append(&monitor->arriving, &watch->link);
    pthread_mutex_unlock(&monitor->mutex);
    waker_wake(monitor->waker);
    return watch;
failed:
    snprintf(err, err_size, "cannot watch a socket: %s", zmq_strerror(errno));
    if (watch && watch->events)
        zmq_close(watch->events);
    free(watch);
    return NULL;
}

void watch_stop(struct watch *watch, void *watched)
{
    zmq_socket_monitor(watched, NULL, 0); /* the thread hears MONITOR_STOPPED and lets go, too */
    watch_release(watch);
}

struct watch_facts watch_facts(const struct watch *watch)
{
    return (struct watch_facts){
        .handshakes = atomic_load(&watch->handshakes),
        .connections = atomic_load(&watch->connections),
        .end = atomic_load(&watch->end),
    };
}
