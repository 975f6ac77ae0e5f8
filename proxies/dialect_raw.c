/* SPDX-License-Identifier: MIT
 *
 * The raw dialect: one frame of plain words, `accepted <level> <ticket>` or `error <code> <reason>`.
 */
#include "proxies/dialect.h"

#include <stdio.h>
#include <string.h>

static int add_text(struct message *out, const char *text)
{
    return message_add_bytes(out, text, strlen(text));
}

static int raw_ack(const struct message *request, const char *level, const char *ticket, struct message *out)
{
    (void)request;
    char text[128];
    snprintf(text, sizeof text, "accepted%s%s%s%s", level ? " " : "", level ? level : "", ticket ? " " : "",
             ticket ? ticket : "");
    return add_text(out, text);
}

static int raw_error(const struct message *request, enum reason reason, struct message *out)
{
    (void)request;
    char text[64];
    snprintf(text, sizeof text, "error %d %s", reason_info(reason)->code, reason_info(reason)->name);
    return add_text(out, text);
}

const struct dialect dialect_raw = {.name = "raw", .ack = raw_ack, .error = raw_error};
