/* links: buffer/message.c */
/* SPDX-License-Identifier: MIT
 *
 * Messages: frames inside and on the heap, moving, sharing, and the flat form with bytes that are not one.
 */
#include "buffer/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void add_numbered(struct message *message, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++)
        assert_int_equal(message_add_bytes(message, &i, sizeof i), 0);
}

static void assert_numbered(const struct message *message, uint32_t count)
{
    assert_int_equal(message->count, count);
    assert_int_equal(message->bytes, count * sizeof(uint32_t));
    for (uint32_t i = 0; i < count; i++) {
        zmq_msg_t *frame = message_frame(message, i);
        assert_int_equal(zmq_msg_size(frame), sizeof i);
        assert_memory_equal(zmq_msg_data(frame), &i, sizeof i);
    }
}

static void message_of_zero_bytes_is_empty(void **state)
{
    (void)state;
    struct message message;
    memset(&message, 0, sizeof message);
    assert_int_equal(message_flat_bytes(&message), 0);
    add_numbered(&message, 0, 1);
    assert_numbered(&message, 1);
    message_close(&message);
    assert_int_equal(message.count, 0);
    message_close(&message);
}

static void message_keeps_order_beyond_the_frames_inside(void **state)
{
    (void)state;
    for (uint32_t count = 0; count < 40; count++) {
        struct message message;
        message_init(&message);
        add_numbered(&message, 0, count);
        assert_numbered(&message, count);
        assert_int_equal(message.heap != NULL, count > MESSAGE_INLINE_FRAMES);
        message_close(&message);
    }
}

static void message_has_a_received_frame_only_once_it_is_kept(void **state)
{
    (void)state;
    for (uint32_t count = 0; count < 10; count++) {
        struct message message;
        message_init(&message);
        add_numbered(&message, 0, count);
        zmq_msg_t *frame = message_room(&message);
        assert_int_equal(zmq_msg_size(frame), 0);
        zmq_msg_close(frame);
        assert_numbered(&message, count);
        frame = message_room(&message);
        assert_int_equal(zmq_msg_init_size(frame, sizeof count), 0);
        memcpy(zmq_msg_data(frame), &count, sizeof count);
        message_keep(&message, sizeof count);
        assert_numbered(&message, count + 1);
        message_close(&message);
    }
}

static void message_add_takes_the_frame_and_leaves_it_empty(void **state)
{
    (void)state;
    struct message message;
    message_init(&message);
    zmq_msg_t frame;
    zmq_msg_init_size(&frame, 1000);
    memset(zmq_msg_data(&frame), 'x', 1000);
    void *payload = zmq_msg_data(&frame);
    assert_int_equal(message_add(&message, &frame), 0);
    assert_int_equal(zmq_msg_size(&frame), 0);
    assert_ptr_equal(zmq_msg_data(message_frame(&message, 0)), payload);
    assert_int_equal(message.bytes, 1000);
    zmq_msg_close(&frame);
    message_close(&message);
}

static void message_move_empties_the_source_and_closes_the_target(void **state)
{
    (void)state;
    uint32_t counts[] = {0, 1, MESSAGE_INLINE_FRAMES, MESSAGE_INLINE_FRAMES + 1, 20};
    for (size_t a = 0; a < sizeof counts / sizeof *counts; a++)
        for (size_t b = 0; b < sizeof counts / sizeof *counts; b++) {
            struct message to, from;
            message_init(&to);
            message_init(&from);
            add_numbered(&to, 100, counts[a]);
            add_numbered(&from, 0, counts[b]);
            message_move(&to, &from);
            assert_numbered(&to, counts[b]);
            assert_numbered(&from, 0);
            add_numbered(&from, 0, 2);
            assert_numbered(&from, 2);
            message_close(&to);
            message_close(&from);
        }
}

static void message_moved_to_itself_stays(void **state)
{
    (void)state;
    struct message message;
    message_init(&message);
    add_numbered(&message, 0, 2);
    message_move(&message, &message);
    assert_numbered(&message, 2);
    message_close(&message);
}

static void message_copy_shares_payload_and_survives_the_original(void **state)
{
    (void)state;
    char large[4096];
    memset(large, 'y', sizeof large);
    struct message one, copy;
    message_init(&one);
    message_init(&copy);
    message_add_bytes(&one, large, sizeof large);
    message_add_bytes(&one, "", 0);
    assert_int_equal(message_append_copy(&copy, &one), 0);
    assert_int_equal(message_append_copy(&copy, &one), 0);
    assert_ptr_equal(zmq_msg_data(message_frame(&one, 0)), zmq_msg_data(message_frame(&copy, 2)));
    message_close(&one);
    assert_int_equal(copy.count, 4);
    assert_int_equal(copy.bytes, 2 * sizeof large);
    assert_memory_equal(zmq_msg_data(message_frame(&copy, 2)), large, sizeof large);
    message_close(&copy);
}

