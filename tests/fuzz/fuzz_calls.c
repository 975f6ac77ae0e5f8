/* links: proxies/calls.c proxies/json_span.c buffer/message.c */
/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a caller's request and as a server's answer to it. Whatever is sent to the server is JSON without the
 * caller's id; answered, it comes back to the caller with that id, and no call stays open. The answer that was not
 * asked for never finds anybody.
 */
#include "proxies/calls.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SENT_MAX = CALLS_BATCH_MAX };

struct sent {
    size_t count, asked;
    char *texts[SENT_MAX];
    size_t sizes[SENT_MAX];
};

static void keep(void *context, const struct json_span *pieces, size_t count)
{
    struct sent *sent = context;
    FUZZ_CHECK(sent->count < SENT_MAX && (count == 1 || count == 3));
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].size;
    char *text = malloc(size), *at = text;
    for (size_t i = 0; i < count; at += pieces[i++].size)
        memcpy(at, pieces[i].at, pieces[i].size);
    sent->texts[sent->count] = text;
    sent->sizes[sent->count++] = size;
    sent->asked += count == 3;
}

/* A request sent back is an answer once its method is gone. */
static void answer_all(struct calls *calls, struct sent *sent, struct json_span request)
{
    size_t left = sent->asked;
    for (size_t i = 0; i < sent->count; i++) {
        struct json_span whole;
        FUZZ_CHECK(json_span_read(sent->texts[i], sent->sizes[i], &whole));
        struct json_span id = json_span_member(whole, "id");
        if (!id.at)
            continue;
        char text[64];
        int size = snprintf(text, sizeof text, "{\"id\":%.*s}", (int)id.size, id.at);
        struct message tag = {0}, body = {0};
        FUZZ_CHECK(json_span_read(text, (size_t)size, &whole));
        enum calls_answer answer = calls_end(calls, whole, &tag, &body);
        FUZZ_CHECK(answer == (--left > 0 ? CALLS_PART : CALLS_ANSWERED));
        FUZZ_CHECK((answer == CALLS_ANSWERED) == message_is(&tag, "A", 1) && tag.count == body.count);
        if (answer == CALLS_ANSWERED) {
            FUZZ_CHECK(json_span_read(zmq_msg_data(message_frame(&body, 0)), body.bytes, &whole));
            FUZZ_CHECK((*whole.at == '[') == (*request.at == '['));
            struct json_span mine =
                *whole.at == '[' ? (struct json_span){0} : json_span_member(request, "id");
            struct json_span given = json_span_member(whole, "id");
            FUZZ_CHECK(!mine.at || (mine.size == given.size && memcmp(mine.at, given.at, mine.size) == 0));
        }
        message_close(&tag);
        message_close(&body);
        FUZZ_CHECK(calls_end(calls, id, &tag, &body) != CALLS_ANSWERED);
    }
    FUZZ_CHECK(left == 0);
}

FUZZ_TARGET(fuzz_calls)
{
    struct calls *calls = calls_new();
    struct sent *sent = calloc(1, sizeof *sent);
    struct message tag = {0}, body = {0}, nobody = {0}, nothing = {0};
    struct json_span whole;
    FUZZ_CHECK(message_add_bytes(&tag, "A", 1) == 0 && message_add_bytes(&body, data, size) == 0);
    bool is_json = json_span_read(data, size, &whole);
    if (is_json)
        FUZZ_CHECK(calls_end(calls, whole, &nobody, &nothing) >= CALLS_STRAY);
    bool is_request = calls_is_request(&body);
    enum calls_begun begun = calls_begin(calls, &tag, &body, keep, sent);
    FUZZ_CHECK((begun != CALLS_REFUSED) == is_request && (sent->count > 0) == is_request);
    FUZZ_CHECK((begun == CALLS_WAITING) == (sent->asked > 0));
    if (is_request)
        answer_all(calls, sent, whole);
    for (size_t i = 0; i < sent->count; i++)
        free(sent->texts[i]);
    free(sent);
    message_close(&tag);
    message_close(&body);
    calls_free(calls);
    return 0;
}
