/* SPDX-License-Identifier: MIT */
/* links: proxies/dialect.c proxies/dialect_raw.c proxies/dialect_pyzmqrpc.c proxies/dialect_jsonrpc.c */
/* links: proxies/dialect_red.c proxies/dialect_zmqframework.c proxies/dialect_json.c proxies/json_span.c */
/* links: proxies/ledger.c buffer/message.c */
#include "proxies/dialect.h"
#include "proxies/json_span.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct message no_request;

static void assert_is(struct message *message, const char *text)
{
    assert_int_equal(message->count, 1);
    zmq_msg_t *frame = message_frame(message, 0);
    char found[1024] = "";
    assert_true(zmq_msg_size(frame) < sizeof found);
    memcpy(found, zmq_msg_data(frame), zmq_msg_size(frame));
    assert_string_equal(found, text);
    message_close(message);
}

static void raw_speaks_in_plain_words(void **state)
{
    (void)state;
    const struct dialect *raw = dialect_find("raw");
    struct message out = {0};
    assert_int_equal(raw->ack(&no_request, NULL, NULL, &out), 0);
    assert_is(&out, "accepted");
    assert_int_equal(raw->ack(&no_request, "synced", "T1", &out), 0);
    assert_is(&out, "accepted synced T1");
    assert_int_equal(raw->error(&no_request, REASON_QUEUE_FULL, &out), 0);
    assert_is(&out, "error 503 queue-full");
    assert_null(raw->heartbeat);
}

static void pyzmqrpc_speaks_its_json(void **state)
{
    (void)state;
    const struct dialect *pyzmqrpc = dialect_find("pyzmqrpc");
    struct message out = {0};
    assert_int_equal(pyzmqrpc->ack(&no_request, NULL, NULL, &out), 0);
    assert_is(&out, "{\"status_code\":200,\"status_message\":\"OK\"}");
    assert_int_equal(pyzmqrpc->ack(&no_request, "synced", "T1", &out), 0);
    assert_is(&out, "{\"status_code\":200,\"status_message\":\"OK\",\"ack\":\"synced\",\"ticket\":\"T1\"}");
    assert_int_equal(pyzmqrpc->error(&no_request, REASON_TIMEOUT, &out), 0);
    assert_is(
        &out,
        "{\"status_code\":482,\"status_message\":\"timeout: no answer in time; the outcome is unknown\","
        "\"code\":504}");
}

static void pyzmqrpc_knows_its_heartbeat_and_nothing_like_it(void **state)
{
    (void)state;
    const struct dialect *pyzmqrpc = dialect_find("pyzmqrpc");
    struct message body = {0};
    assert_false(dialect_is_heartbeat(pyzmqrpc, &body));
    assert_int_equal(message_add_bytes(&body, "zmq_sub_heartbeat", 17), 0);
    assert_true(dialect_is_heartbeat(pyzmqrpc, &body));
    assert_false(dialect_is_heartbeat(dialect_find("raw"), &body));
    assert_int_equal(message_add_bytes(&body, "", 0), 0);
    assert_false(dialect_is_heartbeat(pyzmqrpc, &body));
    message_close(&body);
}

static void assert_frames(struct message *message, const char *first, const char *second)
{
    assert_int_equal(message->count, 2);
    const char *const texts[] = {first, second};
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(zmq_msg_size(message_frame(message, i)), strlen(texts[i]));
        assert_memory_equal(zmq_msg_data(message_frame(message, i)), texts[i], strlen(texts[i]));
    }
    message_close(message);
}

