/* SPDX-License-Identifier: MIT
 *
 * Questions under way; see inspect.h. Message ids are 64 bits wide and travel as texts: not every JSON reader
 * keeps so many digits.
 */
#include "proxyd/inspect.h"

#include "proxies/ask.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum { PAGE_DEFAULT = 20, PAGE_MAX = 500 };

struct inspect {
    int eventfd;
    pthread_mutex_t mutex;
    struct list asked, answered; /* guarded by mutex: struct question */
};

struct question {
    struct list link;
    struct ask ask;
    struct inspect *inspect;
    struct message envelope;
    json_t *request_id;
};

struct inspect *inspect_new(int eventfd)
{
    struct inspect *inspect = calloc(1, sizeof(*inspect));
    if (!inspect)
        return NULL;
    inspect->eventfd = eventfd;
    pthread_mutex_init(&inspect->mutex, NULL);
    list_init(&inspect->asked);
    list_init(&inspect->answered);
    return inspect;
}

static void free_question(struct question *question)
{
    list_remove(&question->link);
    ask_close(&question->ask);
    message_close(&question->envelope);
    json_decref(question->request_id);
    free(question);
}

void inspect_free(struct inspect *inspect)
{
    if (!inspect)
        return;
    LIST_EACH_SAFE (link, next, &inspect->asked)
        free_question(LIST_ENTRY(link, struct question, link));
    LIST_EACH_SAFE (link, next, &inspect->answered)
        free_question(LIST_ENTRY(link, struct question, link));
    pthread_mutex_destroy(&inspect->mutex);
    free(inspect);
}

/* On the chain's thread. */
static void on_done(struct ask *ask)
{
    struct question *question = ask->context;
    struct inspect *inspect = question->inspect;
    pthread_mutex_lock(&inspect->mutex);
    list_remove(&question->link);
    list_append(&inspect->answered, &question->link);
    pthread_mutex_unlock(&inspect->mutex);
    eventfd_write(inspect->eventfd, 1);
}

/* ---- what is asked ---- */

/* A message id, as a text or (small enough for one) a number; 0 where there is none. */
static bool read_id(const json_t *value, uint64_t *id)
{
    const char *text = json_string_value(value);
    char *end = NULL;
    *id = 0;
    if (!value || json_is_null(value))
        return true;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *id = (uint64_t)json_integer_value(value);
        return true;
    }
    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    *id = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static const struct {
    enum command_id command;
    const char *action;
    enum ask_what what;
    bool needs_id, with_bodies;
} actions[] = {
    {COMMAND_QUEUE, "list", ASK_PAGE, false, false},     {COMMAND_QUEUE, "peek", ASK_PAGE, true, true},
    {COMMAND_QUEUE, "export", ASK_PAGE, false, true},    {COMMAND_QUEUE, "drop", ASK_DROP, true, false},
    {COMMAND_DEAD, "list", ASK_DEAD_PAGE, false, false}, {COMMAND_DEAD, "retry", ASK_DEAD_RETRY, true, false},
    {COMMAND_DEAD, "drop", ASK_DEAD_DROP, true, false},
};

static const char *read_action(struct ask *ask, enum command_id command, const json_t *params)
{
    const char *action = json_string_value(json_object_get(params, "action"));
    const json_t *limit = json_object_get(params, "limit");
    json_int_t max = limit ? json_integer_value(limit) : PAGE_DEFAULT;
    if (!read_id(json_object_get(params, "id"), &ask->id))
        return "\"id\" must be a message id";
    if (max < 1 || max > PAGE_MAX)
        return "\"limit\" must be 1 to 500";
    for (size_t i = 0; action && i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (actions[i].command != command || strcmp(actions[i].action, action) != 0)
            continue;
        bool is_one = actions[i].needs_id;
        ask->what = actions[i].what;
        ask->with_bodies = actions[i].with_bodies;
        ask->max = is_one ? 1 : (uint32_t)max;
        return is_one && ask->id == 0 ? "\"id\" is missing" : NULL;
    }
    return command == COMMAND_QUEUE ? "\"action\" must be list, peek, drop or export"
                                    : "\"action\" must be list, retry or drop";
}

static const char *read_ticket(struct ask *ask, const json_t *params)
{
    const char *ticket = json_string_value(json_object_get(params, "ticket"));
    ask->what = ASK_TICKET;
    if (!ticket)
        return "\"ticket\" is missing";
    snprintf(ask->ticket, sizeof(ask->ticket), "%s", strlen(ticket) < sizeof(ask->ticket) ? ticket : "");
    return NULL;
}

