/* SPDX-License-Identifier: MIT
 *
 * What the disk can do by itself: 256 bytes appended to a file and synced, one after the other.
 */
#include "tests/bench/meter.h"
#include "tests/bench/roles.h"

#include <fcntl.h>
#include <unistd.h>

enum { RECORD_BYTES = 256 };

int role_sync(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    static const char record[RECORD_BYTES];
    static struct meter meter;
    int file = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    need(file != -1, argv[1]);
    meter_ready();
    while (meter_next(&meter)) {
        need(ftruncate(file, 0) == 0, "truncate");
        int64_t now_ns = clock_ns();
        while (meter_goes_on(&meter, now_ns)) {
            int64_t began_ns = now_ns;
            need(write(file, record, sizeof record) == sizeof record && fdatasync(file) == 0, "write");
            now_ns = clock_ns();
            meter_count(&meter, now_ns - began_ns);
        }
        meter_print(&meter);
    }
    return 0;
}
