/* links: tests/unit/store_kit.c tests/unit/scratch.c buffer/message.c buffer/queue.c buffer/queue_disk.c */
/* links: buffer/store.c buffer/store_file.c buffer/store_db.c buffer/store_salvage.c buffer/store_mark.c */
/* links: buffer/crc32c.c buffer/histogram.c */
/* SPDX-License-Identifier: MIT
 *
 * Disks that really fill up: a small tmpfs and a small ext4, filled by the store itself and by others. Needs root.
 */
#include "tests/unit/scratch.h"
#include "tests/unit/store_kit.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 20000, MESSAGE_BYTES = 60000, MESSAGES = 4000 };

static struct scratch scratch;
static struct kit kit;
static bool is_mounted;

static int mount_tmpfs(void **state)
{
    (void)state;
    scratch_make(&scratch);
    memset(&kit, 0, sizeof kit);
    is_mounted = mount("tmpfs", scratch.path, "tmpfs", 0, "size=16m") == 0;
    return 0;
}

static int mount_ext4(void **state)
{
    (void)state;
    char command[512];
    scratch_make(&scratch);
    memset(&kit, 0, sizeof kit);
    snprintf(command, sizeof command,
             "truncate -s 24M %s.img && mkfs.ext4 -q -F %s.img && mount -o loop %s.img %s && rm %s.img",
             scratch.path, scratch.path, scratch.path, scratch.path, scratch.path);
    is_mounted = geteuid() == 0 && system(command) == 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (kit.store)
        kit_close(&kit);
    if (is_mounted)
        umount2(scratch.path, MNT_DETACH);
    scratch_remove(&scratch);
    return 0;
}

static bool becomes_able_to_take(void)
{
    int64_t until_ms = kit_now_ms() + PATIENCE_MS;
    bool is_stored;
    while (!queue_can_take(kit.queue) && kit_now_ms() < until_ms)
        kit_turn(&kit, 50, &is_stored);
    return queue_can_take(kit.queue);
}

/* Puts until the store takes no more; marks what was stored. */
static uint64_t put_until_full(uint64_t first, bool stored[MESSAGES])
{
    uint64_t next = first;
    while (next < MESSAGES) {
        uint64_t count = kit_put_all(&kit, next, 1, MESSAGE_BYTES);
        stored[next++] = count == 1;
        if (count == 0 && !queue_can_take(kit.queue))
            break;
    }
    return next;
}

static void deliver_all(const bool stored[MESSAGES], uint64_t first, uint64_t end)
{
    for (uint64_t number = first; number < end; number++) {
        if (!stored[number])
            continue;
        struct queue_item *item = kit_lease(&kit, PATIENCE_MS);
        assert_non_null(item);
        assert_int_equal(kit_number(&item->body), number);
        queue_ack(kit.queue, item, NULL);
    }
    assert_null(kit_lease(&kit, 0));
}

static void survives_a_full_disk(void **state)
{
    (void)state;
    static bool stored[MESSAGES];
    if (!is_mounted)
        skip();
    assert_true(kit_open(&kit, scratch.path));
    uint64_t end = put_until_full(0, stored);
    assert_in_range(end, 50, MESSAGES - 1);
    assert_true(kit.events[STORE_EVENT_DISK_FULL] >= 1); /* a little room may be found meanwhile */
    deliver_all(stored, 0, end);
    assert_true(becomes_able_to_take());
    assert_int_equal(kit.events[STORE_EVENT_RESUMED], kit.events[STORE_EVENT_DISK_FULL]);
    uint64_t again = put_until_full(end, stored);
    assert_in_range(again, end + 10, MESSAGES - 1);
    kit_close(&kit);
    assert_true(kit_open(&kit, scratch.path)); /* on a disk as full as it was */
    deliver_all(stored, end, again);
    assert_true(becomes_able_to_take());
}

/* Others take every byte there is, at once, and give it back later. */
static void survives_a_disk_that_others_fill(void **state)
{
    (void)state;
    static bool stored[MESSAGES];
    char path[128];
    static const char block[65536];
    if (!is_mounted)
        skip();
    assert_true(kit_open(&kit, scratch.path));
    assert_int_equal(kit_put_all(&kit, 0, 50, MESSAGE_BYTES), 50);
    for (int i = 0; i < 50; i++)
        stored[i] = true;
    snprintf(path, sizeof path, "%s/ballast", scratch.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (ssize_t size = sizeof block; size > 0; size = write(fd, block, sizeof block))
        ;
    for (ssize_t size = 1; size > 0; size = write(fd, block, 512))
        ;
    close(fd);
    uint64_t end = put_until_full(50, stored);
    assert_in_range(end, 51, MESSAGES - 1);
    deliver_all(stored, 0, end);
    assert_false(queue_can_take(kit.queue));
    assert_int_equal(unlink(path), 0);
    assert_true(becomes_able_to_take());
    assert_int_equal(kit_put_all(&kit, 0, 10, MESSAGE_BYTES), 10);
}

int main(void)
{
    /* Mounts of our own, of which nobody else gets a copy. */
    if (unshare(CLONE_NEWNS) == 0)
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);

    const struct CMUnitTest tests[] = {
        {"store_survives_a_full_tmpfs", survives_a_full_disk, mount_tmpfs, tear_down, NULL},
        {"store_survives_a_full_ext4", survives_a_full_disk, mount_ext4, tear_down, NULL},
        {"store_survives_a_tmpfs_that_others_fill", survives_a_disk_that_others_fill, mount_tmpfs, tear_down,
         NULL},
        {"store_survives_an_ext4_that_others_fill", survives_a_disk_that_others_fill, mount_ext4, tear_down,
         NULL},
    };
    return cmocka_run_group_tests_name("store on a full disk", tests, NULL, NULL);
}
