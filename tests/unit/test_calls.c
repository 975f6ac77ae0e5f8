/* links: proxies/calls.c proxies/json_span.c buffer/message.c */
/* SPDX-License-Identifier: MIT */
#include "proxies/calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SENT_MAX = 8, TEXT_BYTES = 512 };

/* What the server gets. */
struct sent {
    int count;
    char texts[SENT_MAX][TEXT_BYTES];
};

static void keep(void *context, const struct json_span *pieces, size_t count)
{
    struct sent *sent = context;
    char *at = sent->texts[sent->count++ % SENT_MAX];
    for (size_t i = 0; i < count; i++) {
        memcpy(at, pieces[i].at, pieces[i].size);
        at += pieces[i].size;
    }
    *at = '\0';
}

static struct message one_frame(const char *text)
{
    struct message message = {0};
    assert_int_equal(message_add_bytes(&message, text, strlen(text)), 0);
    return message;
}

static enum calls_begun begin(struct calls *calls, const char *tag_text, const char *text, struct sent *sent)
{
    struct message tag = one_frame(tag_text), body = one_frame(text);
    enum calls_begun begun = calls_begin(calls, &tag, &body, keep, sent);
    message_close(&tag);
    message_close(&body);
    return begun;
}

static enum calls_answer end(struct calls *calls, const char *text, struct message *tag, struct message *body)
{
    struct json_span answer;
    assert_true(json_span_read(text, strlen(text), &answer));
    return calls_end(calls, answer, tag, body);
}

/* Ends a call: `text` is its answer for the caller `tag_text`. */
static void expect_answer(struct calls *calls, const char *from_server, const char *tag_text,
                          const char *text)
{
    struct message tag = {0}, body = {0};
    assert_int_equal(end(calls, from_server, &tag, &body), CALLS_ANSWERED);
    assert_true(message_is(&tag, tag_text, strlen(tag_text)));
    assert_true(message_is(&body, text, strlen(text)));
    message_close(&tag);
    message_close(&body);
}

static enum calls_answer other_answer(struct calls *calls, const char *text)
{
    struct message tag = {0}, body = {0};
    enum calls_answer answer = end(calls, text, &tag, &body);
    assert_int_equal(tag.count + body.count, 0);
    return answer;
}

/* The server's answer to a request that it got, with `result` as everything behind the id. */
static const char *reply_to(const char *request, const char *result)
{
    static char text[TEXT_BYTES];
    struct json_span whole;
    assert_true(json_span_read(request, strlen(request), &whole));
    struct json_span id = json_span_member(whole, "id");
    snprintf(text, sizeof text, "{\"id\" : %.*s,%s}", (int)id.size, id.at, result);
    return text;
}

static void the_same_id_of_two_callers_comes_back_to_each(void **state)
{
    (void)state;
    struct calls *calls = calls_new();
    struct sent sent = {0};
    assert_int_equal(begin(calls, "A", "{\"method\":\"m\", \"id\": 1.0 ,\"params\":[{\"id\":9}]}", &sent),
                     CALLS_WAITING);
    assert_int_equal(begin(calls, "B", "{\"id\":1.0,\"method\":\"m\"}", &sent), CALLS_WAITING);
    assert_int_equal(sent.count, 2);
    assert_string_not_equal(sent.texts[0], sent.texts[1]);
    assert_non_null(strstr(sent.texts[0], "\"params\":[{\"id\":9}]"));
    char first[TEXT_BYTES];
    strcpy(first, reply_to(sent.texts[0], "\"result\":[1e400]"));
    expect_answer(calls, reply_to(sent.texts[1], "\"error\":\"no\""), "B", "{\"id\" : 1.0,\"error\":\"no\"}");
    expect_answer(calls, first, "A", "{\"id\" : 1.0,\"result\":[1e400]}");
    assert_int_equal(other_answer(calls, first), CALLS_STRAY);
    calls_free(calls);
}

static void an_id_is_not_used_again_for_the_next_call(void **state)
{
    (void)state;
    struct calls *calls = calls_new();
    struct sent sent = {0};
    begin(calls, "A", "{\"id\":1,\"method\":\"m\"}", &sent);
    char late[TEXT_BYTES];
    strcpy(late, reply_to(sent.texts[0], "\"result\":0"));
    expect_answer(calls, late, "A", "{\"id\" : 1,\"result\":0}");
    begin(calls, "B", "{\"id\":1,\"method\":\"m\"}", &sent);
    assert_int_equal(other_answer(calls, late), CALLS_STRAY);
    expect_answer(calls, reply_to(sent.texts[1], "\"result\":1"), "B", "{\"id\" : 1,\"result\":1}");
    calls_free(calls);
}

