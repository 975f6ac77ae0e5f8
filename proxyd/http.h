/* SPDX-License-Identifier: MIT
 *
 * HTTP, for looking only: the status page, metrics, health and the status as JSON. It lives in the main loop, asks
 * nobody for a password and changes nothing. Connections are bounded in number, bytes and time; on a loopback address
 * requests must be for one by name (no web site may read it through a visitor's browser). The only file that sees
 * libmicrohttpd, which is opened when it is asked for.
 */
#ifndef PROXYD_PROXYD_HTTP_H
#define PROXYD_PROXYD_HTTP_H

#include "proxyd/report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most descriptors that it uses. */
#define HTTP_DESCRIPTORS 80

struct http;

/* Listens at `address`, as daemon.http has it. `scope` outlives it. NULL with a reason in `err`. */
struct http *http_open(const char *address, const struct report_scope *scope, char *err, size_t err_size);

/* Whether only this machine can reach it. */
bool http_is_local(const struct http *http);

/* The descriptor to poll for reading. */
int http_fd(const struct http *http);

/* When http_turn is due even if nothing comes; INT64_MAX when never. */
int64_t http_next_ms(const struct http *http, int64_t now_ms);

/* Answers what has arrived and ends connections that take too long. Never blocks. */
void http_turn(struct http *http, int64_t now_ms);

void http_close(struct http *http);

#endif
