/* SPDX-License-Identifier: MIT
 *
 * The medium: speaks the kernel's side of FUSE itself, because it needs so little of it. Disk and log are memory
 * shared with the child that serves them.
 */
#include "tests/unit/medium.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    DISK_BYTES = 32 << 20,
    LOG_BYTES = 1 << 30, /* of address space */
    LOG_RECORDS = 1 << 18,
    REQUEST_BYTES = (1 << 20) + 4096,
    FILE_NODE = 2,
    SECTOR = 512,
    BUSY_MS = 5000,
};

struct record {
    bool is_sync;
    uint64_t offset, size, at; /* at: of the bytes in the log */
};

struct shared {
    bool refuses;
    uint64_t refused;
    uint64_t count, bytes; /* count is published last */
    struct record records[LOG_RECORDS];
};

struct medium {
    char live[128], cut[128], fuse[128];
    struct shared *shared;
    unsigned char *disk, *log;
    pid_t server;
    int loop_fd;
    char loop[32];
    /* cutting */
    int image_fd;
    unsigned char *image, *stable; /* stable: all before the last sync */
    uint64_t stable_count;
    unsigned random;
};

static void *share(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* ---- the server ---- */

static void remember(struct medium *medium, bool is_sync, uint64_t offset, const void *data, size_t size)
{
    struct shared *shared = medium->shared;
    if (shared->count >= LOG_RECORDS || shared->bytes + size > LOG_BYTES)
        _exit(1);
    if (size > 0)
        memcpy(medium->log + shared->bytes, data, size);
    shared->records[shared->count] = (struct record){is_sync, offset, size, shared->bytes};
    shared->bytes += size;
    __atomic_store_n(&shared->count, shared->count + 1, __ATOMIC_SEQ_CST);
}

static struct fuse_attr attributes(uint64_t node)
{
    return (struct fuse_attr){
        .ino = node,
        .size = node == FILE_NODE ? DISK_BYTES : 0,
        .blocks = node == FILE_NODE ? DISK_BYTES / SECTOR : 0,
        .mode = node == FILE_NODE ? S_IFREG | 0600 : S_IFDIR | 0700,
        .nlink = 1,
        .blksize = 4096,
    };
}

static void reply(int fd, uint64_t unique, int error, const void *data, size_t size)
{
    static unsigned char buffer[REQUEST_BYTES];
    struct fuse_out_header header = {(uint32_t)(sizeof header + size), error, unique};
    memcpy(buffer, &header, sizeof header);
    if (size > 0)
        memcpy(buffer + sizeof header, data, size);
    ssize_t ignored = write(fd, buffer, sizeof header + size);
    (void)ignored;
}

static void serve_one(struct medium *medium, int fd, const struct fuse_in_header *in, const void *body)
{
    switch (in->opcode) {
    case FUSE_INIT: {
        const struct fuse_init_in *init = body;
        struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                    .minor = FUSE_KERNEL_MINOR_VERSION,
                                    .max_readahead = init->max_readahead,
                                    .max_write = 128 << 10,
                                    .max_background = 16,
                                    .congestion_threshold = 12};
        reply(fd, in->unique, 0, &out, sizeof out);
        break;
    }
    case FUSE_LOOKUP: {
        struct fuse_entry_out out = {.nodeid = FILE_NODE, .attr_valid = 3600, .entry_valid = 3600};
        out.attr = attributes(FILE_NODE);
        bool is_there = strcmp(body, "disk") == 0;
        reply(fd, in->unique, is_there ? 0 : -ENOENT, &out, is_there ? sizeof out : 0);
        break;
    }
    case FUSE_GETATTR:
    case FUSE_SETATTR: {
        struct fuse_attr_out out = {.attr_valid = 3600, .attr = attributes(in->nodeid)};
        reply(fd, in->unique, 0, &out, sizeof out);
        break;
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
        struct fuse_open_out out = {.open_flags = FOPEN_DIRECT_IO};
        reply(fd, in->unique, 0, &out, sizeof out);
        break;
    }
    case FUSE_READ: {
        const struct fuse_read_in *read = body;
        size_t size = read->offset < DISK_BYTES ? read->size : 0;
        if (size > DISK_BYTES - read->offset)
            size = DISK_BYTES - read->offset;
        reply(fd, in->unique, 0, medium->disk + read->offset, size);
        break;
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *write = body;
        struct fuse_write_out out = {.size = write->size};
        if (write->offset > DISK_BYTES || write->size > DISK_BYTES - write->offset) {
            reply(fd, in->unique, -ENOSPC, NULL, 0);
            break;
        }
        if (__atomic_load_n(&medium->shared->refuses, __ATOMIC_SEQ_CST)) {
            reply(fd, in->unique, -EIO, NULL, 0);
            __atomic_fetch_add(&medium->shared->refused, 1, __ATOMIC_SEQ_CST);
            break;
        }
        memcpy(medium->disk + write->offset, write + 1, write->size);
        remember(medium, false, write->offset, write + 1, write->size);
        reply(fd, in->unique, 0, &out, sizeof out);
        break;
    }
    case FUSE_FSYNC:
        remember(medium, true, 0, NULL, 0);
        reply(fd, in->unique, 0, NULL, 0);
        break;
    case FUSE_STATFS: {
        struct fuse_statfs_out out = {.st = {.bsize = 4096, .namelen = 255}};
        reply(fd, in->unique, 0, &out, sizeof out);
        break;
    }
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_DESTROY:
        reply(fd, in->unique, 0, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        reply(fd, in->unique, -ENOSYS, NULL, 0);
    }
}

static void serve(struct medium *medium, int fd)
{
    static unsigned char request[REQUEST_BYTES] __attribute__((aligned(16)));
    for (;;) {
        ssize_t size = read(fd, request, sizeof request);
        if (size < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
            continue;
        if (size < (ssize_t)sizeof(struct fuse_in_header))
            _exit(0); /* unmounted */
        serve_one(medium, fd, (const struct fuse_in_header *)request,
                  request + sizeof(struct fuse_in_header));
    }
}

/* ---- loop devices ---- */

static int attach_loop(int file_fd, char name[32])
{
    for (int tries = 0; tries < 20; tries++) {
        int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
        if (control >= 0)
            close(control);
        if (number < 0)
            return -1;
        snprintf(name, 32, "/dev/loop%d", number);
        int loop = open(name, O_RDWR | O_CLOEXEC);
        if (loop >= 0 && ioctl(loop, LOOP_SET_FD, file_fd) == 0)
            return loop;
        if (loop >= 0)
            close(loop); /* somebody else was quicker */
    }
    return -1;
}

static void detach_loop(int loop)
{
    if (loop < 0)
        return;
    ioctl(loop, LOOP_CLR_FD);
    close(loop);
}

/* ---- the medium in use ---- */

static bool make_file_system(struct medium *medium, const char *directory)
{
    char path[128], command[384];
    snprintf(path, sizeof path, "%s/image", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, DISK_BYTES) != 0)
        return false;
    snprintf(command, sizeof command,
             "mkfs.ext4 -q -F -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 %s >/dev/null 2>&1",
             path);
    bool is_made = system(command) == 0 && pread(fd, medium->disk, DISK_BYTES, 0) == DISK_BYTES;
    close(fd);
    unlink(path);
    return is_made;
}

static bool start(struct medium *medium, const char *directory)
{
    char options[96], disk[160];
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0 || !make_file_system(medium, directory))
        return false;
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    if (mount("medium", medium->fuse, "fuse.medium", MS_NOSUID | MS_NODEV, options) != 0) {
        close(fd);
        return false;
    }
    medium->server = fork();
    if (medium->server == 0)
        serve(medium, fd);
    close(fd);
    snprintf(disk, sizeof disk, "%s/disk", medium->fuse);
    int disk_fd = open(disk, O_RDWR | O_CLOEXEC);
    medium->loop_fd = disk_fd < 0 ? -1 : attach_loop(disk_fd, medium->loop);
    if (disk_fd >= 0)
        close(disk_fd);
    return medium->loop_fd >= 0 && mount(medium->loop, medium->live, "ext4", 0, NULL) == 0;
}

