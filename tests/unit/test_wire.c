/* SPDX-License-Identifier: MIT */
/* links: proxies/wire.c proxies/socket.c proxies/inproc.c proxies/guard.c proxies/claims.c proxies/zmtp.c proxies/poller.c proxies/endpoint.c proxies/listener.c buffer/message.c */
#include "proxies/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <zmq.h>

#include <cmocka.h>

/* A ROUTER and a DEALER of ours, joined by inproc: what one sends the other can read at once. */
struct pair {
    void *zmq;
    struct socket router, dealer;
    struct endpoint endpoint;
};

static const struct wire_limits limits = {.max_bytes = 100, .max_frames = 8};

static int set_up(void **state)
{
    static struct pair pair;
    char err[256];
    const struct socket_options router = {.type = ZMQ_ROUTER, .send_hwm = 10, .receive_hwm = 10};
    const struct socket_options dealer = {.type = ZMQ_DEALER, .send_hwm = 10, .receive_hwm = 10};
    pair.zmq = zmq_ctx_new();
    assert_int_equal(endpoint_parse(&pair.endpoint, "@inproc://wire", true, err, sizeof err), 0);
    assert_int_equal(socket_open(&pair.router, pair.zmq, NULL, &router, &pair.endpoint, err, sizeof err), 0);
    assert_int_equal(socket_bind(&pair.router, &pair.endpoint, err, sizeof err), 0);
    assert_int_equal(socket_open(&pair.dealer, pair.zmq, NULL, &dealer, &pair.endpoint, err, sizeof err), 0);
    assert_int_equal(socket_connect(&pair.dealer, "inproc://wire", err, sizeof err), 0);
    *state = &pair;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *pair = *state;
    socket_close(&pair->router);
    socket_close(&pair->dealer);
    endpoint_close(&pair->endpoint);
    return zmq_ctx_term(pair->zmq);
}

/* Sends frames given as words; "-" is an empty frame. */
static void send_words(struct socket *socket, const char *words)
{
    struct message message = {0};
    char copy[4096];
    strcpy(copy, words);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        assert_int_equal(message_add_bytes(&message, word, strcmp(word, "-") == 0 ? 0 : strlen(word)), 0);
    assert_int_equal(wire_send(socket, NULL, false, &message), WIRE_SENT);
    message_close(&message);
}

static void assert_frames(const struct message *message, uint32_t first, const char *words)
{
    char copy[256];
    strcpy(copy, words);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "), first++) {
        size_t size = strcmp(word, "-") == 0 ? 0 : strlen(word);
        assert_true(first < message->count);
        assert_int_equal(zmq_msg_size(message_frame(message, first)), size);
        assert_memory_equal(zmq_msg_data(message_frame(message, first)), word, size);
    }
    assert_int_equal(first, message->count);
}

static void envelopes_of_any_depth_come_apart_and_together(void **state)
{
    struct pair *pair = *state;
    struct message envelope = {0}, body = {0};
    send_words(&pair->dealer, "hop1 hop2 hop3 hop4 - one - three");
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_MESSAGE);
    assert_frames(&envelope, 1, "hop1 hop2 hop3 hop4");
    assert_frames(&body, 0, "one - three");
    assert_int_equal(wire_send(&pair->router, &envelope, true, &body), WIRE_SENT);
    assert_int_equal(envelope.count, 0);
    assert_int_equal(body.count, 0);
    assert_int_equal(wire_receive(&pair->dealer, &limits, &envelope, &body), WIRE_MESSAGE);
    assert_frames(&envelope, 0, "hop1 hop2 hop3 hop4");
    assert_frames(&body, 0, "one - three");
    message_close(&envelope);
    message_close(&body);
    assert_int_equal(wire_receive(&pair->dealer, &limits, &envelope, &body), WIRE_NONE);
}

static void a_copied_body_stays_what_it_was(void **state)
{
    struct pair *pair = *state;
    struct message envelope = {0}, body = {0};
    send_words(&pair->dealer, "hop1 - one - three four");
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_MESSAGE);
    assert_int_equal(wire_send_copy(&pair->router, &envelope, true, &body), WIRE_SENT);
    assert_int_equal(envelope.count, 0);
    assert_frames(&body, 0, "one - three four");
    message_close(&body);
    assert_int_equal(wire_receive(&pair->dealer, &limits, &envelope, &body), WIRE_MESSAGE);
    assert_frames(&envelope, 0, "hop1");
    assert_frames(&body, 0, "one - three four");
    message_close(&envelope);
    message_close(&body);
}

