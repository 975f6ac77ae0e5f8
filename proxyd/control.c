/* SPDX-License-Identifier: MIT
 *
 * The control socket; see control.h. A request or a batch is one frame, and every request is answered, one
 * without an id too (with id null): a REQ peer waits for it. Nothing a peer sends ends the socket.
 */
#include "proxyd/control.h"

#include "buffer/message.h"
#include "proxies/listener.h"
#include "proxies/socket.h"
#include "proxies/wire.h"
#include "proxyd/commands.h"

#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    REQUEST_BYTES_MAX = 64 * 1024,
    ADDRESS_FRAMES_MAX = 8, /* of an envelope: a REQ has none, a DEALER behind proxies a few */
    HWM = 100,
    REQUESTS_PER_TURN = 32,
    BATCH_MAX = 32,
    ASKERS_MAX = 64, /* for a reload, at once */
    LAST_ANSWER_MS = 200
};

/* JSON-RPC's own codes; -32000 is the first of those that it leaves to servers. */
enum {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_NO_METHOD = -32601,
    RPC_INVALID_PARAMS = -32602,
    RPC_INTERNAL_ERROR = -32603,
    RPC_REFUSED = -32000
};

struct control {
    struct control_scope scope;
    struct endpoint endpoint;
    struct socket socket;
    int64_t now_ms;     /* of this turn */
    struct list askers; /* struct asker: they want a reload */
    size_t asker_count;
};

/* Somebody who waits for a reload to end. */
struct asker {
    struct list link;
    struct message envelope;
    json_t *request_id;
    bool is_served; /* by the one that is under way */
};

struct failure {
    int code;
    char text[256];
};

/* Carries a method out. NULL with `failure` filled in, or left alone when memory is short. */
typedef json_t *(*method_fn)(struct control *control, struct chain *chain, struct failure *failure);

static json_t *do_status(struct control *control, struct chain *chain, struct failure *failure)
{
    (void)chain;
    (void)failure;
    return report_status(control->scope.report, control->now_ms);
}

static json_t *do_show(struct control *control, struct chain *chain, struct failure *failure)
{
    (void)control;
    if (chain_progress(chain) != CHAIN_SETTLED) {
        *failure = (struct failure){RPC_REFUSED, "a reload is changing this chain; ask again"};
        return NULL;
    }
    return report_chain(chain);
}

static json_t *do_pause(struct control *control, struct chain *chain, struct failure *failure)
{
    (void)control;
    (void)failure;
    chain_pause(chain);
    return json_true();
}

static json_t *do_resume(struct control *control, struct chain *chain, struct failure *failure)
{
    (void)control;
    (void)failure;
    chain_resume(chain);
    return json_true();
}

static json_t *do_drain(struct control *control, struct chain *chain, struct failure *failure)
{
    (void)control;
    (void)failure;
    chain_drain(chain);
    return json_true();
}

static json_t *do_stop(struct control *control, struct chain *chain, struct failure *failure)
{
    (void)chain;
    (void)failure;
    control->scope.stop(control->scope.context);
    return json_true();
}

static const method_fn methods[COMMAND_COUNT] = {
    [COMMAND_STATUS] = do_status, [COMMAND_SHOW] = do_show,   [COMMAND_PAUSE] = do_pause,
    [COMMAND_RESUME] = do_resume, [COMMAND_DRAIN] = do_drain, [COMMAND_STOP] = do_stop,
};

/* No name of ours is longer; and a cut one may end inside a character. */
static const char *shown(const char *name)
{
    return strlen(name) <= 64 ? name : "(a long name)";
}

