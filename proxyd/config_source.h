/* SPDX-License-Identifier: MIT
 *
 * A configuration file and everything that it includes, as one text that libconfig 1.5 reads without a
 * surprise, and where each of its lines came from. Left to itself libconfig ends the process when an included
 * file is a directory, cuts numbers to 32 bits and texts at a NUL, and takes the rest of a file for a comment
 * that nobody closed; none of that gets past here. Knows no key and no value.
 */
#ifndef PROXYD_PROXYD_CONFIG_SOURCE_H
#define PROXYD_PROXYD_CONFIG_SOURCE_H

#include <stddef.h>

struct config_place {
    const char *file; /* as it was named; lives as long as the source */
    int line;
};

struct config_source {
    char *text;                  /* for libconfig: no comments, no includes */
    size_t size;                 /* of text, without its final NUL */
    struct config_place *places; /* of each line of the text */
    size_t place_count;
    char **files;
    size_t file_count;
};

/* Reads `path`; `@include "FILE"` is looked for beside the file it stands in. -1 with a whole problem line
 * (`FILE: reason` or `FILE:LINE: daemon: reason`) in `err`. Closed by the caller in both cases. */
int config_source_read(struct config_source *source, const char *path, char *err, size_t err_size);

/* Where line `line` (from 1) of the text came from; the nearest place when there is no such line. */
struct config_place config_source_place(const struct config_source *source, int line);

/* Wipes the text, which may hold passwords, and releases everything. */
void config_source_close(struct config_source *source);

#endif
