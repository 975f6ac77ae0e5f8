/* links: proxies/dialect.c proxies/dialect_raw.c proxies/dialect_pyzmqrpc.c proxies/dialect_jsonrpc.c */
/* links: proxies/dialect_red.c proxies/dialect_zmqframework.c proxies/dialect_json.c proxies/json_span.c */
/* links: proxies/ledger.c buffer/message.c */
/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a request of every dialect: there is always an answer of the dialect's own form, with the id
 * or event name of the request. The first byte says after how many bytes a second frame begins; 0: there is
 * none.
 */
#include "proxies/dialect.h"
#include "proxies/json_span.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_MAX = 1000 };

static struct json_span read_frame(const struct message *message, uint32_t index)
{
    struct json_span value;
    zmq_msg_t *frame = message_frame(message, index);
    bool is_json = json_span_read(zmq_msg_data(frame), zmq_msg_size(frame), &value);
    return is_json ? value : (struct json_span){0};
}

static bool is_text(struct json_span span, const char *text)
{
    return span.size == strlen(text) && memcmp(span.at, text, span.size) == 0;
}

static void check_id(struct json_span request, struct json_span answer)
{
    struct json_span wanted = json_span_member(request, "id"), found = json_span_member(answer, "id");
    FUZZ_CHECK(answer.at && *answer.at == '{' && found.at);
    bool is_same = wanted.at && wanted.size == found.size && memcmp(wanted.at, found.at, found.size) == 0;
    FUZZ_CHECK(is_same || (!wanted.at && is_text(found, "null")));
}

/* Each request that is no notification has its answer, in its place. */
static size_t check_batch(struct json_span request, struct json_span answers)
{
    struct json_span element = {0}, answer = {0};
    size_t count = 0;
    while ((element = json_span_element(request, element)).at) {
        if (json_span_is_notification(element))
            continue;
        answer = json_span_element(answers, answer);
        check_id(element, answer);
        count++;
    }
    if (count > 0)
        FUZZ_CHECK(!json_span_element(answers, answer).at);
    return count;
}

static size_t element_count(struct json_span request)
{
    size_t count = 0;
    for (struct json_span element = {0}; (element = json_span_element(request, element)).at;)
        count++;
    return count;
}

static void check_jsonrpc(struct json_span request, const struct message *answer)
{
    size_t elements = element_count(request);
    bool is_batch = elements > 0 && elements <= BATCH_MAX;
    FUZZ_CHECK(answer->count == 1);
    struct json_span found = read_frame(answer, 0);
    if (is_batch ? check_batch(request, found) == 0 : json_span_is_notification(request))
        FUZZ_CHECK(answer->bytes == 0);
    else if (!is_batch)
        check_id(request, found);
}

static void check_zmqframework(const struct message *request, const struct message *answer)
{
    FUZZ_CHECK(answer->count == 2);
    zmq_msg_t *name = message_frame(request, 0), *found = message_frame(answer, 0);
    bool is_same = zmq_msg_size(name) == zmq_msg_size(found) &&
                   memcmp(zmq_msg_data(name), zmq_msg_data(found), zmq_msg_size(name)) == 0;
    FUZZ_CHECK(is_same || (zmq_msg_size(name) == 0 && zmq_msg_size(found) > 0));
    FUZZ_CHECK(read_frame(answer, 1).at);
}

static void check_answer(const struct dialect *dialect, const struct message *request, struct message *answer)
{
    struct json_span value = request->count == 1 ? read_frame(request, 0) : (struct json_span){0};
    if (dialect == &dialect_jsonrpc) {
        check_jsonrpc(value, answer);
    } else if (dialect == &dialect_zmqframework) {
        check_zmqframework(request, answer);
    } else {
        FUZZ_CHECK(answer->count == 1 && answer->bytes > 0);
        if (dialect == &dialect_red)
            check_id(value, read_frame(answer, 0));
    }
    message_close(answer);
}

FUZZ_TARGET(fuzz_dialects)
{
    static const struct dialect *const dialects[] = {&dialect_raw, &dialect_pyzmqrpc, &dialect_jsonrpc,
                                                     &dialect_red, &dialect_zmqframework};
    if (size < 1)
        return 0;
    struct message request = {0}, answer = {0};
    size_t rest = size - 1, first = data[0] == 0 || data[0] > rest ? rest : data[0];
    FUZZ_CHECK(message_add_bytes(&request, data + 1, first) == 0);
    FUZZ_CHECK(data[0] == 0 || message_add_bytes(&request, data + 1 + first, rest - first) == 0);
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
        FUZZ_CHECK(dialects[i]->error(&request, REASON_TIMEOUT, &answer) == 0);
        check_answer(dialects[i], &request, &answer);
        FUZZ_CHECK(dialects[i]->ack(&request, "synced", "T1", &answer) == 0);
        check_answer(dialects[i], &request, &answer);
        dialect_is_heartbeat(dialects[i], &request);
    }
    message_close(&request);
    return 0;
}