/* The one parameter there is, by name or by position: the chain. NULL with `failure`. */
static struct chain *find_chain(struct control *control, const json_t *params, struct failure *failure)
{
    const char *name = json_string_value(json_is_array(params) ? json_array_get(params, 0)
                                                               : json_object_get(params, "chain"));
    if (!name) {
        *failure = (struct failure){RPC_INVALID_PARAMS, "params must be {\"chain\": NAME}"};
        return NULL;
    }
    const struct report_scope *report = control->scope.report;
    for (size_t i = 0; i < report->chain_count; i++)
        if (strcmp(chain_conf(report->chains[i])->name, name) == 0)
            return report->chains[i];
    failure->code = RPC_INVALID_PARAMS;
    snprintf(failure->text, sizeof(failure->text), "there is no chain \"%s\"", shown(name));
    return NULL;
}

/* What a request comes to: a result, a failure, or (both empty) an answer that comes later. */
struct outcome {
    json_t *result;
    struct failure failure; /* code 0 = none */
};

static struct outcome refuse(int code, const char *format, const char *text)
{
    struct outcome outcome = {.failure.code = code};
    snprintf(outcome.failure.text, sizeof(outcome.failure.text), format, text);
    return outcome;
}

static bool is_question(enum command_id id)
{
    return id == COMMAND_QUEUE || id == COMMAND_DEAD || id == COMMAND_TICKET;
}

/* The answer comes when it has ended. */
static struct outcome ask_for_reload(struct control *control, json_t *request_id, struct message *envelope)
{
    struct asker *asker = control->asker_count < ASKERS_MAX ? calloc(1, sizeof(*asker)) : NULL;
    if (!asker)
        return refuse(RPC_REFUSED, "%s", "too many have asked for a reload");
    message_move(&asker->envelope, envelope);
    asker->request_id = json_incref(request_id);
    list_append(&control->askers, &asker->link);
    control->asker_count++;
    control->scope.reload(control->scope.context);
    return (struct outcome){0};
}

/* Without an `envelope` an answer that comes later has nowhere to go. */
static struct outcome do_method(struct control *control, const json_t *request, json_t *request_id,
                                struct message *envelope)
{
    const char *version = json_string_value(json_object_get(request, "jsonrpc"));
    const char *name = json_string_value(json_object_get(request, "method"));
    const json_t *params = json_object_get(request, "params");
    bool is_request = version && strcmp(version, "2.0") == 0 && name;
    if (!is_request || (params && !json_is_object(params) && !json_is_array(params)))
        return refuse(RPC_INVALID_REQUEST, "%s", "not a JSON-RPC 2.0 request");

    enum command_id id = command_find(name);
    if (!envelope && (id == COMMAND_RELOAD || is_question(id)))
        return refuse(RPC_REFUSED, "\"%s\" is answered later, and not in a batch", name);
    if (id == COMMAND_RELOAD)
        return ask_for_reload(control, request_id, envelope);
    if (id == COMMAND_COUNT || !(methods[id] || is_question(id)))
        return refuse(RPC_NO_METHOD, "there is no method \"%s\"", shown(name));
    struct chain *chain = NULL;
    struct outcome outcome = {0};
    if (command_info(id)->takes_chain && !(chain = find_chain(control, params, &outcome.failure)))
        return outcome;
    if (is_question(id)) {
        const char *wrong = inspect_ask(control->scope.inspect, id, chain, params, envelope, request_id);
        return wrong ? refuse(RPC_INVALID_PARAMS, "%s", wrong) : outcome;
    }
    outcome.failure = (struct failure){RPC_INTERNAL_ERROR, "out of memory"};
    outcome.result = methods[id](control, chain, &outcome.failure);
    return outcome;
}

static json_t *reply_json(const struct outcome *outcome, json_t *id)
{
    if (outcome->result)
        return json_pack("{s:s, s:O?, s:o}", "jsonrpc", "2.0", "id", id, "result", outcome->result);
    return json_pack("{s:s, s:O?, s:{s:i, s:s}}", "jsonrpc", "2.0", "id", id, "error", "code",
                     outcome->failure.code, "message", outcome->failure.text);
}

