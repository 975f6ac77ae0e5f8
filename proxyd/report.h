/* SPDX-License-Identifier: MIT
 *
 * What an operator is told, as JSON: the state of all chains, and everything about one. The words are those
 * of the ledger and of the configuration file; passwords never appear.
 */
#ifndef PROXYD_PROXYD_REPORT_H
#define PROXYD_PROXYD_REPORT_H

#include "proxies/chain.h"
#include "proxyd/doors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What there is to tell about: the daemon's, which keeps it current. */
struct report_scope {
    struct chain **chains;
    size_t chain_count;
    struct store *store; /* NULL = none */
    const struct doors *doors;
    int64_t started_ms;
    int64_t started_unix_s;
};

/* What came of a reload, by names. */
struct reload_result {
    bool has_failed;           /* nothing was changed; */
    struct text_list problems; /* this is why, as far as memory allowed */
    struct text_list added, changed, removed;
    size_t unchanged;
    struct text_list restart_needed; /* keys of the daemon group that differ, and stay as they are */
    struct text_list kept;           /* removed chains whose messages stay in the store */
    int64_t took_ms;
};

/* {"version", "uptime_ms", "chains": [...], "auth", "connections", "store"}: state, counters and upstreams of each
 * chain, in the order of the file. `auth` counts attempts to connect by verdict; it, `failed` and `dropped` hold what
 * has occurred. NULL when memory is short. */
json_t *report_status(const struct report_scope *scope, int64_t now_ms);

/* {"config", "status"}: the configuration of one chain with every default filled in, and its part of the
 * status with more about each upstream. NULL when memory is short. */
json_t *report_chain(struct chain *chain);

/* {"added", "changed", "removed", "unchanged", "restart_needed", "kept", "took_ms"}. NULL when memory is short. */
json_t *report_reload(const struct reload_result *result);

/* Texts as a list. NULL when memory is short. */
json_t *report_texts(const struct text_list *texts);

#endif
