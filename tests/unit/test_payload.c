/* SPDX-License-Identifier: MIT */
/* links: proxies/payload.c proxies/json_span.c buffer/message.c */
#include "proxies/payload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool find_session(const char *data, char session[PAYLOAD_SESSION_BYTES])
{
    struct message message = {0};
    assert_int_equal(message_add_bytes(&message, "topic", 5), 0);
    assert_int_equal(message_add_bytes(&message, data, strlen(data)), 0);
    assert_int_equal(message_add_bytes(&message, "None", 4), 0);
    bool is_found = payload_session(&message, "session_id", session);
    message_close(&message);
    return is_found;
}

static void session_is_the_text_of_its_field(void **state)
{
    (void)state;
    static const struct {
        const char *data, *session;
    } cases[] = {
        {"{\"data\": \"SGk=\", \"session_id\": \"4a50\"}", "4a50"},
        {"{\"session_id\":\"a\\u00e9\\n\\\"\"}", "a\xc3\xa9\n\""},
        {"{\"session_id\":\"first\",\"session_id\":\"last\"}", "last"},
        {"{\"inner\":{\"session_id\":\"no\"},\"session\\u005fid\":\"yes\"}", "yes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char session[PAYLOAD_SESSION_BYTES];
        assert_true(find_session(cases[i].data, session));
        assert_string_equal(session, cases[i].session);
    }
}

static void what_has_no_session_is_told(void **state)
{
    (void)state;
    char session[PAYLOAD_SESSION_BYTES], deep[100001] = "", long_id[2100];
    static const char *const cases[] = {"",
                                        "null",
                                        "[\"session_id\"]",
                                        "{\"session_id\":\"\"}",
                                        "{\"session_id\":7}",
                                        "{\"session_id\":null}",
                                        "{\"session_id\":\"a\\u0000b\"}",
                                        "{\"session_id\":\"\\ud800\"}",
                                        "{\"session_id\":\"\xff\"}",
                                        "{\"session_id\":\"a\"} x",
                                        "{\"session_id\":\"a\"",
                                        "{\"Session_id\":\"a\"}"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_false(find_session(cases[i], session));
    memset(deep, '[', sizeof deep - 1);
    assert_false(find_session(deep, session));
    snprintf(long_id, sizeof long_id, "{\"session_id\":\"%0*d\"}", PAYLOAD_SESSION_BYTES, 0);
    assert_false(find_session(long_id, session));
    snprintf(long_id, sizeof long_id, "{\"session_id\":\"%0*d\"}", PAYLOAD_SESSION_BYTES - 1, 0);
    assert_true(find_session(long_id, session));
}

static void session_is_looked_for_in_three_frames_only(void **state)
{
    (void)state;
    char session[PAYLOAD_SESSION_BYTES];
    struct message message = {0};
    const char data[] = "{\"session_id\":\"a\"}";
    for (int count = 1; count <= 4; count++) {
        assert_int_equal(message_add_bytes(&message, data, strlen(data)), 0);
        assert_int_equal(payload_session(&message, "session_id", session), count == 3);
    }
    message_close(&message);
}

static void question_is_the_rpc_clients(void **state)
{
    (void)state;
    struct message question = {0};
    const char wanted[] =
        "{\"jsonrpc\":\"2.0\",\"method\":\"verify\",\"params\":\"a\\\"\xc3\xa4\",\"id\":\"1\"}";
    assert_int_equal(payload_question("verify", "a\"\xc3\xa4", &question), 0);
    assert_true(message_is(&question, wanted, strlen(wanted)));
    message_close(&question);
}

static void only_the_result_true_is_a_yes(void **state)
{
    (void)state;
    static const struct {
        const char *reply;
        enum payload_verdict verdict;
    } cases[] = {
        {"{\"jsonrpc\":\"2.0\",\"result\":true,\"id\":\"1\"}", PAYLOAD_YES},
        {"{\"result\":false}", PAYLOAD_NO},
        {"{\"result\":\"true\"}", PAYLOAD_NO},
        {"{\"result\":1}", PAYLOAD_NO},
        {"{\"result\":null}", PAYLOAD_NO},
        {"{\"error\":\"no such method\"}", PAYLOAD_UNKNOWN},
        {"{\"result\":true,\"error\":null}", PAYLOAD_UNKNOWN},
        {"{\"result\":false,\"result\":true}", PAYLOAD_UNKNOWN},
        {"true", PAYLOAD_UNKNOWN},
        {"", PAYLOAD_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message reply = {0};
        assert_int_equal(message_add_bytes(&reply, cases[i].reply, strlen(cases[i].reply)), 0);
        assert_int_equal(payload_verdict(&reply), cases[i].verdict);
        message_close(&reply);
    }
}

static bool read_heartbeat(const char *event, const char *json, char id[PAYLOAD_NODE_BYTES], bool *is_worker)
{
    struct message message = {0};
    assert_int_equal(message_add_bytes(&message, event, strlen(event)), 0);
    assert_int_equal(message_add_bytes(&message, json, strlen(json)), 0);
    bool is_heartbeat = payload_heartbeat(&message, id, is_worker);
    message_close(&message);
    return is_heartbeat;
}

static void heartbeat_names_the_worker(void **state)
{
    (void)state;
    char id[PAYLOAD_NODE_BYTES];
    bool is_worker;
    assert_true(read_heartbeat("heartbeat",
                               "{\"node_id\":\"n\",\"session_id\":\"s\",\"node_type\":\"worker\","
                               "\"last_heartbeat\":1700000000000,\"missed_count\":0}",
                               id, &is_worker));
    assert_string_equal(id, "n_s");
    assert_true(is_worker);
    assert_true(read_heartbeat(
        "heartbeat", "{\"node_id\":\"n\",\"session_id\":\"s\",\"node_type\":\"client\"}", id, &is_worker));
    assert_false(is_worker);
}

static void what_is_no_heartbeat_is_told(void **state)
{
    (void)state;
    char id[PAYLOAD_NODE_BYTES], json[1000];
    bool is_worker;
    static const char *const bad_ids[] = {"1",        "null",    "\"\\u0000\"", "\"a\\nb\"", "\"\\u009b2J\"",
                                          "\"\x7f\"", "\"\xff\""};
    for (size_t i = 0; i < sizeof bad_ids / sizeof *bad_ids; i++) {
        snprintf(json, sizeof json, "{\"node_id\":%s,\"session_id\":\"s\",\"node_type\":\"worker\"}",
                 bad_ids[i]);
        assert_false(read_heartbeat("heartbeat", json, id, &is_worker));
        assert_false(is_worker);
    }
    snprintf(json, sizeof json, "{\"node_id\":\"%0*d\",\"session_id\":\"s\",\"node_type\":\"worker\"}",
             PAYLOAD_NODE_BYTES - 2, 0);
    assert_false(read_heartbeat("heartbeat", json, id, &is_worker));
    assert_false(read_heartbeat("heartbeat", "{\"node_id\":\"n\",\"node_type\":\"worker\"}", id, &is_worker));
    assert_false(read_heartbeat("ping", "{\"node_id\":\"n\",\"session_id\":\"s\",\"node_type\":\"worker\"}",
                                id, &is_worker));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(session_is_the_text_of_its_field),
        cmocka_unit_test(what_has_no_session_is_told),
        cmocka_unit_test(session_is_looked_for_in_three_frames_only),
        cmocka_unit_test(question_is_the_rpc_clients),
        cmocka_unit_test(only_the_result_true_is_a_yes),
        cmocka_unit_test(heartbeat_names_the_worker),
        cmocka_unit_test(what_is_no_heartbeat_is_told),
    };
    return cmocka_run_group_tests_name("payload", tests, NULL, NULL);
}
