/* SPDX-License-Identifier: MIT
 *
 * ZAP 1.0 (RFC 27), frames <-> request and reply. Pure: looks at bytes, copies nothing, trusts nothing.
 *
 *     request:  ""  "1.0"  id  domain  address  identity  "NULL"
 *                                                         "PLAIN"  user  password
 *                                                         "CURVE"  key of 32 bytes
 *     reply:    ""  "1.0"  id  "200"  text  user id  metadata
 */
#ifndef PROXYD_AUTH_ZAP_FRAMES_H
#define PROXYD_AUTH_ZAP_FRAMES_H

#include <stddef.h>

enum { ZAP_REQUEST_FRAMES_MAX = 9, ZAP_REPLY_FRAMES = 7, ZAP_KEY_BYTES = 32 };

enum zap_mechanism { ZAP_NULL, ZAP_PLAIN, ZAP_CURVE };

/* Somebody else's bytes. */
struct zap_bytes {
    const void *data;
    size_t size;
};

struct zap_request {
    struct zap_bytes id, domain, address;
    enum zap_mechanism mechanism;
    struct zap_bytes user, password; /* PLAIN; at most 255 bytes each */
    struct zap_bytes key;            /* CURVE */
};

/* Reads the frames behind the routing id; the request points into them. -1 when they are no valid request;
 * `request->id` is set even then where there is one, so that a refusal can be sent. */
int zap_request_parse(struct zap_request *request, const struct zap_bytes *frames, size_t count);

/* Lays out a reply, pointing at the arguments. */
void zap_reply_write(struct zap_bytes reply[static ZAP_REPLY_FRAMES], struct zap_bytes id, const char *status,
                     const char *text, const char *user_id);

/* "none", "plain" or "curve", as in the configuration; static. */
const char *zap_mechanism_name(enum zap_mechanism mechanism);

#endif
