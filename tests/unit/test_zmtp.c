/* links: proxies/zmtp.c */
/* SPDX-License-Identifier: MIT
 *
 * Where messages end, by every version of the protocol, and however the stream was cut into pieces.
 */
#include "proxies/zmtp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIGNATURE "\xFF\0\0\0\0\0\0\0\1\x7F"
#define GREETING                                                                                             \
    SIGNATURE "\3\1NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"                                                   \
              "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define READY "\4\x19\5READY\13Socket-Type\0\0\0\3REQ"

/* A literal as its bytes, without the zero that ends it. */
#define BYTES(text) (text), sizeof(text) - 1

static const struct zmtp_limits limits = {.max_bytes = 100, .max_frames = 8};

/* Reads all of it in pieces of `piece` bytes, each in a heap block of its exact size. */
static enum zmtp_verdict read_in_pieces(struct zmtp *stream, const char *data, size_t size, size_t piece)
{
    enum zmtp_verdict verdict = ZMTP_FINE;
    for (size_t at = 0; at < size && verdict == ZMTP_FINE; at += piece) {
        size_t part = piece < size - at ? piece : size - at;
        char *exact = malloc(part);
        memcpy(exact, data + at, part);
        verdict = zmtp_read(stream, &limits, exact, part);
        free(exact);
    }
    return verdict;
}

/* However it is cut, the stream ends the same: within its limits, with `frames` of `bytes` still open. */
static void assert_open(const char *data, size_t size, uint64_t frames, uint64_t bytes)
{
    for (size_t piece = 1; piece <= size; piece++) {
        struct zmtp stream = {0};
        assert_int_equal(read_in_pieces(&stream, data, size, piece), ZMTP_FINE);
        assert_int_equal(stream.frames, frames);
        assert_int_equal(stream.bytes, bytes);
    }
}

static void assert_refused(const char *data, size_t size, enum zmtp_verdict verdict)
{
    for (size_t piece = 1; piece <= size; piece++) {
        struct zmtp stream = {0};
        assert_int_equal(read_in_pieces(&stream, data, size, piece), verdict);
    }
}

static void assert_over(const char *data, size_t size)
{
    assert_refused(data, size, ZMTP_TOO_LARGE);
}

static void frames_count_until_their_message_ends(void **state)
{
    (void)state;
    assert_int_equal(sizeof(GREETING) - 1, 64);
    assert_open(BYTES(GREETING READY), 0, 0);
    assert_open(BYTES(GREETING READY "\1\0"), 1, 0);
    assert_open(BYTES(GREETING READY "\1\0\1\5hello"), 2, 5);
    assert_open(BYTES(GREETING READY "\1\0\1\5hello\0\5world"), 0, 0);
    assert_open(BYTES(GREETING READY "\1\0\1\5hello\0\5world\1\3new"), 1, 3);
    assert_open(BYTES(GREETING READY "\3\0\0\0\0\0\0\0\5hello"), 1, 5);
    assert_open(BYTES(GREETING READY "\2\0\0\0\0\0\0\0\5hello"), 0, 0);
}

static void older_peers_are_understood(void **state)
{
    (void)state;
    assert_open(BYTES(SIGNATURE "\1\3\0\0\1\0\1\5hello"), 2, 5);     /* ZMTP 2.0: an empty identity first */
    assert_open(BYTES(SIGNATURE "\1\3\0\0\1\0\1\5hello\0\0"), 0, 0); /* and the end */
    assert_open(BYTES(SIGNATURE "\0\3\1\0\1\1\6\1hello"), 2, 5);     /* revision 0 */
    assert_open(BYTES("\1\0\1\1\6\1hello"), 2, 5);                   /* ZMTP 1.0, no signature */
    assert_open(BYTES("\1\0\1\1\xFF\0\0\0\0\0\0\0\6\1hello\6\0world"), 0, 0); /* a long length */
    assert_open(BYTES("\xFF\0\0\0\0\0\0\0\6\0ident\6\1hello"), 1, 5); /* which looks like a signature */
}

static void a_message_over_a_limit_is_noticed_at_its_header(void **state)
{
    (void)state;
    char data[400] = GREETING READY "\1\x32";
    size_t at = sizeof(GREETING READY) - 1 + 2 + 50;
    memcpy(data + at, "\0\x32", 2);
    assert_open(data, at + 2, 0, 0); /* 100 bytes and their end */
    memcpy(data + at, "\1\x32", 2);
    assert_open(data, at + 2, 2, 100);
    memcpy(data + at, "\0\x33", 2);
    assert_over(data, at + 2);
    assert_over(BYTES(GREETING READY "\3\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"));
    assert_over(BYTES("\1\0\0\0")); /* ZMTP 1.0: no length at all */
}

