/* SPDX-License-Identifier: MIT
 *
 * The service manager's protocol (sd_notify(3)): one datagram for each state, to the socket that
 * NOTIFY_SOCKET names. Without that variable nothing is sent and nothing fails.
 */
#ifndef PROXYD_PROXYD_NOTIFY_H
#define PROXYD_PROXYD_NOTIFY_H

#include <stdint.h>

/* Sends `state`, for example "READY=1" or lines of several assignments, without ever waiting. 0 when it was
 * sent or nobody asked for it; -1 with errno when it was not sent, which is no reason to stop. */
int notify_send(const char *state);

/* How often WATCHDOG=1 must be sent at least, in microseconds; 0 when no watchdog watches this process. */
int64_t notify_watchdog_usec(void);

#endif