static void zmqframework_repeats_the_event_name_in_two_frames(void **state)
{
    (void)state;
    const struct dialect *zmqframework = dialect_find("zmqframework");
    struct message out = {0}, request = {0};
    assert_int_equal(zmqframework->error(&request, REASON_TOO_LARGE, &out), 0);
    assert_frames(&out, "proxyd", "{\"error\":\"too-large\",\"code\":413}");
    static const char *const frames[] = {"message \xff", "{\"content\":1}", "more"};
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        assert_int_equal(message_add_bytes(&request, frames[i], strlen(frames[i])), 0);
        assert_int_equal(zmqframework->ack(&request, "synced", "T1", &out), 0);
        assert_frames(&out, frames[0], "{\"accepted\":true,\"ack\":\"synced\",\"ticket\":\"T1\"}");
        assert_int_equal(zmqframework->ack(&request, NULL, NULL, &out), 0);
        assert_frames(&out, frames[0], "{\"accepted\":true}");
        assert_int_equal(zmqframework->error(&request, REASON_LOST, &out), 0);
        assert_frames(&out, frames[0], "{\"error\":\"lost\",\"code\":504}");
    }
    message_close(&request);
}

typedef int answer_fn(const struct dialect *dialect, const struct message *request, struct message *out);

static int synced(const struct dialect *dialect, const struct message *request, struct message *out)
{
    return dialect->ack(request, "synced", "T1", out);
}

static int published(const struct dialect *dialect, const struct message *request, struct message *out)
{
    return dialect->ack(request, NULL, NULL, out);
}

static int bad_request(const struct dialect *dialect, const struct message *request, struct message *out)
{
    return dialect->error(request, REASON_BAD_REQUEST, out);
}

static int timed_out(const struct dialect *dialect, const struct message *request, struct message *out)
{
    return dialect->error(request, REASON_TIMEOUT, out);
}

static void assert_answer(const char *name, answer_fn *answer, const char *request_text, const char *wanted)
{
    struct message request = {0}, out = {0};
    if (request_text)
        assert_int_equal(message_add_bytes(&request, request_text, strlen(request_text)), 0);
    assert_int_equal(answer(dialect_find(name), &request, &out), 0);
    assert_is(&out, wanted);
    message_close(&request);
}

/* What has an id, and what an answer says of it. */
static const char *const ids[][2] = {
    {"{\"id\":1}", "1"},
    {"{\"id\":9007199254740993}", "9007199254740993"},
    {"{\"id\":12345678901234567890}", "12345678901234567890"},
    {"{\"id\":1.0}", "1.0"},
    {"{\"id\":-1E400}", "-1E400"},
    {"{\"id\":\"a\\u00e9\\/\\\"\"}", "\"a\\u00e9\\/\\\"\""},
    {"{\"id\":\"\xc3\xa4\"}", "\"\xc3\xa4\""},
    {"{\"id\":null}", "null"},
    {"{\"id\":false}", "false"},
    {"{\"id\":[1, {}]}", "[1, {}]"},
    {"{\"id\":{\"id\" :2}}", "{\"id\" :2}"},
    {" {\"params\":{\"id\":0},\"id\":1,\"\\u0069d\":2}\n", "2"},
    {"{}", "null"},
    {"\"id\"", "null"},
    {"{\"id\":\"\xe4\"}", "null"},
    {"\xef\xbb\xbf{\"id\":1}", "null"},
    {"{\"id\":1", "null"},
    {"", "null"},
    {NULL, "null"},
};

static void an_id_comes_back_byte_by_byte(void **state)
{
    (void)state;
    char wanted[256];
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        snprintf(wanted, sizeof wanted, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"accepted\":true}}",
                 ids[i][1]);
        assert_answer("jsonrpc", published, ids[i][0], wanted);
        snprintf(wanted, sizeof wanted, "{\"id\":%s,\"status\":202,\"message\":\"accepted\"}", ids[i][1]);
        assert_answer("red", published, ids[i][0], wanted);
    }
}

static void red_has_a_status_and_a_message(void **state)
{
    (void)state;
    static const char request[] =
        "{\"requester\":\"x\",\"cog\":\"C\",\"method\":\"m\",\"id\":123,\"kwargs\":{}}";
    assert_answer("red", synced, request,
                  "{\"id\":123,\"status\":202,\"message\":\"accepted\",\"ticket\":\"T1\"}");
    assert_answer(
        "red", timed_out, request,
        "{\"id\":123,\"status\":504,\"message\":\"timeout: no answer in time; the outcome is unknown\"}");
    assert_answer("red", bad_request, "no JSON",
                  "{\"id\":null,\"status\":400,\"message\":\"bad-request: the request cannot be read\"}");
    assert_answer(
        "red", timed_out, "[{\"id\":1}]",
        "{\"id\":null,\"status\":504,\"message\":\"timeout: no answer in time; the outcome is unknown\"}");
}

