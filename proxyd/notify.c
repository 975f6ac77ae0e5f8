/* SPDX-License-Identifier: MIT
 *
 * sd_notify without libsystemd; see notify.h. A socket for each datagram: states are rare, and nothing is
 * held open in between.
 */
#include "proxyd/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int notify_send(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || *path == '\0')
        return 0;
    size_t length = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || length >= sizeof(address.sun_path)) {
        errno = EINVAL;
        return -1;
    }
    memcpy(address.sun_path, path, length);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* An abstract name ends where its length says, not at a NUL. */
    socklen_t address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    ssize_t sent = sendto(fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address,
                          address_size);
    int error = errno;
    close(fd);
    errno = error;
    return sent < 0 ? -1 : 0;
}

/* The positive number that an environment variable holds; 0 when it holds none. */
static int64_t number_from(const char *variable)
{
    const char *text = getenv(variable);
    char *end;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return 0;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0 ? number : 0;
}

int64_t notify_watchdog_usec(void)
{
    if (getenv("WATCHDOG_PID") != NULL && number_from("WATCHDOG_PID") != getpid())
        return 0;
    return number_from("WATCHDOG_USEC");
}
