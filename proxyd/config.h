/* SPDX-License-Identifier: MIT
 *
 * The configuration file -> an immutable tree, or every problem in it with file and line. The keys, their
 * types, ranges, defaults, units and help stand in one table, config_keys.def, which the loader, `proxyd -t`
 * and `proxyd --print-keys` read. The only file that sees libconfig.
 */
#ifndef PROXYD_PROXYD_CONFIG_H
#define PROXYD_PROXYD_CONFIG_H

#include "proxies/conf.h"
#include "proxyd/conf.h"

#include <stdbool.h>
#include <stddef.h>

/* Where proxyd, and proxyctl, look when they are not told. */
#define CONFIG_DEFAULT_PATH "/etc/proxyd/proxyd.conf"

struct config {
    char *path;
    struct daemon_conf daemon;
    struct chain_conf **chains; /* in the order of the file */
    char **places;              /* FILE:LINE of each */
    size_t chain_count;
};

/* Everything wrong with a file: lines `FILE:LINE: chain "NAME": message`, in the order of the file. */
struct config_problems {
    char **lines;
    size_t count;
};

/* Loads and checks `path` and everything it names. NULL with at least one line in `problems` when anything
 * is wrong. `problems` is always initialised here and closed by the caller. */
struct config *config_load(const char *path, struct config_problems *problems);

/* Only the daemon group, with as little checking as reading it takes: how proxyctl finds the control socket.
 * NULL like config_load. */
struct config *config_load_daemon(const char *path, struct config_problems *problems);

/* Releases it; secrets are wiped. NULL is fine. */
void config_free(struct config *config);

/* True when peers have to show a password or a key, to us or we to them. */
bool config_has_secrets(const struct config *config);

void config_problems_close(struct config_problems *problems);

/* The bit of enum config_kinds that stands for `kind`. */
unsigned config_kind(const struct kind *kind);

#endif
