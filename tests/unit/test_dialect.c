/* SPDX-License-Identifier: MIT */
/* links: proxies/dialect.c proxies/dialect_raw.c proxies/dialect_pyzmqrpc.c */
/* links: proxies/dialect_zmqframework.c proxies/dialect_json.c */
/* links: proxies/ledger.c buffer/message.c */
#include "proxies/dialect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct message no_request;

static void assert_is(struct message *message, const char *text)
{
    assert_int_equal(message->count, 1);
    zmq_msg_t *frame = message_frame(message, 0);
    char found[512] = "";
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
    assert_int_equal(raw->error(&no_request, REASON_QUEUE_FULL, NULL, &out), 0);
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
    assert_int_equal(pyzmqrpc->error(&no_request, REASON_TIMEOUT, "a \"quoted\"\n word", &out), 0);
    assert_is(&out,
              "{\"status_code\":482,\"status_message\":\"timeout: a \\\"quoted\\\"\\n word\",\"code\":504}");
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
    assert_int_equal(zmqframework->error(&request, REASON_TOO_LARGE, NULL, &out), 0);
    assert_frames(&out, "", "{\"error\":\"too-large\",\"code\":413}");
    static const char *const frames[] = {"message \xff", "{\"content\":1}", "more"};
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        assert_int_equal(message_add_bytes(&request, frames[i], strlen(frames[i])), 0);
        assert_int_equal(zmqframework->ack(&request, "synced", "T1", &out), 0);
        assert_frames(&out, frames[0], "{\"accepted\":true,\"ack\":\"synced\",\"ticket\":\"T1\"}");
        assert_int_equal(zmqframework->ack(&request, NULL, NULL, &out), 0);
        assert_frames(&out, frames[0], "{\"accepted\":true}");
        assert_int_equal(zmqframework->error(&request, REASON_LOST, "detail", &out), 0);
        assert_frames(&out, frames[0], "{\"error\":\"lost\",\"code\":504}");
    }
    message_close(&request);
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

static void ledger_balances_only_when_it_does(void **state)
{
    (void)state;
    struct ledger ledger = {
        .accepted = 7, .delivered = 1, .expired = 1, .dead = 1, .queued = 1, .inflight = 1};
    assert_false(ledger_balances(&ledger));
    ledger.failed[REASON_LOST] = 1;
    ledger.dropped[DROP_UNVERIFIED] = 1;
    assert_true(ledger_balances(&ledger));
    ledger.orphaned = ledger.retries = ledger.restored = 5;
    assert_true(ledger_balances(&ledger));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_speaks_in_plain_words),
        cmocka_unit_test(pyzmqrpc_speaks_its_json),
        cmocka_unit_test(pyzmqrpc_knows_its_heartbeat_and_nothing_like_it),
        cmocka_unit_test(zmqframework_repeats_the_event_name_in_two_frames),
        cmocka_unit_test(every_reason_has_its_code_and_words),
        cmocka_unit_test(every_named_dialect_is_found_and_no_other),
        cmocka_unit_test(ledger_balances_only_when_it_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
