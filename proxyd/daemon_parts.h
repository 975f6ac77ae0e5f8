/* SPDX-License-Identifier: MIT
 *
 * What the daemon consists of: shared by daemon.c, which starts, runs and stops it, and reload.c, which exchanges
 * its configuration. Nobody else looks inside.
 */
#ifndef PROXYD_PROXYD_DAEMON_PARTS_H
#define PROXYD_PROXYD_DAEMON_PARTS_H

#include "proxies/chain.h"
#include "proxies/event.h"
#include "proxies/runtime.h"
#include "proxyd/config.h"
#include "proxyd/control.h"
#include "proxyd/doors.h"
#include "proxyd/http.h"
#include "proxyd/inspect.h"
#include "proxyd/report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum phase { RUNNING, DRAINING, ENDING };

/* One chain, and how far the daemon has got with it. */
struct slot {
    struct chain *chain;
    uint64_t turns;   /* at the last sign of life */
    bool is_draining; /* chain_stop was called with time to drain */
    bool is_ending;   /* and with none */
    bool is_leaving;  /* not in the configuration any more */
    bool may_proceed; /* chain_proceed was called */
};

struct reload;

struct daemon {
    struct config *config; /* in force */
    struct event_sink events;
    struct runtime runtime;
    bool has_runtime;
    bool has_secrets;   /* or had some since the start */
    struct slot *slots; /* of the configuration's chains in its order, then those that leave */
    size_t slot_count;
    struct chain **chains; /* the former, for reports */
    struct doors *doors;
    struct control *control;
    struct http *http;
    struct report_scope report;
    struct inspect *inspect;
    struct reload *reload;     /* under way; NULL = none */
    const char *reload_wanted; /* who asked for the next one (static); NULL = nobody */
    int64_t socket_max;        /* the context was made for so many */
    int signals;
    int waker;
    enum phase phase;
    int status; /* of the process, once it ends */
    int64_t started_ms;
    int64_t deadline_ms; /* DRAINING: becomes ENDING then; ENDING: stuck STUCK_MS later */
    int64_t watchdog_ms; /* between two signs of life; 0 = nobody asks */
    int64_t next_watchdog_ms;
    char told[128]; /* the last STATUS= */
};

/* Logs that `what` has failed, about a chain (NULL = none). Returns -1. */
int daemon_failed(struct daemon *daemon, const char *what, const char *chain, const char *reason);

/* Whether memory is overwritten when it is freed, and so when it is allocated: libzmq frees what it has read and
 * keeps of passwords without wiping it. glibc leaves out blocks below 1 KiB that it keeps at hand for a thread (tcache).
 * Callers pay for each page they never use: three times the memory. */
void daemon_wipe_freed(bool is_wiped);

/* Opens a chain. NULL with a reason in `err`. */
struct chain *daemon_open_chain(struct daemon *daemon, struct chain_conf *conf, char *err, size_t err_size);

/* Says once what anybody who can reach it may use, or may listen to as passwords pass. */
void daemon_warn_if_open(struct daemon *daemon, const struct chain_conf *conf);

/* Opens the store if a chain of `config` needs it and there is none yet. -1 with a reason in `err`. */
int daemon_open_store(struct daemon *daemon, const struct config *config, char *err, size_t err_size);

/* The most sockets that the chains of `config` may have at once. */
int64_t daemon_count_sockets(const struct config *config);

#endif
