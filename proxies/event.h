/* SPDX-License-Identifier: MIT
 *
 * What this room tells the operator: events with a fixed token and named fields. Nothing here prints; the
 * daemon gives a sink at start. The sink is called from every thread and never blocks.
 */
#ifndef PROXYD_PROXIES_EVENT_H
#define PROXYD_PROXIES_EVENT_H

#include <stdint.h>

enum event_level { EVENT_ERROR, EVENT_WARNING, EVENT_INFO, EVENT_DEBUG };

/* One field of an event: a text, or (text NULL) a number. A text is used during the call only. */
struct event_field {
    const char *key;
    const char *text;
    int64_t number;
};

#define EVENT_TEXT(name, value)   ((struct event_field){.key = (name), .text = (value)})
#define EVENT_NUMBER(name, value) ((struct event_field){.key = (name), .number = (value)})

struct event_sink {
    void (*emit)(void *context, enum event_level level, const char *token, const struct event_field *fields,
                 unsigned count);
    void *context;
};

/* EVENT(sink, EVENT_WARNING, "upstream-lost", EVENT_TEXT("chain", name), EVENT_NUMBER("after_ms", 5000)) */
#define EVENT(sink, level, token, ...)                                                                       \
    (sink)->emit((sink)->context, (level), (token), (const struct event_field[]){__VA_ARGS__},               \
                 sizeof((const struct event_field[]){__VA_ARGS__}) / sizeof(struct event_field))

#endif
