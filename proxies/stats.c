/* SPDX-License-Identifier: MIT
 *
 * The words for states; see stats.h.
 */
#include "proxies/stats.h"

const char *upstream_state_name(enum upstream_state state)
{
    static const char *const names[] = {
        [UPSTREAM_CONNECTING] = "connecting", [UPSTREAM_UP] = "up", [UPSTREAM_DOWN] = "down"};
    return names[state];
}

const char *chain_state_name(enum chain_state state)
{
    static const char *const names[] = {[CHAIN_UP] = "up",
                                        [CHAIN_DEGRADED] = "degraded",
                                        [CHAIN_DOWN] = "down",
                                        [CHAIN_PAUSED] = "paused",
                                        [CHAIN_DRAINING] = "draining"};
    return names[state];
}

const char *worker_state_name(enum worker_state state)
{
    static const char *const names[] = {
        [WORKER_LIVE] = "live", [WORKER_LATE] = "late", [WORKER_ASIDE] = "aside"};
    return names[state];
}
