/* links: proxies/payload.c proxies/json_span.c buffer/message.c */
/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a heartbeat, as the data of a session-aware message and as the answer about a session, beside jansson: a
 * session or a node that is found is the one that jansson reads.
 */
#include "proxies/payload.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_in(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void check_session(const uint8_t *data, size_t size, const json_t *json)
{
    struct message message = {0};
    char session[PAYLOAD_SESSION_BYTES];
    message_add_bytes(&message, "topic", 5);
    message_add_bytes(&message, data, size);
    message_add_bytes(&message, "None", 4);
    bool is_found = payload_session(&message, "session_id", session);
    FUZZ_CHECK(!is_found || (*session && strlen(session) < sizeof session));
    FUZZ_CHECK(!is_found || !json || strcmp(session, text_in(json, "session_id")) == 0);
    message_close(&message);
}

static void check_heartbeat(const uint8_t *data, size_t size, const json_t *json)
{
    struct message message = {0};
    char id[PAYLOAD_NODE_BYTES], wanted[8192];
    bool is_worker = false;
    message_add_bytes(&message, "heartbeat", 9);
    message_add_bytes(&message, data, size);
    if (payload_heartbeat(&message, id, &is_worker)) {
        FUZZ_CHECK(json);
        snprintf(wanted, sizeof wanted, "%s_%s", text_in(json, "node_id"), text_in(json, "session_id"));
        FUZZ_CHECK(strcmp(id, wanted) == 0);
        FUZZ_CHECK(is_worker == (strcmp(text_in(json, "node_type"), "worker") == 0));
        for (const char *at = id; *at; at++)
            FUZZ_CHECK((unsigned char)*at >= 0x20 && *at != 0x7f);
    }
    message_close(&message);
}

static void check_verdict(const uint8_t *data, size_t size, const json_t *json)
{
    struct message message = {0};
    message_add_bytes(&message, data, size);
    bool is_yes = payload_verdict(&message) == PAYLOAD_YES;
    FUZZ_CHECK(!is_yes || (json_is_true(json_object_get(json, "result")) && !json_object_get(json, "error")));
    message_close(&message);
}

FUZZ_TARGET(fuzz_payload)
{
    json_t *json = json_loadb((const char *)data, size, 0, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        json = NULL;
    }
    check_session(data, size, json);
    check_heartbeat(data, size, json);
    check_verdict(data, size, json);
    json_decref(json);
    return 0;
}