static void no_delimiter_or_no_body_is_malformed(void **state)
{
    struct pair *pair = *state;
    struct message envelope = {0}, body = {0};
    static const char *const malformed[] = {"a", "a b c", "-", "a b -"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        send_words(&pair->dealer, malformed[i]);
        assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_MALFORMED);
        message_close(&envelope);
        message_close(&body);
    }
    send_words(&pair->dealer, "- -");
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_MESSAGE);
    message_close(&envelope);
    message_close(&body);
}

static void a_message_at_the_limit_passes_and_one_over_it_keeps_what_an_answer_needs(void **state)
{
    struct pair *pair = *state;
    struct message envelope = {0}, body = {0};
    char words[256] = "- ";
    memset(words + 2, 'x', 100);
    words[102] = '\0';
    send_words(&pair->dealer, words);
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_MESSAGE);
    message_close(&envelope);
    message_close(&body);
    strcpy(words + 102, " y");
    send_words(&pair->dealer, words);
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_TOO_LARGE);
    assert_int_equal(envelope.count, 1);
    assert_int_equal(body.count, 1);
    message_close(&envelope);
    message_close(&body);
    memset(words + 102, 'x', 100);
    words[202] = '\0';
    send_words(&pair->dealer, words);
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_TOO_LARGE);
    assert_int_equal(zmq_msg_size(message_frame(&body, 0)), 200);
    message_close(&envelope);
    message_close(&body);
    send_words(&pair->dealer, "- 1 2 3 4 5 6 7 8");
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_MESSAGE);
    message_close(&envelope);
    message_close(&body);
    send_words(&pair->dealer, "- 1 2 3 4 5 6 7 8 9");
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_TOO_LARGE);
    message_close(&envelope);
    message_close(&body);
}

static void far_beyond_the_limit_there_is_no_way_back(void **state)
{
    struct pair *pair = *state;
    struct message envelope = {0}, body = {0};
    send_words(&pair->dealer, "- 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9");
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_TOO_LARGE);
    assert_int_equal(envelope.count, 0);
    assert_int_equal(body.count, 0);
    send_words(&pair->dealer, "- next");
    assert_int_equal(wire_receive(&pair->router, &limits, &envelope, &body), WIRE_MESSAGE);
    assert_frames(&body, 0, "next");
    message_close(&envelope);
    message_close(&body);
}

static void a_peer_without_room_or_gone_is_told_apart(void **state)
{
    struct pair *pair = *state;
    struct message caller = {0}, envelope = {0}, body = {0};
    send_words(&pair->dealer, "- x");
    assert_int_equal(wire_receive(&pair->router, &limits, &caller, &body), WIRE_MESSAGE);
    enum wire_sent sent = WIRE_SENT;
    for (int i = 0; i < 100 && sent == WIRE_SENT; i++) {
        message_close(&envelope);
        assert_int_equal(message_append_copy(&envelope, &caller), 0);
        sent = wire_send_copy(&pair->router, &envelope, true, &body);
    }
    assert_int_equal(sent, WIRE_FULL);
    assert_int_equal(wire_send(&pair->router, &envelope, true, &body), WIRE_FULL);
    assert_int_equal(envelope.count, 1);
    assert_frames(&body, 0, "x");
    message_close(&envelope);
    assert_int_equal(message_add_bytes(&envelope, "nobody", 6), 0);
    assert_int_equal(wire_send(&pair->router, &envelope, true, &body), WIRE_GONE);
    assert_frames(&envelope, 0, "nobody");
    assert_frames(&body, 0, "x");
    message_close(&caller);
    message_close(&envelope);
    message_close(&body);
}

#define WIRE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(envelopes_of_any_depth_come_apart_and_together),
        WIRE_TEST(a_copied_body_stays_what_it_was),
        WIRE_TEST(no_delimiter_or_no_body_is_malformed),
        WIRE_TEST(a_message_at_the_limit_passes_and_one_over_it_keeps_what_an_answer_needs),
        WIRE_TEST(far_beyond_the_limit_there_is_no_way_back),
        WIRE_TEST(a_peer_without_room_or_gone_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
