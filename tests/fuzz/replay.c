/* SPDX-License-Identifier: MIT
 *
 * Replays a kept corpus without libFuzzer; see fuzz.h.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static void replay_file(fuzz_fn *target, const char *path)
{
    static uint8_t buffer[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        abort();
    }
    size_t size = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    uint8_t *exact = malloc(size ? size : 1); /* a byte too far is then seen by a sanitizer */
    for (size_t i = 0; i < size; i++)
        exact[i] = buffer[i];
    target(exact, size);
    free(exact);
}

unsigned fuzz_replay(fuzz_fn *target, const char *directory)
{
    unsigned count = 0;
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        replay_file(target, path);
        count++;
    }
    if (entries)
        closedir(entries);
    return count;
}
