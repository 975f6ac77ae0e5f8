/* links: auth/zap_frames.c auth/address.c */
/* SPDX-License-Identifier: MIT
 *
 * Any frames as a ZAP request: what is accepted points into them and keeps its bounds. The input is a list
 * of frames, each behind a byte with its length; 255 stands for 256, one more than fields may have.
 */
#include "auth/address.h"
#include "auth/zap_frames.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES_MAX = 12 };

static void check_field(struct zap_bytes field, const uint8_t *data, size_t size)
{
    const uint8_t *start = field.data;
    FUZZ_CHECK(field.size <= 255);
    FUZZ_CHECK(field.size == 0 || (start >= data && start + field.size <= data + size));
}

FUZZ_TARGET(fuzz_zap_frames)
{
    struct zap_bytes frames[FRAMES_MAX] = {{NULL, 0}};
    struct zap_request request;
    size_t count = 0;
    for (size_t at = 0; at < size && count < FRAMES_MAX; count++) {
        size_t length = data[at] == 255 ? 256 : data[at];
        at++;
        frames[count] = (struct zap_bytes){data + at, length < size - at ? length : size - at};
        at += frames[count].size;
    }
    int rc = zap_request_parse(&request, frames, count);
    check_field(request.id, data, size);
    if (rc)
        return 0;
    FUZZ_CHECK(count >= 7 && count <= ZAP_REQUEST_FRAMES_MAX);
    check_field(request.domain, data, size);
    check_field(request.address, data, size);
    check_field(request.user, data, size);
    check_field(request.password, data, size);
    FUZZ_CHECK(request.key.size == (request.mechanism == ZAP_CURVE ? ZAP_KEY_BYTES : 0));
    struct address address;
    address_parse(&address, request.address.data, request.address.size);
    FUZZ_CHECK(address.family <= ADDRESS_LOCAL);
    struct zap_bytes reply[ZAP_REPLY_FRAMES];
    zap_reply_write(reply, request.id, "200", "OK", "");
    FUZZ_CHECK(reply[2].size == request.id.size);
    return 0;
}
