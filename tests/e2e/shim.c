/* SPDX-License-Identifier: MIT
 *
 * Preloaded into a daemon under test, it makes the machine worse: syncs that take long, a wall clock that jumps, a
 * boot that was not there, a thread that dies.
 *
 *   SHIM_SYNC_MS      each fsync and fdatasync takes so much longer
 *   SHIM_CLOCK_FILE   holds an int64 in the machine's byte order: seconds that the wall clock is off by now
 *   SHIM_BOOT_ID      a file to read where the kernel would tell its boot id
 *   SHIM_ZAP_FAILS    once that file exists, the ZAP thread cannot poll
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int64_t nowhere;
static volatile int64_t *offset_s = &nowhere;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SHIM_CLOCK_FILE");
    int fd = path ? open(path, O_RDONLY) : -1;
    void *map = fd != -1 ? mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (map != MAP_FAILED)
        offset_s = map;
    if (fd != -1)
        close(fd);
}

static void take_long(void)
{
    const char *text = getenv("SHIM_SYNC_MS");
    useconds_t ms = text ? (useconds_t)atoi(text) : 0;
    usleep(ms * 1000);
}

int fsync(int fd)
{
    take_long();
    return REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    take_long();
    return REAL(fdatasync)(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = REAL(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        now->tv_sec += *offset_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int result = REAL(gettimeofday)(now, zone);
    now->tv_sec += *offset_s;
    return result;
}

time_t time(time_t *now)
{
    time_t result = REAL(time)(NULL) + *offset_s;
    if (now)
        *now = result;
    return result;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    const char *boot_id = getenv("SHIM_BOOT_ID");
    if (boot_id && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
        path = boot_id;
    return REAL(open)(path, flags, mode);
}

int zmq_poll(zmq_pollitem_t *items, int count, long timeout_ms)
{
    char thread[16] = "";
    const char *fails = getenv("SHIM_ZAP_FAILS");
    pthread_getname_np(pthread_self(), thread, sizeof thread);
    if (!fails || strcmp(thread, "auth-zap") != 0 || access(fails, F_OK) != 0)
        return REAL(zmq_poll)(items, count, timeout_ms);
    errno = EFAULT;
    return -1;
}