const char *inspect_ask(struct inspect *inspect, enum command_id id, struct chain *chain,
                        const json_t *params, struct message *envelope, json_t *request_id)
{
    struct question *question = calloc(1, sizeof(*question));
    if (!question)
        return "out of memory";
    const char *wrong =
        id == COMMAND_TICKET ? read_ticket(&question->ask, params) : read_action(&question->ask, id, params);
    if (wrong) {
        free(question);
        return wrong;
    }
    question->inspect = inspect;
    question->ask.done = on_done;
    question->ask.context = question;
    question->request_id = json_incref(request_id);
    message_move(&question->envelope, envelope);
    pthread_mutex_lock(&inspect->mutex);
    list_append(&inspect->asked, &question->link);
    pthread_mutex_unlock(&inspect->mutex);
    chain_ask(chain, &question->ask);
    return NULL;
}

/* ---- what is answered ---- */

static json_t *id_json(uint64_t id)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, id);
    return id > 0 ? json_string(text) : json_null();
}

/* RFC 4648; a JSON text cannot hold any bytes. */
static json_t *base64_json(const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((size + 2) / 3 * 4 + 1), *at = text;
    for (size_t i = 0; text && i < size; i += 3) {
        uint32_t bits = (uint32_t)data[i] << 16;
        bits |= i + 1 < size ? (uint32_t)data[i + 1] << 8 : 0;
        bits |= i + 2 < size ? data[i + 2] : 0;
        *at++ = digits[bits >> 18];
        *at++ = digits[bits >> 12 & 63];
        *at++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        *at++ = i + 2 < size ? digits[bits & 63] : '=';
    }
    json_t *json = text ? json_stringn_nocheck(text, (size_t)(at - text)) : NULL;
    free(text);
    return json;
}

static json_t *frames_json(const struct message *message)
{
    json_t *frames = json_array();
    for (uint32_t i = 0; i < message->count; i++) {
        zmq_msg_t *frame = message_frame(message, i);
        json_array_append_new(frames, base64_json(zmq_msg_data(frame), zmq_msg_size(frame)));
    }
    return frames;
}

static json_t *entry_json(const struct ask_entry *entry, bool with_body)
{
    json_t *json = json_pack("{s:o, s:I, s:I, s:I, s:s}", "id", id_json(entry->id), "bytes",
                             (json_int_t)entry->bytes, "age_ms", (json_int_t)entry->age_ms, "attempts",
                             (json_int_t)entry->attempts, "state", entry->state);
    if (entry->reason[0])
        json_object_set_new(json, "reason", json_string(entry->reason));
    if (with_body)
        json_object_set_new(json, "frames", frames_json(&entry->body));
    return json;
}

static json_t *page_json(const struct ask *ask)
{
    json_t *messages = json_array();
    for (size_t i = 0; i < ask->count; i++)
        json_array_append_new(messages, entry_json(&ask->entries[i], ask->with_bodies));
    return json_pack("{s:o, s:o}", "messages", messages, "next", id_json(ask->next_id));
}

static json_t *ticket_json(const struct ask *ask)
{
    static const char *const states[] = {
        [QUEUE_TICKET_UNKNOWN] = "unknown", [QUEUE_TICKET_PENDING] = "pending", [QUEUE_TICKET_DONE] = "done",
        [QUEUE_TICKET_DEAD] = "dead",       [QUEUE_TICKET_EXPIRED] = "expired",
    };
    json_t *json = json_pack("{s:s}", "state", states[ask->state]);
    if (ask->state == QUEUE_TICKET_DEAD)
        json_object_set_new(json, "reason", json_string(ask->reason));
    if (ask->state == QUEUE_TICKET_DONE)
        json_object_set_new(json, "frames", frames_json(&ask->reply));
    return json;
}

static json_t *result_json(const struct ask *ask)
{
    if (!ask->is_ok)
        return NULL;
    switch (ask->what) {
    case ASK_PAGE:
    case ASK_DEAD_PAGE:
        return page_json(ask);
    case ASK_TICKET:
        return ticket_json(ask);
    default:
        return json_pack("{s:b}", "done", ask->was_there);
    }
}

bool inspect_next(struct inspect *inspect, struct message *envelope, json_t **request_id, json_t **result)
{
    pthread_mutex_lock(&inspect->mutex);
    struct list *link = list_first(&inspect->answered);
    if (link)
        list_remove(link);
    pthread_mutex_unlock(&inspect->mutex);
    if (!link)
        return false;
    struct question *question = LIST_ENTRY(link, struct question, link);
    *request_id = json_incref(question->request_id);
    *result = result_json(&question->ask);
    message_move(envelope, &question->envelope);
    free_question(question);
    return true;
}
