/* SPDX-License-Identifier: MIT
 *
 * The kinds of chain: rows of one table, not as many programs.
 */
#ifndef PROXYD_PROXIES_KINDS_H
#define PROXYD_PROXIES_KINDS_H

#include <stdbool.h>

struct front_ops;
struct back_ops;

/* When proxyd answers a caller by itself, or leaves it to the upstream. */
enum answer {
    ANSWER_NEVER, /* there is no caller: publications */
    ANSWER_REPLY, /* the upstream's reply */
    ANSWER_SENT,  /* an ack once the message is handed to PUB */
    ANSWER_STORED /* an ack once the queue has stored it */
};

struct kind {
    const char *name; /* "rep-req" */
    const struct front_ops *front;
    const struct back_ops *back;
    enum answer answer;
    bool is_ordered;       /* a failed message is tried again before anything behind it */
    bool retries_forever;  /* until answered; else as often as `retries` says */
    bool hears_websockets; /* its publishers are WebSocket servers */
};

/* The kind of that name; NULL when there is none. */
const struct kind *kind_find(const char *name);

/* All names, separated by ", ", for error messages; static. */
const char *kind_names(void);

/* The same kind with a backend that workers connect to; NULL when there is none. */
const struct kind *kind_with_workers(const struct kind *kind);

/* For a loader, which asks what a key belongs to: */
bool kind_has_rep_front(const struct kind *kind);
bool kind_has_req_back(const struct kind *kind);
bool kind_has_workers(const struct kind *kind);

#endif