static void message_appended_to_itself_doubles(void **state)
{
    (void)state;
    struct message message;
    message_init(&message);
    message_add_bytes(&message, "a", 1);
    message_add_bytes(&message, "bc", 2);
    assert_int_equal(message_append_copy(&message, &message), 0);
    assert_int_equal(message.count, 4);
    assert_int_equal(message.bytes, 6);
    assert_memory_equal(zmq_msg_data(message_frame(&message, 3)), "bc", 2);
    message_close(&message);
}

static void message_is_compares_single_frames_only(void **state)
{
    (void)state;
    struct message message;
    message_init(&message);
    assert_false(message_is(&message, "", 0));
    message_add_bytes(&message, "beat", 4);
    assert_true(message_is(&message, "beat", 4));
    assert_false(message_is(&message, "bea", 3));
    assert_false(message_is(&message, "beet", 4));
    message_add_bytes(&message, "", 0);
    assert_false(message_is(&message, "beat", 4));
    message_close(&message);
}

static void flat_form_has_the_documented_bytes(void **state)
{
    (void)state;
    static const unsigned char expected[] = {0, 0, 0, 0, 2, 0, 0, 0, 'h', 'i'};
    struct message message;
    message_init(&message);
    message_add_bytes(&message, "", 0);
    message_add_bytes(&message, "hi", 2);
    assert_int_equal(message_flat_bytes(&message), sizeof expected);
    unsigned char flat[sizeof expected];
    message_flatten(&message, flat);
    assert_memory_equal(flat, expected, sizeof expected);
    message_close(&message);
}

static void flat_form_comes_back_the_same(void **state)
{
    (void)state;
    for (uint32_t count = 0; count < 12; count++) {
        struct message message, back;
        message_init(&message);
        message_init(&back);
        add_numbered(&message, 0, count);
        size_t size = message_flat_bytes(&message);
        void *flat = malloc(size + 1);
        message_flatten(&message, flat);
        assert_int_equal(message_unflatten(&back, flat, size), 0);
        assert_numbered(&back, count);
        free(flat);
        message_close(&message);
        message_close(&back);
    }
}

static void flat_form_frames_of_300_bytes_keep_their_length(void **state)
{
    (void)state;
    char body[70000];
    memset(body, 'z', sizeof body);
    struct message message, back;
    message_init(&message);
    message_init(&back);
    message_add_bytes(&message, body, 300);
    message_add_bytes(&message, body, sizeof body);
    size_t size = message_flat_bytes(&message);
    void *flat = malloc(size);
    message_flatten(&message, flat);
    assert_int_equal(message_unflatten(&back, flat, size), 0);
    assert_int_equal(zmq_msg_size(message_frame(&back, 0)), 300);
    assert_int_equal(zmq_msg_size(message_frame(&back, 1)), sizeof body);
    free(flat);
    message_close(&message);
    message_close(&back);
}

static void unflatten_refuses_what_is_cut_short(void **state)
{
    (void)state;
    struct message message, back;
    message_init(&message);
    message_init(&back);
    add_numbered(&message, 0, 5);
    size_t size = message_flat_bytes(&message);
    for (size_t cut = 0; cut < size; cut++) {
        char *exact = malloc(size); /* of the exact size, so that reading past `cut` shows under ASan */
        message_flatten(&message, exact);
        exact = realloc(exact, cut ? cut : 1);
        int result = message_unflatten(&back, exact, cut);
        assert_int_equal(result, cut % 8 == 0 ? 0 : -1);
        assert_int_equal(back.count, cut % 8 == 0 ? cut / 8 : 0);
        message_close(&back);
        free(exact);
    }
    message_close(&message);
}

static void unflatten_refuses_lengths_beyond_the_end(void **state)
{
    (void)state;
    static const unsigned char huge[] = {0xff, 0xff, 0xff, 0xff, 'a', 'b'};
    static const unsigned char one_more[] = {3, 0, 0, 0, 'a', 'b'};
    struct message message;
    message_init(&message);
    assert_int_equal(message_unflatten(&message, huge, sizeof huge), -1);
    assert_int_equal(message_unflatten(&message, one_more, sizeof one_more), -1);
    assert_int_equal(message.count, 0);
    message_close(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_of_zero_bytes_is_empty),
        cmocka_unit_test(message_keeps_order_beyond_the_frames_inside),
        cmocka_unit_test(message_has_a_received_frame_only_once_it_is_kept),
        cmocka_unit_test(message_add_takes_the_frame_and_leaves_it_empty),
        cmocka_unit_test(message_move_empties_the_source_and_closes_the_target),
        cmocka_unit_test(message_moved_to_itself_stays),
        cmocka_unit_test(message_copy_shares_payload_and_survives_the_original),
        cmocka_unit_test(message_appended_to_itself_doubles),
        cmocka_unit_test(message_is_compares_single_frames_only),
        cmocka_unit_test(flat_form_has_the_documented_bytes),
        cmocka_unit_test(flat_form_comes_back_the_same),
        cmocka_unit_test(flat_form_frames_of_300_bytes_keep_their_length),
        cmocka_unit_test(unflatten_refuses_what_is_cut_short),
        cmocka_unit_test(unflatten_refuses_lengths_beyond_the_end),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
