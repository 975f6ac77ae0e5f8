/* SPDX-License-Identifier: MIT
 *
 * The daemon's reports (report.h) as text that a person likes to read. Takes JSON as it came over the control
 * socket: what is missing or of another type is shown as "-".
 */
#ifndef PROXYD_PROXYD_RENDER_H
#define PROXYD_PROXYD_RENDER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A table with a row for each chain, its upstreams and its reasons below it. */
void render_status(FILE *out, const json_t *status, bool has_colour);

/* A page of proxyctl top: a row for each chain, with what it gained per second since the status `before` (NULL:
 * rates are not known), those that are not up first and with their upstreams. */
void render_top(FILE *out, const json_t *status, const json_t *before, bool has_colour);

/* One line instead of a fresh page: why there is no answer, and since when (-1: never was one). */
void render_silence(FILE *out, const char *why, int64_t age_ms, bool has_colour);

/* One chain: its configuration, then its part of the status. */
void render_chain(FILE *out, const json_t *chain, bool has_colour);

/* What a reload has changed, by name. */
void render_reload(FILE *out, const json_t *result);

/* Any bytes as text on one line. What is not UTF-8, and what a terminal would obey, is escaped. */
void render_text(FILE *out, const void *data, size_t size);

/* A table of messages as `queue list` and `dead list` give them. */
void render_messages(FILE *out, const json_t *messages);

/* Frames in base64, one a line, as text. */
void render_frames(FILE *out, const json_t *frames);

#endif
