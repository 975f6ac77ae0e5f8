/* SPDX-License-Identifier: MIT
 *
 * call, serve, publish and subscribe; see tryout.h.
 */
#include "proxyd/tryout.h"

#include "buffer/clock.h"
#include "buffer/message.h"
#include "proxyd/peer.h"
#include "proxyd/render.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A frame as a JSON string, or {"hex": "…"} when it is none. */
static json_t *frame_json(zmq_msg_t *frame)
{
    const unsigned char *bytes = zmq_msg_data(frame);
    size_t size = zmq_msg_size(frame);
    json_t *string = json_stringn((const char *)bytes, size);
    if (string)
        return string;
    char *hex = malloc(2 * size + 1);
    for (size_t i = 0; hex && i < size; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    json_t *object = json_pack("{s:s?}", "hex", hex);
    free(hex);
    return object;
}

static void print_message(const struct tryout *tryout, const struct message *message, const char *separator)
{
    if (tryout->is_json) {
        json_t *frames = json_array();
        for (uint32_t i = 0; i < message->count; i++)
            json_array_append_new(frames, frame_json(message_frame(message, i)));
        json_dumpf(frames, stdout, JSON_COMPACT);
        json_decref(frames);
    } else {
        for (uint32_t i = 0; i < message->count; i++) {
            fputs(i > 0 ? separator : "", stdout);
            render_text(stdout, zmq_msg_data(message_frame(message, i)),
                        zmq_msg_size(message_frame(message, i)));
        }
    }
    putchar('\n');
}

static int complain(const struct tryout *tryout, const char *text)
{
    fprintf(stderr, "proxyctl: %s: %s\n", tryout->endpoint, text);
    return EXIT_FAILURE;
}

/* The exit status for a wait that did not end well; `what` is what did not come. */
static int complain_of(const struct tryout *tryout, const struct peer *peer, enum peer_result result,
                       const char *what)
{
    char text[128];
    if (result == PEER_INTERRUPTED)
        return complain(tryout, "interrupted");
    if (result == PEER_FAILED)
        return complain(tryout, peer_cause(peer));
    snprintf(text, sizeof(text), "%s within %" PRId64 " ms", what, tryout->timeout_ms);
    return complain(tryout, text);
}

static struct peer *open_peer(const struct tryout *tryout, struct peer_conf conf)
{
    char err[256];
    conf.endpoint = tryout->endpoint;
    conf.credentials = tryout->credentials;
    struct peer *peer = peer_open(&conf, err, sizeof(err));
    if (!peer)
        complain(tryout, err);
    return peer;
}

static int64_t deadline_of(const struct tryout *tryout)
{
    return tryout->timeout_ms > 0 ? clock_now_ms() + tryout->timeout_ms : INT64_MAX;
}

/* The words as one message. */
static int make_message(const struct tryout *tryout, struct message *message)
{
    message_init(message);
    for (int i = 0; i < tryout->word_count; i++)
        if (message_add_bytes(message, tryout->words[i], strlen(tryout->words[i])) < 0)
            return complain(tryout, "out of memory");
    return 0;
}

/* Waits for whoever is to be called, who may have been started only a moment ago. */
static enum peer_result await_called(struct peer *peer, int64_t deadline_ms)
{
    bool was_refused = false;
    for (;;) {
        enum peer_result result = peer_await(peer, deadline_ms);
        if (result == PEER_TIMED_OUT && was_refused)
            return PEER_FAILED;
        was_refused = result == PEER_FAILED && strcmp(peer_cause(peer), "refused") == 0;
        if (!was_refused)
            return result;
    }
}

int tryout_call(const struct tryout *tryout)
{
    struct message request, reply;
    message_init(&reply);
    struct peer *peer = open_peer(tryout, (struct peer_conf){.type = ZMQ_REQ});
    if (!peer || make_message(tryout, &request) != 0)
        return EXIT_FAILURE;

    int64_t deadline_ms = deadline_of(tryout);
    const char *missing = "no connection";
    enum peer_result result = await_called(peer, deadline_ms);
    if (result == PEER_OK) {
        missing = "no answer";
        result = peer_send(peer, &request, deadline_ms);
    }
    if (result == PEER_OK)
        result = peer_receive(peer, &reply, deadline_ms);
    if (result == PEER_OK)
        print_message(tryout, &reply, "\n");
    int status = result == PEER_OK ? EXIT_SUCCESS : complain_of(tryout, peer, result, missing);
    message_close(&request);
    message_close(&reply);
    peer_close(peer);
    return status;
}

int tryout_serve(const struct tryout *tryout)
{
    struct peer *peer =
        open_peer(tryout, (struct peer_conf){.type = ZMQ_REP, .binds = true, .heeds_signals = true});
    if (!peer)
        return EXIT_FAILURE;
    enum peer_result result;
    do {
        struct message request;
        message_init(&request);
        result = peer_receive(peer, &request, INT64_MAX);
        if (result == PEER_OK) {
            print_message(tryout, &request, " | ");
            fflush(stdout);
            if (tryout->delay_ms > 0)
                result = peer_sleep(peer, clock_now_ms() + tryout->delay_ms);
            if (result == PEER_OK)
                peer_send(peer, &request, INT64_MAX);
        }
        message_close(&request);
    } while (result != PEER_INTERRUPTED);
    peer_close(peer);
    return EXIT_SUCCESS;
}

/* Each line of standard input as a message of one frame. */
static int publish_lines(const struct tryout *tryout, struct peer *peer)
{
    char *line = NULL;
    size_t capacity = 0;
    int status = EXIT_SUCCESS;
    for (ssize_t size; status == EXIT_SUCCESS && (size = getline(&line, &capacity, stdin)) >= 0;) {
        struct message message;
        message_init(&message);
        if (size > 0 && line[size - 1] == '\n')
            size--;
        if (message_add_bytes(&message, line, (size_t)size) < 0)
            status = complain(tryout, "out of memory");
        else
            peer_send(peer, &message, INT64_MAX);
        message_close(&message);
    }
    free(line);
    return status;
}

int tryout_publish(const struct tryout *tryout)
{
    struct message message, subscription;
    message_init(&subscription);
    struct peer *peer = open_peer(tryout, (struct peer_conf){.type = ZMQ_XPUB, .binds = true});
    if (!peer || make_message(tryout, &message) != 0)
        return EXIT_FAILURE;

    /* What is published before the first subscription has come in goes nowhere. */
    int64_t deadline_ms = deadline_of(tryout);
    enum peer_result result;
    do
        result = peer_receive(peer, &subscription, deadline_ms);
    while (result == PEER_FAILED);

    int status = EXIT_SUCCESS;
    if (result != PEER_OK)
        status = complain_of(tryout, peer, result, "no subscriber");
    else if (message.count > 0)
        peer_send(peer, &message, INT64_MAX);
    else
        status = publish_lines(tryout, peer);
    message_close(&message);
    message_close(&subscription);
    peer_close(peer);
    return status;
}

int tryout_subscribe(const struct tryout *tryout)
{
    const struct text_list topics = {tryout->words, (size_t)tryout->word_count};
    struct peer *peer = open_peer(tryout, (struct peer_conf){.type = ZMQ_SUB,
                                                             .subscribe = topics.count > 0 ? &topics : NULL,
                                                             .heeds_signals = true});
    if (!peer)
        return EXIT_FAILURE;
    enum peer_result result;
    const char *told = NULL; /* the cause, so that it is told once */
    int64_t count = 0;
    do {
        struct message message;
        message_init(&message);
        result = peer_receive(peer, &message, INT64_MAX);
        if (result == PEER_OK) {
            print_message(tryout, &message, " | ");
            fflush(stdout);
            count++;
            told = NULL;
        } else if (result == PEER_FAILED && told != peer_cause(peer)) {
            told = peer_cause(peer);
            complain(tryout, told); /* and wait for it to come back */
        }
        message_close(&message);
    } while (result != PEER_INTERRUPTED && (tryout->count == 0 || count < tryout->count));
    peer_close(peer);
    return EXIT_SUCCESS;
}
