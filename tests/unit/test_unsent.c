/* SPDX-License-Identifier: MIT */
/* links: proxies/unsent.c buffer/message.c */
#include "proxies/unsent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LARGE_BYTES = 100000 };

static char block[LARGE_BYTES];

static zmq_msg_t routing_id(const char *text)
{
    zmq_msg_t id;
    zmq_msg_init_size(&id, strlen(text));
    memcpy(zmq_msg_data(&id), text, strlen(text));
    return id;
}

static struct message counted(struct unsent *unsent, zmq_msg_t *id, size_t first, size_t last)
{
    struct message message = {0};
    memset(block, 'x', sizeof block);
    assert_int_equal(message_add_bytes(&message, block, first), 0);
    assert_int_equal(message_add_bytes(&message, block, last), 0);
    unsent_add(unsent, id, &message);
    assert_int_equal(message.count, 2);
    assert_int_equal(zmq_msg_size(message_frame(&message, 1)), last);
    assert_memory_equal(zmq_msg_data(message_frame(&message, 1)), block, last);
    return message;
}

static void large_messages_count_until_libzmq_lets_go(void **state)
{
    (void)state;
    struct unsent unsent;
    zmq_msg_t anna = routing_id("anna"), bert = routing_id("bert");
    unsent_init(&unsent);
    struct message first = counted(&unsent, &anna, 10, LARGE_BYTES);
    struct message second = counted(&unsent, &anna, LARGE_BYTES, 0);
    struct message other = counted(&unsent, &bert, 0, LARGE_BYTES);
    assert_int_equal(unsent_bytes(&unsent, &anna), 2 * LARGE_BYTES + 10);
    assert_int_equal(unsent_bytes(&unsent, &bert), LARGE_BYTES);
    message_close(&first);
    assert_int_equal(unsent_bytes(&unsent, &anna), LARGE_BYTES);
    message_close(&second);
    assert_int_equal(unsent_bytes(&unsent, &anna), 0);
    assert_int_equal(unsent.count, 1);
    message_close(&other);
    unsent_close(&unsent);
}

static void small_ones_do_not(void **state)
{
    (void)state;
    struct unsent unsent;
    zmq_msg_t anna = routing_id("anna");
    unsent_init(&unsent);
    struct message message = counted(&unsent, &anna, 10, 10);
    assert_int_equal(unsent_bytes(&unsent, &anna), 0);
    message_close(&message);
    unsent_close(&unsent);
}

static void a_message_may_outlive_the_count(void **state)
{
    (void)state;
    struct unsent unsent;
    zmq_msg_t anna = routing_id("anna");
    unsent_init(&unsent);
    struct message message = counted(&unsent, &anna, 10, LARGE_BYTES);
    unsent_close(&unsent);
    assert_memory_equal(zmq_msg_data(message_frame(&message, 1)), block, LARGE_BYTES);
    message_close(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_messages_count_until_libzmq_lets_go),
        cmocka_unit_test(small_ones_do_not),
        cmocka_unit_test(a_message_may_outlive_the_count),
    };
    return cmocka_run_group_tests_name("unsent", tests, NULL, NULL);
}
