/* links: tests/fuzz/replay.c tests/fuzz/fuzz_zmtp.c proxies/zmtp.c */
/* links: tests/fuzz/fuzz_calls.c proxies/calls.c */
/* links: tests/fuzz/fuzz_json_span.c tests/fuzz/fuzz_dialects.c proxies/json_span.c proxies/dialect_json.c */
/* links: proxies/dialect.c proxies/dialect_raw.c proxies/dialect_pyzmqrpc.c proxies/dialect_jsonrpc.c */
/* links: proxies/dialect_red.c proxies/dialect_zmqframework.c proxies/ledger.c buffer/message.c */
/* links: tests/fuzz/fuzz_payload.c proxies/payload.c */
/* SPDX-License-Identifier: MIT
 *
 * The kept corpora of the fuzz targets of proxies/, replayed.
 */
#include "tests/fuzz/fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

fuzz_fn fuzz_zmtp, fuzz_json_span, fuzz_dialects, fuzz_payload, fuzz_calls;

static void zmtp_corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_zmtp, "tests/fuzz/corpus/zmtp"), 10, 10000);
}

static void json_span_corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_json_span, "tests/fuzz/corpus/json_span"), 10, 10000);
}

static void dialects_corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_dialects, "tests/fuzz/corpus/dialects"), 10, 10000);
}

static void payload_corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_payload, "tests/fuzz/corpus/payload"), 10, 10000);
}

static void calls_corpus_holds(void **state)
{
    (void)state;
    assert_in_range(fuzz_replay(fuzz_calls, "tests/fuzz/corpus/calls"), 10, 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zmtp_corpus_holds),     cmocka_unit_test(json_span_corpus_holds),
        cmocka_unit_test(dialects_corpus_holds), cmocka_unit_test(payload_corpus_holds),
        cmocka_unit_test(calls_corpus_holds),
    };
    return cmocka_run_group_tests_name("fuzz_proxies", tests, NULL, NULL);
}