/* Into a mount namespace of our own: one that somebody else makes meanwhile would hold a copy of our mounts, and
 * keep the medium busy after we let go of it. */
static bool leave_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

struct medium *medium_new(const char *directory, char *err, size_t err_bytes)
{
    struct medium *medium = calloc(1, sizeof *medium);
    medium->loop_fd = medium->image_fd = -1;
    snprintf(medium->live, sizeof medium->live, "%s/live", directory);
    snprintf(medium->cut, sizeof medium->cut, "%s/cut", directory);
    snprintf(medium->fuse, sizeof medium->fuse, "%s/fuse", directory);
    mkdir(medium->live, 0700);
    mkdir(medium->cut, 0700);
    mkdir(medium->fuse, 0700);
    medium->shared = share(sizeof *medium->shared);
    medium->disk = share(DISK_BYTES);
    medium->log = share(LOG_BYTES);
    medium->stable = share(DISK_BYTES);
    medium->image_fd = memfd_create("cut", MFD_CLOEXEC);
    if (medium->image_fd >= 0 && ftruncate(medium->image_fd, DISK_BYTES) == 0)
        medium->image = mmap(NULL, DISK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, medium->image_fd, 0);
    if (geteuid() == 0 && medium->shared && medium->disk && medium->log && medium->stable && medium->image &&
        medium->image != MAP_FAILED && leave_mounts() && start(medium, directory)) {
        /* The history begins here: what the mount itself wrote is part of it. First the count: what is written
         * while the copy is made is in the log, and applied again. */
        medium->stable_count = medium_position(medium);
        memcpy(medium->stable, medium->disk, DISK_BYTES);
        return medium;
    }
    snprintf(err, err_bytes, "needs root, /dev/fuse, loop devices and mkfs.ext4 (%s)", strerror(errno));
    medium_stop(medium);
    medium_free(medium);
    return NULL;
}