static void empty_frames_count_too(void **state)
{
    (void)state;
    char data[200] = GREETING READY;
    size_t at = sizeof(GREETING READY) - 1;
    for (int i = 0; i < 8; i++)
        memcpy(data + at + (size_t)i * 2, "\1\0", 2);
    assert_open(data, at + 16, 8, 0);
    memcpy(data + at + 14, "\0\0", 2);
    assert_open(data, at + 16, 0, 0);
    memcpy(data + at + 14, "\1\0\0\0", 4);
    assert_over(data, at + 18);
}

static void lengths_do_not_wrap(void **state)
{
    (void)state;
    static const struct zmtp_limits bytes_only = {.max_bytes = 1 << 20};
    static const char header[] = GREETING READY "\1\1x\3\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    struct zmtp stream = {0};
    assert_int_equal(zmtp_read(&stream, &bytes_only, BYTES(header)), ZMTP_TOO_LARGE);
}

static void commands_neither_count_nor_end_a_message(void **state)
{
    (void)state;
    assert_open(BYTES(GREETING READY "\1\3one\4\7\4PING\0\0\1\3two"), 2, 6);
    assert_open(BYTES(GREETING READY "\6\0\0\0\0\0\0\0\7\4PING\0\0"), 0, 0);
    assert_open(BYTES(GREETING READY "\5\2ab"), 1, 2); /* with more to come: libzmq may keep it */
}

static void zero_is_no_limit(void **state)
{
    (void)state;
    static const struct zmtp_limits none = {0};
    struct zmtp stream = {0};
    assert_int_equal(zmtp_read(&stream, &none, BYTES(GREETING READY)), ZMTP_FINE);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(zmtp_read(&stream, &none, BYTES("\1\1x")), ZMTP_FINE);
    assert_int_equal(stream.frames, 100000);
}

static bool has_finished(const char *data, size_t size)
{
    bool have[2];
    for (int i = 0; i < 2; i++) {
        struct zmtp stream = {0};
        assert_int_equal(read_in_pieces(&stream, data, size, i == 0 ? 1 : size), ZMTP_FINE);
        have[i] = stream.has_finished_handshake;
    }
    assert_int_equal(have[0], have[1]);
    return have[0];
}

static void a_handshake_is_finished_by_its_last_command(void **state)
{
    (void)state;
    assert_false(has_finished(BYTES("\xFF")));
    assert_false(has_finished(BYTES(GREETING)));
    assert_false(has_finished(BYTES(GREETING "\4\5\5READ")));
    assert_true(has_finished(BYTES(GREETING READY)));
    assert_false(has_finished(BYTES(GREETING "\4\x0E\5HELLO\3abc\3xyz")));
    assert_false(has_finished(BYTES(GREETING "\0\x0E\5HELLO\3abc\3xyz"))); /* not flagged as a command */
    assert_true(has_finished(BYTES(GREETING "\4\x0E\5HELLO\3abc\3xyz\4\x09\10INITIATE")));
    assert_false(has_finished(BYTES(SIGNATURE "\1\3")));
    assert_true(has_finished(BYTES(SIGNATURE "\1\3\0\0")));
    assert_true(has_finished(BYTES("\1\0")));
}

/* libzmq keeps a command until it is complete, whoever it is from. */
static void a_handshake_has_no_large_frames(void **state)
{
    (void)state;
    static const struct zmtp_limits none = {0};
    static const char *const streams[] = {
        GREETING "\6\0\0\0\0\0\0\x40\1\5HELLO", GREETING "\2\0\0\0\0\0\0\x40\1\5HELLO",
        GREETING "\6\0\0\0\0\0\0\x40\1\10INITIATE", SIGNATURE "\1\3\2\0\0\0\0\0\0\x40\1"};
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        size_t header = i < 3 ? sizeof(GREETING) - 1 + 9 : sizeof(SIGNATURE) - 1 + 2 + 9;
        struct zmtp large = {0}, fine = {0};
        assert_int_equal(zmtp_read(&large, &none, streams[i], header), ZMTP_TOO_LARGE);
        assert_int_equal(large.bytes, 16385);
        char head[80];
        memcpy(head, streams[i], header);
        head[header - 1] = 0;
        assert_int_equal(zmtp_read(&fine, &none, head, header), ZMTP_FINE);
    }
}

