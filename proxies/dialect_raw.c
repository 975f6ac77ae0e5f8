/* SPDX-License-Identifier: MIT
 *
 * The raw dialect: one frame of plain words, `accepted <level> <ticket>` or `error <code> <reason>`.
 */
#include "proxies/dialect.h"

#include "proxies/dialect_json.h"

static int raw_ack(const struct message *request, const char *level, const char *ticket, struct message *out)
{
    (void)request;
    return dialect_add_text(out, "accepted%s%s%s%s", level ? " " : "", level ? level : "", ticket ? " " : "",
                            ticket ? ticket : "");
}

static int raw_error(const struct message *request, enum reason reason, struct message *out)
{
    (void)request;
    return dialect_add_text(out, "error %d %s", reason_info(reason)->code, reason_info(reason)->name);
}

const struct dialect dialect_raw = {.name = "raw", .ack = raw_ack, .error = raw_error};
