/* SPDX-License-Identifier: MIT
 *
 * The log: one event a line on stderr, as text (`2026-11-21T03:50:44.123Z warning upstream-lost chain=calls …`) or
 * JSON. A thread of its own writes, so that a reader who stalls stops nobody: callers format into a bounded
 * ring and go on; what does not fit is counted and said (`log-dropped count=N`). An event that comes again and
 * again, with the same token and the same texts in its fields, is written LOG_REPEATS times in LOG_REPEAT_MS; of
 * the others the last one, with their number (`repeats=N`).
 */
#ifndef PROXYD_PROXYD_LOG_H
#define PROXYD_PROXYD_LOG_H

#include "proxies/event.h"

#include <stdbool.h>

#define LOG_REPEATS   5
#define LOG_REPEAT_MS 10000

enum log_format { LOG_TEXT, LOG_JSON };

/* Starts the writer, with SIGPIPE ignored: whoever reads stderr may be gone. Before this, and after log_close, log_event
 * writes directly. -1 when it cannot start. */
int log_open(enum event_level level, enum log_format format);

/* Writes what is left, waiting at most one second for a stalled reader, and ends the writer. */
void log_close(void);

/* One event; the shape of event_sink.emit, `context` is not used. Any thread; never blocks. */
void log_event(void *context, enum event_level level, const char *token, const struct event_field *fields,
               unsigned count);

/* The sink that ends here. */
struct event_sink log_sink(void);

#endif
