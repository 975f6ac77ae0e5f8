/* SPDX-License-Identifier: MIT
 *
 * The configuration of the daemon itself as plain values, as proxies/conf.h is that of a chain.
 */
#ifndef PROXYD_PROXYD_CONF_H
#define PROXYD_PROXYD_CONF_H

#include <stdint.h>

struct daemon_conf {
    char *state_dir;
    char *control; /* "" = off */
    char *control_group;
    char *http;
    char *users;
    int log_level;  /* enum event_level */
    int log_format; /* enum log_format */
    int64_t drain_timeout_ms;
    int64_t auth_memory_bytes;
    int64_t max_connections;
    int64_t max_connections_per_address;
};

#endif
