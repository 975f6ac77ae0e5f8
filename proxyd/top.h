/* SPDX-License-Identifier: MIT
 *
 * proxyctl top: the status again and again, on the whole of a terminal or, where there is none, page after page.
 * Owns the terminal while it runs, and gives it back however it ends; asks the daemon only through `ask`.
 */
#ifndef PROXYD_PROXYD_TOP_H
#define PROXYD_PROXYD_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct top_conf {
    /* The status as report_status makes it, to be released by the caller; NULL with a reason in `err`. */
    json_t *(*ask)(void *context, char *err, size_t err_size);
    void *context;
    int64_t interval_ms;
    int64_t count; /* ends after so many pages; 0 = on q or a signal only */
    bool has_colour;
};

/* Returns the exit status of proxyctl: failure when the last page had no answer, or nobody reads the pages. */
int top_run(const struct top_conf *conf);

#endif
