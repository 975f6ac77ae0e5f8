/* SPDX-License-Identifier: MIT
 *
 * Preloaded into a daemon under test, it makes the machine worse: syncs that take long, a wall clock that jumps.
 *
 *   SHIM_SYNC_MS      each fsync and fdatasync takes so much longer
 *   SHIM_CLOCK_FILE   holds an int64 in the machine's byte order: seconds that the wall clock is off by now
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

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
