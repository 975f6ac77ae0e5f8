/* SPDX-License-Identifier: MIT
 *
 * The state of all chains, the store and the doors as Prometheus reads it (text format 0.0.4). The words are the
 * ledger's; of each chain one snapshot is taken, in which the ledger balances.
 */
#ifndef PROXYD_PROXYD_METRICS_H
#define PROXYD_PROXYD_METRICS_H

#include "proxyd/report.h"

#include <stddef.h>

/* The whole page, to be freed by the caller; *size without its final NUL. NULL when memory is short. */
char *metrics_text(const struct report_scope *scope, size_t *size);

#endif
