/* SPDX-License-Identifier: MIT
 *
 * Scratch directories: flat, below TMPDIR or /tmp.
 */
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void scratch_make(struct scratch *scratch)
{
    const char *base = getenv("TMPDIR");
    int length = snprintf(scratch->path, sizeof scratch->path, "%s/proxyd-test.XXXXXX", base ? base : "/tmp");
    if (length >= (int)sizeof scratch->path || !mkdtemp(scratch->path)) {
        perror(scratch->path);
        exit(1);
    }
}

void scratch_clear(const struct scratch *scratch)
{
    DIR *directory = opendir(scratch->path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char path[sizeof scratch->path + sizeof entry->d_name + 1];
        snprintf(path, sizeof path, "%s/%s", scratch->path, entry->d_name);
        unlink(path);
    }
    if (directory)
        closedir(directory);
}

void scratch_remove(const struct scratch *scratch)
{
    scratch_clear(scratch);
    rmdir(scratch->path);
}
