/* SPDX-License-Identifier: MIT
 *
 * What a store is told at open and what it tells, as plain values.
 */
#ifndef PROXYD_BUFFER_STORE_CONF_H
#define PROXYD_BUFFER_STORE_CONF_H

#include <stdint.h>

enum store_event_kind {
    STORE_EVENT_DAMAGED,   /* `count` messages were found damaged or missing */
    STORE_EVENT_SALVAGED,  /* a damaged database was set aside as `text`, `count` rows were saved from it */
    STORE_EVENT_DISK_FULL, /* intake has stopped */
    STORE_EVENT_FAILED,    /* an I/O error: intake has stopped until the file can be opened again */
    STORE_EVENT_RESUMED,   /* intake goes on */
};

/* The machine's clocks, or what a test makes of them. */
struct store_clock {
    int64_t boot_ms; /* since boot, sleep included */
    int64_t wall_ms; /* since 1970, as far as anybody knows */
    char boot_id[37];
};

struct store_conf {
    const char *directory; /* exists */
    /* Called by the store thread, or by the caller of store_open; must not block. May be NULL. */
    void (*event)(void *context, enum store_event_kind kind, const char *text, uint64_t count);
    void *context;
    /* Called at open for each chain that has messages: how many to deliver, and how many dead. May be NULL. */
    void (*found)(void *found_context, const char *chain, uint64_t live, uint64_t dead);
    void *found_context;
    void (*read_clock)(struct store_clock *clock); /* NULL: the machine's */
};

#endif
