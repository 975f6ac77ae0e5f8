/* SPDX-License-Identifier: MIT
 *
 * epoll as it should be for libzmq (4.3), between it and the kernel. Three things differ:
 *
 *  - What a descriptor is watched for changes in the kernel when its thread goes to wait, if it still differs then.
 *  - A descriptor that is watched for input and wants to write, too, is first said to have room. It nearly always has:
 *    libzmq asks with each message that it has just written, and gives up when told. Only who still wants to write
 *    after that waits in the kernel.
 *  - Nobody hears of errors and hang-ups unasked. libzmq stops reading a peer whose messages find no room; told of its
 *    end it drops the descriptor and keeps the connection for what is still to be read, and the next heartbeat to that
 *    peer aborts the process. Whoever reads or writes hears of the end as an error of that call.
 *
 *     I/O thread    epoll_ctl   ─┐
 *                   epoll_wait  ─┴─>  here  ─>  kernel
 *
 * An executable's symbols are found before those of any library. Owns what each descriptor is watched for, in one set
 * at a time; a change is held back only in the thread that waited for that set last.
 */
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    DESCRIPTORS_MAX = 1 << 20, /* Linux allows no more unless told to */
    CHANGES_MAX = 4096,        /* held back by one thread */
    UNASKED = EPOLLERR | EPOLLHUP,
    SIGNALS_BYTES = 8 /* of the kernel's sigset_t */
};

/* A change to one of these means something even when it changes nothing. */
#define BY_CHANGE (EPOLLET | EPOLLONESHOT)

struct interest {
    struct epoll_event wanted;
    uint32_t told;    /* events in the kernel's set; 0: not there, whatever who added it thinks */
    bool is_changed;  /* and among the changes of its thread */
    bool was_offered; /* room to write, for this change */
};

static struct interest interests[DESCRIPTORS_MAX];

static _Thread_local struct {
    int epoll; /* that this thread waited for last */
    int count, fds[CHANGES_MAX];
} changes = {.epoll = -1};

/* Makes the kernel's set what is wanted. */
static int tell(int epoll, int fd)
{
    struct interest *interest = &interests[fd];
    uint32_t events = interest->wanted.events;
    if (events == 0 && interest->told == 0)
        return 0;
    int operation = events == 0 ? EPOLL_CTL_DEL : interest->told == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int rc = (int)syscall(SYS_epoll_ctl, epoll, operation, fd, &interest->wanted);
    if (rc == 0)
        interest->told = events;
    return rc;
}

static bool may_be_offered(const struct interest *interest)
{
    return !interest->was_offered && interest->told == EPOLLIN &&
           interest->wanted.events == (EPOLLIN | EPOLLOUT);
}

/* Tells the kernel of what has changed, but for those who can be offered room: up to `most` are, in `events`, and when
 * that is not 0 the others next time. Returns the number of events. */
static int settle_changes(struct epoll_event *events, int most)
{
    int offered = 0, kept = 0;
    for (int i = 0; i < changes.count; i++) {
        int fd = changes.fds[i];
        struct interest *interest = &interests[fd];
        if (most > 0 && may_be_offered(interest)) {
            changes.fds[kept++] = fd;
            if (offered == most)
                continue;
            interest->was_offered = true;
            events[offered++] = (struct epoll_event){.events = EPOLLOUT, .data = interest->wanted.data};
            continue;
        }
        interest->is_changed = interest->was_offered = false;
        if (interest->wanted.events != interest->told)
            tell(changes.epoll, fd);
    }
    changes.count = kept;
    return offered;
}

static void hold_back(int fd)
{
    struct interest *interest = &interests[fd];
    if (interest->wanted.events == interest->told)
        interest->was_offered = false;
    if (interest->is_changed)
        return;
    if (changes.count == CHANGES_MAX)
        settle_changes(NULL, 0);
    interest->is_changed = true;
    changes.fds[changes.count++] = fd;
}

static void forget_change(int fd)
{
    for (int i = 0; interests[fd].is_changed && i < changes.count; i++)
        if (changes.fds[i] == fd)
            changes.fds[i--] = changes.fds[--changes.count];
    interests[fd].is_changed = interests[fd].was_offered = false;
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    if (fd < 0 || fd >= DESCRIPTORS_MAX)
        return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
    struct interest *interest = &interests[fd];
    if (operation != EPOLL_CTL_MOD)
        forget_change(fd);
    if (operation == EPOLL_CTL_ADD)
        interest->told = 0; /* whatever had this number before */
    interest->wanted = operation == EPOLL_CTL_DEL ? (struct epoll_event){0} : *event;
    if (operation != EPOLL_CTL_MOD || epoll != changes.epoll || interest->told == 0 ||
        event->events & BY_CHANGE)
        return tell(epoll, fd);
    hold_back(fd);
    return 0;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms)
{
    int offered = settle_changes(events, epoll == changes.epoll ? most - 1 : 0);
    changes.epoll = epoll;
    int count = (int)syscall(SYS_epoll_pwait, epoll, events + offered, most - offered,
                             offered ? 0 : timeout_ms, NULL, SIGNALS_BYTES);
    for (int i = offered; i < offered + count; i++)
        if (!(events[i].events &= ~(uint32_t)UNASKED))
            events[i].events = EPOLLOUT; /* rarely an error is told alone: before those calls show it */
    return count < 0 && offered > 0 ? offered : offered + count;
}