/* libzmq's own ids are a zero and four bytes: a ROUTER asserts that what it hands out is free. */
static void routing_ids_that_libzmq_hands_out_are_refused(void **state)
{
    (void)state;
    assert_open(BYTES(GREETING "\4\x14\5READY\10Identity\0\0\0\1a"), 0, 0);
    assert_open(BYTES(GREETING "\4\x13\5READY\10Identity\0\0\0\0\1\0"), 1, 0);
    assert_open(BYTES(GREETING "\4\x15\5READY\10Identity\0\0\0\2a\0"), 0, 0);
    assert_open(BYTES(GREETING "\4\x14\5READY\10Identitx\0\0\0\1\0"), 0, 0);
    assert_open(BYTES(GREETING "\4\x15\5READY\11Identity \0\0\0\1\0"), 0, 0);
    assert_open(BYTES(GREETING "\4\x0D\5READY\1X\0\0\0\1\0\0\5\0\0\0\0\0"), 0, 0);
    assert_refused(BYTES(GREETING "\4\x18\5READY\10Identity\0\0\0\5\0abcd"), ZMTP_RESERVED_ID);
    assert_refused(BYTES(GREETING "\4\x14\5READY\10Identity\0\0\0\1\0"), ZMTP_RESERVED_ID);
    assert_refused(BYTES(GREETING "\0\x14\5READY\10Identity\0\0\0\1\0"), ZMTP_RESERVED_ID);
    assert_refused(BYTES(GREETING "\4\x1A\5READY\1X\0\0\0\0\10Identity\0\0\0\1\0"), ZMTP_RESERVED_ID);
    assert_refused(BYTES(GREETING "\4\2\1X\4\x17\10INITIATE\10Identity\0\0\0\1\0"), ZMTP_RESERVED_ID);
    assert_refused(BYTES(SIGNATURE "\1\3\0\1\0"), ZMTP_RESERVED_ID);
    assert_refused(BYTES(SIGNATURE "\0\3\2\0\0"), ZMTP_RESERVED_ID);
    assert_refused(BYTES("\2\0\0"), ZMTP_RESERVED_ID);
    assert_open(BYTES("\2\0a\2\0\0"), 0, 0);
}

/* HELLO of anna, password x; INITIATE with the name "fixed", given twice. */
#define HELLO    "\4\x0D\5HELLO\4anna\1x"
#define INITIATE "\4\x2D\10INITIATE\10Identity\0\0\0\5other\10Identity\0\0\0\5fixed"

static void who_a_peer_says_it_is_can_be_had(void **state)
{
    (void)state;
    static const char data[] = GREETING HELLO INITIATE "\0\5hello";
    for (size_t piece = 1; piece < sizeof data; piece++) {
        struct zmtp_claim claim = {0};
        struct zmtp stream = {.claim = &claim};
        assert_int_equal(read_in_pieces(&stream, BYTES(GREETING HELLO), piece), ZMTP_FINE);
        assert_false(claim.is_complete);
        claim = (struct zmtp_claim){0};
        stream = (struct zmtp){.claim = &claim};
        assert_int_equal(read_in_pieces(&stream, BYTES(data), piece), ZMTP_FINE);
        assert_true(claim.is_complete);
        assert_int_equal(claim.user_bytes, 4);
        assert_memory_equal(claim.user, "anna", 4);
        assert_int_equal(claim.id_bytes, 5);
        assert_memory_equal(claim.id, "fixed", 5);
    }
}

static void a_name_that_is_too_long_is_refused_where_names_matter(void **state)
{
    (void)state;
    char data[600] = GREETING HELLO "\6\0\0\0\0\0\0\1\x16\10INITIATE\10Identity\0\0\1\0";
    size_t at = sizeof(GREETING HELLO) - 1 + 9 + 22;
    memset(data + at, 'x', 256);
    struct zmtp_claim claim = {0};
    struct zmtp stream = {.claim = &claim};
    static const struct zmtp_limits none = {0};
    assert_int_equal(zmtp_read(&stream, &none, data, at + 255), ZMTP_FINE);
    assert_int_equal(zmtp_read(&stream, &none, data + at + 255, 1), ZMTP_RESERVED_ID);
    stream = (struct zmtp){0};
    assert_int_equal(zmtp_read(&stream, &none, data, at + 256), ZMTP_FINE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_count_until_their_message_ends),
        cmocka_unit_test(older_peers_are_understood),
        cmocka_unit_test(a_message_over_a_limit_is_noticed_at_its_header),
        cmocka_unit_test(empty_frames_count_too),
        cmocka_unit_test(lengths_do_not_wrap),
        cmocka_unit_test(commands_neither_count_nor_end_a_message),
        cmocka_unit_test(zero_is_no_limit),
        cmocka_unit_test(a_handshake_is_finished_by_its_last_command),
        cmocka_unit_test(a_handshake_has_no_large_frames),
        cmocka_unit_test(routing_ids_that_libzmq_hands_out_are_refused),
        cmocka_unit_test(who_a_peer_says_it_is_can_be_had),
        cmocka_unit_test(a_name_that_is_too_long_is_refused_where_names_matter),
    };
    return cmocka_run_group_tests_name("zmtp", tests, NULL, NULL);
}
