/* SPDX-License-Identifier: MIT
 *
 * ZAP frames; see zap_frames.h.
 */
#include "auth/zap_frames.h"

#include <stdbool.h>
#include <string.h>

enum {
    FRAME_EMPTY,
    FRAME_VERSION,
    FRAME_ID,
    FRAME_DOMAIN,
    FRAME_ADDRESS,
    FRAME_IDENTITY,
    FRAME_MECHANISM,
    FRAME_CREDENTIALS
};

enum { TEXT_MAX = 255 };

static const struct {
    const char *wire, *name;
    size_t credentials;
} mechanisms[] = {
    [ZAP_NULL] = {"NULL", "none", 0},
    [ZAP_PLAIN] = {"PLAIN", "plain", 2},
    [ZAP_CURVE] = {"CURVE", "curve", 1},
};

static bool equals(struct zap_bytes bytes, const char *text)
{
    return bytes.size == strlen(text) && memcmp(bytes.data, text, bytes.size) == 0;
}

int zap_request_parse(struct zap_request *request, const struct zap_bytes *frames, size_t count)
{
    memset(request, 0, sizeof *request);
    if (count <= FRAME_ID || frames[FRAME_EMPTY].size != 0 || frames[FRAME_ID].size > TEXT_MAX)
        return -1;
    request->id = frames[FRAME_ID];
    if (count < FRAME_CREDENTIALS || !equals(frames[FRAME_VERSION], "1.0") ||
        frames[FRAME_DOMAIN].size > TEXT_MAX || frames[FRAME_ADDRESS].size > TEXT_MAX)
        return -1;
    request->domain = frames[FRAME_DOMAIN];
    request->address = frames[FRAME_ADDRESS];
    const struct zap_bytes *credentials = &frames[FRAME_CREDENTIALS];
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
        if (!equals(frames[FRAME_MECHANISM], mechanisms[i].wire))
            continue;
        if (count - FRAME_CREDENTIALS != mechanisms[i].credentials)
            return -1;
        request->mechanism = (enum zap_mechanism)i;
        switch (request->mechanism) {
        case ZAP_NULL:
            return 0;
        case ZAP_PLAIN:
            request->user = credentials[0];
            request->password = credentials[1];
            return request->user.size <= TEXT_MAX && request->password.size <= TEXT_MAX ? 0 : -1;
        case ZAP_CURVE:
            request->key = credentials[0];
            return request->key.size == ZAP_KEY_BYTES ? 0 : -1;
        }
    }
    return -1;
}

static struct zap_bytes text_bytes(const char *text)
{
    return (struct zap_bytes){text, strlen(text)};
}

void zap_reply_write(struct zap_bytes reply[static ZAP_REPLY_FRAMES], struct zap_bytes id, const char *status,
                     const char *text, const char *user_id)
{
    const struct zap_bytes empty = {"", 0};
    reply[0] = empty;
    reply[1] = text_bytes("1.0");
    reply[2] = id;
    reply[3] = text_bytes(status);
    reply[4] = text_bytes(text);
    reply[5] = text_bytes(user_id);
    reply[6] = empty;
}

const char *zap_mechanism_name(enum zap_mechanism mechanism)
{
    return mechanisms[mechanism].name;
}