static void a_batch_is_answered_as_one_in_its_own_order(void **state)
{
    (void)state;
    struct calls *calls = calls_new();
    struct sent sent = {0};
    assert_int_equal(
        begin(calls, "A",
              "[{\"id\":\"x\",\"method\":\"a\"}, {\"method\":\"note\"} ,{\"id\":null,\"method\":\"b\"}]",
              &sent),
        CALLS_WAITING);
    assert_int_equal(sent.count, 3);
    assert_string_equal(sent.texts[1], "{\"method\":\"note\"}");
    assert_int_equal(other_answer(calls, reply_to(sent.texts[2], "\"result\":2")), CALLS_PART);
    expect_answer(calls, reply_to(sent.texts[0], "\"result\":1"), "A",
                  "[{\"id\" : \"x\",\"result\":1},{\"id\" : null,\"result\":2}]");
    assert_int_equal(begin(calls, "A", "[{\"id\":1,\"method\":\"a\"}]", &sent), CALLS_WAITING);
    expect_answer(calls, reply_to(sent.texts[3], "\"result\":1"), "A", "[{\"id\" : 1,\"result\":1}]");
    calls_free(calls);
}

static void notifications_wait_for_nothing(void **state)
{
    (void)state;
    struct calls *calls = calls_new();
    struct sent sent = {0};
    assert_int_equal(begin(calls, "A", " {\"method\":\"a\",\"params\":{\"id\":1}} ", &sent), CALLS_TOLD);
    assert_string_equal(sent.texts[0], "{\"method\":\"a\",\"params\":{\"id\":1}}");
    assert_int_equal(begin(calls, "A", "[{\"method\":\"a\"},{\"method\":\"b\"}]", &sent), CALLS_TOLD);
    assert_int_equal(sent.count, 3);
    calls_free(calls);
}

static void what_is_no_request_is_not_sent(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "x",
                                        "1",
                                        "{}",
                                        "[]",
                                        "[[]]",
                                        "{\"id\":1}",
                                        "{\"method\":1}",
                                        "[{\"method\":\"a\"},1]",
                                        "{\"id\":1,\"id\":2,\"method\":\"a\"}",
                                        "{\"method\":\"\xff\"}"};
    struct calls *calls = calls_new();
    struct sent sent = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct message body = one_frame(texts[i]);
        assert_false(calls_is_request(&body));
        message_close(&body);
        assert_int_equal(begin(calls, "A", texts[i], &sent), CALLS_REFUSED);
    }
    struct message frames = one_frame("{\"method\":\"a\"}");
    assert_true(calls_is_request(&frames));
    message_add_bytes(&frames, "", 0);
    assert_false(calls_is_request(&frames));
    message_close(&frames);
    assert_int_equal(sent.count, 0);
    calls_free(calls);
}

static void a_batch_has_its_bound(void **state)
{
    (void)state;
    static const char element[] = "{\"id\":1,\"method\":\"a\"},";
    size_t size = strlen(element), count = CALLS_BATCH_MAX + 1;
    char *text = malloc(1 + count * size);
    text[0] = '[';
    for (size_t i = 0; i < count; i++)
        memcpy(text + 1 + i * size, element, size);
    struct message body = {0};
    text[count * size] = ']';
    message_add_bytes(&body, text, 1 + count * size);
    assert_false(calls_is_request(&body));
    message_close(&body);
    text[(count - 1) * size] = ']';
    message_add_bytes(&body, text, 1 + (count - 1) * size);
    assert_true(calls_is_request(&body));

    struct calls *calls = calls_new();
    struct sent sent = {0};
    struct message tag = one_frame("A");
    assert_int_equal(calls_begin(calls, &tag, &body, keep, &sent), CALLS_WAITING);
    assert_int_equal(sent.count, CALLS_BATCH_MAX);
    message_close(&tag);
    message_close(&body);
    calls_free(calls); /* with all of them open */
    free(text);
}

static void a_request_of_the_servers_is_no_answer(void **state)
{
    (void)state;
    struct calls *calls = calls_new();
    struct sent sent = {0};
    begin(calls, "A", "{\"id\":1,\"method\":\"m\"}", &sent);
    assert_int_equal(other_answer(calls, reply_to(sent.texts[0], "\"method\":\"m\"")), CALLS_NOT);
    assert_int_equal(other_answer(calls, "{\"method\":\"m\"}"), CALLS_NOT);
    static const char *const strays[] = {"{\"id\":null}",
                                         "{\"id\":1}",
                                         "{}",
                                         "[]",
                                         "7",
                                         "{\"id\":\"1048576\"}",
                                         "{\"id\":99999999999999999999}",
                                         "{\"id\":-1}"};
    for (size_t i = 0; i < sizeof strays / sizeof *strays; i++)
        assert_int_equal(other_answer(calls, strays[i]), CALLS_STRAY);
    expect_answer(calls, reply_to(sent.texts[0], "\"result\":1"), "A", "{\"id\" : 1,\"result\":1}");
    calls_free(calls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_id_of_two_callers_comes_back_to_each),
        cmocka_unit_test(an_id_is_not_used_again_for_the_next_call),
        cmocka_unit_test(a_batch_is_answered_as_one_in_its_own_order),
        cmocka_unit_test(notifications_wait_for_nothing),
        cmocka_unit_test(what_is_no_request_is_not_sent),
        cmocka_unit_test(a_batch_has_its_bound),
        cmocka_unit_test(a_request_of_the_servers_is_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
