/* links: auth/zap_frames.c */
/* SPDX-License-Identifier: MIT
 *
 * ZAP requests that are and are not ones, and the reply's seven frames.
 */
#include "auth/zap_frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define TEXT(text)                                                                                           \
    {                                                                                                        \
        (text), sizeof(text) - 1                                                                             \
    }

static const char key[ZAP_KEY_BYTES] = "0123456789abcdef0123456789abcde";
static char long_text[256];

static int parse(struct zap_request *request, const struct zap_bytes *frames, size_t count)
{
    return zap_request_parse(request, frames, count);
}

static void assert_bytes(struct zap_bytes bytes, const char *text)
{
    assert_int_equal(bytes.size, strlen(text));
    assert_memory_equal(bytes.data, text, bytes.size);
}

static void plain_request_is_read(void **state)
{
    (void)state;
    const struct zap_bytes frames[] = {TEXT(""),      TEXT("1.0"),      TEXT("1"),
                                       TEXT("calls"), TEXT("10.0.0.1"), TEXT("id"),
                                       TEXT("PLAIN"), TEXT("alice"),    TEXT("pw")};
    struct zap_request request;
    assert_int_equal(parse(&request, frames, 9), 0);
    assert_int_equal(request.mechanism, ZAP_PLAIN);
    assert_bytes(request.id, "1");
    assert_bytes(request.domain, "calls");
    assert_bytes(request.address, "10.0.0.1");
    assert_bytes(request.user, "alice");
    assert_bytes(request.password, "pw");
    for (size_t count = 0; count < 9; count++)
        assert_int_equal(parse(&request, frames, count), -1);
}

static void null_and_curve_requests_are_read(void **state)
{
    (void)state;
    struct zap_bytes frames[] = {TEXT(""),         TEXT("1.0"), TEXT("1"),    TEXT("calls"),
                                 TEXT("10.0.0.1"), TEXT(""),    TEXT("NULL"), {key, sizeof key}};
    struct zap_request request;
    assert_int_equal(parse(&request, frames, 7), 0);
    assert_int_equal(request.mechanism, ZAP_NULL);
    assert_int_equal(parse(&request, frames, 8), -1);
    frames[6] = (struct zap_bytes)TEXT("CURVE");
    assert_int_equal(parse(&request, frames, 8), 0);
    assert_int_equal(request.mechanism, ZAP_CURVE);
    assert_ptr_equal(request.key.data, key);
    frames[7].size--;
    assert_int_equal(parse(&request, frames, 8), -1);
    frames[6] = (struct zap_bytes)TEXT("GSSAPI");
    assert_int_equal(parse(&request, frames, 8), -1);
    frames[6] = (struct zap_bytes)TEXT("null");
    assert_int_equal(parse(&request, frames, 7), -1);
}

static void fields_beyond_their_size_are_refused(void **state)
{
    (void)state;
    memset(long_text, 'x', sizeof long_text);
    static const size_t fields[] = {0, 2, 3, 4, 7, 8};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct zap_bytes frames[] = {TEXT(""),      TEXT("1.0"),      TEXT("1"),
                                     TEXT("calls"), TEXT("10.0.0.1"), TEXT("id"),
                                     TEXT("PLAIN"), TEXT("alice"),    TEXT("pw")};
        struct zap_request request;
        frames[fields[i]] = (struct zap_bytes){long_text, 255};
        assert_int_equal(parse(&request, frames, 9), fields[i] == 0 ? -1 : 0);
        frames[fields[i]].size = 256;
        assert_int_equal(parse(&request, frames, 9), -1);
    }
}

static void refused_request_keeps_its_id(void **state)
{
    (void)state;
    const struct zap_bytes frames[] = {TEXT(""),         TEXT("2.0"), TEXT("77"),  TEXT("calls"),
                                       TEXT("10.0.0.1"), TEXT(""),    TEXT("NULL")};
    struct zap_request request;
    assert_int_equal(parse(&request, frames, 7), -1);
    assert_bytes(request.id, "77");
    assert_int_equal(parse(&request, frames, 2), -1);
    assert_int_equal(request.id.size, 0);
}

static void reply_has_seven_frames_in_order(void **state)
{
    (void)state;
    struct zap_bytes reply[ZAP_REPLY_FRAMES];
    zap_reply_write(reply, (struct zap_bytes)TEXT("1"), "200", "OK", "alice#00");
    static const char *const expected[ZAP_REPLY_FRAMES] = {"", "1.0", "1", "200", "OK", "alice#00", ""};
    for (int i = 0; i < ZAP_REPLY_FRAMES; i++)
        assert_bytes(reply[i], expected[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_request_is_read),
        cmocka_unit_test(null_and_curve_requests_are_read),
        cmocka_unit_test(fields_beyond_their_size_are_refused),
        cmocka_unit_test(refused_request_keeps_its_id),
        cmocka_unit_test(reply_has_seven_frames_in_order),
    };
    return cmocka_run_group_tests_name("zap_frames", tests, NULL, NULL);
}