#define TIMEOUT(id)                                                                                          \
    "{\"jsonrpc\":\"2.0\",\"id\":" id                                                                        \
    ",\"error\":{\"code\":-32008,\"message\":\"timeout\",\"data\":{\"code\":504}}}"

static void jsonrpc_has_a_result_or_an_error(void **state)
{
    (void)state;
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"method\":\"verify\",\"params\":\"x\",\"id\":\"1\"}";
    assert_answer("jsonrpc", synced, request,
                  "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{\"accepted\":true,\"ack\":\"synced\","
                  "\"ticket\":\"T1\"}}");
    assert_answer("jsonrpc", timed_out, request, TIMEOUT("\"1\""));
    assert_answer("jsonrpc", bad_request, "{\"id\":7}",
                  "{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32600,\"message\":\"bad-request\","
                  "\"data\":{\"code\":400}}}");
    assert_answer("jsonrpc", bad_request, "{\"id\":7",
                  "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"bad-request\","
                  "\"data\":{\"code\":400}}}");
}

static void jsonrpc_answers_each_request_of_a_batch(void **state)
{
    (void)state;
    assert_answer("jsonrpc", timed_out, "[{\"method\":\"m\",\"id\":1}]", "[" TIMEOUT("1") "]");
    assert_answer(
        "jsonrpc", timed_out,
        " [{\"method\":\"m\",\"id\":1.0}, {\"method\":\"m\"} ,{\"method\":\"m\",\"id\":\"],\"},2,[]]",
        "[" TIMEOUT("1.0") "," TIMEOUT("\"],\"") "," TIMEOUT("null") "," TIMEOUT("null") "]");
    assert_answer("jsonrpc", timed_out, "[]", TIMEOUT("null"));
}

static void jsonrpc_answers_a_notification_by_an_empty_frame(void **state)
{
    (void)state;
    answer_fn *const answers[] = {synced, published, timed_out};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        assert_answer("jsonrpc", answers[i], "{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":[]}", "");
        assert_answer("jsonrpc", answers[i], "[{\"method\":\"log\"},{\"method\":\"log\"}]", "");
    }
}

static void jsonrpc_answers_a_very_long_batch_as_a_whole(void **state)
{
    (void)state;
    enum { MANY = 1001 };
    char batch[2 * MANY + 2] = "[";
    for (size_t i = 0; i < MANY; i++)
        memcpy(batch + 2 * i + 1, "1,", 2);
    batch[(size_t)2 * MANY] = ']';
    assert_answer("jsonrpc", timed_out, batch, TIMEOUT("null"));
    struct message request = {0}, out = {0};
    assert_int_equal(message_add_bytes(&request, batch + 2, strlen(batch) - 2), 0);
    *(char *)zmq_msg_data(message_frame(&request, 0)) = '['; /* one fewer */
    assert_int_equal(timed_out(&dialect_jsonrpc, &request, &out), 0);
    assert_int_equal(out.bytes, (size_t)1000 * (strlen(TIMEOUT("null")) + 1) + 1);
    message_close(&out);
    message_close(&request);
}

static void json_in_several_frames_has_no_id(void **state)
{
    (void)state;
    struct message request = {0}, out = {0};
    assert_int_equal(message_add_bytes(&request, "{\"id\":1}", 8), 0);
    assert_int_equal(message_add_bytes(&request, "", 0), 0);
    assert_int_equal(timed_out(&dialect_jsonrpc, &request, &out), 0);
    assert_is(&out, TIMEOUT("null"));
    message_close(&request);
}