static void send_json(struct control *control, struct message *envelope, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    struct message body;
    message_init(&body);
    /* A peer that is gone or does not read gets nothing: the socket is for who waits for an answer. */
    if (text && message_add_bytes(&body, text, strlen(text)) == 0)
        (void)wire_send(&control->socket, envelope, true, &body);
    message_close(&body);
    free(text);
    json_decref(json);
}

static json_t *refusal(int code, const char *text)
{
    struct outcome outcome = refuse(code, "%s", text);
    return reply_json(&outcome, NULL);
}

/* NULL when the answer comes later. */
static json_t *answer_request(struct control *control, const json_t *request, struct message *envelope)
{
    json_t *id = json_object_get(request, "id");
    if (id && !json_is_string(id) && !json_is_number(id) && !json_is_null(id))
        return refusal(RPC_INVALID_REQUEST, "an id is a string, a number or null");
    struct outcome outcome = do_method(control, request, id, envelope);
    return outcome.result || outcome.failure.code != 0 ? reply_json(&outcome, id) : NULL;
}

static json_t *answer_batch(struct control *control, const json_t *batch)
{
    size_t count = json_array_size(batch);
    if (count == 0 || count > BATCH_MAX)
        return refusal(RPC_INVALID_REQUEST, "a batch has from 1 to 32 requests");
    json_t *answers = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(answers, answer_request(control, json_array_get(batch, i), NULL));
    return answers;
}

/* Returns what that counts for in a turn. */
static size_t answer(struct control *control, struct message *envelope, const void *data, size_t size)
{
    json_t *request = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    json_t *reply = !request                 ? refusal(RPC_PARSE_ERROR, "not JSON")
                    : json_is_array(request) ? answer_batch(control, request)
                                             : answer_request(control, request, envelope);
    if (reply)
        send_json(control, envelope, reply);
    size_t count = 1 + json_array_size(request);
    json_decref(request);
    return count;
}

/* ---- reload ---- */

static void free_asker(struct control *control, struct asker *asker)
{
    list_remove(&asker->link);
    control->asker_count--;
    message_close(&asker->envelope);
    json_decref(asker->request_id);
    free(asker);
}

void control_begin_reload(struct control *control)
{
    LIST_EACH (link, &control->askers)
        LIST_ENTRY(link, struct asker, link)->is_served = true;
}

static json_t *problems_json(const struct reload_result *result, json_t *id)
{
    return json_pack("{s:s, s:O?, s:{s:i, s:s, s:o}}", "jsonrpc", "2.0", "id", id, "error", "code",
                     RPC_REFUSED, "message", "nothing was changed", "data", report_texts(&result->problems));
}

void control_tell_reload(struct control *control, const struct reload_result *result)
{
    LIST_EACH_SAFE (link, following, &control->askers) {
        struct asker *asker = LIST_ENTRY(link, struct asker, link);
        if (!asker->is_served)
            continue;
        struct outcome outcome = refuse(RPC_INTERNAL_ERROR, "%s", "out of memory");
        outcome.result = result->has_failed ? NULL : report_reload(result);
        send_json(control, &asker->envelope,
                  result->has_failed ? problems_json(result, asker->request_id)
                                     : reply_json(&outcome, asker->request_id));
        free_asker(control, asker);
    }
}

void control_refuse_reloads(struct control *control)
{
    LIST_EACH_SAFE (link, following, &control->askers) {
        struct asker *asker = LIST_ENTRY(link, struct asker, link);
        struct outcome outcome = refuse(RPC_REFUSED, "%s", "proxyd is stopping");
        send_json(control, &asker->envelope, reply_json(&outcome, asker->request_id));
        free_asker(control, asker);
    }
}

/* Questions that chains have answered since. */
static void answer_questions(struct control *control)
{
    struct message envelope;
    json_t *id;
    message_init(&envelope);
    for (json_t *result; inspect_next(control->scope.inspect, &envelope, &id, &result);) {
        struct outcome outcome = refuse(RPC_REFUSED, "%s", "the store cannot tell now");
        outcome.result = result;
        send_json(control, &envelope, reply_json(&outcome, id));
        message_close(&envelope);
        json_decref(id);
    }
}