uint64_t medium_position(const struct medium *medium)
{
    return __atomic_load_n(&medium->shared->count, __ATOMIC_SEQ_CST);
}

void medium_refuse(struct medium *medium, bool refuses)
{
    __atomic_store_n(&medium->shared->refuses, refuses, __ATOMIC_SEQ_CST);
}

uint64_t medium_refused(const struct medium *medium)
{
    return __atomic_load_n(&medium->shared->refused, __ATOMIC_SEQ_CST);
}

/* What still wrote to the image would be in the next cut. */
static void unmount(const char *path)
{
    for (int tries = 0; umount2(path, 0) != 0 && errno == EBUSY; tries++) {
        if (tries == BUSY_MS) {
            fprintf(stderr, "%s stays busy\n", path);
            abort();
        }
        usleep(1000);
    }
}

void medium_stop(struct medium *medium)
{
    unmount(medium->live);
    detach_loop(medium->loop_fd);
    medium->loop_fd = -1;
    umount2(medium->fuse, MNT_DETACH);
    if (medium->server > 0) {
        int64_t tries = 0;
        while (waitpid(medium->server, NULL, WNOHANG) == 0 && tries++ < 2000)
            usleep(1000); /* it ends with the file system */
        if (tries >= 2000)
            kill(medium->server, SIGKILL);
    }
    medium->server = 0;
}

void medium_free(struct medium *medium)
{
    rmdir(medium->live);
    rmdir(medium->cut);
    rmdir(medium->fuse);
    if (medium->image_fd >= 0)
        close(medium->image_fd);
    munmap(medium->image, DISK_BYTES);
    munmap(medium->stable, DISK_BYTES);
    munmap(medium->disk, DISK_BYTES);
    munmap(medium->log, LOG_BYTES);
    munmap(medium->shared, sizeof *medium->shared);
    free(medium);
}

/* ---- cuts ---- */

static bool flip_coin(struct medium *medium)
{
    medium->random = medium->random * 1103515245u + 12345u;
    return medium->random >> 16 & 1;
}

static void apply(struct medium *medium, unsigned char *disk, const struct record *record,
                  enum medium_cut kind)
{
    const unsigned char *data = medium->log + record->at;
    if (record->is_sync || kind == CUT_NONE || (kind == CUT_HALF && flip_coin(medium)))
        return;
    if (kind != CUT_SECTORS) {
        memcpy(disk + record->offset, data, record->size);
        return;
    }
    for (uint64_t at = 0; at < record->size; at += SECTOR)
        if (flip_coin(medium))
            memcpy(disk + record->offset + at, data + at,
                   record->size - at < SECTOR ? record->size - at : SECTOR);
}

bool medium_cut(struct medium *medium, uint64_t position, enum medium_cut kind)
{
    const struct record *records = medium->shared->records;
    uint64_t last_sync = medium->stable_count;
    medium->random = (unsigned)position + 1; /* the same cut again is the same cut */
    for (uint64_t i = medium->stable_count; i < position; i++)
        if (records[i].is_sync)
            last_sync = i + 1;
    for (; medium->stable_count < last_sync; medium->stable_count++)
        apply(medium, medium->stable, &records[medium->stable_count], CUT_ALL);
    memcpy(medium->image, medium->stable, DISK_BYTES);
    for (uint64_t i = last_sync; i < position; i++)
        apply(medium, medium->image, &records[i], kind);
    medium->loop_fd = attach_loop(medium->image_fd, medium->loop);
    if (medium->loop_fd < 0)
        return false;
    if (mount(medium->loop, medium->cut, "ext4", 0, NULL) == 0)
        return true;
    detach_loop(medium->loop_fd);
    medium->loop_fd = -1;
    return false;
}

void medium_uncut(struct medium *medium)
{
    unmount(medium->cut);
    detach_loop(medium->loop_fd);
    medium->loop_fd = -1;
}