static void zmqframework_finds_the_name_behind_an_empty_frame(void **state)
{
    (void)state;
    static const char *const names[] = {"", "ping", "{}"}, *const found[] = {"proxyd", "proxyd", "ping"};
    struct message out = {0}, request = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(message_add_bytes(&request, names[i], strlen(names[i])), 0);
        assert_int_equal(dialect_zmqframework.ack(&request, NULL, NULL, &out), 0);
        assert_frames(&out, found[i], "{\"accepted\":true}");
    }
    message_close(&request);
}

/* The JSON dialects write our own words as they are: none may need escaping, or more room. */
static void every_error_is_json(void **state)
{
    (void)state;
    static const struct dialect *const dialects[] = {&dialect_pyzmqrpc, &dialect_jsonrpc, &dialect_red,
                                                     &dialect_zmqframework};
    struct message out = {0};
    struct json_span value;
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
        for (enum reason reason = 0; reason < REASON_COUNT; reason++) {
            assert_int_equal(dialects[i]->error(&no_request, reason, &out), 0);
            zmq_msg_t *frame = message_frame(&out, out.count - 1);
            assert_true(json_span_read(zmq_msg_data(frame), zmq_msg_size(frame), &value));
            message_close(&out);
        }
    }
}

static void every_reason_has_its_code_and_words(void **state)
{
    (void)state;
    static const struct {
        enum reason reason;
        const char *name;
        int code, jsonrpc_code;
    } contract[] = {
        {REASON_BAD_REQUEST, "bad-request", 400, -32600},
        {REASON_DENIED, "denied", 403, -32001},
        {REASON_TOO_LARGE, "too-large", 413, -32002},
        {REASON_RATE_LIMITED, "rate-limited", 429, -32003},
        {REASON_FAILED, "failed", 500, -32004},
        {REASON_UNAVAILABLE, "unavailable", 502, -32005},
        {REASON_QUEUE_FULL, "queue-full", 503, -32006},
        {REASON_SHUTTING_DOWN, "shutting-down", 503, -32007},
        {REASON_TIMEOUT, "timeout", 504, -32008},
        {REASON_LOST, "lost", 504, -32010},
        {REASON_STORE_FAILED, "store-failed", 507, -32009},
    };
    assert_int_equal(sizeof contract / sizeof *contract, REASON_COUNT);
    for (size_t i = 0; i < REASON_COUNT; i++) {
        const struct reason_info *info = reason_info(contract[i].reason);
        assert_string_equal(info->name, contract[i].name);
        assert_int_equal(info->code, contract[i].code);
        assert_int_equal(info->jsonrpc_code, contract[i].jsonrpc_code);
        assert_true(strlen(info->text) > 10);
    }
}

static void every_named_dialect_is_found_and_no_other(void **state)
{
    (void)state;
    char names[256];
    strcpy(names, dialect_names());
    for (char *name = strtok(names, ", "); name; name = strtok(NULL, ", "))
        assert_string_equal(dialect_find(name)->name, name);
    assert_null(dialect_find("Raw"));
    assert_null(dialect_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_speaks_in_plain_words),
        cmocka_unit_test(pyzmqrpc_speaks_its_json),
        cmocka_unit_test(pyzmqrpc_knows_its_heartbeat_and_nothing_like_it),
        cmocka_unit_test(zmqframework_repeats_the_event_name_in_two_frames),
        cmocka_unit_test(zmqframework_finds_the_name_behind_an_empty_frame),
        cmocka_unit_test(an_id_comes_back_byte_by_byte),
        cmocka_unit_test(red_has_a_status_and_a_message),
        cmocka_unit_test(jsonrpc_has_a_result_or_an_error),
        cmocka_unit_test(jsonrpc_answers_each_request_of_a_batch),
        cmocka_unit_test(jsonrpc_answers_a_notification_by_an_empty_frame),
        cmocka_unit_test(jsonrpc_answers_a_very_long_batch_as_a_whole),
        cmocka_unit_test(json_in_several_frames_has_no_id),
        cmocka_unit_test(every_error_is_json),
        cmocka_unit_test(every_reason_has_its_code_and_words),
        cmocka_unit_test(every_named_dialect_is_found_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