bool control_turn(struct control *control, int64_t now_ms)
{
    static const struct wire_limits limits = {.max_bytes = REQUEST_BYTES_MAX,
                                              .max_frames = ADDRESS_FRAMES_MAX};
    control->now_ms = now_ms;
    answer_questions(control);
    for (size_t done = 0; done < REQUESTS_PER_TURN;) {
        size_t count = 1;
        struct message envelope, body;
        message_init(&envelope);
        message_init(&body);
        enum wire_received received = wire_receive(&control->socket, &limits, &envelope, &body);
        if (received == WIRE_MESSAGE && body.count == 1) {
            zmq_msg_t *frame = message_frame(&body, 0);
            count = answer(control, &envelope, zmq_msg_data(frame), zmq_msg_size(frame));
        } else if (received == WIRE_MESSAGE) {
            send_json(control, &envelope, refusal(RPC_INVALID_REQUEST, "a request is one frame"));
        } else if (received == WIRE_TOO_LARGE && envelope.count > 0) {
            send_json(control, &envelope, refusal(RPC_INVALID_REQUEST, "too large"));
        }
        message_close(&envelope);
        message_close(&body);
        if (received == WIRE_NONE)
            return false;
        done += count;
    }
    return true;
}

/* Whoever may open the socket file may operate the daemon. Until here the umask kept it to the owner. */
static int share(const char *path, const char *group, char *err, size_t err_size)
{
    if (group[0]) {
        const struct group *entry = getgrnam(group);
        if (!entry) {
            snprintf(err, err_size, "control_group: there is no group \"%s\"", group);
            return -1;
        }
        if (chown(path, (uid_t)-1, entry->gr_gid) < 0) {
            snprintf(err, err_size, "%s: cannot give it to group \"%s\": %s", path, group, strerror(errno));
            return -1;
        }
    }
    if (chmod(path, group[0] ? 0660 : 0600) < 0) {
        snprintf(err, err_size, "%s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

static int bind_control(struct control *control, const char *group, char *err, size_t err_size)
{
    const struct socket_options options = {
        .type = ZMQ_ROUTER,
        .send_hwm = HWM,
        .receive_hwm = HWM,
        .max_frame_bytes = REQUEST_BYTES_MAX * WIRE_MERCY,
        .max_frames = WIRE_FRAMES(ADDRESS_FRAMES_MAX),
    };
    if (socket_open(&control->socket, control->scope.zmq, NULL, &options, &control->endpoint, err, err_size) <
            0 ||
        socket_bind(&control->socket, &control->endpoint, err, err_size) < 0)
        return -1;
    return share(control->endpoint.address + strlen("ipc://"), group, err, err_size);
}

struct control *control_open(const struct daemon_conf *conf, const struct control_scope *scope, char *err,
                             size_t err_size)
{
    char why[256] = "out of memory";
    struct control *control = calloc(1, sizeof(*control));
    if (control) {
        control->scope = *scope;
        list_init(&control->askers);
        if (endpoint_parse(&control->endpoint, conf->control, true, why, sizeof(why)) == 0 &&
            bind_control(control, conf->control_group, why, sizeof(why)) == 0)
            return control;
        socket_close(&control->socket);
        endpoint_close(&control->endpoint);
        free(control);
    }
    snprintf(err, err_size, "control %s: %s", conf->control, why);
    return NULL;
}

int control_fd(const struct control *control)
{
    int fd = -1;
    zmq_getsockopt(control->socket.zmq, ZMQ_FD, &fd, &(size_t){sizeof(fd)});
    return fd;
}

void control_close(struct control *control)
{
    listener_end(&control->endpoint); /* nobody new shall ask */
    LIST_EACH_SAFE (link, following, &control->askers)
        free_asker(control, LIST_ENTRY(link, struct asker, link));
    endpoint_close(&control->endpoint);
    socket_close_gently(&control->socket, LAST_ANSWER_MS);
    free(control);
}
