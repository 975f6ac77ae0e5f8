/* SPDX-License-Identifier: MIT
 *
 * What differs between two configurations, by the table of keys: what a reload has to do. Values that came from
 * files (passwords, keys) count like those that stand in the configuration itself.
 */
#ifndef PROXYD_PROXYD_CONFIG_DIFF_H
#define PROXYD_PROXYD_CONFIG_DIFF_H

#include "proxyd/config.h"

#include <stdbool.h>
#include <stddef.h>

/* Which parts of a chain have to be made anew. */
struct config_difference {
    bool kind;     /* another kind under the same name */
    bool frontend; /* its sockets */
    bool backend;  /* likewise */
    bool store;    /* messages are kept elsewhere */
    bool queue;    /* bounds and policies */
};

/* Compares two configurations of one chain. */
struct config_difference config_compare(const struct chain_conf *a, const struct chain_conf *b);

/* Whether anything differs. */
bool config_differs(const struct config_difference *difference);

/* Calls `tell` with the name of each key of the daemon group that differs. */
void config_compare_daemon(const struct daemon_conf *a, const struct daemon_conf *b,
                           void (*tell)(void *context, const char *key), void *context);

/* The chain of that name; NULL when there is none. */
struct chain_conf *config_find_chain(const struct config *config, const char *name);

#endif
